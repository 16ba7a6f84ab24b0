"""The arithmetic of the pixel decoder: what runs in which dtype, what comes out, what is refused."""

from __future__ import annotations

import warnings
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file
from torch.utils._python_dispatch import TorchDispatchMode

import vistk.experiment
from vistk.config import compose, config_hash
from vistk.data.config import SyntheticConfig
from vistk.data.synthetic import frames_of
from vistk.engine.train import TrainConfig, TrainingModel
from vistk.models.precision import ARITHMETICS, PrecisionConfig, decode_pixels, require_usable
from vistk.models.segmenter import Segmenter, TinySegmenterConfig
from vistk.schema import ConfigError
from vistk.start_weights import START_WEIGHTS
from vistk.structures import ClipBatch, ClipTargets
from vistk.trackers.visage import VISAGE, VISAGEConfig


@pytest.fixture(scope="module")
def trained():
    """The tiny segmenter with its packaged weights."""
    segmenter = Segmenter(TinySegmenterConfig(), 4)
    state = load_file(START_WEIGHTS["tiny"])
    own = {k.removeprefix("segmenter."): v for k, v in state.items() if k.startswith("segmenter.")}
    segmenter.load_state_dict(own)
    return segmenter.eval()


@pytest.fixture(autouse=True)
def _as_the_rest(request):
    yield
    if "trained" in request.fixturenames:
        request.getfixturevalue("trained").precision = PrecisionConfig()


@pytest.fixture(scope="module")
def frames():
    images = [torch.from_numpy(f) for f in frames_of(SyntheticConfig(), "track", 0)[0][::3]]
    return torch.stack(images).permute(0, 3, 1, 2)[None]  # (1, T, 3, H, W)


@pytest.fixture(scope="module")
def features(trained, frames):
    with torch.no_grad():
        return {name: x.flatten(0, 1) for name, x in trained(frames[:, :2]).features.items()}


class OpDtypes(TorchDispatchMode):
    """Dtypes that deformable attention is called with: value, offsets, logits, references."""

    def __init__(self):
        super().__init__()
        self.seen = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is torch.ops.vistk.ms_deform_attn.default:
            value, _, points, weights, references, _ = args
            self.seen.add((value.dtype, points.dtype, weights.dtype, references.dtype))
        return func(*args, **(kwargs or {}))


def decoded(segmenter, features, name, outer=None):
    """Outputs of the pixel decoder, flat, and the dtypes its op saw, under an outer autocast or none."""
    with OpDtypes() as op, torch.no_grad():
        if outer is None:
            mask_features, pyramid = decode_pixels(segmenter.pixel_decoder, features, PrecisionConfig(name))
        else:
            with torch.autocast("cpu", outer):
                mask_features, pyramid = decode_pixels(
                    segmenter.pixel_decoder, features, PrecisionConfig(name)
                )
    return [mask_features, *pyramid], op.seen


FULL = (torch.float32,) * 4
HALF = (torch.bfloat16, torch.bfloat16, torch.bfloat16, torch.float32)


@pytest.mark.parametrize(
    ("name", "outer", "inside", "out"),
    [
        (None, None, FULL, torch.float32),
        (None, torch.bfloat16, HALF, torch.bfloat16),
        ("float32", None, FULL, torch.float32),
        ("float32", torch.bfloat16, FULL, torch.float32),
        ("bfloat16", None, HALF, torch.float32),
        ("bfloat16", torch.bfloat16, HALF, torch.float32),
        ("bfloat16", torch.float16, HALF, torch.float32),
    ],
)
def test_dtypes_inside_and_of_what_comes_out(trained, features, name, outer, inside, out):
    outputs, seen = decoded(trained, features, name, outer)
    assert seen == {inside}
    assert {x.dtype for x in outputs} == {out}


def test_float32_is_not_touched_by_autocast(trained, features):
    expected, _ = decoded(trained, features, None)
    for outer in (None, torch.bfloat16):
        found, _ = decoded(trained, features, "float32", outer)
        for a, b in zip(expected, found, strict=True):
            assert torch.equal(a, b)
    half = {name: x.bfloat16() for name, x in features.items()}  # as a backbone under autocast gives them
    found, seen = decoded(trained, half, "float32", torch.bfloat16)
    assert seen == {FULL}


def test_bfloat16_is_autocast(trained, features):
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        mask_features, pyramid = trained.pixel_decoder(features)
    found, _ = decoded(trained, features, "bfloat16")
    for a, b in zip([mask_features, *pyramid], found, strict=True):
        assert torch.equal(a.float(), b)
    assert not torch.equal(found[0], decoded(trained, features, "float32")[0][0])


def test_masks_in_bfloat16_are_those_of_float32(trained, frames):
    """The goal is a mean IoU of 0.99 over masks of queries that see something."""
    with torch.inference_mode():
        expected = trained(frames)
        trained.precision = PrecisionConfig("bfloat16")
        found = trained(frames)
    assert {found.mask_logits.dtype, found.logits.dtype, found.mask_features.dtype} == {torch.float32}
    firm = expected.logits.softmax(-1)[..., :-1].amax(-1) > 0.1
    a, b = (out.mask_logits[firm].flatten(1) > 0 for out in (expected, found))
    assert len(a) >= 4
    iou = (a & b).sum(1) / (a | b).sum(1)
    assert 0.99 <= iou.mean() < 1  # another arithmetic, the same masks
    torch.testing.assert_close(
        found.logits.softmax(-1)[firm], expected.logits.softmax(-1)[firm], rtol=0, atol=0.02
    )


def test_bfloat16_trains_every_weight_of_the_pixel_decoder():
    segmenter = Segmenter(TinySegmenterConfig(), 4, PrecisionConfig("bfloat16")).train()
    gradients = {}
    for name in ("float32", "bfloat16"):
        segmenter.precision = PrecisionConfig(name)
        segmenter.zero_grad()
        images = torch.randint(
            0, 256, (1, 1, 3, 64, 96), dtype=torch.uint8, generator=torch.Generator().manual_seed(1)
        )
        segmenter(images).dense_logits.square().mean().backward()
        gradients[name] = {
            k: p.grad.clone() for k, p in segmenter.pixel_decoder.named_parameters() if p.grad is not None
        }
    assert gradients["float32"].keys() == gradients["bfloat16"].keys()
    assert len(gradients["float32"]) > 20
    for name, full in gradients["float32"].items():
        half = gradients["bfloat16"][name]
        assert half.dtype == torch.float32
        assert torch.isfinite(half).all()
        if full.norm() > 1e-6:
            assert torch.cosine_similarity(full.flatten(), half.flatten(), 0) > 0.9, name


@pytest.fixture
def on_a_gpu(monkeypatch):
    """The device of an NVIDIA GPU that is not there; call it with a capability."""

    def call(capability, hip=None):
        monkeypatch.setattr(torch.version, "hip", hip)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
        return torch.device("cuda")

    return call


def test_tf32_says_where_it_runs(on_a_gpu, trained, frames):
    config = PrecisionConfig("tf32")
    require_usable(config, on_a_gpu((8, 0)))
    require_usable(config, on_a_gpu((12, 0)))
    with pytest.raises(ConfigError, match=r"8\.0 or newer, and this GPU has 7\.5"):
        require_usable(config, on_a_gpu((7, 5)))
    with pytest.raises(ConfigError, match="this GPU is of AMD"):
        require_usable(config, on_a_gpu((9, 4), hip="6.2"))
    trained.precision = config
    with pytest.raises(ConfigError, match="tensors are on cpu; say float32 or bfloat16"):
        trained(frames)
    for other in (None, "float32", "bfloat16"):
        require_usable(PrecisionConfig(other), torch.device("cpu"))


class Broken(Exception):
    pass


@pytest.mark.parametrize("before", ["none", "ieee", "tf32"])
@pytest.mark.parametrize("breaks", [False, True])
def test_tf32_is_switched_on_inside_alone(monkeypatch, before, breaks):
    monkeypatch.setattr("vistk.models.precision.require_usable", lambda *_: None)
    switch = torch.backends.cuda.matmul
    name, values = "fp32_precision", {"none": "none", "ieee": "ieee", "tf32": "tf32"}
    if not hasattr(switch, name):
        name, values = "allow_tf32", {"none": False, "ieee": False, "tf32": True}
    inside = []

    def decoder(features):
        inside.append((getattr(switch, name), torch.is_autocast_enabled("cpu"), features["res2"].dtype))
        if breaks:
            raise Broken
        return features["res2"], []

    untouched = getattr(switch, name)
    setattr(switch, name, values[before])
    try:
        with warnings.catch_warnings(), torch.autocast("cpu", torch.bfloat16):
            warnings.simplefilter("error")
            try:
                decode_pixels(
                    decoder, {"res2": torch.zeros(1, dtype=torch.bfloat16)}, PrecisionConfig("tf32")
                )
            except Broken:
                assert breaks
        assert inside == [(values["tf32"], False, torch.float32)]
        assert getattr(switch, name) == values[before]
    finally:
        setattr(switch, name, untouched)


def test_tf32_where_pytorch_has_but_the_older_switch(monkeypatch):
    monkeypatch.setattr("vistk.models.precision.require_usable", lambda *_: None)
    switch = SimpleNamespace(allow_tf32=False)
    monkeypatch.setattr(torch.backends.cuda, "matmul", switch)
    inside = []

    def decoder(features):
        inside.append(switch.allow_tf32)
        return features["res2"], []

    decode_pixels(decoder, {"res2": torch.zeros(1)}, PrecisionConfig("tf32"))
    assert inside == [True]
    assert vars(switch) == {"allow_tf32": False}


def test_words_are_checked_and_enter_the_hash():
    with pytest.raises(
        ConfigError, match="'bf16', expected null or one of float32, tf32, bfloat16; nearest is 'bfloat16'"
    ):
        compose(["precision.pixel_decoder=bf16"])
    configs = [compose([f"precision.pixel_decoder={name}"]).config for name in ("null", *sorted(ARITHMETICS))]
    assert [c.precision.pixel_decoder for c in configs] == [None, "bfloat16", "float32", "tf32"]
    assert len({config_hash(c) for c in configs}) == 4
    assert config_hash(configs[0]) == config_hash(compose([]).config)


def test_an_experiment_hands_it_to_its_segmenter(monkeypatch, run_experiment, tmp_path):
    given = []
    monkeypatch.setattr(
        vistk.experiment,
        "compare",
        lambda config, run_dir, segmenter, *_: given.append(segmenter.precision.pixel_decoder),
    )
    words = (
        "tracker=minvis",
        "eval_only=true",
        "data.num_val=1",
        "data.frames=8",
        "data.eval_splits=[track]",
    )
    paths = (f"data.root={tmp_path / 'data'}", f"run_dir={tmp_path / 'run'}")
    code, _, said = run_experiment(*words, *paths, "precision.pixel_decoder=bfloat16")
    assert (code, given) == (0, ["bfloat16"]), said


@pytest.mark.skipif(torch.cuda.is_available(), reason="tf32 may run here")
def test_an_experiment_refuses_tf32_before_it_reads_anything(run_experiment, tmp_path):
    code, out, said = run_experiment(f"run_dir={tmp_path / 'run'}", "precision.pixel_decoder=tf32")
    assert code == 2
    assert "needs an NVIDIA GPU of compute capability 8.0 or newer" in said
    assert "reading" not in out
    assert not (tmp_path / "run" / "config.yaml").exists()


@pytest.mark.parametrize("name", [None, "float32", "bfloat16"])
def test_losses_under_autocast_are_float32(name):
    """As Accelerate runs a step with --mixed_precision bf16, but for its cast of the results."""
    segmenter = Segmenter(TinySegmenterConfig(), 4, PrecisionConfig(name))
    tracker = VISAGE(VISAGEConfig(), embed_dim=64, feature_channels=segmenter.feature_channels, num_classes=4)
    config = TrainConfig(freeze_segmenter=False)
    config.loss.num_points = 16
    model = TrainingModel(segmenter, tracker, config).train()
    masks = torch.zeros(1, 2, 64, 96, dtype=torch.bool)
    masks[:, :, 8:40, 16:60] = True
    targets = ClipTargets(torch.tensor([1]), torch.ones(1, 2, dtype=torch.bool), masks)
    images = torch.randint(0, 256, (1, 2, 3, 64, 96), dtype=torch.uint8)
    with torch.autocast("cpu", torch.bfloat16):
        losses = model(ClipBatch(images, torch.tensor([[64, 96]]), (targets,)), [3], False)
    assert {k for k, v in losses.items() if v.dtype != torch.float32} == set()
    total = torch.stack(list(losses.values())).sum()
    assert torch.isfinite(total)
    total.backward()
    assert all(p.grad.dtype == torch.float32 for p in model.parameters() if p.grad is not None)

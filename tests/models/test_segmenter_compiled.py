"""The segmenter as one graph: ``torch.compile``, no waiting for the device, nothing kept between calls.

A CUDA graph records kernels and nothing else. What it forbids shows without a GPU, on fake tensors that
say they are on one: values read by the host, sizes that depend on values, constants made on the host.
"""

from __future__ import annotations

import contextlib
import copy

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import functional_call
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from vistk.models.precision import PrecisionConfig
from vistk.models.segmenter import Segmenter, TinySegmenterConfig
from vistk.trackers.registry import get_tracker

SHALLOW = TinySegmenterConfig(decoder_layers=1)  # a graph of fewer nodes, with every kind of node


def make(**other):
    torch.manual_seed(0)
    return Segmenter(SHALLOW, 4, **other)


@pytest.fixture(autouse=True)
def _forget_graphs():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.fixture
def _plain_kernels(monkeypatch):
    """PyTorch's own kernels outside of graphs too, so that not a bit may differ."""
    monkeypatch.setattr("vistk.ops.onednn.missing_from_build", lambda: "not in this test")


def images(*shape):
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(7))


def tensors(out):
    """All tensors of an output, nested ones included, in one order."""
    found = []
    out.map(lambda x: found.append(x) or x)
    return found


class Graphs:
    """A backend that runs what it is given and counts."""

    def __init__(self):
        self.count = 0

    def __call__(self, graph, example_inputs):
        self.count += 1
        return graph.forward


def assert_same(found, expected, **tolerance):
    pairs = list(zip(tensors(found), tensors(expected), strict=True))
    assert len(pairs) >= 8
    for a, b in pairs:
        torch.testing.assert_close(a, b, **tolerance)


@pytest.mark.usefixtures("_plain_kernels")
def test_one_graph_for_every_size_and_the_numbers_of_none():
    segmenter = make().eval()
    graphs = Graphs()
    compiled = torch.compile(segmenter, fullgraph=True, dynamic=True, backend=graphs)
    with torch.inference_mode():
        # First five numbers that differ: equal ones would be taken for one symbol, and that guarded.
        for shape in ((2, 4, 3, 64, 96), (3, 2, 3, 50, 70)):
            assert_same(compiled(images(*shape)), segmenter(images(*shape)), rtol=0, atol=0)
    assert graphs.count == 1


@pytest.mark.usefixtures("_plain_kernels")
def test_compiled_in_place_with_the_pixel_decoder_in_bfloat16():
    segmenter, compiled = (make(precision=PrecisionConfig("bfloat16")).eval() for _ in range(2))
    graphs = Graphs()
    compiled.compile(fullgraph=True, backend=graphs)
    assert compiled.state_dict().keys() == segmenter.state_dict().keys()
    clip = images(1, 2, 3, 50, 70)
    with torch.inference_mode():
        for _ in range(2):
            assert_same(compiled(clip), segmenter(clip), rtol=0, atol=0)
    assert graphs.count == 1


def test_padding_of_any_size_reaches_the_backends():
    """``aot_eager`` takes a graph down to the operators that Inductor gets; sizes stay symbols."""
    segmenter = make().eval()
    compiled = torch.compile(segmenter._normalise, fullgraph=True, dynamic=True, backend="aot_eager")
    for shape in ((2, 2, 3, 64, 96), (3, 4, 3, 50, 70)):
        found = compiled(images(*shape), None)
        assert found.shape == (*shape[:3], 64, 96)
        torch.testing.assert_close(found, segmenter._normalise(images(*shape), None))


def test_training_through_a_graph_has_the_same_gradients():
    clip, valid = images(1, 2, 3, 64, 96), torch.tensor([[60, 80]])
    results = []
    for compile_it in (False, True):
        segmenter = make().train()
        run = torch.compile(segmenter, fullgraph=True, backend="aot_eager") if compile_it else segmenter
        out = run(clip, valid)
        loss = sum(x.float().square().mean() for x in tensors(out))
        loss.backward()
        gradients = {k: p.grad for k, p in segmenter.named_parameters() if p.grad is not None}
        results.append((loss.detach(), gradients, dict(segmenter.named_buffers())))
    (loss, gradients, buffers), (other, found, moved) = results
    torch.testing.assert_close(other, loss, rtol=1e-5, atol=0)
    assert found.keys() == gradients.keys()
    for name, gradient in gradients.items():
        assert (found[name] - gradient).norm() <= 1e-4 * gradient.norm() + 1e-7, name
    for name, buffer in buffers.items():  # the running statistics of batch norms
        torch.testing.assert_close(moved[name], buffer, rtol=1e-5, atol=1e-6)


HOST = ("_local_scalar_dense", "nonzero", "masked_select", "unique", "is_nonzero", "equal", "bincount")


class Host(TorchDispatchMode):
    """Operators that wait for the device, read from it or bring it something."""

    def __init__(self):
        super().__init__()
        self.seen = []
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += 1
        name = func.overloadpacket.__name__
        given = [x for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)]
        # A constant from Python numbers is made on the host and "lifted" to where it is wanted.
        lifted = name.startswith("lift_fresh")
        indexed = name.startswith("index") and any(x.dtype in (torch.bool, torch.uint8) for x in given[1:])
        counted = func is torch.ops.aten.repeat_interleave.Tensor
        if lifted or indexed or counted or name in HOST:
            self.seen.append(name)
        out = func(*args, **(kwargs or {}))
        made = [x for x in tree_leaves(out) if isinstance(x, torch.Tensor)]
        if any(x.device.type == "cpu" for x in given + made):
            self.seen.append(name)
        return out


class Described(torch.nn.Module):
    """What runs on the GPU for a window of frames."""

    def __init__(self, tracker_name):
        super().__init__()
        self.segmenter = make()
        cls, config = get_tracker(tracker_name)
        self.tracker = cls(
            config, embed_dim=64, feature_channels=self.segmenter.feature_channels, num_classes=4
        )

    def forward(self, clip, valid):
        return self.tracker.describe(self.segmenter(clip, valid))


@pytest.fixture
def pretended_gpu(monkeypatch):
    monkeypatch.delenv("VISTK_OPS", raising=False)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: (9, 0))
    monkeypatch.setattr(torch.version, "hip", None)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("tracker", ["visage", "minvis"])
@pytest.mark.usefixtures("pretended_gpu")
def test_nothing_waits_for_the_device(tracker, training):
    model = Described(tracker).train(training)
    state = dict([*model.named_parameters(), *model.named_buffers()])
    with FakeTensorMode(), torch.set_grad_enabled(training):
        there = {k: torch.empty(v.shape, dtype=v.dtype, device="cuda") for k, v in state.items()}
        clip = torch.empty(1, 2, 3, 50, 70, dtype=torch.uint8, device="cuda")
        valid = torch.empty(1, 2, dtype=torch.int64, device="cuda")
        for size in (None, valid):
            with Host() as host:
                queries = functional_call(model, there, (clip, size))
            assert host.seen == []
            assert host.count > 100
    assert {x.device.type for x in tensors(queries)} == {"cuda"}


@pytest.mark.parametrize(
    ("work", "name"),
    [
        (lambda x: torch.tensor([1.0, 2.0], device=x.device), "lift_fresh"),
        (lambda x: torch.tensor([1.0, 2.0]).to(x.device), "_to_copy"),
        (lambda x: x.cpu(), "_to_copy"),
        (lambda x: x[x > 0], "index"),
        (lambda x: x.nonzero(), "nonzero"),
        (
            lambda x: x.repeat_interleave(torch.ones(4, dtype=torch.int64, device=x.device)),
            "repeat_interleave",
        ),
        (lambda x: x.sum().item(), "_local_scalar_dense"),
    ],
)
def test_the_test_sees_what_waits(work, name):
    """That the one above can fail."""
    with FakeTensorMode():
        x = torch.empty(4, device="cuda")
        # Fake tensors have no values: what asks for one is seen, then refused.
        with Host() as host, contextlib.suppress(RuntimeError):
            work(x)
    assert name in host.seen


@pytest.mark.parametrize("training", [False, True])
def test_a_call_leaves_nothing_behind(training):
    """Same frames, same numbers; no module gains or changes an attribute; outputs are memory of their own."""
    segmenter = make().train(training)
    clip = images(1, 2, 3, 64, 96)
    before = clip.clone()
    segmenter(clip)  # the running statistics of batch norms move in training, and in training alone

    def attributes():
        kept = {}
        for name, module in segmenter.named_modules():
            for k, v in vars(module).items():
                if k not in torchs:
                    kept[name, k] = copy.copy(v) if isinstance(v, (list, dict, set)) else v
        return kept

    torchs = vars(torch.nn.Module()).keys()  # parameters and buffers among them, compared below

    held, weights = attributes(), copy.deepcopy(segmenter.state_dict())
    first = segmenter(clip)
    second = segmenter(clip)
    assert attributes() == held
    assert torch.equal(clip, before)
    moved = {k for k, v in segmenter.state_dict().items() if not torch.equal(v, weights[k])}
    statistics = ("running_mean", "running_var", "num_batches_tracked")
    assert bool(moved) == training
    assert all(name.endswith(statistics) for name in moved)
    assert_same(second, first, rtol=0, atol=0)
    own = {x.untyped_storage().data_ptr() for x in [clip, *segmenter.parameters(), *segmenter.buffers()]}
    memory = [{x.untyped_storage().data_ptr() for x in tensors(out)} for out in (first, second)]
    assert not memory[0] & own
    assert not memory[0] & memory[1]

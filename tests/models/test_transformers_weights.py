"""Transformers' own Mask2Former, with random weights, is the judge of its names: same outputs, and back."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from vistk.models.checkpoints import load_published_into
from vistk.models.published_names import to_transformers
from vistk.models.segmenter import Segmenter, SegmenterConfig, SwinTinyConfig
from vistk.models.weight_files import read_state
from vistk.structures import FrameOutput

ATOL = {torch.float32: 1e-4, torch.float64: 1e-4}
"""For outputs of standard deviation one."""


@pytest.fixture(scope="module")
def transformers():
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    import transformers  # seconds: only where it is used

    return transformers


def small_model(transformers, embed_dim=12, depths=(2, 2, 2, 2), num_heads=(1, 2, 3, 4), width=32, **more):
    """A Mask2Former of Transformers whose random weights are large enough to tell layers apart."""
    backbone = transformers.SwinConfig(
        embed_dim=embed_dim,
        depths=list(depths),
        num_heads=list(num_heads),
        window_size=7,
        drop_path_rate=0.0,
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )
    sizes = {
        "encoder_feedforward_dim": 64,
        "dim_feedforward": 48,
        "encoder_layers": 2,
        "decoder_layers": 5,
        "num_attention_heads": 4,
        "num_queries": 7,
        "num_labels": 5,
    } | more
    config = transformers.Mask2FormerConfig(
        backbone_config=backbone, feature_size=width, mask_feature_size=width, hidden_dim=width, **sizes
    )
    torch.manual_seed(0)
    model = transformers.Mask2FormerForUniversalSegmentation(config).eval()
    with torch.no_grad():
        for name, value in model.named_parameters():
            if "sampling_offsets" in name:
                continue
            if value.dim() > 1:
                value.normal_(std=1.0 if "quer" in name else value[0].numel() ** -0.5)
            else:
                value.add_(0.2 * torch.randn_like(value))
    return model


SMALL = SegmenterConfig(
    backbone="swin_tiny_patch4_window7_224",
    backbone_options={
        "embed_dim": 12,
        "depths": [2, 2, 2, 2],
        "num_heads": [1, 2, 3, 4],
        "drop_path_rate": 0.0,
    },
    hidden_dim=32,
    num_queries=7,
    heads=4,
    encoder_layers=2,
    encoder_feedforward=64,
    decoder_layers=4,
    decoder_feedforward=48,
)


@pytest.fixture(scope="module")
def theirs(transformers):
    return small_model(transformers)


@pytest.fixture(scope="module")
def folder(theirs, tmp_path_factory) -> Path:
    """As ``save_pretrained`` writes it: the names of the published files."""
    path = tmp_path_factory.mktemp("mask2former")
    theirs.save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def ours(folder) -> Segmenter:
    segmenter = Segmenter(SMALL, 5)
    file = read_state(folder)
    load_published_into(segmenter, None, file.state, file.source)
    return segmenter.eval()


def run_both(segmenter: Segmenter, model, height: int, width: int) -> tuple[FrameOutput, dict]:
    """The same frame through ours, and, normalised and padded as ours does it, through theirs."""
    image = torch.randint(
        256, (1, 3, height, width), dtype=torch.uint8, generator=torch.Generator().manual_seed(height)
    )
    mean, std = segmenter.pixel_mean, segmenter.pixel_std
    pixels = torch.nn.functional.pad((image.float() - mean) / std, (0, -width % 32, 0, -height % 32))
    with torch.inference_mode():
        return segmenter(image), model(
            pixel_values=pixels, output_hidden_states=True, output_auxiliary_logits=True
        )


def assert_equal_outputs(out: FrameOutput, theirs) -> None:
    pairs = {
        "logits": (out.logits, theirs.class_queries_logits),
        "masks": (out.mask_logits, theirs.masks_queries_logits),
        "mask features": (out.mask_features, theirs.pixel_decoder_last_hidden_state),
    }
    for name, (a, b) in pairs.items():
        assert b.std() > 0.1  # nothing that vanishes
        torch.testing.assert_close(
            a, b, atol=ATOL[a.dtype] * float(b.std()), rtol=0, msg=lambda m, n=name: f"{n}: {m}"
        )


def test_the_file_has_the_published_spelling(folder):
    names = set(read_state(folder).state)
    assert {
        "model.pixel_level_module.encoder.encoder.layers.0.blocks.0.attention.self.query.weight",
        "model.pixel_level_module.encoder.encoder.layers.0.blocks.0.attention.output.dense.bias",
        "model.pixel_level_module.encoder.encoder.layers.0.blocks.0.intermediate.dense.weight",
        "model.pixel_level_module.encoder.hidden_states_norms.stage1.weight",
        "model.transformer_module.decoder.layers.0.self_attn.q_proj.weight",
        "class_predictor.weight",
        "criterion.empty_weight",
    } <= names


@pytest.mark.parametrize("size", [(64, 96), (83, 61), (161, 230), (40, 224)])
def test_same_outputs_as_transformers(ours, theirs, size):
    assert_equal_outputs(*run_both(ours, theirs, *size))


def test_every_layer_of_the_decoder_agrees(ours, theirs):
    """Predictions before the first layer and after each, from the queries as the layers leave them."""
    out, other = run_both(ours.train(), theirs, 96, 64)
    ours.eval()
    assert len(out.aux) == 4
    for layer, published in zip(out.aux, other.auxiliary_logits, strict=True):
        masks, logits = published["masks_queries_logits"], published["class_queries_logits"]
        found = layer.mask_logits(out.mask_features)
        torch.testing.assert_close(found, masks, atol=1e-4 * float(masks.std()), rtol=0)
        torch.testing.assert_close(layer.logits, logits, atol=1e-4, rtol=0)
    with torch.inference_mode():
        last = ours.transformer_decoder.decoder_norm(other.transformer_decoder_hidden_states[-1])
    torch.testing.assert_close(out.embeds, last.transpose(0, 1), atol=1e-4, rtol=0)


def test_in_memory_names_are_read_too(ours, theirs):
    segmenter = Segmenter(SMALL, 5)
    state = theirs.state_dict()
    assert any(".attention.q_proj." in name for name in state)  # as 5.x spells them in memory
    report = load_published_into(segmenter, None, state)
    assert len(report.loaded) == len(segmenter.state_dict())
    for name, value in segmenter.state_dict().items():
        assert torch.equal(value, ours.state_dict()[name]), name


def test_sharded_folder(ours, theirs, tmp_path):
    theirs.save_pretrained(tmp_path, max_shard_size="200KB")
    assert (tmp_path / "model.safetensors.index.json").exists()
    segmenter = Segmenter(SMALL, 5)
    load_published_into(segmenter, None, read_state(tmp_path).state)
    assert all(torch.equal(v, ours.state_dict()[n]) for n, v in segmenter.state_dict().items())


def test_back_into_transformers(transformers, ours, theirs, folder, tmp_path):
    """Our names to theirs, through their own loader: nothing missing, nothing left, every value the same."""
    state = {f"segmenter.{name}": value for name, value in ours.state_dict().items()}
    state["tracker.appearance_decoder.x"] = torch.ones(1)  # heads have no place there
    back = to_transformers(state)
    on_disk = read_state(folder).state
    unused = {f"model.pixel_level_module.encoder.swin.layernorm.{kind}" for kind in ("weight", "bias")}
    assert set(back) == set(on_disk) - unused
    assert all(torch.equal(back[name], on_disk[name]) for name in back)
    torch.save(back, tmp_path / "pytorch_model.bin")
    theirs.config.save_pretrained(tmp_path)
    loaded, info = transformers.Mask2FormerForUniversalSegmentation.from_pretrained(
        tmp_path, output_loading_info=True
    )
    assert set(info["missing_keys"]) <= unused
    assert not info["unexpected_keys"]
    assert not info["mismatched_keys"]
    for name, value in loaded.state_dict().items():
        if name not in unused:
            assert torch.equal(value, theirs.state_dict()[name]), name


@pytest.fixture(scope="module")
def published_size(transformers):
    """Swin-T with the published widths, 47 million parameters: theirs, and ours with its weights.

    In double precision: at this size some attention bit (mask < 0.5) is always so near its threshold that
    the order of float32 sums would decide it.
    """
    model = small_model(
        transformers,
        embed_dim=96,
        depths=(2, 2, 6, 2),
        num_heads=(3, 6, 12, 24),
        width=256,
        encoder_feedforward_dim=1024,
        dim_feedforward=2048,
        encoder_layers=6,
        decoder_layers=10,
        num_attention_heads=8,
        num_queries=100,
        num_labels=80,
    )
    segmenter = Segmenter(SwinTinyConfig(), 80).eval()
    report = load_published_into(segmenter, None, model.state_dict())
    assert (
        report.holds == "a Mask2Former with Swin-T, 100 queries and 80 classes, in the names of Transformers"
    )
    assert report.missing == ()
    return segmenter.double(), model.double()


@pytest.mark.parametrize("size", [(90, 150), (33, 95), (224, 64)])
def test_same_outputs_at_the_published_size(published_size, size):
    segmenter, model = published_size
    out, other = run_both(segmenter, model, *size)
    assert_equal_outputs(out, other)
    with torch.inference_mode():
        _, pyramid = segmenter.pixel_decoder(out.features)
    for ours, theirs in zip(pyramid, other.pixel_decoder_hidden_states, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-4 * float(theirs.std()), rtol=0)
    levels = [out.features[name] for name in ("res2", "res3", "res4", "res5")]
    for ours, theirs in zip(levels, other.encoder_hidden_states, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-4 * float(theirs.std()), rtol=0)

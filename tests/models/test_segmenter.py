"""The segmenter: published numbers, shapes, independence of frames, padding, parameter names."""

from __future__ import annotations

import pytest
import torch

from vistk.models.segmenter import Segmenter, TinySegmenterConfig
from vistk.models.transformer_decoder import attention_mask


@pytest.fixture(scope="module")
def tiny():
    torch.manual_seed(0)
    return Segmenter(TinySegmenterConfig(), 4).eval()


def test_shapes_and_levels(tiny):
    out = tiny(torch.zeros(2, 3, 3, 64, 96, dtype=torch.uint8))
    assert out.logits.shape == (2, 3, 10, 5)
    assert out.mask_logits.shape == (2, 3, 10, 32, 48)
    assert out.embeds.shape == (2, 3, 10, 64)
    assert {k: tuple(v.shape[2:]) for k, v in out.features.items()} == {
        "res2": (48, 32, 48),
        "res3": (64, 16, 24),
        "res4": (128, 8, 12),
        "res5": (192, 4, 6),
        "pixel3": (64, 16, 24),
        "pixel4": (64, 8, 12),
        "pixel5": (64, 4, 6),
    }
    assert {k: v.shape[2] for k, v in out.features.items()} == tiny.feature_channels
    assert out.aux == ()
    assert out.dense_logits is None


def test_a_frame_does_not_depend_on_its_neighbours(tiny, tolerance):
    images = torch.randint(0, 256, (1, 4, 3, 64, 96), dtype=torch.uint8)
    with torch.inference_mode():
        together, alone = tiny(images), tiny(images[0, 2])
    assert alone.logits.shape == (10, 5)
    torch.testing.assert_close(together[0, 2].mask_logits, alone.mask_logits, **tolerance[torch.float32])
    torch.testing.assert_close(together[0, 2].logits, alone.logits, **tolerance[torch.float32])


@pytest.mark.parametrize("size", [(1, 1), (23, 83), (64, 97)])
def test_any_size_is_padded(tiny, size):
    out = tiny(torch.zeros(3, *size, dtype=torch.uint8))
    assert out.mask_logits.shape[-2:] == tuple(-(-s // 32) * 16 for s in size)


def test_padding_that_came_with_the_batch_is_as_padding_made_here(tiny, tolerance):
    frame = torch.randint(0, 256, (1, 1, 3, 50, 70), dtype=torch.uint8)
    padded = torch.nn.functional.pad(frame, (0, 26, 0, 14), value=77)
    with torch.inference_mode():
        ours, theirs = tiny(frame), tiny(padded, torch.tensor([[50, 70]]))
    torch.testing.assert_close(ours.mask_logits, theirs.mask_logits, **tolerance[torch.float32])


def test_training_mode_gives_every_layer_and_every_parameter_a_gradient():
    segmenter = Segmenter(TinySegmenterConfig(), 4).train()
    out = segmenter(torch.randint(0, 256, (2, 1, 3, 64, 96), dtype=torch.uint8))
    assert len(out.aux) == 3
    assert out.dense_logits.shape == (2, 1, 5, 32, 48)
    total = out.dense_logits.sum() + out.logits.sum() + out.mask_logits.square().sum()
    for layer in out.aux:
        assert layer.mask_embeds.shape == (2, 1, 10, 64)
        total = total + layer.logits.sum() + layer.mask_logits(out.mask_features).square().sum()
    total.backward()
    assert [name for name, p in segmenter.named_parameters() if p.grad is None] == []


def test_an_empty_mask_blocks_nothing():
    mask_logits = torch.full((1, 2, 16), -1.0)
    mask_logits[0, 1, :8] = 1.0
    blocked = attention_mask(mask_logits)
    assert not blocked[0, 0].any()
    assert blocked[0, 1].tolist() == [False] * 8 + [True] * 8


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_weights_of_16_bits_are_refused_at_the_door(dtype):
    segmenter = Segmenter(TinySegmenterConfig(), 2).eval().to(dtype)
    with pytest.raises(TypeError, match=r"weights are b?float16, expected float32: call \.float\(\)"):
        segmenter(torch.zeros(3, 32, 32, dtype=torch.uint8))
    assert segmenter.float()(torch.zeros(3, 32, 32, dtype=torch.uint8)).logits.dtype == torch.float32

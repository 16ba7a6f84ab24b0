"""Layers that have a fast way on CPUs at inference: the numbers of the plain way."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from vistk.models.layers import MLP, Conv2d, ConvNorm, Linear, resize


@pytest.fixture(autouse=True)
def _fastest(monkeypatch):
    monkeypatch.delenv("VISTK_OPS", raising=False)


@pytest.mark.parametrize("form", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("size", [(1, 1), (1, 7), (23, 1), (5, 83)], ids=str)
@pytest.mark.parametrize("batch", [0, 1, 3])
def test_twice_the_size(batch, size, form, tolerance):
    x = torch.randn(batch, 6, *size).contiguous(memory_format=form)
    target = (2 * size[0], 2 * size[1])
    with torch.inference_mode():
        found = resize(x, target)
        expected = F.interpolate(x.double(), size=target, mode="bilinear", align_corners=False)
    torch.testing.assert_close(found.double(), expected, **tolerance[torch.float32])


def test_twice_the_size_by_hand():
    x = torch.tensor([[1.0, 5.0], [3.0, 3.0]])[None, None]
    with torch.inference_mode():
        found = resize(x, (4, 4))[0, 0]
    # New centres lie a quarter of an old pixel from the nearest old centre; beyond the border it repeats.
    assert found.tolist() == [
        [1.0, 2.0, 4.0, 5.0],
        [1.5, 2.25, 3.75, 4.5],
        [2.5, 2.75, 3.25, 3.5],
        [3.0, 3.0, 3.0, 3.0],
    ]


@pytest.mark.parametrize("form", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("step", [2, 4, 8])
@pytest.mark.parametrize("batch", [0, 1, 3])
def test_a_half_a_quarter_and_an_eighth_of_the_size(batch, step, form, tolerance):
    x = torch.randn(batch, 6, 3 * step, 7 * step).contiguous(memory_format=form)
    with torch.inference_mode():
        found = resize(x, (3, 7))
        expected = F.interpolate(x.double(), size=(3, 7), mode="bilinear", align_corners=False)
    torch.testing.assert_close(found.double(), expected, **tolerance[torch.float32])


def test_half_the_size_by_hand():
    x = torch.tensor([[1.0, 2.0, 10.0, 30.0], [3.0, 6.0, 50.0, -10.0]])[None, None]
    with torch.inference_mode():
        assert resize(x, (1, 2)).flatten().tolist() == [3.0, 20.0]
        # Of a square of four by four pixels, the four in the middle.
        assert resize(torch.arange(16.0).view(1, 1, 4, 4), (1, 1)).item() == (5 + 6 + 9 + 10) / 4


def test_other_sizes_and_gradients_are_those_of_interpolate():
    x = torch.randn(1, 2, 3, 4, requires_grad=True)
    for size in ((6, 8), (6, 7), (1, 1), (3, 4), (1, 2), (1, 4), (3, 2), (9, 4)):
        expected = F.interpolate(x, size=size, mode="bilinear", align_corners=False)
        with torch.inference_mode():
            torch.testing.assert_close(resize(x, size), expected)
        (found,) = torch.autograd.grad(resize(x, size).square().sum(), x)
        assert torch.equal(found, torch.autograd.grad(expected.square().sum(), x)[0])


def test_layers_are_pytorchs_under_their_names():
    layer, plain = Linear(128, 256), nn.Linear(128, 256)
    conv, other = Conv2d(8, 16, 3, bias=False), nn.Conv2d(8, 16, 3, padding=1, bias=False)
    for ours, theirs, x in (
        (layer, plain, torch.randn(2, 200, 128)),
        (conv, other, torch.randn(1, 8, 7, 23)),
    ):
        assert isinstance(ours, type(theirs))
        theirs.load_state_dict(ours.state_dict())
        assert torch.equal(ours(x), theirs(x))
        with torch.inference_mode():
            torch.testing.assert_close(ours(x), theirs(x), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("size", [(1, 1), (5, 7)], ids=str)
def test_a_frame_taken_out_of_leading_dims_stays_channels_last(size):
    """Its first stride is that of no tensor of its shape, and must not decide how oneDNN sees the rest."""
    x = torch.randn(1, 8, *size).contiguous(memory_format=torch.channels_last)
    conv = Conv2d(8, 16, 3)
    with torch.inference_mode():
        expected = conv(x)
        viewed = x.unflatten(0, (1, 1))[0, 0][None]
        assert viewed.stride(0) != x.stride(0) or size == (1, 1)
        found = conv(viewed)
    assert torch.equal(found, expected)
    assert found.stride() == expected.stride()
    assert found.is_contiguous(memory_format=torch.channels_last)


def test_a_norm_after_a_convolution_leaves_the_input_and_has_the_numbers_of_training():
    layer = ConvNorm(8, 32, 3)
    with torch.no_grad():
        layer.norm.weight.uniform_(0.5, 2)
        layer.norm.bias.normal_()
    x = torch.randn(2, 8, 7, 23).contiguous(memory_format=torch.channels_last)
    before, expected = x.clone(), layer(x)
    assert expected.requires_grad
    with torch.inference_mode():
        torch.testing.assert_close(layer(x), expected, atol=1e-5, rtol=1e-5)
    assert torch.equal(x, before)


def test_relu_is_between_the_layers_of_an_mlp_and_not_after():
    mlp = MLP(2, 2, 1, 2)
    with torch.no_grad():
        mlp.layers[0].weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
        mlp.layers[1].weight.copy_(torch.tensor([[1.0, -1.0]]))
        for layer in mlp.layers:
            layer.bias.zero_()
    assert mlp(torch.tensor([[3.0, -5.0], [-1.0, 4.0]])).tolist() == [[3.0], [-4.0]]


def test_a_large_mlp_has_the_numbers_of_a_small_one():
    """Its rows are taken together in one kernel or a few at a time in another."""
    mlp, x = MLP(256, 256, 41, 3), torch.randn(100, 256)
    with torch.inference_mode():
        torch.testing.assert_close(mlp(x), torch.cat([mlp(row) for row in x.split(3)]), atol=1e-5, rtol=1e-5)

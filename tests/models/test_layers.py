"""Layers that have a fast way on CPUs at inference: the numbers of the plain way."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from vistk.models.layers import MLP, Conv2d, Linear, resize


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


def test_other_sizes_and_gradients_are_those_of_interpolate():
    x = torch.randn(1, 2, 3, 4, requires_grad=True)
    for size in ((6, 8), (6, 7), (1, 1), (3, 4)):
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

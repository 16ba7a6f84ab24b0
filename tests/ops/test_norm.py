"""Group norm where the map was: the numbers of PyTorch's, and nothing overwritten that somebody needs."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from vistk.ops.norm import group_norm_


@pytest.fixture(autouse=True)
def _fastest(monkeypatch):
    monkeypatch.delenv("VISTK_OPS", raising=False)


def channels_last(*shape):
    """Channels of unlike means and spreads."""
    means, spreads = torch.randn(shape[1]), torch.rand(shape[1]) + 0.5
    x = torch.randn(shape) * spreads.view(-1, 1, 1) + means.view(-1, 1, 1)
    return x.contiguous(memory_format=torch.channels_last)


def affine(channels):
    return torch.rand(channels) + 0.5, torch.randn(channels)


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (23, 1), (5, 83), (64, 64)], ids=str)
@pytest.mark.parametrize("batch", [0, 1, 3])
@pytest.mark.parametrize(("channels", "groups"), [(6, 3), (6, 6), (32, 1), (64, 32)])
def test_numbers_are_those_of_group_norm(batch, size, channels, groups, tolerance):
    if size == (1, 1) and channels // groups < 6:
        return  # two numbers or one, less their mean, over their spread: rounding alone
    x = channels_last(batch, channels, *size)
    weight, bias = affine(channels)
    expected = F.group_norm(x.double(), groups, weight.double(), bias.double())
    with torch.inference_mode():
        found = group_norm_(x, groups, weight, bias)
    torch.testing.assert_close(found.double(), expected, **tolerance[torch.float32])


def test_rounding_is_that_of_group_norm_where_means_are_large():
    x = channels_last(1, 64, 83, 64).add_(30)
    weight, bias = affine(64)
    exact = F.group_norm(x.double(), 32, weight.double(), bias.double())
    allowed = (F.group_norm(x, 32, weight, bias) - exact).abs().max()
    with torch.inference_mode():
        assert (group_norm_(x, 32, weight, bias) - exact).abs().max() < 2 * allowed


def test_by_hand():
    x = torch.tensor([1.0, 3.0, 7.0, 9.0]).view(1, 2, 1, 2).contiguous(memory_format=torch.channels_last)
    with torch.inference_mode():
        found = group_norm_(x, 1, torch.tensor([1.0, 2.0]), torch.tensor([0.0, 10.0]), eps=6.0)
    # Mean 5, variance 10, with eps 16: deviations -4 -2 2 4 divided by 4.
    torch.testing.assert_close(found.flatten(), torch.tensor([-1.0, -0.5, 11.0, 12.0]))


def test_it_takes_no_memory_with_channels_last():
    x = channels_last(2, 8, 5, 7)
    with torch.inference_mode():
        found = group_norm_(x, 4, *affine(8))
    assert found.data_ptr() == x.data_ptr()
    assert found.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("case", ["planes", "float64", "reference", "gradient of x", "gradient of weight"])
def test_elsewhere_it_is_group_norm_and_the_map_stays(case, monkeypatch):
    x = channels_last(2, 8, 5, 7)
    if case == "planes":
        x = x.contiguous()
    if case == "float64":
        x = x.double()
    if case == "reference":
        monkeypatch.setenv("VISTK_OPS", "reference")
    weight, bias = (value.to(x.dtype) for value in affine(8))
    x.requires_grad_(case == "gradient of x")
    weight.requires_grad_(case == "gradient of weight")
    before = x.detach().clone()
    found = group_norm_(x, 4, weight, bias)
    assert torch.equal(x.detach(), before)
    assert torch.equal(found, F.group_norm(x, 4, weight, bias))
    assert found.requires_grad == case.startswith("gradient")


@pytest.mark.parametrize("broken", [float("nan"), float("inf")])
def test_broken_numbers_stay_broken(broken):
    x = channels_last(2, 8, 5, 7)
    x[1, 3, 2, 2] = broken
    expected = F.group_norm(x, 4, *(values := affine(8)))
    with torch.inference_mode():
        found = group_norm_(x, 4, *values)
    assert torch.equal(found.isnan(), expected.isnan())
    assert found[1, 2:4].isnan().all()
    assert not found[0].isnan().any()

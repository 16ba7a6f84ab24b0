"""Points: where they fall, what is sampled there, whose they are."""

from __future__ import annotations

import pytest
import torch

from vistk.ops.points import (
    ClipPointSampler,
    PointSampler,
    sample_points,
    sample_vectors,
    uncertain_points,
)


def test_samples_are_pixel_centres_and_zero_outside():
    maps = torch.arange(6.0).view(1, 1, 2, 3)
    centres = torch.tensor([[[0.5 / 3, 0.25], [2.5 / 3, 0.75], [0.5, 0.5], [-1.0, 0.5]]])
    torch.testing.assert_close(sample_points(maps, centres)[0, 0], torch.tensor([0.0, 5.0, 2.5, 0.0]))


def test_bool_maps_are_sampled_as_numbers():
    maps = torch.tensor([[[[True, False]]]])
    assert sample_points(maps, torch.tensor([[[0.5, 0.5]]])).item() == 0.5


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("size", [(1, 1), (1, 7), (23, 2), (7, 83)])
def test_vectors_at_points_are_samples_of_every_channel(size, dtype, tolerance):
    maps = torch.randn(5, *size, dtype=dtype)
    borders = torch.tensor([[0.0, 0.0], [1.0, 1.0], [0.0, 1.0], [0.5, 0.0], [-0.01, 0.3], [0.2, 1.2]])
    points = torch.cat([borders, torch.rand(50, 2)])
    found = sample_vectors(maps.permute(1, 2, 0).contiguous(), points)
    torch.testing.assert_close(found, sample_points(maps[None], points[None])[0].T, **tolerance[dtype])


def test_uncertain_points_lie_near_the_boundary():
    x = torch.linspace(-10, 10, 64).expand(1, 64, 64)  # boundary at the middle column
    points = uncertain_points(x, [1], 100, PointSampler(), oversample=8.0, importance=1.0)
    assert points.shape == (1, 100, 2)
    assert (points[..., 0] - 0.5).abs().max() < 0.15
    spread = uncertain_points(x, [1], 100, PointSampler(), importance=0.0)
    assert (spread[..., 0] - 0.5).abs().max() > 0.3


def test_uncertain_points_of_no_masks():
    assert uncertain_points(torch.zeros(0, 7, 9), [0, 0], 23, PointSampler()).shape == (0, 23, 2)


def test_a_clip_has_its_points_whatever_its_batch():
    device = torch.device("cpu")
    together = ClipPointSampler([5, 6], device).draw([2, 3], 7, device)
    alone = ClipPointSampler([6], device).draw([3], 7, device)
    assert torch.equal(together[2:], alone)
    assert not torch.equal(together[:2], together[2:4])

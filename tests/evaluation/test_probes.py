"""Linear probes on arrays whose answer is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from vistk.evaluation.probes import centre, cross_validated_r2, match_masks, mean_colour
from vistk.ops.masks import encode


def test_a_linear_relation_is_found_and_noise_is_not() -> None:
    rng = np.random.default_rng(0)
    features = rng.normal(size=(830, 7)) * [1, 10, 0.1, 5, 1, 1, 1] + 3
    targets = features @ rng.normal(size=(7, 2)) + 4
    videos = np.repeat(np.arange(83), 10)
    assert cross_validated_r2(features, targets, videos, penalty=1e-9) == pytest.approx(1)
    # Standardised features shrink by 1 / (1 + penalty), so the error is (penalty / (1 + penalty))^2.
    assert cross_validated_r2(features, targets, videos, penalty=1.0) == pytest.approx(0.75, abs=0.03)
    noise = cross_validated_r2(features, rng.normal(size=(830, 2)), videos)
    assert -0.1 < noise < 0.02


def test_a_video_is_never_on_both_sides() -> None:
    # Every video has its own code and its own random target: only its own frames could tell the target.
    rng = np.random.default_rng(0)
    videos = np.repeat(np.arange(20), 6)
    codes, targets = np.eye(20)[videos], rng.normal(size=(20, 1))[videos]
    assert cross_validated_r2(codes, targets, videos) < 0.05
    assert cross_validated_r2(codes, targets, np.arange(120), penalty=1e-6) > 0.99  # split over folds: leaks


def test_folds_of_videos_are_whole_whatever_the_order() -> None:
    rng = np.random.default_rng(1)
    features, targets = rng.normal(size=(60, 3)), rng.normal(size=(60, 2))
    videos = np.array([f"v{i}" for i in range(12)]).repeat(5)
    by_hand = np.zeros_like(targets)
    total = np.zeros_like(targets)
    order = [f"v{i}" for i in range(12)]
    for fold in range(5):
        held = np.isin(videos, order[fold::5])
        x, y = features[~held], targets[~held]
        z = (x - x.mean(0)) / x.std(0)
        beta = np.linalg.solve(z.T @ z + 0.01 * len(z) * np.eye(3), z.T @ (y - y.mean(0)))
        by_hand[held] = targets[held] - y.mean(0) - (features[held] - x.mean(0)) / x.std(0) @ beta
        total[held] = targets[held] - y.mean(0)
    expected = np.mean(1 - (by_hand**2).sum(0) / (total**2).sum(0))
    assert cross_validated_r2(features, targets, videos) == pytest.approx(expected, rel=1e-9)


def test_what_the_class_tells_does_not_count() -> None:
    rng = np.random.default_rng(0)
    classes = rng.integers(0, 4, 600)
    targets = classes[:, None] * 10.0 + rng.normal(size=(600, 1))
    videos = np.arange(600) // 6
    one_hot = np.eye(4)[classes]
    assert cross_validated_r2(one_hot, targets, videos) > 0.98
    assert cross_validated_r2(one_hot, targets, videos, given=classes) == pytest.approx(0, abs=0.02)
    within = np.concatenate([one_hot, targets - classes[:, None] * 10.0], 1)
    assert cross_validated_r2(within, targets, videos, given=classes) > 0.98


def test_a_class_of_one_video_alone() -> None:
    videos = np.repeat(np.arange(6), 4)
    targets = np.random.default_rng(0).normal(size=(24, 1))
    assert math.isfinite(cross_validated_r2(targets, targets, videos, given=(videos == 5).astype(int)))


@pytest.mark.parametrize("samples", [0, 1, 7])
def test_undefined_without_two_videos(samples: int) -> None:
    values = np.random.default_rng(0).normal(size=(samples, 2))
    assert math.isnan(cross_validated_r2(values, values, np.zeros(samples)))


def test_undefined_where_nothing_varies() -> None:
    features = np.random.default_rng(0).normal(size=(8, 2))
    assert math.isnan(cross_validated_r2(features, np.ones((8, 1)), np.arange(8)))
    constant = cross_validated_r2(np.ones((8, 3)), features, np.arange(8))  # as good as the mean
    assert constant == pytest.approx(0)


def test_lengths_that_disagree() -> None:
    with pytest.raises(ValueError, match="3 features, 2 targets, 3 groups and 2 classes"):
        cross_validated_r2(np.ones((3, 1)), np.ones((2, 1)), np.arange(3))


def test_where_and_what_colour() -> None:
    mask = np.zeros((4, 8), dtype=bool)
    mask[1, 2:4] = True  # pixels from x = 2 to 4 of 8, y = 1 to 2 of 4
    assert centre(mask).tolist() == [3 / 8, 1.5 / 4]
    image = np.zeros((3, 4, 8), dtype=np.uint8)
    image[:, 1, 2] = [255, 0, 51]
    assert mean_colour(image, mask) == pytest.approx([0.5, 0, 0.1])
    for function in (centre, lambda m: mean_colour(image, m)):
        with pytest.raises(ValueError, match="empty mask"):
            function(np.zeros((4, 8), dtype=bool))


def test_masks_are_matched_one_to_one_above_the_threshold() -> None:
    masks = torch.zeros(4, 7, 23, dtype=torch.bool)
    masks[0, :, :4] = True
    masks[1, :, :3] = True  # 3/4 of the first
    masks[2, :, 10:12] = True
    truth = encode(masks[[2, 0]])
    third = torch.zeros(1, 7, 23, dtype=torch.bool)
    third[0, :, 16:18] = True
    predicted = [*encode(masks[:3]), None]
    queries, instances = match_masks(predicted, [*truth, *encode(third)])
    assert sorted(zip(queries.tolist(), instances.tolist(), strict=True)) == [(0, 1), (2, 0)]
    half = torch.zeros(1, 7, 23, dtype=torch.bool)
    half[0, :, 10:11] = True  # IoU of 0.5 is not above it
    assert match_masks(encode(half), truth)[0].tolist() == []
    for pair in (([], truth), (predicted, [])):
        assert [len(x) for x in match_masks(*pair)] == [0, 0]

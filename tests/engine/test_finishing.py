"""Masks at output size: the published steps, whatever the sizes, whoever asks, and in which company."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from vistk.engine import finishing, tiles
from vistk.engine.finishing import FrameMasks, FrameSize, finish_chosen, finish_masks
from vistk.ops.masks import decode
from vistk.structures import FinishedMasks

SIZES = [  # of the mask logits, then as in FrameSize
    ((24, 40), (96, 160), (96, 160), (96, 160)),
    ((24, 40), (96, 160), (90, 150), (135, 225)),
    ((90, 160), (360, 640), (357, 638), (720, 1280)),
    ((83, 23), (332, 92), (331, 71), (83, 23)),  # smaller than the network's size
    ((1, 7), (4, 28), (3, 27), (9, 50)),
    ((23, 1), (92, 4), (89, 1), (1, 1)),
    ((1, 1), (4, 4), (4, 4), (5, 3)),
    ((7, 40), (28, 160), (28, 159), (2, 300)),
    ((2, 40), (16, 640), (15, 639), (23, 700)),  # more columns in a tile than a byte counts
]


def logits_of(count, h, w, seed=0):
    """Blobs on three scales, noise, and one mask each that is positive nowhere and everywhere."""
    generator = torch.Generator().manual_seed(seed)
    grids = [(2, 3), (5, 6), (h, w)]
    logits = torch.stack(
        [
            F.interpolate(torch.randn(1, 1, *grids[i % 3], generator=generator), size=(h, w), mode="bicubic")[
                0, 0
            ]
            for i in range(count)
        ]
    )
    logits[0] = -logits[0].abs()
    logits[1:2] = logits[1:2].abs() + 0.1
    return 5 * logits


def published(mask_logits, size):
    """Logits at the resized and at the output size, step by step."""
    resized = F.interpolate(mask_logits[None], size=size.network, mode="bilinear", align_corners=False)
    resized = resized[..., : size.resized[0], : size.resized[1]]
    return resized[0], F.interpolate(resized, size=size.output, mode="bilinear", align_corners=False)[0]


def dense(rles, size):
    return np.stack([np.zeros(size.output, bool) if rle is None else decode(rle) for rle in rles])


def same(a: FinishedMasks, b: FinishedMasks) -> bool:
    return (
        a.rles == b.rles and torch.equal(a.probability_sum, b.probability_sum) and torch.equal(a.area, b.area)
    )


@pytest.mark.parametrize("finish", [finishing._by_tiles, finishing._by_pixels])
@pytest.mark.parametrize(("given", "network", "resized", "output"), SIZES)
def test_the_published_steps(finish, given, network, resized, output):
    size = FrameSize(network, resized, output)
    logits = logits_of(7, *given)
    finished = finish(logits, size)
    rles, probability, area = finished.rles, finished.probability_sum, finished.area
    before, after = published(logits, size)
    clear = (after.abs() > 1e-5 * logits.abs().max()).numpy()
    assert clear.mean() > 0.999
    assert np.array_equal(dense(rles, size)[clear], (after > 0).numpy()[clear])
    assert [rle is None for rle in rles] == [not mask.any() for mask in dense(rles, size)]
    assert rles[0] is None
    inside = before > 0
    np.testing.assert_allclose(area, inside.flatten(1).sum(1), atol=(before.abs() < 1e-4).sum().item())
    expected = (before.double().sigmoid() * inside).flatten(1).sum(1)
    np.testing.assert_allclose(probability, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("seed", range(20))
def test_the_published_steps_at_any_size(seed):
    random = np.random.default_rng(seed)
    given = tuple(int(side) for side in random.choice([1, 2, 5, 8, 16, 17, 33], 2))
    network = tuple(side * int(random.choice([1, 2, 4, 8])) for side in given)
    resized = tuple(int(random.integers((side + 1) // 2, side + 1)) for side in network)
    output = tuple(int(side) for side in random.integers(1, 200, 2))
    size = FrameSize(network, resized, output)
    logits = logits_of(6, *given, seed).round(decimals=seed % 3)  # values of exactly 0, too
    _, after = published(logits, size)
    clear = (after.abs() > 1e-5 * logits.abs().max()).numpy()
    for finish in (finishing._by_tiles, finishing._by_pixels):
        found = dense(finish(logits, size).rles, size)
        assert np.array_equal(found[clear], (after > 0).numpy()[clear])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_narrow_floats_are_computed_in_float32(dtype):
    size = FrameSize((96, 160), (90, 150), (135, 225))
    logits = logits_of(5, 24, 40).to(dtype)
    assert same(finish_masks(logits, size), finish_masks(logits.float(), size))


def test_no_mask():
    finished = finish_masks(torch.zeros(0, 5, 7), FrameSize((20, 28), (20, 28), (40, 56)))
    assert len(finished) == 0
    assert finished.rles == ()
    assert finished.area.shape == finished.probability_sum.shape == (0,)
    assert finished.area.dtype == torch.float64


@pytest.mark.parametrize(("given", "network", "resized", "output"), SIZES)
def test_a_mask_does_not_depend_on_its_company(given, network, resized, output, monkeypatch):
    size = FrameSize(network, resized, output)
    logits = logits_of(11, *given, seed=1)
    together = finish_masks(logits, size)
    for step in (1, 2, 7):
        parts = [finish_masks(logits[i : i + step], size) for i in range(0, 11, step)]
        assert together.rles == tuple(rle for part in parts for rle in part.rles)
        assert torch.equal(together.area, torch.cat([part.area for part in parts]))
        assert torch.equal(together.probability_sum, torch.cat([part.probability_sum for part in parts]))
    monkeypatch.setattr(finishing, "MASKS_ON_CPU", 3)
    assert same(together, finish_masks(logits, size))


@pytest.mark.parametrize("tile", [1, 7, 16])
@pytest.mark.parametrize(("given", "network", "resized", "output"), SIZES)
def test_borders_of_tiles_change_nothing(given, network, resized, output, tile, monkeypatch):
    size = FrameSize(network, resized, output)
    logits = logits_of(7, *given, seed=2)
    expected = finish_masks(logits, size)
    monkeypatch.setattr(tiles, "TILE", tile)
    for cached in ("_rows", "_columns"):
        monkeypatch.setattr(tiles, cached, getattr(tiles, cached).__wrapped__)
    assert same(finish_masks(logits, size), expected)


def test_the_buffer_of_numpy_is_as_before():
    before = np.getbufsize()
    finish_masks(logits_of(3, 5, 7), FrameSize((20, 28), (20, 28), (40, 56)))
    assert np.getbufsize() == before


def test_gradients_are_left_alone():
    logits = logits_of(3, 5, 7).requires_grad_()
    finished = finish_masks(logits, FrameSize((20, 28), (20, 28), (40, 56)))
    assert not finished.probability_sum.requires_grad


@pytest.fixture
def counted(monkeypatch):
    """Numbers of masks that were finished, call by call."""
    calls = []

    def finish(logits, size):
        calls.append(len(logits))
        return finish_masks(logits, size)

    monkeypatch.setattr(finishing, "finish_masks", finish)
    return calls


def test_masks_of_a_frame_are_finished_once_and_when_asked_for(counted):
    size = FrameSize((20, 28), (20, 28), (40, 56))
    logits = logits_of(6, 5, 7)
    expected = finish_masks(logits, size)
    masks = FrameMasks(logits, size)
    assert len(masks) == 6
    assert counted == []
    assert masks[4] == expected[4]
    assert masks[4].rle == expected.rles[4]
    assert counted == [1]
    assert masks.rles == expected.rles
    assert counted == [1, 5]
    assert torch.equal(masks.probability_sum, expected.probability_sum)
    assert torch.equal(masks.area, expected.area)
    assert same(masks.finished(), expected)
    assert counted == [1, 5]
    assert masks.seconds > 0
    with pytest.raises(IndexError):
        masks[6]


def test_chosen_masks_of_several_frames_are_finished_together(counted):
    size = FrameSize((20, 28), (20, 28), (40, 56))
    logits = logits_of(12, 5, 7)
    frames = [FrameMasks(part, size) for part in logits.split(4)]
    expected = finish_masks(logits, size)
    finish_chosen(zip(frames, [{0, 3}, set(), {1}], strict=True))
    finish_chosen(zip(frames, [{0, 3}, {2}, {1}], strict=True))
    assert counted == [3, 1]
    assert [frames[0][0], frames[0][3], frames[1][2], frames[2][1]] == [expected[i] for i in (0, 3, 6, 9)]
    assert counted == [3, 1]


def test_threads_change_nothing(monkeypatch):
    size = FrameSize((96, 160), (90, 150), (135, 225))
    logits = logits_of(7, 24, 40).requires_grad_()
    alone = finish_masks(logits, size)
    monkeypatch.setattr(finishing, "MASKS_ON_CPU", 2)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    assert same(finish_masks(logits, size), alone)

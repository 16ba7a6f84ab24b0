"""Pixels shared by tubes against bitmaps, whatever the masks look like."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vistk.ops import tube_pixels as module
from vistk.ops.columns import MOST_LAYERS, read_columns
from vistk.ops.masks import encode, to_rle
from vistk.ops.tube_pixels import tube_pixels

SIZES = [(1, 1), (1, 23), (23, 1), (7, 5), (12, 9)]


def tubes_of(masks, missing):
    """``(N, T, H, W)`` bool to tubes with None where ``missing`` ``(N, T)``."""
    return [
        tuple(
            None if gone else rle
            for gone, rle in zip(row, encode(torch.from_numpy(tube)) if len(tube) else [], strict=True)
        )
        for tube, row in zip(masks, missing, strict=True)
    ]


def check(a, b, missing_a, missing_b, pairs=None):
    found = tube_pixels(tubes_of(a, missing_a), tubes_of(b, missing_b), a.shape[1], a.shape[2:], pairs)
    a, b = a & ~missing_a[:, :, None, None], b & ~missing_b[:, :, None, None]
    assert found.sound.all()
    np.testing.assert_array_equal(found.areas, a.sum((2, 3)))
    np.testing.assert_array_equal(found.other_areas, b.sum((2, 3)))
    wanted = True if pairs is None else pairs[..., None]
    np.testing.assert_array_equal(found.shared, (a[:, None] & b[None]).sum((3, 4)) * wanted)


@settings(max_examples=150, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from(SIZES),
    st.sampled_from([0.02, 0.3, 0.5, 0.97]),
    st.tuples(st.integers(0, 4), st.integers(0, 3), st.integers(0, 5)),
    st.sampled_from([(240, 2**22), (1, 1), (5, 60)]),
)
def test_any_masks_in_windows_of_any_size(seed, size, share, numbers, limits):
    rng = np.random.default_rng(seed)
    num_a, num_b, num_frames = numbers
    a, b = (rng.random((n, num_frames, *size)) < share for n in (num_a, num_b))
    missing_a, missing_b = (rng.random((n, num_frames)) < 0.3 for n in (num_a, num_b))
    a[rng.random((num_a, num_frames)) < 0.2] = True
    pairs = rng.random((num_a, num_b)) < 0.4 if seed % 2 else None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_MASKS_AT_ONCE", limits[0])
        patch.setattr(module, "_PLACES_AT_ONCE", limits[1])
        check(a, b, missing_a, missing_b, pairs)


def test_objects_that_cross_columns():
    """Full frames, whole columns, and runs that end where a column does."""
    a = np.zeros((5, 1, 4, 6), dtype=bool)
    a[0] = True
    a[1, :, :, 2:5] = True
    a[2, :, 2:, 0] = a[2, :, :3, 1] = True
    a[3, :, 3, 2] = a[3, :, 0, 3] = True
    a[4, :, 0, 0] = a[4, :, 3, 5] = True
    nobody = np.zeros((5, 1), dtype=bool)
    check(a, a, nobody, nobody)


def stripes(height, runs):
    """A column of that many runs of one pixel, in a frame of three columns."""
    mask = np.zeros((height, 3), dtype=bool)
    mask[: 2 * runs : 2, 1] = True
    return mask


@pytest.mark.parametrize("runs", [1, 2, MOST_LAYERS, MOST_LAYERS + 1, MOST_LAYERS + 3])
def test_more_runs_in_a_column_than_there_are_tables_for(runs):
    striped, plain = stripes(23, runs), stripes(23, 1)
    solid = np.zeros((23, 3), dtype=bool)
    solid[1:20, 1:] = True
    a = np.stack([np.stack([striped, plain]), np.stack([solid, striped])])
    b = np.stack([np.stack([solid, solid]), np.stack([plain, striped]), np.stack([striped, plain])])
    none = np.zeros((3, 2), dtype=bool)
    check(a, b, none[:2], none)
    columns = read_columns(tubes_of(a, none[:2]), 2, (23, 3))
    assert columns.layers.tolist() == [[runs, 1], [1, runs]]


@pytest.mark.parametrize(
    "counts",
    [
        "",
        "5",  # covers 5 of 6 pixels
        "7",
        "o",  # goes on behind its end
        "é",
        "6 ",
        "22002",  # an empty run that is not the first
        "15L",  # a negative one
        "P" * 9 + "6",
    ],
)
def test_what_is_broken_is_not_counted(counts):
    good = to_rle({"size": [2, 3], "counts": [1, 2, 3]}, 2, 3)
    broken = {"size": [2, 3], "counts": counts}
    found = tube_pixels([(good, broken)], [(good, good)], 2, (2, 3))
    assert found.sound.tolist() == [False]
    assert tube_pixels([(good, good)], [(good, broken)], 2, (2, 3)) is None


def test_frames_that_are_too_large():
    huge = to_rle({"size": [60_000, 60_000], "counts": [5, 10, 60_000 * 60_000 - 15]}, 60_000, 60_000)
    assert tube_pixels([(huge,)], [(huge,)], 1, (60_000, 60_000)) is None


def test_numbers_of_every_length():
    """From one character to the six that a frame of 16 megapixels needs."""
    size = (4000, 4000)
    lengths = [
        [0, 1],
        [1, 15],
        [15, 16],
        [16, 511],
        [511, 512],
        [9_000, 17_000],
        [600_000, 3],
        [3, 9_000_000],
    ]
    rles = [to_rle({"size": size, "counts": [*n, 16_000_000 - sum(n)]}, *size) for n in lengths]
    found = tube_pixels([tuple(rles)], [tuple(rles)], len(rles), size)
    assert found.sound.all()
    assert found.areas[0].tolist() == found.shared[0, 0].tolist() == [n[1] for n in lengths]

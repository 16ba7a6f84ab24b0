"""Mask operations against pixel arrays."""

import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask

from vistk.ops.masks import (
    areas,
    decode,
    encode,
    frame_iou,
    iou_from_counts,
    rles_of_run_ends,
    to_rle,
    tube_iou,
    tube_overlaps,
)
from vistk.ops.runs import covered_pixels, first_broken, run_ends

SIZES = [(1, 1), (7, 23), (83, 5)]


def random_masks(seed, count, size):
    return np.random.default_rng(seed).random((count, *size)) < 0.5


def rles(masks):
    return encode(torch.from_numpy(masks))


def uncompressed(mask):
    """Run lengths in column order, from the definition."""
    runs, value = [0], False
    for pixel in mask.flatten(order="F"):
        if pixel != value:
            runs.append(0)
            value = pixel
        runs[-1] += 1
    return {"size": list(mask.shape), "counts": runs}


@pytest.mark.parametrize("size", SIZES)
def test_encode_decode(size):
    masks = random_masks(0, 3, size)
    masks[0], masks[1] = False, True
    found = rles(masks)
    np.testing.assert_array_equal([decode(rle) for rle in found], masks)
    assert all(isinstance(rle["counts"], str) for rle in found)
    assert areas([*found, None]).tolist() == [*masks.sum((1, 2)).tolist(), 0]
    for rle, mask in zip(found, masks, strict=True):
        assert rle == coco_mask.encode(np.asfortranarray(mask.astype(np.uint8))) | {"counts": rle["counts"]}
        assert to_rle(uncompressed(mask), *size) == rle
        assert to_rle(rle | {"counts": rle["counts"].encode()}, *size) == rle
    assert encode(torch.zeros(0, *size, dtype=torch.bool)) == []


@pytest.mark.parametrize("size", [(1, 1), (7, 23), (83, 5), (400, 700), (2100, 500)])
def test_rles_of_run_ends(size):
    rng = np.random.default_rng(4)
    masks = rng.random((8, *size)) < np.array([0, 1, 0.5, 0.01, 0.99, 0.2, 0, 0])[:, None, None]
    masks[5, : size[0] // 2] = True
    masks[6, -1, -1] = masks[7, 0, 0] = True
    expected = rles(masks)
    ends, bounds = run_ends([rle["counts"] for rle in expected])
    expected = [rle if some.any() else None for rle, some in zip(expected, masks, strict=True)]
    assert rles_of_run_ends(ends, bounds, size) == expected
    assert rles_of_run_ends(ends[bounds[2] :], bounds[2:] - bounds[2], size) == expected[2:]
    assert rles_of_run_ends(ends[:0], bounds[:1], size) == []


@pytest.mark.parametrize("size", [(1, 1), (7, 23), (83, 5), (400, 700)])
def test_covered_pixels(size):
    rng = np.random.default_rng(4)
    masks = rng.random((6, *size)) < np.array([0, 1, 0.5, 0.01, 0.99, 0.2])[:, None, None]
    masks[5, : size[0] // 2] = True
    assert covered_pixels(rles(masks)).tolist() == [size[0] * size[1]] * 6


def test_covered_pixels_of_broken_counts():
    good = to_rle({"size": [2, 3], "counts": [1, 2, 3]}, 2, 3)
    # unfinished, no such digit, no character, too long a number, runs of 1, 7 and -2 pixels
    broken = ["", "é", "ZZ", "o", "!", "\ud800", "P" * 9 + "0", "17N"]
    found = covered_pixels([good, *({"size": [2, 3], "counts": text} for text in broken), good])
    assert found.tolist() == [6, *[-1] * len(broken), 6]
    assert covered_pixels([{"size": [2, 3], "counts": "15"}]).tolist() == [6]
    assert covered_pixels([{"size": [2, 3], "counts": "14"}]).tolist() == [5]
    assert covered_pixels([]).tolist() == []


def test_a_negative_run_is_broken_where_numbers_are_differences():
    good = to_rle({"size": [2, 6], "counts": [1, 3, 2, 2, 4]}, 2, 6)
    assert good["counts"] == "132O2"  # 1, 3, 2, then 2 - 3 and 4 - 2
    # 1, 3, 2, then 3 - 6 = -3 and 2 + 7 = 9: together 12 pixels all the same
    bad = good | {"counts": "132J7"}
    assert covered_pixels([good, bad, good]).tolist() == [12, -1, 12]


def test_the_first_broken_one_is_found_among_many():
    good = to_rle({"size": [2, 3], "counts": [1, 2, 3]}, 2, 3)
    short, garbage = good | {"counts": "14"}, good | {"counts": "!"}
    assert first_broken([]) is None
    assert first_broken([good] * 3) is None
    assert first_broken([good, short, garbage]) == (1, "the counts cover 5 pixels, expected 6 pixels")
    many = [good] * 1500 + [garbage, short]
    assert first_broken(many) == (1500, "the counts are not a compressed RLE, expected 6 pixels")


def test_polygons():
    square = [1, 1, 4, 1, 4, 3, 1, 3]
    rle = to_rle([square, [5, 5, 6, 5, 6, 6, 5, 6]], 7, 9)
    expected = np.zeros((7, 9), dtype=bool)
    expected[1:3, 1:4] = True
    expected[5, 5] = True
    np.testing.assert_array_equal(decode(rle), expected)


@pytest.mark.parametrize(
    ("counts", "canonical"),
    [
        ([0, 5, 0, 3, 4], [0, 8, 4]),
        ([3, 0, 2, 1, 0, 6], [5, 7]),
        ([0, 0, 5, 7], [5, 7]),
        ([4, 4, 0, 0, 4], [4, 4, 4]),
        ([4, 8, 0], [4, 8]),
    ],
)
def test_zero_length_runs_are_merged(counts, canonical):
    """Two masks that share such a run are otherwise compared only up to it."""
    given, expected = ({"size": [4, 3], "counts": c} for c in (counts, canonical))
    assert to_rle(given, 4, 3) == to_rle(expected, 4, 3)


def test_zero_length_runs_do_not_change_the_iou():
    a = to_rle({"size": [1, 12], "counts": [2, 2, 0, 2, 6]}, 1, 12)  # pixels 2..5
    b = to_rle({"size": [1, 12], "counts": [2, 2, 0, 6, 2]}, 1, 12)  # pixels 2..9
    assert frame_iou([a], [b]).item() == 0.5


@pytest.mark.parametrize("size", SIZES)
def test_counts_against_pixels(size):
    a, b = random_masks(1, 4, size), random_masks(2, 3, size)
    a[0] = False
    pixels = (a[:, None] & b[None]).sum((2, 3))
    union = (a[:, None] | b[None]).sum((2, 3))
    expected = np.where(union > 0, pixels / np.maximum(union, 1), 0)
    np.testing.assert_array_equal(frame_iou(rles(a), rles(b)), expected)
    with_none = frame_iou([None, *rles(a)], [*rles(b), None])
    np.testing.assert_array_equal(with_none[1:, :-1], expected)
    assert with_none[0].sum() == with_none[:, -1].sum() == 0


def tubes(masks, missing):
    """``(N, T, H, W)`` to N tubes with None where ``missing`` (N, T)."""
    return [
        [None if gone else rle for gone, rle in zip(row, rles(tube), strict=True)]
        for tube, row in zip(masks, missing, strict=True)
    ]


def test_tubes_against_pixels():
    rng = np.random.default_rng(3)
    a, b = rng.random((4, 5, 7, 23)) < 0.5, rng.random((2, 5, 7, 23)) < 0.5
    missing_a, missing_b = rng.random((4, 5)) < 0.3, rng.random((2, 5)) < 0.3
    missing_a[0] = True
    a[missing_a], b[missing_b] = False, False
    tubes_a, tubes_b = tubes(a, missing_a), tubes(b, missing_b)
    shared, area_a, area_b = tube_overlaps(tubes_a, tubes_b, 5)
    np.testing.assert_array_equal(shared, (a[:, None] & b[None]).sum((3, 4)).transpose(2, 0, 1))
    np.testing.assert_array_equal(area_a, a.sum((2, 3)).T)
    np.testing.assert_array_equal(area_b, b.sum((2, 3)).T)
    expected = (a[:, None] & b[None]).sum((2, 3, 4)) / (a[:, None] | b[None]).sum((2, 3, 4))
    np.testing.assert_array_equal(tube_iou(tubes_a, tubes_b), expected)
    for t in range(5):
        per_frame = frame_iou([tube[t] for tube in tubes_a], [tube[t] for tube in tubes_b])
        np.testing.assert_array_equal(iou_from_counts(shared, area_a, area_b)[t], per_frame)


def test_no_tubes_and_no_frames():
    one = [[None, None]]
    assert tube_iou([], one).shape == (0, 1)
    assert tube_iou(one, []).shape == (1, 0)
    assert tube_iou(one, one).tolist() == [[0.0]]
    assert tube_iou([[]], [[]]).tolist() == [[0.0]]
    shared, area_a, area_b = tube_overlaps([], one, 2)
    assert (shared.shape, area_a.shape, area_b.shape) == ((2, 0, 1), (2, 0), (2, 1))


@pytest.mark.parametrize(
    ("segmentation", "message"),
    [
        ({"counts": "1"}, "needs 'counts' and 'size'"),
        ({"size": [3, 2], "counts": "6"}, r"RLE size is \[3, 2\], the video is \[2, 3\]"),
        ({"size": [2, 3], "counts": [5]}, "covers 5 pixels, the frame has 6"),
        ({"size": [2, 3], "counts": [7, -1]}, "has a run of -1 pixels"),
        ({"size": [2, 3], "counts": [2**32 + 6]}, "has a run of 4294967302 pixels"),
        ({"size": [2, 3], "counts": 6}, "counts are int"),
        ([], "an empty list of polygons"),
        ([[0, 0, 1, 1]], "at least three points"),
        ([[0, 0, 2, None, 2, 2]], "a coordinate that is no number between"),
        ([[0, 0, 2, float("nan"), 2, 2]], "a coordinate that is no number between"),
        ([[0, 0, 2e6, 0, 2, 2]], "a coordinate that is no number between"),
        ({"size": None, "counts": [6]}, r"RLE size is None, the video is \[2, 3\]"),
        ({"size": [2, 3], "counts": [5.0, 1.0]}, "counts are not integers"),
        ({"size": [2, 3], "counts": [[1], 2]}, "counts are not integers"),
        ("text", "a segmentation is str"),
    ],
)
def test_bad_segmentations(segmentation, message):
    with pytest.raises(ValueError, match=message):
        to_rle(segmentation, 2, 3)


def test_a_bitmap_is_no_list_of_polygons():
    """Its rows have an even number of numbers, which polygons would have, too."""
    with pytest.raises(ValueError, match="rows of pixels, expected an RLE or polygons"):
        to_rle([[0, 1, 1, 0, 0, 0, 0, 0]] * 6, 6, 8)
    square = [0, 0, 1, 0, 1, 1, 0, 1]  # as many polygons as the frame has rows is no reason
    assert to_rle([square] * 6, 6, 7) is not None


@pytest.mark.parametrize("segmentation", [[[0, 0, 2, 0, 2, 2]], {"size": [2**20, 2**20], "counts": [2**40]}])
def test_a_frame_of_more_pixels_than_an_rle_can_count(segmentation):
    with pytest.raises(ValueError, match="a frame of 1048576x1048576 pixels is larger than an RLE can be"):
        to_rle(segmentation, 2**20, 2**20)


def test_tubes_of_other_lengths_are_an_error():
    with pytest.raises(ValueError, match="a mask tube has 1 frames, expected 2"):
        tube_overlaps([[None]], [[None, None]], 2)


def test_more_masks_than_eight_bits_count() -> None:
    masks = torch.zeros(300, 3, 4, dtype=torch.bool)
    masks[:, 0, 0] = True
    masks[299] = True
    assert areas(encode(masks)).tolist() == [1.0] * 299 + [12.0]

"""Film strips: every image where it belongs."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from vistk.viz.strips import MARK, PAPER, film_strip


def images(count: int, shape: tuple[int, int], seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 200, (*shape, 3), dtype=np.uint8) for _ in range(count)]


def places(strip: np.ndarray, image: np.ndarray) -> list[tuple[int, int]]:
    """(row, column) of the copies of an image in a picture."""
    height, width = image.shape[:2]
    found = np.argwhere((strip[: -height or None, : -width or None] == image[0, 0]).all(-1))
    return [(y, x) for y, x in found.tolist() if (strip[y : y + height, x : x + width] == image).all()]


@pytest.mark.parametrize("shape", [(64, 96), (7, 23), (120, 40)])
def test_all_images_in_a_grid(shape: tuple[int, int]) -> None:
    rows = {"truth": images(3, shape, 1), "visage": images(3, shape, 2)}
    strip = np.asarray(film_strip(rows, [4, 5, 100]))
    at = [[places(strip, image) for image in row] for row in rows.values()]
    assert all(len(one) == 1 for row in at for one in row)
    tops = [{one[0][0] for one in row} for row in at]
    lefts = [{row[i][0][1] for row in at} for i in range(3)]
    assert all(len(same) == 1 for same in (*tops, *lefts))
    assert max(tops[0]) + shape[0] <= min(tops[1])
    assert all(max(a) + shape[1] <= min(b) for a, b in pairwise(lefts))


def test_one_pixel() -> None:
    strip = film_strip({"a": [np.zeros((1, 1, 3), np.uint8)]}, [0])
    assert strip.width > 1


def test_words_are_written_in_the_margins() -> None:
    blank = [np.full((30, 50, 3), 255, np.uint8)]
    strip = np.asarray(film_strip({"minvis": blank}, [17]))
    dark = strip.max(-1) < 100
    assert dark[-30:, :60].any()  # the name
    assert dark[:18, -50:].any()  # the number
    assert not dark[-28:, -48:].any()
    other = np.asarray(film_strip({"minvis": blank}, [18]))
    assert (strip != other).any()


def test_only_marked_images_have_a_frame() -> None:
    rows = {"a": images(3, (20, 30), 1), "b": images(3, (20, 30), 2)}
    plain, marked = (np.asarray(film_strip(rows, [0, 1, 2], m)) for m in ((), [("b", 1)]))
    ((top, left),) = places(marked, rows["b"][1])
    changed = (plain != marked).any(-1)
    assert changed.any()
    assert (marked[changed] == MARK).all()
    assert (plain[changed] == PAPER).all()
    assert (marked[top - 1, left : left + 30] == MARK).all()
    assert (marked[top : top + 20, left + 30] == MARK).all()
    ys, xs = np.nonzero(changed)
    assert (ys.min(), xs.min()) == (top - 3, left - 3)
    assert (ys.max(), xs.max()) == (top + 22, left + 32)


@pytest.mark.parametrize(
    ("rows", "numbers", "marked", "message"),
    [
        ({}, [], (), "0 rows and 0 frames"),
        ({"a": []}, [], (), "1 rows and 0 frames"),
        ({"a": images(2, (3, 4))}, [0], (), "row 'a' has 2 images, expected one for each of 1 frames"),
        ({"a": images(1, (3, 4)), "b": []}, [0], (), "row 'b' has 0 images"),
        (
            {"a": images(1, (3, 4)), "b": images(1, (4, 3))},
            [9],
            (),
            r"row 'b', frame 9: the image is uint8 \(4, 3, 3\), .* \(3, 4, 3\)",
        ),
        ({"a": [np.zeros((3, 4, 3))]}, [0], (), "float64"),
        ({"a": images(1, (3, 4))}, [0], [("a", 1)], r"marked is \('a', 1\), .* 0 to 0"),
        ({"a": images(1, (3, 4))}, [0], [("b", 0)], r"marked is \('b', 0\)"),
    ],
)
def test_wrong_input(rows: dict, numbers: list[int], marked: list, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        film_strip(rows, numbers, marked)

"""Overlays: which pixels change, and into what."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from vistk.ops.masks import encode
from vistk.structures import RLE
from vistk.viz import overlay
from vistk.viz.colors import color_of
from vistk.viz.overlay import Shown, Trails, draw


def rle(mask: np.ndarray) -> RLE:
    return encode(torch.from_numpy(mask)[None])[0]


def box(shape: tuple[int, int], top: int, bottom: int, left: int, right: int) -> np.ndarray:
    mask = np.zeros(shape, dtype=bool)
    mask[top:bottom, left:right] = True
    return mask


@pytest.fixture
def no_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overlay, "_draw_labels", lambda *_: None)


@pytest.mark.usefixtures("no_labels")
def test_every_pixel_of_a_mask() -> None:
    image = np.full((12, 16, 3), 100, np.uint8)
    mask = box((12, 16), 2, 8, 3, 9)
    drawn = draw(image, [Shown(0, rle(mask))])  # 0x2b97ff = 43, 151, 255
    inner = box((12, 16), 3, 7, 4, 8)
    assert (drawn[~mask] == 100).all()
    assert (drawn[mask & ~inner] == (43, 151, 255)).all()
    # 100 + 0.45 * (43 - 100) = 74.35, 100 + 0.45 * 51 = 122.95, 100 + 0.45 * 155 = 169.75
    assert (drawn[inner] == (74, 123, 170)).all()
    assert (image == 100).all()


@pytest.mark.usefixtures("no_labels")
def test_no_contour_where_the_picture_ends() -> None:
    image = np.zeros((10, 10, 3), np.uint8)
    drawn = draw(image, [Shown(1, rle(box((10, 10), 0, 4, 0, 10)))])
    assert (drawn[3] == color_of(1)).all()
    assert (drawn[:3] == np.rint(0.45 * np.array(color_of(1)))).all()
    whole = draw(image, [Shown(1, rle(np.ones((10, 10), bool)))])
    assert (whole == np.rint(0.45 * np.array(color_of(1)))).all()


@pytest.mark.usefixtures("no_labels")
def test_the_contour_grows_with_the_picture() -> None:
    for side, width in ((40, 1), (240, 1), (241, 2), (720, 3)):
        mask = box((side, side + 3), 5, 30, 5, 30)
        drawn = draw(np.zeros((side, side + 3, 3), np.uint8), [Shown(2, rle(mask))])
        assert (drawn[10, 5:30] == color_of(2)).all(-1).sum() == 2 * width


@pytest.mark.usefixtures("no_labels")
def test_the_first_lies_on_top() -> None:
    image = np.zeros((9, 9, 3), np.uint8)
    low, high = rle(box((9, 9), 1, 8, 1, 8)), rle(box((9, 9), 3, 6, 3, 6))
    drawn = draw(image, [Shown(1, high), Shown(0, low)])
    assert tuple(drawn[3, 3]) == color_of(1)


@pytest.mark.usefixtures("no_labels")
def test_enlarged_before_anything_is_drawn() -> None:
    image = np.random.default_rng(0).integers(0, 256, (7, 23, 3), dtype=np.uint8)
    mask = box((7, 23), 2, 5, 3, 6)
    drawn = draw(image, [Shown(3, rle(mask))], scale=4)
    assert drawn.shape == (28, 92, 3)
    large = mask.repeat(4, 0).repeat(4, 1)
    assert (drawn[~large] == image.repeat(4, 0).repeat(4, 1)[~large]).all()
    assert (drawn[8, 12:24] == color_of(3)).all()
    assert not (drawn[9, 13:23] == color_of(3)).all(-1).any()  # a line of one pixel of the large picture


def test_nothing_to_draw() -> None:
    image = np.random.default_rng(0).integers(0, 256, (7, 23, 3), dtype=np.uint8)
    empty = rle(np.zeros((7, 23), bool))
    trails = Trails()
    trails.add([Shown(1, None), Shown(2, empty)])
    for shown in ([], [Shown(1, None, "person")], [Shown(2, empty, "person")]):
        drawn = draw(image, shown, trails)
        assert (drawn == image).all()
        assert drawn is not image


@pytest.mark.parametrize("shape", [(1, 1), (7, 23), (64, 96), (83, 5), (240, 320)])
@pytest.mark.parametrize("scale", [1, 4])
def test_any_size_and_the_input_stays(shape: tuple[int, int], scale: int) -> None:
    rng = np.random.default_rng(1)
    image = rng.integers(0, 256, (*shape, 3), dtype=np.uint8)
    before = image.copy()
    image.setflags(write=False)
    shown = [Shown(i, rle(rng.random(shape) > 0.7), "a long name 0.93") for i in range(5)]
    trails = Trails(3)
    for _ in range(3):
        trails.add(shown)
    drawn = draw(image, shown, trails, scale=scale)
    assert drawn.shape == (scale * shape[0], scale * shape[1], 3)
    assert (image == before).all()


def labels_of(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int, int, int, int]]:
    """(text, left, top, right, bottom) of the words that are painted from now on."""
    found = []

    def paint(image: np.ndarray, text: str, size: int, x: int, y: int, ink: tuple[int, int, int]) -> None:
        height, width = overlay.letters(text, size).shape
        found.append((text, x, y, x + width, y + height))

    monkeypatch.setattr(overlay, "paint", paint)
    return found


@pytest.mark.parametrize("place", ["top", "bottom", "left", "right"])
def test_labels_stay_inside(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    labels = labels_of(monkeypatch)
    mask = {
        "top": box((64, 96), 0, 9, 40, 50),
        "bottom": box((64, 96), 55, 64, 40, 50),
        "left": box((64, 96), 20, 30, 0, 3),
        "right": box((64, 96), 20, 30, 93, 96),
    }[place]
    draw(np.zeros((64, 96, 3), np.uint8), [Shown(7, rle(mask), "person 0.93")])
    ((text, left, top, right, bottom),) = labels
    assert text == "7 person 0.93"
    assert left >= 0
    assert top >= 0
    assert right <= 96
    assert bottom <= 64


def test_labels_of_neighbours_do_not_hide_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    labels = labels_of(monkeypatch)
    shown = [Shown(i, rle(box((120, 240), 50, 60, 100 + 9 * i, 106 + 9 * i)), "cat 0.5") for i in range(4)]
    draw(np.zeros((120, 240, 3), np.uint8), shown)
    assert len(labels) == 4
    covered = np.zeros((120, 240), int)
    for _, left, top, right, bottom in labels:
        covered[top:bottom, left:right] += 1
    assert covered.max() == 1


def test_a_label_that_does_not_fit_is_shortened_then_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    labels = labels_of(monkeypatch)
    for shape, expected in (((30, 200), ["3 person 0.93"]), ((30, 30), ["3"]), ((5, 200), []), ((1, 1), [])):
        labels.clear()
        draw(np.zeros((*shape, 3), np.uint8), [Shown(3, rle(np.ones(shape, bool)), "person 0.93")])
        assert [text for text, *_ in labels] == expected


@pytest.mark.parametrize("background", [0, 255, 128])
def test_a_label_reads_the_same_on_any_background(background: int) -> None:
    image = np.full((64, 96, 3), background, np.uint8)
    mask = box((64, 96), 40, 50, 10, 20)
    drawn = draw(image, [Shown(0, rle(mask), "cat")])
    written = (drawn != background).any(-1) & ~mask
    rows, columns = np.nonzero(written)
    label = drawn[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    assert (label[0] == color_of(0)).all()
    assert (label[-1] == color_of(0)).all()
    assert label.min() < 40  # black on light blue
    on_black = draw(np.zeros((64, 96, 3), np.uint8), [Shown(0, rle(mask), "cat")])
    assert (label == on_black[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]).all()


# ---------------------------------------------------------------- trails


def at(x: int, y: int) -> RLE:
    return rle(box((40, 60), y - 1, y + 1, x - 1, x + 1))  # centre (x, y)


def test_centres_and_gaps() -> None:
    trails = Trails(length=3)
    for shown in (
        [Shown(1, at(10, 20)), Shown(2, at(30, 5))],
        [Shown(1, at(12, 20)), Shown(2, None)],
        [Shown(1, at(14, 22)), Shown(2, at(34, 5))],
    ):
        trails.add(shown)
    segments = trails.segments()
    assert segments[1] == [
        (pytest.approx(2 / 3), (10.0, 20.0), (12.0, 20.0)),
        (pytest.approx(1.0), (12.0, 20.0), (14.0, 22.0)),
    ]
    assert segments[2] == []
    for _ in range(4):
        trails.add([])
    assert trails.segments() == {}


@pytest.mark.usefixtures("no_labels")
def test_a_trail_is_drawn_where_the_track_was_and_fades() -> None:
    trails = Trails(length=10)
    for x in range(5, 56, 10):
        trails.add([Shown(1, at(x, 20))])
    image = np.full((40, 60, 3), 90, np.uint8)
    drawn = draw(image, [], trails)
    changed = np.abs(drawn.astype(int) - 90).max(-1)
    assert changed[20, 6:54].min() > 40
    assert changed[:16].max() == changed[25:].max() == 0
    red = drawn[20, :, 0].astype(int)
    assert red[50] > red[30] > red[10]
    enlarged = draw(image, [], trails, scale=3)
    assert np.abs(enlarged[60, 18:160].astype(int) - 90).max(-1).min() > 40


@pytest.mark.parametrize(
    ("image", "shown", "scale", "message"),
    [
        (np.zeros((4, 4), np.uint8), [], 1, r"the image is uint8 \(4, 4\), expected uint8 \(H, W, 3\)"),
        (np.zeros((4, 4, 3)), [], 1, "the image is float64"),
        (np.zeros((4, 4, 3), np.uint8), [], 0, "scale is 0, expected 1 or more"),
        (
            np.zeros((4, 5, 3), np.uint8),
            [Shown(8, rle(np.ones((5, 4), bool)))],
            1,
            r"the mask of track 8 has size \(5, 4\), the image \(4, 5\)",
        ),
    ],
)
def test_wrong_input(image: np.ndarray, shown: list[Shown], scale: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        draw(image, shown, scale=scale)


def test_a_trail_has_a_length() -> None:
    with pytest.raises(ValueError, match="length of a trail is 0"):
        Trails(0)

"""Timelines: a bar for every stretch, a triangle for every switch."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from vistk.viz.colors import hex_of
from vistk.viz.figures import png, some_frames
from vistk.viz.timelines import NOBODY, SWITCH, instance_timeline, switches, track_timeline

COVERING = np.array(
    [
        [3, 3, -1, 3, 4, 4],  # an interruption, then a switch
        [5, 5, 5, 5, 5, 5],
        [-1, -1, 7, -1, 8, 7],  # two switches, the first over a gap
    ]
)
VISIBLE = np.ones((3, 6), bool)
VISIBLE[1, 2:4] = False


def bars(axes: Axes) -> list[tuple[float, float, float, str]]:
    """(row, first frame, last frame, colour) of every bar."""
    found = []
    for bar in axes.collections:
        (path,) = bar.get_paths()
        (x0, y0), (x1, y1) = path.vertices.min(0), path.vertices.max(0)
        found.append((round((y0 + y1) / 2, 6), x0 + 0.5, x1 - 0.5, to_hex(bar.get_facecolor()[0])))
    return sorted(found)


def marks(axes: Axes) -> list[tuple[int, float]]:
    """(row, frame) of every triangle."""
    lines = [line for line in axes.lines if line.get_gid() == SWITCH]
    return [(round(y + 0.43), x + 0.5) for line in lines for x, y in zip(*line.get_data(), strict=True)]


def axes_of(figure: Figure) -> Axes:
    (axes,) = figure.axes
    return axes


def rows_of(axes: Axes) -> list[str]:
    return [label.get_text() for label in axes.get_yticklabels()]


def test_switches() -> None:
    assert switches(COVERING) == [(0, 4), (2, 4), (2, 5)]
    assert switches(np.zeros((0, 5), int)) == switches(np.full((2, 5), NOBODY)) == []


def test_bars_and_triangles() -> None:
    axes = axes_of(instance_timeline(COVERING, VISIBLE, ["cat", "dog", "eel"], title="minvis"))
    white = "#ffffff"
    assert bars(axes) == [
        (0, 0, 1, hex_of(3)), (0, 2, 2, white), (0, 3, 3, hex_of(3)), (0, 4, 5, hex_of(4)),
        (1, 0, 1, hex_of(5)), (1, 4, 5, hex_of(5)),  # absent in between
        (2, 0, 1, white), (2, 2, 2, hex_of(7)), (2, 3, 3, white), (2, 4, 4, hex_of(8)), (2, 5, 5, hex_of(7)),
    ]  # fmt: skip
    assert marks(axes) == [(0, 4), (2, 4), (2, 5)]
    assert rows_of(axes) == ["cat", "dog", "eel"]
    assert axes.get_title("left") == "minvis"
    assert axes.get_title("right") == "3 identity switches"


def test_what_covers_an_absent_instance_is_no_switch() -> None:
    visible = np.array([[True, True, False, True]])
    axes = axes_of(instance_timeline(np.array([[1, 1, 2, 1]]), visible))
    assert marks(axes) == []
    assert axes.get_title("right") == ""


def test_tracks_without_an_instance_are_below() -> None:
    others = {9: np.array([0, 1, 1, 0, 0, 1], bool), 2: np.zeros(6, bool), 4: np.array([1] + 5 * [0], bool)}
    axes = axes_of(instance_timeline(COVERING, VISIBLE, others=others))
    assert rows_of(axes) == ["1", "2", "3", "track 4", "track 9"]
    assert bars(axes)[-3:] == [(3, 0, 0, hex_of(4)), (4, 1, 2, hex_of(9)), (4, 5, 5, hex_of(9))]


def test_long_bars_bear_the_track() -> None:
    axes = axes_of(instance_timeline(np.array([[12] * 20 + [13]]), np.ones((1, 21), bool)))
    assert [text.get_text() for text in axes.texts] == ["12", "13"]
    axes = axes_of(instance_timeline(np.array([[12] * 200 + [13]]), np.ones((1, 201), bool)))
    assert [text.get_text() for text in axes.texts] == ["12"]


def test_tracks_alone() -> None:
    present = {4: np.array([1, 1, 0, 1], bool), 7: np.zeros(4, bool)}
    axes = axes_of(track_timeline(present, {4: "cat"}))
    assert rows_of(axes) == ["cat 4", "track 7"]
    assert bars(axes) == [(0, 0, 1, hex_of(4)), (0, 3, 3, hex_of(4))]


@pytest.mark.parametrize("shape", [(0, 0), (0, 5), (1, 1), (2, 83)])
def test_any_size_can_be_drawn(shape: tuple[int, int]) -> None:
    figure = instance_timeline(np.zeros(shape, int), np.ones(shape, bool))
    assert png(figure).startswith(b"\x89PNG")
    assert png(track_timeline({}))


def test_a_figure_is_the_same_file_twice() -> None:
    assert png(instance_timeline(COVERING, VISIBLE)) == png(instance_timeline(COVERING, VISIBLE))


def test_wrong_input() -> None:
    with pytest.raises(ValueError, match=r"covering has shape \(3, 6\), visible \(3, 5\)"):
        instance_timeline(COVERING, VISIBLE[:, :5])
    with pytest.raises(ValueError, match="there are 1 names"):
        instance_timeline(COVERING, VISIBLE, ["cat"])
    with pytest.raises(ValueError, match=r"track 9 has shape \(5,\), expected \(6,\)"):
        instance_timeline(COVERING, VISIBLE, others={9: np.ones(5, bool)})
    with pytest.raises(ValueError, match="track 1 has shape"):
        track_timeline({0: np.ones(3, bool), 1: np.ones(4, bool)})


@pytest.mark.parametrize(
    ("count", "most", "step"),
    [(0, 25, 1), (25, 25, 1), (26, 25, 2), (120, 25, 5), (300, 25, 20), (13, 12, 2)],
)
def test_round_steps(count: int, most: int, step: int) -> None:
    assert some_frames(count, most) == range(0, count, step)

"""Similarity maps: which cells are shown, and which are framed."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from vistk.viz.figures import png
from vistk.viz.similarities import CHOSEN, MOST_NUMBERED, TRUE, similarity_maps, that_matter

QUERY = np.array([[0.9, 0.1, 0.0], [-0.004, -0.25, 1.0]])
CHOSEN_QUERY, TRUE_QUERY = np.array([0, 1]), np.array([0, 2])


def maps_of(figure: Figure) -> list[Axes]:
    return [axes for axes in figure.axes if axes.get_title()]


def framed(axes: Axes, gid: str) -> list[tuple[int, int]]:
    """(row, column) of the framed cells."""
    return [(round(p.get_y() + 0.46), round(p.get_x() + 0.46)) for p in axes.patches if p.get_gid() == gid]


def words(labels: list) -> list[str]:
    return [label.get_text() for label in labels]


def test_panels_and_frames() -> None:
    figure = similarity_maps({"query": QUERY, "mixed": QUERY / 2}, CHOSEN_QUERY, TRUE_QUERY, title="frame 3")
    query, mixed = maps_of(figure)
    assert (query.get_title(), mixed.get_title()) == ("query", "mixed")
    for axes in (query, mixed):
        assert framed(axes, CHOSEN) == [(0, 0), (1, 1)]
        assert framed(axes, TRUE) == [(1, 2)]
        assert axes.images[0].get_clim() == (-0.25, 1.0)  # one scale
    assert np.array_equal(query.images[0].get_array(), QUERY)
    assert words(query.texts) == [".90", ".10", ".00", ".00", "-.25", "1.00"]
    assert words(query.get_yticklabels()) == ["track 0", "track 1"]
    assert words(mixed.get_xticklabels()) == ["0", "1", "2"]
    (legend,) = figure.legends
    assert words(legend.get_texts()) == ["chosen", "right, but not chosen"]


def test_equal_ones_once() -> None:
    nan = np.array([[np.nan, 1.0]])
    figure = similarity_maps({"query": nan, "box": nan + 1, "mixed": nan.copy()}, np.array([1]))
    assert [axes.get_title() for axes in maps_of(figure)] == ["query = mixed", "box"]
    assert words(maps_of(figure)[0].texts) == ["1.00"]
    assert framed(maps_of(figure)[0], TRUE) == []


def test_some_rows_and_columns_in_their_order() -> None:
    figure = similarity_maps(
        {"mixed": QUERY},
        CHOSEN_QUERY,
        TRUE_QUERY,
        rows=[1, 0],
        columns=[2, 0],
        row_names=["a", "b"],
        column_names=["x", "y", "z"],
    )
    (axes,) = maps_of(figure)
    assert words(axes.get_yticklabels()) == ["b", "a"]
    assert words(axes.get_xticklabels()) == ["z", "x"]
    assert np.array_equal(axes.images[0].get_array(), [[1.0, -0.004], [0.0, 0.9]])
    assert framed(axes, CHOSEN) == [(1, 1)]  # what track 1 chose is not shown
    assert framed(axes, TRUE) == [(0, 0)]


def test_what_matters() -> None:
    chosen = np.array([4, 1, 7, -1, 2, 0])
    true = np.array([4, 2, -1, 6, -1, -1])
    # Tracks with a true query: 0, 1, 3; track 4 has taken that of track 1.
    assert that_matter(chosen, true) == ([0, 1, 3, 4], [1, 2, 4, 6])
    assert that_matter(np.full(3, -1), np.full(3, -1)) == ([], [])
    # Track 5 is asked for, with the query that it took; track 3 took none.
    assert that_matter(chosen, true, always=[3, 5]) == ([0, 1, 3, 4, 5], [0, 1, 2, 4, 6])


def test_numbers_only_where_they_can_be_read() -> None:
    side = int(MOST_NUMBERED**0.5) + 1
    (axes,) = maps_of(similarity_maps({"mixed": np.eye(side)}, np.arange(side)))
    assert not axes.texts
    assert len(framed(axes, CHOSEN)) == side


@pytest.mark.parametrize("shape", [(0, 0), (0, 5), (3, 0), (1, 1), (7, 23), (60, 50)])
def test_any_size_can_be_drawn(shape: tuple[int, int]) -> None:
    for fill in (0.0, np.nan):
        figure = similarity_maps({"mixed": np.full(shape, fill)}, np.full(shape[0], -1))
        assert png(figure).startswith(b"\x89PNG")
        assert not figure.legends


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"matrices": {}}, "no similarity matrix"),
        ({"matrices": {"a": QUERY, "b": QUERY.T}}, r"'b' has shape \(3, 2\), .* \(2, 3\)"),
        ({"matrices": {"a": QUERY[0]}}, r"'a' has shape \(3,\), expected \(R, Q\)"),
        ({"chosen": np.zeros(3, int)}, "chosen has 3 entries, expected 2"),
        ({"true": np.zeros(1, int)}, "true has 1 entries, expected 2"),
        ({"row_names": ["a"]}, "row_names has 1 entries, expected 2"),
        ({"column_names": ["a"]}, "column_names has 1 entries, expected 3"),
    ],
)
def test_wrong_input(changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        similarity_maps(**{"matrices": {"a": QUERY}, "chosen": CHOSEN_QUERY, **changes})

"""Memory figures: every entry in the cell of its frame and of when it is remembered."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.figure import Figure

from vistk.viz.figures import png
from vistk.viz.memories import NO_ENTRY, memory_figure

REMEMBERED = np.array([[0, NO_ENTRY], [1, 0], [1, 0], [3, 1]])
WEIGHTS = np.array([[1.0, 9.0], [0.75, 0.25], [0.5, 0.5], [0.6, 0.4]])


def cells(figure: Figure, panel: int) -> np.ndarray:
    images = [axes.images[0] for axes in figure.axes if axes.images]
    return np.asarray(images[panel].get_array().filled(np.nan))


def test_entries() -> None:
    figure = memory_figure(REMEMBERED, WEIGHTS, -WEIGHTS, title="track 1")
    nan = np.nan
    expected = np.array(
        [
            [1.0, 0.25, 0.5, nan],  # frame 0 is remembered in the frames 0, 1, 2
            [nan, 0.75, 0.5, 0.4],
            [nan, nan, nan, nan],  # frame 2 never
            [nan, nan, nan, 0.6],
        ]
    )
    np.testing.assert_array_equal(cells(figure, 0), expected)
    np.testing.assert_array_equal(cells(figure, 1), -expected)
    weights, similarities = (axes.images[0] for axes in figure.axes if axes.images)
    assert weights.get_clim() == (0, 1)
    assert similarities.get_clim() == (-1, 1)


def test_scores_and_marks() -> None:
    scores = np.array([0.9, 0.8, np.nan, 0.7])
    figure = memory_figure(REMEMBERED, WEIGHTS, scores=scores, marked=[1, 3])
    above, below = figure.axes[:2]
    assert [line.get_xdata()[0] for line in above.lines if line.get_gid() == "marked"] == [0.5, 2.5]
    (curve,) = (line for line in below.lines if line.get_gid() != "marked")
    np.testing.assert_array_equal(curve.get_ydata(), scores)


@pytest.mark.parametrize("shape", [(0, 0), (0, 3), (1, 1), (83, 7)])
def test_any_size_can_be_drawn(shape: tuple[int, int]) -> None:
    nothing = np.full(shape, NO_ENTRY)
    figure = memory_figure(nothing, np.zeros(shape), np.zeros(shape), np.zeros(shape[0]))
    assert png(figure).startswith(b"\x89PNG")
    assert np.isnan(cells(figure, 0)).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"weights": WEIGHTS[:2]}, r"weights has shape \(2, 2\), expected \(4, 2\)"),
        ({"similarities": WEIGHTS.T}, r"similarities has shape \(2, 4\)"),
        ({"scores": np.zeros(3)}, r"scores has shape \(3,\), expected \(4,\)"),
        ({"remembered": REMEMBERED + 1}, "frame 4 is remembered, of frames 0 to 3"),
    ],
)
def test_wrong_input(changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        memory_figure(**{"remembered": REMEMBERED, "weights": WEIGHTS, **changes})

"""What a tracker went by in one frame: tracks against queries."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from vistk.viz.figures import INK, MARK, new_figure, plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

CHOSEN, TRUE = "chosen", "true"
"""``gid`` of the markers of the assignment that was made, and of the true one where it is another."""

MOST_NUMBERED = 150
"""Cells of a matrix in which the numbers are written."""


def that_matter(
    chosen: np.ndarray, true: np.ndarray, always: Collection[int] = ()
) -> tuple[list[int], list[int]]:
    """Rows and columns to look at: tracks with a true query, these, the chosen ones, and who has taken them.

    Args:
        chosen, true: ``(R,)`` int64, the query of every track, -1 for none.
        always: rows to look at with the queries that they chose, true ones or not.
    """
    first = [r for r in range(len(true)) if true[r] >= 0 or r in always]
    columns = {int(q) for r in first for q in (true[r], chosen[r]) if q >= 0}
    rows = [r for r in range(len(true)) if r in first or int(chosen[r]) in columns]
    return rows, sorted(columns)


def similarity_maps(
    matrices: Mapping[str, np.ndarray],
    chosen: np.ndarray,
    true: np.ndarray | None = None,
    *,
    rows: Sequence[int] | None = None,
    columns: Sequence[int] | None = None,
    row_names: Sequence[str] | None = None,
    column_names: Sequence[str] | None = None,
    title: str = "",
) -> Figure:
    """Heat maps side by side, with one scale; frames mark what was chosen, and in red what is right instead.

    Equal matrices are shown once, under both names.

    Args:
        matrices: ``{name: (R, Q)}`` similarities, NaN where there is none.
        chosen: ``(R,)`` int64, the query that every track took, -1 for none.
        true: ``(R,)`` int64, the query of the same object, -1 where there is none or nobody knows.
        rows, columns: which of them to show, in this order; default: all.
        row_names: of all R tracks; default: ``track 0`` and on.
        column_names: of all Q queries; default: ``0`` and on.

    Raises:
        ValueError: there is no matrix, or shapes differ.
    """
    shape = _shape(matrices)
    true = np.full(shape[0], -1) if true is None else true
    row_names = [f"track {r}" for r in range(shape[0])] if row_names is None else row_names
    column_names = [str(q) for q in range(shape[1])] if column_names is None else column_names
    for name, found, size in (
        ("chosen", chosen, shape[0]),
        ("true", true, shape[0]),
        ("row_names", row_names, shape[0]),
        ("column_names", column_names, shape[1]),
    ):
        if len(found) != size:
            raise ValueError(f"{name} has {len(found)} entries, expected {size}")
    rows = list(range(shape[0])) if rows is None else list(rows)
    columns = list(range(shape[1])) if columns is None else list(columns)
    place = {q: x for x, q in enumerate(columns)}
    took = [(place[q], y) for y, r in enumerate(rows) if (q := int(chosen[r])) in place]
    missed = [(place[q], y) for y, r in enumerate(rows) if (q := int(true[r])) in place and q != chosen[r]]
    panels = {name: matrix[np.ix_(rows, columns)] for name, matrix in _distinct(matrices).items()}
    scale = _scale(panels)
    left, below = [row_names[r] for r in rows], [column_names[q] for q in columns]

    numbered = len(rows) * len(columns) <= MOST_NUMBERED
    cell = 0.5 if numbered else max(0.08, min(0.3, 7 / max(len(rows), len(columns))))  # inches
    width, height = max(cell * len(columns), 1.2), max(cell * len(rows) * (0.7 if numbered else 1), 0.6)
    margin, under = 0.35 + 0.075 * _longest(left), 0.065 * _longest(below)
    figure = new_figure(margin + (width + 0.35) * len(panels) + 0.8, height + under + 1.3)
    all_axes = figure.subplots(1, len(panels), squeeze=False)[0]
    font = 8 if numbered else max(4, min(8, 60 * cell))
    for axes, (name, panel) in zip(all_axes, panels.items(), strict=True):
        image = _heat_map(axes, panel, scale, numbered)
        axes.set_title(name, fontsize=10)
        axes.set_xlabel("query", fontsize=9)
        axes.set_xticks(range(len(below)), below, fontsize=font)
        axes.tick_params(axis="x", rotation=0 if 0.078 * _longest(below) < cell else 90)
        axes.set_yticks(range(len(left)), left if axes is all_axes[0] else [""] * len(left), fontsize=font)
        _frame(axes, took, CHOSEN)
        _frame(axes, missed, TRUE)
    figure.colorbar(image, ax=list(all_axes), fraction=0.05, pad=0.02, label="similarity")
    _legend(figure, bool(took), bool(missed))
    if title:
        figure.suptitle(title, fontsize=10, x=0.01, ha="left")
    return figure


def _shape(matrices: Mapping[str, np.ndarray]) -> tuple[int, int]:
    if not matrices:
        raise ValueError("there is no similarity matrix to show")
    shape = next(iter(matrices.values())).shape
    for name, matrix in matrices.items():
        if matrix.ndim != 2 or matrix.shape != shape:
            raise ValueError(
                f"similarity {name!r} has shape {matrix.shape}, expected (R, Q) like the first, {shape}"
            )
    return shape


def _distinct(matrices: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Equal ones once, under all their names."""
    found: list[tuple[list[str], np.ndarray]] = []
    for name, matrix in matrices.items():
        same = next((names for names, other in found if np.array_equal(other, matrix, equal_nan=True)), None)
        if same is None:
            found.append(([name], matrix))
        else:
            same.append(name)
    return {" = ".join(names): matrix for names, matrix in found}


def _scale(panels: Mapping[str, np.ndarray]) -> tuple[float, float]:
    """Least and greatest of all numbers, never equal."""
    shown = np.concatenate([panel[np.isfinite(panel)] for panel in panels.values()])
    low, high = (float(shown.min()), float(shown.max())) if len(shown) else (0.0, 1.0)
    return (low, high) if low < high else (low - 0.5, high + 0.5)


def _longest(names: Sequence[str]) -> int:
    """Letters in the longest line."""
    return max((len(line) for name in names for line in name.split("\n")), default=0)


def _heat_map(axes: Axes, panel: np.ndarray, scale: tuple[float, float], numbered: bool) -> AxesImage:
    # An image has pixels: of nothing, those that are not there.
    pixels = panel if panel.size else np.full([max(side, 1) for side in panel.shape], np.nan)
    image = axes.imshow(
        pixels, cmap="viridis", vmin=scale[0], vmax=scale[1], aspect="auto", interpolation="nearest"
    )
    plain(axes)
    axes.set_facecolor("#eeeeee")
    if numbered:
        for y, x in zip(*np.nonzero(np.isfinite(panel)), strict=True):
            ink = "white" if panel[y, x] < sum(scale) / 2 else "black"
            axes.text(x, y, _short(panel[y, x]), ha="center", va="center", fontsize=7, color=ink)
    return image


_LOOKS: Mapping[str, tuple[str, str, float, Any]] = {
    CHOSEN: ("chosen", INK, 1.4, "solid"),
    TRUE: ("right, but not chosen", MARK, 2.0, (0, (2, 1))),
}


def _frame(axes: Axes, cells: Sequence[tuple[int, int]], gid: str) -> None:
    """Outline cells (x, y), over white, which shows on all colours."""
    from matplotlib.patches import Rectangle

    _, color, width, style = _LOOKS[gid]
    for x, y in cells:
        corner = (x - 0.46, y - 0.46)
        axes.add_patch(Rectangle(corner, 0.92, 0.92, fill=False, edgecolor="white", linewidth=3.4))
        axes.add_patch(
            Rectangle(
                corner, 0.92, 0.92, fill=False, edgecolor=color, linewidth=width, linestyle=style, gid=gid
            )
        )


def _legend(figure: Figure, took: bool, missed: bool) -> None:
    from matplotlib.patches import Patch

    looks = [_LOOKS[gid] for gid, there in ((CHOSEN, took), (TRUE, missed)) if there]
    if looks:
        figure.legend(
            handles=[
                Patch(fill=False, edgecolor=color, linewidth=width, linestyle=style, label=name)
                for name, color, width, style in looks
            ],
            loc="outside lower right",
            ncols=2,
            fontsize=8,
            frameon=False,
        )


def _short(value: float) -> str:
    """Two decimals, without a zero before the point: -.05"""
    text = f"{round(value, 2) + 0.0:.2f}"  # without the sign of a zero
    return text.replace("0.", ".", 1) if abs(value) < 0.995 else text

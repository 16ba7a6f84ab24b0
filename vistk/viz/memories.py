"""What one track remembers, frame after frame."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

import numpy as np

from vistk.viz.figures import INK, MARK, new_figure, number_frames, plain, some_frames

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NO_ENTRY = -1
"""In place of a frame number."""


def memory_figure(
    remembered: np.ndarray,
    weights: np.ndarray,
    similarities: np.ndarray | None = None,
    scores: np.ndarray | None = None,
    *,
    marked: Collection[int] = (),
    title: str = "",
) -> Figure:
    """The entries of a track's memory after every frame: a column is a frame, a row one that is remembered.

    Side by side how much an entry weighs, and how similar it is to what the track takes in that frame; below,
    the class scores of what it takes. A track that takes another object looks like none of its entries.

    Args:
        remembered: ``(T, W)`` int64, the frames that entries come from, :data:`NO_ENTRY` where there is none.
        weights: ``(T, W)`` shares 0..1.
        similarities: ``(T, W)`` of an entry and the frame's vector, -1..1.
        scores: ``(T,)`` 0..1, NaN where the track takes nothing.
        marked: frames that get a line, as where the identity switches.

    Raises:
        ValueError: shapes differ, or a frame is remembered that is not there.
    """
    for name, values, shape in (
        ("weights", weights, remembered.shape),
        ("similarities", similarities, remembered.shape),
        ("scores", scores, remembered.shape[:1]),
    ):
        if values is not None and values.shape != shape:
            raise ValueError(f"{name} has shape {values.shape}, expected {shape}")
    length = len(remembered)
    if remembered.max(initial=NO_ENTRY) >= length:
        raise ValueError(f"frame {remembered.max()} is remembered, of frames 0 to {length - 1}")
    panels = {"weight in the memory": weights}
    if similarities is not None:
        panels["similarity with this frame"] = similarities
    side = min(max(2.6, 0.22 * length), 6.0)
    below = 0 if scores is None else 1.0
    figure = new_figure((side + 1.1) * len(panels) + 0.4, side + below + 0.8)
    from matplotlib.colors import Normalize, PowerNorm  # after new_figure, which says what is missing

    grid = figure.subplots(
        1 if scores is None else 2,
        len(panels),
        squeeze=False,
        sharex="col",
        height_ratios=[side] if scores is None else [side, below],
    )
    for x, (name, values) in enumerate(panels.items()):
        axes = grid[0, x]
        least = float(values[remembered != NO_ENTRY].min(initial=0.0))
        image = axes.imshow(
            _by_frame(remembered, values),
            cmap="viridis" if x else "PuBu",
            # Small weights are the ones to tell apart.
            norm=Normalize(least, 1.0) if x else PowerNorm(0.5, 0.0, 1.0),
            aspect="auto",
            interpolation="nearest",
        )
        axes.set_facecolor("#f3f7fb")
        axes.set_title(name, fontsize=10)
        plain(axes)
        figure.colorbar(image, ax=axes, fraction=0.05, pad=0.02)
        if not x:
            axes.set_ylabel("remembered frame")
        axes.set_yticks(some_frames(length))
        if scores is not None:
            _draw_scores(grid[1, x], scores, labelled=not x)
        for axes in grid[:, x]:
            for frame in marked:
                axes.axvline(frame - 0.5, color=MARK, linewidth=1.2, gid="marked")
        number_frames(grid[-1, x], length, most=12)
    if title:
        figure.suptitle(title, fontsize=10, x=0.01, ha="left")
    return figure


def _by_frame(remembered: np.ndarray, values: np.ndarray) -> np.ndarray:
    """``(T, T)`` values of ``(T, W)`` entries: rows are what is remembered, columns when; else NaN.

    A frame that is remembered twice counts with its last entry.
    """
    length = len(remembered)
    out = np.full((max(length, 1), max(length, 1)), np.nan)
    when, entry = np.nonzero(remembered != NO_ENTRY)
    out[remembered[when, entry], when] = values[when, entry]
    return out


def _draw_scores(axes: Axes, scores: np.ndarray, labelled: bool) -> None:
    plain(axes)
    axes.plot(range(len(scores)), scores, ".-", color=INK, linewidth=1)
    axes.set_ylim(-0.05, 1.05)
    axes.set_yticks([0, 1])
    axes.grid(axis="y", color="#dddddd")
    if labelled:
        axes.set_ylabel("score")

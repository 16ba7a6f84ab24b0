"""Who was where when: bars over the frames of a video."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from vistk.viz.colors import color_of, hex_of, ink_on
from vistk.viz.figures import FAINT, INK, MARK, new_figure, number_frames, plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NOBODY = -1
"""In place of a track that covers an instance."""

SWITCH = "switch"
"""``gid`` of the markers of identity switches in the figure."""


def switches(covering: np.ndarray) -> list[tuple[int, int]]:
    """(row, frame) where an instance is covered by another track than the last one that covered it.

    Args:
        covering: ``(N, T)`` int64 track ids, :data:`NOBODY` where there is none.
    """
    found = []
    for n, row in enumerate(covering):
        frames = np.flatnonzero(row != NOBODY)
        found += [(n, int(t)) for before, t in pairwise(frames) if row[before] != row[t]]
    return found


def instance_timeline(
    covering: np.ndarray,
    visible: np.ndarray,
    names: Sequence[str] | None = None,
    *,
    others: Mapping[int, np.ndarray] | None = None,
    title: str = "",
) -> Figure:
    """One row for each true instance, coloured by the track that covers it; triangles where that changes.

    Where nobody covers an instance its bar is empty, where it is absent there is none. Below are the tracks
    in those frames in which they cover no instance.

    Args:
        covering: ``(N, T)`` int64 id of the track that covers instance n in frame t, :data:`NOBODY` for none.
        visible: ``(N, T)`` bool, where instances are.
        names: of the instances; default: their numbers from 1.
        others: ``{track id: (T,) bool}``, where it is without an instance.

    Raises:
        ValueError: shapes or numbers of names differ.
    """
    names = [str(n + 1) for n in range(len(covering))] if names is None else names
    if covering.ndim != 2 or visible.shape != covering.shape or len(names) != len(covering):
        raise ValueError(
            f"covering has shape {covering.shape}, visible {visible.shape}, "
            f"and there are {len(names)} names; expected (N, T) twice and N"
        )
    length = covering.shape[1]
    alone = dict(sorted(_shown(others or {}, length).items()))
    figure, axes = _rows([*names, *(f"track {i}" for i in alone)], length, title)
    for n, (row, seen) in enumerate(zip(covering, visible, strict=True)):
        for start, stop in _runs(np.where(seen, row, NOBODY - 1)):
            if seen[start]:
                _bar(axes, n, start, stop, int(row[start]))
    for i, (track_id, there) in enumerate(alone.items(), start=len(names)):
        _track(axes, i, track_id, there)
    if alone and len(names):
        axes.axhline(len(names) - 0.5, color=FAINT, linewidth=0.8)
    changes = switches(np.where(visible, covering, NOBODY))
    if changes:
        rows, frames = np.array(changes).T
        axes.plot(frames - 0.5, rows - 0.43, "v", color=MARK, markersize=7, clip_on=False, gid=SWITCH)
        count = f"{len(changes)} identity switch{'es' if len(changes) > 1 else ''}"
        axes.set_title(count, loc="right", fontsize=9, color=MARK)
    return figure


def track_timeline(
    present: Mapping[int, np.ndarray], names: Mapping[int, str] | None = None, *, title: str = ""
) -> Figure:
    """One row for each track, where it is; for videos without ground truth.

    Args:
        present: ``{track id: (T,) bool}``.
        names: of tracks, beside their ids.

    Raises:
        ValueError: the lengths differ.
    """
    length = len(next(iter(present.values()), ()))
    names = names or {}
    figure, axes = _rows([f"{names.get(i, 'track')} {i}" for i in present], length, title)
    for row, (track_id, there) in enumerate(_shown(present, length, keep_absent=True).items()):
        _track(axes, row, track_id, there)
    return figure


def _shown(tracks: Mapping[int, np.ndarray], length: int, keep_absent: bool = False) -> dict[int, np.ndarray]:
    for track_id, there in tracks.items():
        if there.shape != (length,):
            raise ValueError(f"track {track_id} has shape {there.shape}, expected ({length},), one a frame")
    return {i: there.astype(bool) for i, there in tracks.items() if keep_absent or there.any()}


def _rows(labels: Sequence[str], length: int, title: str) -> tuple[Figure, Axes]:
    figure = new_figure(_MARGIN + _frame_width(length) * length, 0.9 + 0.34 * max(len(labels), 1))
    axes = figure.add_subplot()
    plain(axes)
    number_frames(axes, length)
    axes.set_ylim(max(len(labels), 1) - 0.5, -0.6)
    axes.set_yticks(range(len(labels)), labels)
    axes.set_title(title, loc="left", fontsize=10)
    return figure, axes


_MARGIN = 1.6  # inches


def _frame_width(length: int) -> float:
    """Inches for each of ``length`` frames."""
    return min(max(2.4, 0.32 * length), 14.4) / max(length, 1)


def _track(axes: Axes, row: int, track_id: int, there: np.ndarray) -> None:
    for start, stop in _runs(there):
        if there[start]:
            _bar(axes, row, start, stop, track_id)


def _bar(axes: Axes, row: int, start: int, stop: int, track_id: int) -> None:
    """Frames ``start`` up to ``stop`` of a row, in the colour of a track, with its id."""
    nobody = track_id == NOBODY
    axes.broken_barh(
        [(start - 0.5, stop - start)],
        (row - 0.36, 0.72),
        facecolor="white" if nobody else hex_of(track_id),
        edgecolor=FAINT if nobody else INK,
        linewidth=0.8,
        linestyle=(0, (2, 2)) if nobody else "solid",
    )
    text = str(track_id)
    low, high = axes.get_xlim()
    room = 72 * (stop - start) * _frame_width(round(high - low))  # points
    if not nobody and room > 5 * len(text) + 8:
        ink = tuple(value / 255 for value in ink_on(color_of(track_id)))
        axes.text((start + stop - 1) / 2, row, text, ha="center", va="center", fontsize=8, color=ink)


def _runs(values: np.ndarray) -> Iterator[tuple[int, int]]:
    """(first, last + 1) of every run of equal values."""
    if len(values):
        ends = [0, *(np.flatnonzero(values[1:] != values[:-1]) + 1).tolist(), len(values)]
        yield from pairwise(ends)

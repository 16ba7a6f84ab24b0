"""Matplotlib figures that nobody else's figures know of: no pyplot, no global state."""

from __future__ import annotations

import io
import itertools
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, FAINT, MARK = "#222222", "#9a9a9a", "#dc001e"
NOBODY = "#b4b4b4"
"""Colour of what belongs to no one."""


def new_figure(width: float, height: float) -> Figure:
    """An empty figure, in inches.

    Raises:
        ImportError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError('figures need matplotlib, which is missing: pip install -e ".[viz]"') from error
    return Figure(figsize=(width, height), layout="constrained")


def png(figure: Figure, dpi: int = 110) -> bytes:
    """A figure as a PNG file, the same bytes every time."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi, metadata={"Software": None})
    return buffer.getvalue()


def plain(axes: Axes) -> None:
    """Leave out what says nothing: the frame and the ticks of the axes."""
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.tick_params(length=0)


def some_frames(count: int, most: int = 25) -> range:
    """Of the frames 0 .. ``count`` - 1 every one, or every second, fifth, tenth ..: ``most`` or fewer."""
    steps = (factor * 10**power for power in itertools.count() for factor in (1, 2, 5))
    return range(0, count, next(step for step in steps if step * most >= count))


def number_frames(axes: Axes, count: int, most: int = 25) -> None:
    """The x axis counts frames 0 .. ``count`` - 1, each one wide, with its number in the middle."""
    axes.set_xlim(-0.5, max(count, 1) - 0.5)
    axes.set_xticks(some_frames(count, most))
    axes.set_xlabel("frame")

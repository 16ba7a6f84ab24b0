"""Progress bars for long reading and writing, on a terminal and in a log file."""

from __future__ import annotations

import sys
from typing import Any

from tqdm import tqdm


def style() -> dict[str, Any]:
    """Settings of a bar: a log file gets a line every half minute."""
    terminal = sys.stderr.isatty()
    return {"mininterval": 0.1 if terminal else 30.0, "ncols": None if terminal else 140}


def bar(total: int, what: str, unit: str, show: bool = True, **settings: Any) -> tqdm:
    """A bar with rate and time left, if there is anything to do."""
    return tqdm(total=total, desc=what, unit=unit, disable=not show or not total, **style(), **settings)

"""How a number of a report is named."""

from __future__ import annotations

from typing import NamedTuple

ALL = "all"


class Key(NamedTuple):
    """Which number it is."""

    metric: str
    category: str = ALL  # name of a class
    by: str = ALL  # attribute of a breakdown; "error", "association event", "oracle"
    group: str = ALL  # group of that attribute
    score_threshold: float | None = None  # where one takes part

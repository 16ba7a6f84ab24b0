"""How numbers are printed: percent, in GitHub tables."""

from __future__ import annotations

import math
from collections.abc import Sequence

from tabulate import tabulate


def percent(value: float | None) -> str:
    """``0.3618`` as ``"36.2"``; ``"-"`` where undefined."""
    return "-" if value is None or math.isnan(value) else f"{100 * value:.1f}"


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]], left: int = 0) -> str:
    """A GitHub table of finished cells; all but the first ``left`` columns are aligned to the right."""
    align = ["left" if i < left else "right" for i in range(len(header))]
    # tabulate counts columns by the rows, so without any there is nothing to align.
    return tabulate(rows, header, tablefmt="github", colalign=align if rows else None, disable_numparse=True)

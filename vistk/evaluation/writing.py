"""How numbers are written: percent in tables, files that are either whole or not there."""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tabulate import tabulate


def percent(value: float | None) -> str:
    """``0.3618`` as ``"36.2"``; ``"-"`` where undefined."""
    return "-" if value is None or math.isnan(value) else f"{100 * value:.1f}"


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]], left: int = 0) -> str:
    """A GitHub table of finished cells; all but the first ``left`` columns are aligned to the right."""
    align = ["left" if i < left else "right" for i in range(len(header))]
    # tabulate counts columns by the rows, so without any there is nothing to align.
    return tabulate(rows, header, tablefmt="github", colalign=align if rows else None, disable_numparse=True)


def write_text(path: str | Path, text: str) -> Path:
    """Writes ``text`` to a temporary file beside ``path`` and renames it; folders are made as needed."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        # mkstemp makes files private; a result is as readable as any other new file.
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
    return path

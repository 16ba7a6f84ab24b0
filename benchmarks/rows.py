"""Rows that a benchmark measured: on what, and how they are written."""

from __future__ import annotations

import csv
import io
import platform
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch

from vistk.files import write_text

CARD = ("device", "torch", "commit")
"""Columns of :func:`card`."""


def card(device: torch.device | str) -> dict[str, str]:
    """Where rows come from; the commit is empty outside of a repository."""
    return {"device": device_name(device), "torch": torch.__version__, "commit": _commit()}


@cache
def _commit() -> str:
    from vistk.comparison import commit  # imports much, and some benchmarks measure memory

    return commit() or ""


def device_name(device: torch.device | str) -> str:
    """The processor or the GPU, in words."""
    if torch.device(device).type == "cuda":
        return torch.cuda.get_device_name(device)
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or "CPU"


def write_rows(path: Path, columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> str:
    """Writes CSV, the whole file or none of it; returns its text.

    Raises:
        ValueError: a row has a column that is not among ``columns``; those that it lacks are empty.
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())
    return text.getvalue()

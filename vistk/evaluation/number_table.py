"""The numbers of a report as one pandas frame, one number a row.

``frame.query("by == 'all' and class == 'all'").pivot_table(index="results", columns=["data_set", "metric"],
values="value", sort=False)`` is the usual table.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from vistk.evaluation.bootstrap import Interval
from vistk.evaluation.keys import Key

MEASURED = "measured"

COLUMNS: Mapping[str, str] = {
    "data_set": "object",
    "split": "object",
    "results": "object",  # name of the results file, or of a published method
    "metric": "object",
    "class": "object",  # name of a class, or "all"
    "by": "object",  # attribute of a breakdown, or "all"
    "group": "object",  # group of that attribute, or "all"
    "score_threshold": "float64",  # NaN where none takes part
    "value": "float64",  # fraction 0..1 (MOTA may be negative) or count; NaN: undefined
    "low": "float64",  # of the interval over videos; NaN: not asked for
    "high": "float64",
    "source": "object",  # "measured", or where a published number stands
}
"""Columns of the frame and their types."""

DIFFERENCE_COLUMNS: Mapping[str, str] = {
    "baseline": "object",
    **{name: kind for name, kind in COLUMNS.items() if name != "source"},
}
"""Columns of the paired differences ``results - baseline``."""


def empty_frame(columns: Mapping[str, str] = COLUMNS) -> pd.DataFrame:
    """A frame without numbers."""
    return pd.DataFrame({name: pd.Series(dtype=kind) for name, kind in columns.items()})


def number_frame(
    numbers: Mapping[Key, float | Interval],
    constant: Mapping[str, Any],
    columns: Mapping[str, str] = COLUMNS,
) -> pd.DataFrame:
    """Numbers as rows; ``constant`` has the columns that are the same in all of them."""
    rows = []
    for key, number in numbers.items():
        interval = number if isinstance(number, Interval) else Interval(number, float("nan"), float("nan"))
        rows.append(
            {
                **constant,
                "metric": key.metric,
                "class": key.category,
                "by": key.by,
                "group": key.group,
                "score_threshold": float("nan") if key.score_threshold is None else key.score_threshold,
                "value": interval.value,
                "low": interval.low,
                "high": interval.high,
            }
        )
    return pd.DataFrame(rows, columns=list(columns)).astype(dict(columns))


def records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows as dicts for json: None where undefined."""
    plain = frame.astype(object)
    return plain.where(frame.notna(), None).to_dict("records")


def joined(frames: list[pd.DataFrame], columns: Mapping[str, str] = COLUMNS) -> pd.DataFrame:
    """One frame of all rows."""
    filled = [frame for frame in frames if len(frame)]
    return pd.concat(filled, ignore_index=True) if filled else empty_frame(columns)

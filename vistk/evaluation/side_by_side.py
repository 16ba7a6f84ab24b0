"""One table with columns for every data set and split: what was measured, and what was published."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pandas as pd

from vistk.evaluation.number_table import MEASURED
from vistk.evaluation.printing import Table
from vistk.evaluation.quoted import NOTE

NO_ROWS = pd.DataFrame()


def side_by_side(
    frame: pd.DataFrame,
    metrics: Sequence[str],
    cell: Callable[[pd.DataFrame], str],
    *,
    corner: str = "results",
    more: Mapping[str, Callable[[pd.DataFrame], str]] | None = None,
    undefined: bool = True,
    title: str = "",
    note: str = "",
) -> Table:
    """Rows of one name are one row; the columns are the metrics that each place has.

    Args:
        frame: one number a row, as a report's frame has it, of whole data sets.
        cell: text of one cell, of its rows of the frame: none, one, or several.
        corner: heading of the names.
        more: columns after the names, each made of all rows of one name.
        undefined: keep columns without any number.
        note: below the table; where rows are quoted, that follows.
    """
    more = more or {}
    places = distinct(frame, ["data_set", "split"])
    by_cell = dict(tuple(frame.groupby(["data_set", "split", "metric"], sort=False)))
    columns = [
        (*place, metric)
        for place in places
        for metric in metrics
        if (*place, metric) in by_cell and (undefined or by_cell[*place, metric]["value"].notna().any())
    ]
    measured = frame["source"] == MEASURED if "source" in frame else pd.Series(True, frame.index)
    sources = dict(frame.loc[~measured, ["results", "source"]].to_numpy()) if not measured.all() else {}
    rows, italic = [], []
    for i, (name,) in enumerate(distinct(frame, ["results"])):
        own = frame[frame["results"] == name]
        found = dict(tuple(own.groupby(["data_set", "split", "metric"])))
        row = [name, *(made(own) for made in more.values())]
        row += [cell(found.get(column, NO_ROWS)) for column in columns]
        rows.append([*row, *([sources.get(name, "measured here")] if sources else [])])
        italic += [i] if name in sources else []
    headings = [column[-1] if len(places) == 1 else " ".join(filter(None, column)) for column in columns]
    return Table(
        title,
        [corner, *more, *headings, *(["source"] if sources else [])],
        rows,
        italic=italic,
        note=" ".join(filter(None, [note, NOTE if sources else ""])),
    )


def distinct(frame: pd.DataFrame, columns: list[str]) -> list[tuple[Any, ...]]:
    """The combinations that occur, in the order of the frame."""
    return list(frame[columns].drop_duplicates().itertuples(index=False, name=None))

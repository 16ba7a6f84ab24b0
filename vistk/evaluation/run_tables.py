"""The tables of runs beside each other, made of their frames."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from vistk.evaluation.printing import Table, percent
from vistk.evaluation.report_tables import cells, verdict
from vistk.evaluation.side_by_side import distinct, side_by_side
from vistk.evaluation.tables import CARD_FIELDS

VERDICTS = ("AP",)
HOW = "Of the means over seeds, on equal videos; ± is half of an interval over resampled videos ({})."


def runs_side_by_side(frame: pd.DataFrame, metrics: Sequence[str]) -> Table:
    """One row for what a run is, columns for every data set and split; mean and spread over seeds."""
    places = distinct(frame, ["data_set", "split"])
    return side_by_side(
        frame,
        metrics,
        _mean_and_spread,
        corner="run",
        more={"seeds": _seeds},
        undefined=False,
        title="runs" if len(places) > 1 else f"runs, {' '.join(places[0])}",
        note="Percent; mean ± standard deviation over seeds.",
    )


def _seeds(rows: pd.DataFrame) -> str:
    return ", ".join(map(str, sorted(rows["seed"].dropna().unique()))) or "-"


def _mean_and_spread(rows: pd.DataFrame) -> str:
    """Undefined where any run is, as a mean over other runs would be another number."""
    if rows.empty or rows["value"].isna().any():
        return "-"
    values = rows["value"].to_numpy()
    return percent(values.mean()) + (f" ± {100 * values.std(ddof=1):.1f}" if len(values) > 1 else "")


def difference_tables(differences: pd.DataFrame, metrics: Sequence[str], confidence: float) -> list[Table]:
    """Paired differences to the first row, one table for each data set and split; some of the metrics."""
    out = []
    for data, split in distinct(differences, ["data_set", "split"]):
        own = differences.query("data_set == @data and split == @split")
        shown = [metric for metric in metrics if metric in set(own["metric"])]
        rows = [
            [label, *cells(own[own["results"] == label], shown, signed=True)]
            for (label,) in distinct(own, ["results"])
        ]
        sentences = [verdict(row, confidence) for _, row in own[own["metric"].isin(VERDICTS)].iterrows()]
        title = f"{data} {split}: difference to {own['baseline'].iloc[0]}"
        how = HOW.format(f"{100 * confidence:g} %")
        note = "\n".join([how, *([""] if sentences else []), *(f"- {sentence}" for sentence in sentences)])
        out.append(Table(title, ["run", *shown], rows, note=note))
    return out


def card_table(card: Mapping[str, Mapping[str, Any]]) -> Table:
    """What a reader needs to judge or repeat the numbers, one row a run."""
    fields = [name for name in CARD_FIELDS if any(own.get(name) is not None for own in card.values())]
    fields = [name for name in fields if name != "seeds"]
    rows = [
        [run, *("-" if own.get(name) is None else str(own[name]) for name in fields)]
        for run, own in card.items()
    ]
    return Table("cards", ["run", *fields], rows)

"""The table of a sweep: means and spread over seeds, paired differences to the first row, one card."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from vistk.evaluation.number_table import COLUMNS, joined, records
from vistk.evaluation.printing import Printable, Table
from vistk.evaluation.quoted import data_sets, quoted
from vistk.evaluation.report_tables import cells as printed
from vistk.evaluation.side_by_side import distinct, side_by_side
from vistk.evaluation.tables import CARD_FIELDS
from vistk.run_comparison import COMPARED, FEW_METRICS, PUBLISHED_SPLITS, RunComparison, compare_cells
from vistk.runs import Cell as Numbers
from vistk.runs import RunError, read_run
from vistk.sweeps.cells import Cell
from vistk.sweeps.definition import Published, Sweep

QUOTED = "*Quoted from the source beside them, not measured here: no test compares them.*"
PERCENT_METRICS = ("AP", "AP50", "AP75", "AR1", "AR10")


class NothingScoredError(RunError):
    """No finished run has a number."""


@dataclass(frozen=True)
class SweepTable(Printable):
    """What a sweep found; numbers are fractions.

    Attributes:
        title: a line above the tables.
        comparison: of the runs, with ``frame`` and ``differences``.
        published: rows of published tables on data or splits that were not measured; a report's frame.
        card: what holds of all runs, or how far it spreads.
    """

    title: str
    comparison: RunComparison
    published: pd.DataFrame
    card: Mapping[str, str]

    @property
    def frame(self) -> pd.DataFrame:  # type: ignore[override]
        """One number of one run a row, see :class:`vistk.run_comparison.RunComparison`."""
        return self.comparison.frame

    @cached_property
    def tables(self) -> list[Table]:
        """Rows side by side, their differences to the first, what was published, the card."""
        main = replace(self.comparison.tables[0], title=self.title)
        tables = [replace(main, header=["row", *main.header[1:]])]
        differences = self.comparison.differences
        if len(differences):
            places = distinct(differences, ["data_set", "split"])
            shown = COMPARED if len(places) < 3 else FEW_METRICS
            tables.append(
                side_by_side(
                    differences,
                    [metric for metric in self.comparison.metrics if metric in shown] or shown,
                    _difference,
                    corner="row",
                    undefined=False,
                    title=f"difference to {differences['baseline'].iloc[0]}",
                    note=f"Of the means over seeds, on equal videos; ± is half of an interval over resampled "
                    f"videos ({100 * self.comparison.confidence:g} %).",
                )
            )
        for data, split in distinct(self.published, ["data_set", "split"]):  # each from a source of its own
            own = self.published.query("data_set == @data and split == @split")
            title = f"published, {data} {split}"
            quoted = side_by_side(own, PERCENT_METRICS, _one, corner="row", undefined=False, title=title)
            tables.append(replace(quoted, note=QUOTED))
        card = "\n".join(f"- {name}: {value}" for name, value in self.card.items())
        return [*tables, *(Table("", (), (), note=note) for note in (*self.comparison.notes, card))]

    def as_dict(self) -> dict[str, Any]:
        """``numbers``, ``differences`` and ``published``, one dict a row; ``card``; ``cards`` of all runs."""
        own = self.comparison.as_dict()
        cards = {"card": dict(self.card), "cards": own.pop("card")}
        return {"title": self.title, **own, "published": records(self.published), **cards}

    def write(self, folder: Path) -> list[Path]:
        """``table.md``, ``.csv``, ``.tex`` and ``.json``."""
        forms = {"md": self.to_markdown, "csv": self.to_csv, "tex": self.to_latex, "json": self.to_json}
        for suffix, form in forms.items():
            form(folder / f"table.{suffix}")
        return [folder / f"table.{suffix}" for suffix in forms]


def make_table(
    sweep: Sweep,
    cells: Sequence[Cell],
    notes: Sequence[str],
    command: str,
    *,
    bootstrap: int = 1000,
    jobs: int = 1,
    progress: bool = False,
) -> SweepTable:
    """The table of the cells that are finished.

    Args:
        cells: some of :func:`vistk.sweeps.cells.make_cells`.
        notes: to stand below the tables, such as what failed.
        command: for the card.
        bootstrap: resamples of the videos; 0: no differences.
        jobs: processes that score results; the numbers do not depend on it.

    Raises:
        NothingScoredError: no finished run has a number.
        RunError: a run cannot be read, or no run has one of the metrics.
    """
    named: dict[str, set[str]] = {}  # kinds of data to the names that the sweep has for them
    for cell in cells:
        named.setdefault(cell.config.choices["data"], set()).add(cell.data)
    found: list[Numbers] = []
    cards: dict[str, Mapping[str, Any]] = {}
    for name in sweep.rows:
        for cell in cells:
            if cell.row == name and cell.metrics.is_file():
                numbers, cards[str(cell.run_dir)] = read_run(cell.run_dir)
                kind = cell.config.choices["data"]
                data = kind if len(named[kind]) == 1 else cell.data
                found += [replace(own, name=name, data=data) for own in numbers]
    if not found:
        raise NothingScoredError(
            "nothing is scored: the annotations of the data are hidden; data.local_split=0.15, in training "
            "too, holds out training videos to score"
            if cards
            else "nothing is scored: no run has finished"
        )
    places = {(own.data, own.split) for own in found}
    comparison = compare_cells(
        found,
        cards,
        baseline=next(iter(sweep.rows)),
        notes=notes,
        metrics=sweep.metrics,
        quote=sweep.quote and any(place in PUBLISHED_SPLITS for place in places),
        bootstrap=bootstrap,
        jobs=jobs,
        progress=progress,
    )
    beside = _frame(row for row in sweep.published if (row.data, row.split) in places)
    types = dict(comparison.frame.dtypes)
    if len(beside):
        frame = joined([comparison.frame, beside.reindex(columns=list(types)).astype(types)], types)
        comparison = replace(comparison, frame=frame)
    apart = _frame(row for row in sweep.published if (row.data, row.split) not in places)
    if sweep.quote:
        # Data whose official split is not among the measured ones: its annotations are hidden.
        beside_measured = {data for data, split in places if PUBLISHED_SPLITS.get((data, split)) == data}
        elsewhere = [data for data in data_sets() if data in named and data not in beside_measured]
        quotes = [quoted(data, shown_as=(data, "valid")) for data in elsewhere]
        apart = joined([apart, *quotes], COLUMNS)
    card = {"command": command, "seeds": ", ".join(map(str, sweep.seeds)), **summary(list(cards.values()))}
    return SweepTable(sweep.title or sweep.name, comparison, apart, card)


def _frame(rows: Any) -> pd.DataFrame:
    """Published rows as a report's frame, fractions."""
    entries = [
        {
            "data_set": row.data,
            "split": row.split,
            "results": f"{row.row}, published",  # not the name of the measured row
            "metric": metric,
            "value": value / 100,
            "source": row.source,
            **dict.fromkeys(("class", "by", "group"), "all"),
        }
        for row in rows
        for metric, value in _metrics(row).items()
    ]
    return pd.DataFrame(entries, columns=list(COLUMNS)).astype(dict(COLUMNS))


def _metrics(row: Published) -> dict[str, float]:
    found = {name: getattr(row, name) for name in PERCENT_METRICS}
    return {name: value for name, value in found.items() if value is not None}


def _one(rows: pd.DataFrame) -> str:
    return "-" if rows.empty else printed(rows, [rows["metric"].iloc[0]])[0]


def _difference(rows: pd.DataFrame) -> str:
    return "-" if rows.empty else printed(rows, [rows["metric"].iloc[0]], signed=True)[0]


def summary(cards: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """One card of many: what is equal, the range of what begins with a number, the count of all else."""
    names = dict.fromkeys([*CARD_FIELDS, *(name for card in cards for name in card)])
    out = {}
    for name in names:
        values = list(dict.fromkeys(str(card[name]) for card in cards if card.get(name) is not None))
        if not values or name in ("seeds", "command"):
            continue
        numbers = [re.match(r"(\d+(?:\.\d+)?)( .*|$)", value) for value in values]
        if len(values) <= 3:
            out[name] = " | ".join(values)
        elif all(numbers):
            by_size = sorted((match[1] for match in numbers if match), key=float)
            ends = {match[2] for match in numbers if match}
            out[name] = f"{by_size[0]} to {by_size[-1]}{ends.pop() if len(ends) == 1 else ''}"
        else:
            out[name] = f"{len(values)} different, in table.json"
    return out

"""Runs as the content of a page: the numbers of every row, and the cases behind each of them.

Nothing is measured here. The table has the numbers of ``metrics.json``, all others are those of
:func:`vistk.evaluation.scores.score` on the run's results files.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from vistk.data.progress import bar
from vistk.evaluation.breakdowns import ATTRIBUTES
from vistk.evaluation.explained import EVENTS, GAPS, KINDS
from vistk.evaluation.keys import ALL
from vistk.evaluation.number_table import MEASURED
from vistk.evaluation.scores import Scores
from vistk.pages.cases import Runs, Scored, failures_of, name_of, numbers_by_video, truth_of
from vistk.run_comparison import METRICS, RunComparison, compare_runs
from vistk.runs import ALL_ROWS, Cell, read_run
from vistk.schema import ConfigError
from vistk.trackers.registry import TrackerNameError, get_tracker

OCCLUSION = ("APso", "APmo", "APho")
NOT_OF_RESULTS = (
    "identity_permutations",
    "frames_per_second",
)  # in metrics.json, but no result is behind them
SAME = 1e-9  # numbers of metrics.json and of its results file differ by rounding alone

Content = dict[str, Any]
"""What the page is given: plain json values."""

Place = tuple[str, str]
"""Data set and split."""


@dataclass(frozen=True)
class Collected:
    """The content of a page without pictures, and what they are to be made of."""

    content: Content
    scored: Sequence[Scored]  # in the order of content["cases"]


def collect(
    paths: Sequence[str | Path],
    *,
    rows: str | Sequence[str] = ALL_ROWS,
    quote: bool = False,
    jobs: int = 1,
    progress: bool = False,
) -> Collected:
    """Reads runs and scores their results files with everything that the evaluator can explain.

    Args:
        paths: run directories, or folders of them.
        rows: which rows of each run: names, of which "own" is that of its tracker, "all" are all.
        quote: add published numbers of the data sets, marked as quoted.
        jobs: processes; the numbers do not depend on it.
        progress: show a bar.

    Raises:
        RunError, FileNotFoundError: a run cannot be read; the message says what is missing.
    """
    comparison = compare_runs(paths, rows=rows, quote=quote, bootstrap=0)
    frame = comparison.frame
    cells = _cells(comparison, rows)
    labels = list(dict.fromkeys(frame["results"]))
    places: list[Place] = list(dict.fromkeys(frame[["data_set", "split"]].itertuples(index=False, name=None)))
    table = _values(frame)
    runs, scored, cases, truths = Runs(), [], [], _Truths()
    notes = list(comparison.notes)
    without: dict[Place, str] = {}
    with bar(len(cells), "score", "result", show=progress, delay=1) as shown:
        for label, cell in cells:
            shown.set_postfix_str(f"{label}, {cell.split}", refresh=False)
            try:
                one = runs.find(label, cell)
                if isinstance(one, Scored):
                    results = one.results()
                    scores = one.score(results, jobs)
            except (ConfigError, ValueError, OSError) as error:
                one = f"no cases, as they cannot be read: {error}"
                notes.append(f"{label}, {cell.split}: {one}")
            place = (cell.data, cell.split)
            if isinstance(one, str):
                without.setdefault(place, f"{cell.split}: {one}")
            else:
                scored.append(one)
                cases.append(
                    {
                        "place": places.index(place),
                        "row": labels.index(label),
                        "seed": cell.seed,
                        "run": str(cell.run_dir),
                        "truth": truths.number(one, scores),
                        "threshold": one.score_threshold,
                        **numbers_by_video(scores),
                        **failures_of(one, results, scores),
                    }
                )
                notes += _departures(one, scores)
                _add_explained(table[*place, label], scores)
            shown.update(1)
    content: Content = {
        "metrics": _metrics(frame),
        "attributes": {name: attribute.what for name, attribute in ATTRIBUTES.items()},
        "errors": list(KINDS),
        "events": [f"{change}: {cause}" for change, cause in EVENTS],
        "gaps": list(GAPS),
        "places": [_place(place, places) | {"without": without.get(place)} for place in places],
        "rows": [_row(label, frame, cells) for label in labels],
        "numbers": [
            [
                {name: _mean_and_spread(values) for name, values in table.get((*place, label), {}).items()}
                for label in labels
            ]
            for place in places
        ],
        "truths": truths.contents,
        "cases": cases,
        "pictures": [],
        "cards": [
            {"run": run, **{key: str(value) for key, value in card.items() if value is not None}}
            for run, card in comparison.card.items()
        ],
        "notes": list(dict.fromkeys([*notes, *(f"{why}." for why in _not_said(without.values(), notes))])),
    }
    return Collected(content, scored)


def _not_said(reasons: Iterable[str], notes: Sequence[str]) -> list[str]:
    """Those that no note ends in: a note names the row as well."""
    return [why for why in reasons if not any(note.endswith(why) for note in notes)]


class _Truths:
    """The ground truths of the cases, numbered."""

    def __init__(self) -> None:
        self.known: list[Scored] = []
        self.contents: list[dict[str, Any]] = []

    def number(self, one: Scored, scores: Scores) -> int:
        for number, known in enumerate(self.known):
            if known.truth_key == one.truth_key:
                return number
        self.known.append(one)
        self.contents.append(truth_of(one, scores))
        return len(self.known) - 1


def _cells(comparison: RunComparison, rows: str | Sequence[str]) -> list[tuple[str, Cell]]:
    """The cells that were compared, each with the label that it has there."""
    frame = comparison.frame
    measured = frame[frame["source"] == MEASURED]
    shown = measured[["results", "run", "data_set", "split"]].drop_duplicates()
    read = [cell for run in comparison.card for cell in read_run(Path(run), rows)[0]]
    return list(zip(shown["results"], read, strict=True))


def _departures(one: Scored, scores: Scores) -> list[str]:
    """A note where ``metrics.json`` is not of the results file beside it."""
    for name, value in scores.metrics.items():
        said = one.cell.metrics.get(name)
        if isinstance(said, int | float) and (value is None or abs(said - value) > SAME):
            now = "is undefined" if value is None else f"scores {100 * value:.1f}"
            return [
                f"{one.cell.run_dir}: metrics.json says {name} {100 * said:.1f} of row {one.cell.row} on "
                f"{one.cell.split}, but its results file {now}; the table has the first, all else is of the "
                "second."
            ]
    return []


_Numbers = dict[str, list[float]]  # by name, one a run


def _values(frame: pd.DataFrame) -> dict[tuple[str, str, str], _Numbers]:
    """By data set, split and label, in the order of the runs."""
    out: dict[tuple[str, str, str], _Numbers] = {}
    columns = ["data_set", "split", "results", "metric", "value"]
    for data, split, label, metric, value in frame[columns].itertuples(index=False, name=None):
        if metric not in NOT_OF_RESULTS:
            out.setdefault((data, split, label), {}).setdefault(metric, []).append(float(value))
    return out


def _add_explained(numbers: _Numbers, scores: Scores) -> None:
    """Adds breakdowns, errors, events and gaps of one more run."""
    for key, number in scores.numbers.items():
        if key.category == ALL and key.by != ALL:
            numbers.setdefault(name_of(key), []).append(float(number))


def _mean_and_spread(values: Sequence[float]) -> list[float | None]:
    """Mean and standard deviation over runs. Undefined where any run is, as ``vistk compare`` has it."""
    found = np.array(values)
    if np.isnan(found).any():
        return [None, None]
    return [float(found.mean()), float(found.std(ddof=1)) if len(found) > 1 else None]


def _metrics(frame: pd.DataFrame) -> list[str]:
    """Columns of the table: those of ``vistk compare`` first, then all others that any run has."""
    defined = frame.loc[frame["value"].notna(), "metric"]
    found = [name for name in dict.fromkeys(defined) if name not in NOT_OF_RESULTS]
    first = [name for name in (*METRICS, *OCCLUSION) if name in found]
    return first + [name for name in found if name not in first]


def _place(place: Place, places: Sequence[Place]) -> dict[str, Any]:
    data, split = place
    alone = [other for _, other in places].count(split) == 1
    return {"data": data, "split": split, "name": split if alone else f"{data} {split}"}


def _row(label: str, frame: pd.DataFrame, cells: Sequence[tuple[str, Cell]]) -> dict[str, Any]:
    source = frame.loc[frame["results"] == label, "source"].iloc[0]
    found = [cell for name, cell in cells if name == label]
    return {
        "name": label,
        "seeds": sorted({cell.seed for cell in found}),
        "quoted": None if source == MEASURED else source,
        "given truth": bool(found) and _is_given_truth(found[0].row),
    }


def _is_given_truth(row: str) -> bool:
    """Whether a tracker knows the truth, as the oracle does: it is no rival of the others."""
    try:
        return get_tracker(row)[0].uses_targets
    except (TrackerNameError, ImportError):  # of a package that is not installed here
        return False

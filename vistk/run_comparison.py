"""Runs put beside each other: means over seeds, and paired differences.

Runs are one row of the table where they differ in nothing but seed,
data set and what the data set brings along; data sets and splits are its columns.
"""

from __future__ import annotations

import itertools
import json
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from accelerate import Accelerator

from vistk import config as configuration
from vistk.data.progress import bar
from vistk.evaluation.bootstrap import percentile_interval, resampled_metrics, video_draws
from vistk.evaluation.files import GroundTruth, Results
from vistk.evaluation.keys import Key
from vistk.evaluation.number_table import COLUMNS, DIFFERENCE_COLUMNS, MEASURED, joined, number_frame, records
from vistk.evaluation.parts import MEAN, PARTS, split_results
from vistk.evaluation.printing import Printable, Table
from vistk.evaluation.quoted import data_sets, quoted
from vistk.evaluation.run_tables import card_table, difference_tables, runs_side_by_side
from vistk.evaluation.scores import score
from vistk.runs import ALL_ROWS, OWN, Cell, RunError, find_runs, read_run, without_runs
from vistk.schema import ConfigError
from vistk.splits import EvaluationSplit, open_data

METRICS = ("AP", "AP50", "AP75", "AR1", "AR10", "HOTA", "AssA", "IDF1")
FEW_METRICS = ("AP", "AssA", "IDF1")  # where more than two data sets and splits stand side by side
COMPARED = ("AP", "AP50", "HOTA", "AssA", "IDF1")
PUBLISHED_SPLITS = {
    **{(data, "valid"): data for data in data_sets()},
    ("ytvis2022", f"valid ({PARTS['S']})"): "ytvis2021",  # the same videos
    ("ytvis2022", f"valid ({MEAN})"): "ytvis2022",
}
"""Data set of the published numbers that belong beside a data set and split."""


@dataclass(frozen=True)
class RunComparison(Printable):
    """Runs beside each other; numbers are fractions.

    Attributes:
        frame: one number of one run a row: a report's frame, in which ``results`` is what the run is, with
            ``seed`` and ``run``; quoted rows have neither.
        differences: paired differences to the first row, of the means over its seeds, with their intervals.
        card: of each run, by its directory.
        notes: what was not compared, and why.
        confidence: of the intervals.
    """

    frame: pd.DataFrame
    differences: pd.DataFrame
    card: Mapping[str, Mapping[str, Any]]
    notes: Sequence[str]
    confidence: float
    metrics: Sequence[str]  # that are printed

    @cached_property
    def tables(self) -> list[Table]:
        """Side by side, differences, cards."""
        return [
            runs_side_by_side(self.frame, self.metrics),
            *difference_tables(self.differences, COMPARED, self.confidence),
            card_table(self.card),
            *(Table("", (), (), note=note) for note in self.notes),
        ]

    def as_dict(self) -> dict[str, Any]:
        """``numbers`` and ``differences``, one dict a row; ``card``, ``notes``."""
        return {
            "numbers": records(self.frame),
            "differences": records(self.differences),
            "card": {run: dict(card) for run, card in self.card.items()},
            "notes": list(self.notes),
        }


def compare_runs(
    paths: Sequence[str | Path],
    *,
    rows: str | Sequence[str] = OWN,
    metrics: Sequence[str] | None = None,
    quote: bool = False,
    bootstrap: int = 1000,
    seed: int = 0,
    confidence: float = 0.95,
    jobs: int = 1,
    progress: bool = False,
) -> RunComparison:
    """Reads runs and puts them beside each other.

    The numbers are those of ``metrics.json``. For the paired differences to the first row, results are
    scored again on resampled videos, where the data can still be read; where not, ``notes`` says so.

    Args:
        paths: run directories, or folders of them.
        rows: which rows of each run: names, of which "own" is that of its tracker, "all" are all.
        metrics: to print; the frame has all. None: :data:`METRICS`, or :data:`FEW_METRICS`.
        quote: add published numbers of the data sets, marked as quoted.
        bootstrap: resamples of the videos; 0: no differences.
        seed, confidence: of the bootstrap.
        jobs: processes; the numbers do not depend on it.
        progress: show a bar.

    Raises:
        RunError, FileNotFoundError: a run cannot be read; the message says what is missing.
    """
    found, card = [], {}
    for run_dir in find_runs(paths):
        own, card[str(run_dir)] = read_run(run_dir, rows)
        found += own
    there = {OWN, ALL_ROWS, *(cell.row for cell in found)}
    missing = [row for row in ([rows] if isinstance(rows, str) else rows) if row not in there]
    if missing or not found:
        have = "1 run has" if len(card) == 1 else f"{len(card)} runs have"
        if missing:
            raise RunError(f"{have} no scored row {', '.join(missing)}; expected --rows own, all, or names")
        raise RunError(f"{have} no split that was scored; expected one whose ground truth is not hidden")
    found, common = _told_apart(found)
    notes = [f"All with {' '.join(common)}."] if common else []
    notes += [f"{path}: no finished run there or below." for path in without_runs(paths)]
    return compare_cells(
        found,
        card,
        notes=notes,
        metrics=metrics,
        quote=quote,
        bootstrap=bootstrap,
        seed=seed,
        confidence=confidence,
        jobs=jobs,
        progress=progress,
    )


def compare_cells(
    found: Sequence[Cell],
    card: Mapping[str, Mapping[str, Any]],
    *,
    baseline: str | None = None,
    notes: Sequence[str] = (),
    metrics: Sequence[str] | None = None,
    quote: bool = False,
    bootstrap: int = 1000,
    seed: int = 0,
    confidence: float = 0.95,
    jobs: int = 1,
    progress: bool = False,
) -> RunComparison:
    """Rows of runs beside each other: cells of one label are one row.

    Args:
        found: at least one, in the order in which the rows are to stand.
        card: of each run, by its directory.
        baseline: label that the others are compared with; None: that of the first one.
        notes: to stand below the tables.
        metrics, quote, bootstrap, seed, confidence, jobs, progress: see :func:`compare_runs`.

    Raises:
        RunError: nothing is published of these data sets, or no run has one of the metrics.
    """
    baseline = baseline or found[0].label
    notes = list(notes)
    frames = [_cell_frame(cell) for cell in found]
    places = list(dict.fromkeys((cell.data, cell.split) for cell in found))
    if quote:
        known = [place for place in places if place in PUBLISHED_SPLITS]
        if not known:
            shown = ", ".join(" ".join(place) for place in places)
            raise RunError(
                f"no published numbers of {shown}, expected the split valid of {', '.join(data_sets())}"
            )
        frames += [quoted(PUBLISHED_SPLITS[place], shown_as=place) for place in known]
    compared = []
    if bootstrap and len({cell.label for cell in found}) > 1:
        truths = _Truths()
        with bar(len(found), "compare", "result", show=progress, delay=1) as shown:
            for data, split in places:
                own = [cell for cell in found if (cell.data, cell.split) == (data, split)]
                if all(cell.label != baseline for cell in own):
                    notes.append(f"No paired differences on {data} {split}: {baseline} is not there.")
                    continue
                try:
                    samples = _samples(own, truths, bootstrap, seed, jobs, shown.update)
                except (ConfigError, ValueError, OSError) as error:
                    notes.append(f"No paired differences on {data} {split}: {error}")
                    continue
                compared += _paired(samples, baseline, data, split, confidence)
    frame = joined(frames, dict(COLUMNS) | {"seed": "Int64", "run": "object"})
    metrics = tuple(metrics or (METRICS if len(places) < 3 else FEW_METRICS))
    unknown = [metric for metric in metrics if metric not in set(frame["metric"])]
    if unknown:
        raise RunError(f"no run has the metric {unknown[0]}, found {', '.join(frame['metric'].unique())}")
    return RunComparison(frame, joined(compared, DIFFERENCE_COLUMNS), card, notes, confidence, metrics)


def _told_apart(found: list[Cell]) -> tuple[list[Cell], list[str]]:
    """Without the words that all runs share, and these. Runs that say the same words with the same seed are
    different rows, named by their directories.
    """
    common = [word for word in found[0].words if all(word in cell.words for cell in found)]
    found = [replace(c, words=tuple(word for word in c.words if word not in common)) for c in found]
    times = Counter((c.label, c.data, c.split, c.seed) for c in found)
    again = {label for (label, *_), count in times.items() if count > 1}
    return [replace(c, words=(*c.words, f"[{c.run_dir}]")) if c.label in again else c for c in found], common


def _cell_frame(cell: Cell) -> pd.DataFrame:
    numbers = {
        Key(name): float("nan") if value is None else float(value)
        for name, value in cell.metrics.items()
        if isinstance(value, int | float) or value is None
    }
    constant = {"data_set": cell.data, "split": cell.split, "results": cell.label, "source": MEASURED}
    frame = number_frame(numbers, constant)
    return frame.assign(seed=cell.seed, run=str(cell.run_dir)).astype({"seed": "Int64"})


class _Truths:
    """The annotations that runs were scored against, read once each."""

    def __init__(self) -> None:
        self._read: dict[str, Mapping[str, EvaluationSplit]] = {}

    def scored(self, cell: Cell) -> tuple[Sequence[tuple[GroundTruth, Path | Results]], float]:
        """Truth and results of a cell, or of the parts that it is the mean of; the run's score threshold."""
        config = configuration.load(cell.run_dir).config
        key = json.dumps(configuration.to_dict(config)["data"], sort_keys=True, default=str)
        if key not in self._read:
            with redirect_stdout(sys.stderr):  # what is read is no part of the tables
                data = open_data(replace(config, eval_only=True), Accelerator(cpu=True))
            self._read[key] = data.evaluation
        splits = self._read[key]
        for name, split in splits.items():
            results = cell.run_dir / "rows" / cell.row / name / "results.json"
            if name == cell.split and split.truth is not None:
                return [(split.truth, results)], config.evaluation.track_score
            words = {f"{name} ({PARTS[suffix]})": [suffix] for suffix in split.parts}
            words[f"{name} ({MEAN})"] = list(split.parts)
            if split.parts and cell.split in words:
                own = split_results(split.parts, results)
                pairs = [(split.parts[suffix], own[suffix]) for suffix in words[cell.split]]
                return pairs, config.evaluation.track_score
        raise RunError(f"{cell.split} is no split with annotations")


_Samples = Mapping[str, Mapping[int, Mapping[str, np.ndarray]]]


def _samples(
    found: Sequence[Cell],
    truths: _Truths,
    resamples: int,
    seed: int,
    jobs: int,
    progress: Callable[[int], object],
) -> _Samples:
    """``{label: {seed: {metric: (B,)}}}``, all on the same resampled videos."""
    by_label: dict[str, dict[int, dict[str, np.ndarray]]] = {}
    first: list[str] = []
    for cell in found:
        pairs, threshold = truths.scored(cell)
        sources = [truth.source for truth, _ in pairs]
        first = first or sources
        if sources != first:
            raise RunError(f"annotations are of different files, {first[0]} and {sources[0]}")
        of_parts = []
        for part, (truth, results) in enumerate(pairs):
            draws = video_draws(len(truth.videos), resamples, (seed, part) if part else seed)
            scores = score(truth, results, score_threshold=threshold, jobs=jobs)
            of_parts.append(resampled_metrics(scores, draws))
        means = {
            metric: np.mean([values[metric] for values in of_parts], axis=0)
            for metric in of_parts[0]
            if all(metric in values for values in of_parts)
        }
        by_label.setdefault(cell.label, {})[cell.seed] = means
        progress(1)
    return by_label


def _paired(samples: _Samples, baseline: str, data: str, split: str, confidence: float) -> list[pd.DataFrame]:
    """Differences of the means over the seeds that both have: others would bring in the difference of seeds.

    What has one seed alone, as a tracker without weights, stands for all seeds.
    """
    out = []
    for label, runs in samples.items():
        others = samples.get(baseline, {})
        if min(len(runs), len(others)) == 1:
            pairs = list(itertools.product(runs.values(), others.values()))
        else:
            pairs = [(runs[seed], others[seed]) for seed in sorted(runs.keys() & others.keys())]
        if label == baseline or not pairs:
            continue
        numbers = {
            Key(metric): percentile_interval(
                np.mean([own[metric] - other[metric] for own, other in pairs], axis=0), confidence
            )
            for metric in COMPARED
            if all(metric in own and metric in other for own, other in pairs)
        }
        constant = {"data_set": data, "split": split, "results": label, "baseline": baseline}
        out.append(number_frame(numbers, constant, DIFFERENCE_COLUMNS))
    return out

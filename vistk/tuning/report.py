"""What a search found: default beside best, on other videos than it was tuned on, and on those."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from vistk.evaluation.bootstrap import percentile_interval, resampled_metrics, video_draws
from vistk.evaluation.files import GroundTruth
from vistk.evaluation.keys import Key
from vistk.evaluation.number_table import (
    COLUMNS,
    DIFFERENCE_COLUMNS,
    MEASURED,
    joined,
    number_frame,
    records,
)
from vistk.evaluation.printing import Printable, Table, percent, plural
from vistk.evaluation.report_tables import cells, verdict
from vistk.evaluation.scores import Predicted, score
from vistk.tuning.knobs import Knob, said, words
from vistk.tuning.search import Trial

DEFAULT, BEST, MEAN = "default", "best", "mean"
TUNED, OTHER = "tuned on", "other"
"""Roles of splits."""

SHOWN = ("AP", "AssA", "IDF1")
COMPARED = ("AP", "AP50", "HOTA", "AssA", "IDF1")
CONFIDENCE = 0.95


@dataclass(frozen=True)
class SplitNumbers:
    """Default and best on one split.

    Attributes:
        values: ``{row: {metric: number}}``; of parts that are scored apart, the means.
        samples: the same on resampled videos, ``(1 + B,)``; empty where no intervals are wanted.
    """

    name: str
    role: str
    values: Mapping[str, Mapping[str, float]]
    samples: Mapping[str, Mapping[str, np.ndarray]]


def numbers_of(
    name: str,
    role: str,
    results: Mapping[str, Sequence[tuple[GroundTruth, Predicted]]],
    score_threshold: float,
    bootstrap: int,
    seed: int,
) -> SplitNumbers:
    """Score both rows on a split.

    Args:
        results: truth and predictions by row, of the split or of each of its parts.
        bootstrap: resamples of the videos, the same for all rows; 0: none.
        seed: of the resampling.
    """
    values, samples = {}, {}
    for row, parts in results.items():
        scored = [score(truth, own, score_threshold=score_threshold) for truth, own in parts]
        found = [
            {name: np.nan if value is None else value for name, value in one.metrics.items()}
            for one in scored
        ]
        values[row] = {metric: float(mean) for metric, mean in _means(found).items()}
        if bootstrap:
            draws = [
                video_draws(len(truth.videos), bootstrap, (seed, i)) for i, (truth, _) in enumerate(parts)
            ]
            samples[row] = _means(
                [resampled_metrics(one, own) for one, own in zip(scored, draws, strict=True)]
            )
    return SplitNumbers(name, role, values, samples)


def with_means(splits: Sequence[SplitNumbers]) -> list[SplitNumbers]:
    """The splits of one role and, of several, the mean over them; each is resampled by itself."""
    if len(splits) < 2:
        return list(splits)
    values, samples = (
        {row: _means([parts[row] for parts in found]) for row in found[0]}
        for found in ([one.values for one in splits], [one.samples for one in splits])
    )
    return [*splits, SplitNumbers(MEAN, splits[0].role, values, samples)]


def _means(found: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Of what all have."""
    common = [name for name in found[0] if all(name in one for one in found)]
    return {name: np.mean([one[name] for one in found], axis=0) for name in common}


def frames_of(data: str, splits: Iterable[SplitNumbers]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """``frame`` and ``differences`` of :class:`TuningReport`."""
    frames, differences = [], []
    for split in splits:
        place = {"data_set": data, "split": split.name}
        for row, values in split.values.items():
            numbers = {Key(metric): float(value) for metric, value in values.items()}
            constant = {**place, "results": row, "source": MEASURED}
            frames.append(number_frame(numbers, constant).assign(role=split.role))
        if split.samples:
            default, best = split.samples[DEFAULT], split.samples[BEST]
            paired = {
                Key(metric): percentile_interval(best[metric] - default[metric], CONFIDENCE)
                for metric in COMPARED
                if metric in best
            }
            constant = {**place, "results": BEST, "baseline": DEFAULT}
            differences.append(number_frame(paired, constant, DIFFERENCE_COLUMNS))
    return joined(frames, {**COLUMNS, "role": "object"}), joined(differences, DIFFERENCE_COLUMNS)


@dataclass(frozen=True)
class TuningReport(Printable):
    """Numbers are fractions.

    Attributes:
        frame: one number a row, as a report's frame has it; ``results`` is "default" or "best", ``role`` says
            whether the split was tuned on.
        differences: best - default on the splits that were not, with intervals over videos.
        knobs, default, best: what was searched, the first trial, and the one that is proposed.
        losses: of ``best``, for each knob that goes back to its default alone; None: it cannot.
        trials: number of them.
        notes: sentences below the tables.
        asked: what a later call has to ask for, to be given this again.
    """

    metric: str
    frame: pd.DataFrame
    differences: pd.DataFrame
    knobs: Sequence[Knob]
    default: Trial
    best: Trial
    losses: Mapping[str, float | None]
    trials: int
    notes: Sequence[str]
    card: Mapping[str, Any]
    asked: Mapping[str, Any]

    @property
    def words(self) -> list[str]:
        """What to say to have the best: the knobs that are not as the words of the search had them."""
        best = self.best.values
        changed = [knob.name for knob in self.knobs if best[knob.name] != self.default.values[knob.name]]
        return words({name: best[name] for name in changed})

    @cached_property
    def tables(self) -> list[Table]:
        """Knobs; numbers on other videos; the optimistic ones; notes, card."""
        out = [self._knob_table()]
        if OTHER in set(self.frame["role"]):
            metrics = dict.fromkeys([self.metric, *SHOWN])
            out.append(
                self._split_table(OTHER, "on other videos than were tuned on", [*metrics], self._verdicts())
            )
        note = (
            f"Optimistic: the best of {plural(self.trials, 'trial')} was chosen by these numbers, so it "
            "gains here even where there is nothing to gain."
        )
        out.append(self._split_table(TUNED, "on the videos that were tuned on", [self.metric], note))
        card = "\n".join(f"- {name}: {value}" for name, value in self.card.items() if value is not None)
        return [*out, *(Table("", (), (), note=note) for note in (*self.notes, card))]

    def as_dict(self) -> dict[str, Any]:
        """``words``, ``knobs``, ``numbers``, ``differences``, ``notes``, ``card`` and ``asked``."""
        return {
            "metric": self.metric,
            "trials": self.trials,
            "words": self.words,
            "knobs": {
                knob.name: {
                    "tried": str(knob),
                    DEFAULT: knob.default,
                    BEST: self.best.values[knob.name],
                    "worth": self.losses.get(knob.name),
                }
                for knob in self.knobs
            },
            "numbers": records(self.frame),
            "differences": records(self.differences),
            "notes": list(self.notes),
            "card": dict(self.card),
            "asked": dict(self.asked),
        }

    def write(self, folder: Path) -> list[Path]:
        """``table.md``, ``.csv``, ``.tex`` and, last, ``.json``."""
        forms = {"md": self.to_markdown, "csv": self.to_csv, "tex": self.to_latex, "json": self.to_json}
        for suffix, form in forms.items():
            form(folder / f"table.{suffix}")
        return [folder / f"table.{suffix}" for suffix in forms]

    def _knob_table(self) -> Table:
        rows = []
        for knob in self.knobs:
            loss = self.losses.get(knob.name)
            values = said(knob.default), said(self.best.values[knob.name])
            rows.append([f"tracker.{knob.name}", str(knob), *values, percent(loss)])
        if self.words:
            note = (
                f"Best: `{' '.join(self.words)}`\n\nWorth: what {self.metric} on the videos that were tuned "
                "on would lose if this knob alone went back to its default; where that costs nothing, it did."
            )
        else:
            note = "No trial was better than the default."
        title = (
            f"{self.card['tracker']} on {self.card['data']}, {self.metric} of {plural(self.trials, 'trial')}"
        )
        return Table(title, ["knob", "tried", DEFAULT, BEST, "worth"], rows, left=2, note=note)

    def _split_table(self, role: str, title: str, metrics: Sequence[str], note: str) -> Table:
        """A split a row: default and best, and what is gained."""
        own = self.frame[self.frame["role"] == role].set_index(["split", "results", "metric"])["value"]
        paired = {(row.split, row.metric): row for row in self.differences.itertuples() if role == OTHER}
        rows = []
        for name in dict.fromkeys(own.index.get_level_values("split")):
            row = [name]
            for metric in metrics:
                default, best = own[name, DEFAULT, metric], own[name, BEST, metric]
                row += [percent(default), percent(best)]
                if (name, metric) in paired:
                    found = pd.DataFrame([paired[name, metric]])
                    row += cells(found, [metric], signed=True)
                else:
                    row.append(f"{'+' if best > default else ''}{percent(best - default)}")
            rows.append(row)
        header = [heading for m in metrics for heading in (f"{m} {DEFAULT}", f"{m} {BEST}", "gain")]
        return Table(title, ["split", *header], rows, note=note)

    def _verdicts(self) -> str:
        """On the mean over the splits, or on the only one."""
        own = self.differences[self.differences["metric"] == self.metric]
        lines = [f"{row['split']}: {verdict(row, CONFIDENCE)}" for _, row in own.tail(1).iterrows()]
        half = f"Percent; ± is half of an interval over resampled videos ({100 * CONFIDENCE:g} %)."
        return "\n\n".join([*lines, half] if lines else ["Percent."])

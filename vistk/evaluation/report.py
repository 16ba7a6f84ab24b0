"""One evaluation: the numbers of one results file or of several against the same ground truth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd

from vistk.data.progress import bar
from vistk.evaluation.bootstrap import differences, intervals, require_confidence, resampled, video_draws
from vistk.evaluation.breakdowns import ATTRIBUTES
from vistk.evaluation.files import EvaluationFileError, GroundTruth, Results, load_ground_truth
from vistk.evaluation.keys import Key
from vistk.evaluation.number_table import (
    DIFFERENCE_COLUMNS,
    MEASURED,
    empty_frame,
    joined,
    number_frame,
    records,
)
from vistk.evaluation.printing import Printable, Table
from vistk.evaluation.quoted import data_sets, quoted, recognised
from vistk.evaluation.report_tables import report_tables
from vistk.evaluation.scores import SCORE_THRESHOLD, Predicted, Scores, Truth, score

METRICS = ("ap", "hota", "errors", "gaps")
DEFAULT_METRICS = ("ap", "hota")
SWEEP = tuple(round(0.1 * step, 1) for step in range(10))
"""Score thresholds of a sweep."""

Many = Predicted | Sequence[str | Path] | Mapping[str, Predicted]
"""One results file, or several: a list of paths, or ``{name: results}``."""


@dataclass(frozen=True)
class Report(Printable):
    """Numbers of results files on one ground truth, fractions 0..1 throughout; percent only in print.

    Attributes:
        frame: one number a row, see :mod:`vistk.evaluation.number_table`.
        differences: paired differences of every number to the first results file, with their intervals;
            empty without a bootstrap or with one results file.
        scores: of each results file, by name.
        card: what was evaluated, and how.
    """

    frame: pd.DataFrame
    differences: pd.DataFrame
    scores: Mapping[str, Scores]
    card: Mapping[str, Any]

    @property
    def metrics(self) -> dict[str, float | None]:
        """:attr:`Scores.metrics` of the only results file.

        Raises:
            ValueError: there are several; see ``frame`` or ``scores``.
        """
        if len(self.scores) != 1:
            raise ValueError(f"a report of {len(self.scores)} results files: take frame or scores[name]")
        return next(iter(self.scores.values())).metrics

    @cached_property
    def tables(self) -> list[Table]:
        """The tables that are printed."""
        return report_tables(self.frame, self.differences, self.card)

    def as_dict(self) -> dict[str, Any]:
        """``card``; ``metrics``, ``per_category`` and ``counts`` by results file; and all ``numbers`` and
        ``differences``, one dict a row. Undefined numbers are None.
        """
        return {
            "card": dict(self.card),
            "metrics": {name: scores.metrics for name, scores in self.scores.items()},
            "per_category": {name: scores.per_category for name, scores in self.scores.items()},
            "counts": {name: scores.counts for name, scores in self.scores.items()},
            "numbers": records(self.frame),
            "differences": records(self.differences),
        }


def evaluate(
    ground_truth: Truth,
    results: Many,
    *,
    metrics: Sequence[str] = DEFAULT_METRICS,
    by: Sequence[str] = (),
    score_threshold: float | Sequence[float] = SCORE_THRESHOLD,
    bootstrap: int = 0,
    seed: int = 0,
    confidence: float = 0.95,
    lenient: bool = False,
    quote: bool | str = False,
    data: str | None = None,
    split: str | None = None,
    jobs: int = 1,
    progress: bool = False,
) -> Report:
    """Scores results files: AP and AR as YouTube-VIS and OVIS define them, HOTA, IDF1 and CLEAR.

    Args:
        ground_truth: a json file or its parsed content.
        results: a json file or its parsed content; or several, as a list of paths or ``{name: results}``,
            of which the first is what the others are compared with.
        metrics: some of "ap", "hota" (with IDF1 and CLEAR), "errors" (what each kind of error costs) and
            "gaps" (what an oracle would gain).
        by: breakdowns by attributes of the instances: some of
            :data:`vistk.evaluation.breakdowns.ATTRIBUTES`.
        score_threshold: predictions below it do not take part in HOTA, IDF1 and CLEAR (AP has all).
            Several make a sweep; the first is that of the breakdowns.
        bootstrap: resamples of the videos, for the intervals of all numbers and, with several results
            files, of their paired differences to the first; 0: none.
        seed, confidence: of the bootstrap.
        lenient: leave out and count entries of results files that cannot be used.
        quote: add published numbers: of the data set that the categories tell, or of the one named.
        data, split: what to call the ground truth in the frame; by default from its path.
        jobs: processes; the numbers do not depend on it.
        progress: show a bar.

    Raises:
        EvaluationFileError, FileNotFoundError: a file cannot be used; the message says what to mend.
        ValueError: an argument is not one of those above.
    """
    wanted = _known("metrics", metrics, METRICS)
    if not wanted:
        raise EvaluationFileError(f"metrics: found none, expected some of {', '.join(METRICS)}")
    require_confidence(confidence)
    by = _known("by", by, ATTRIBUTES)
    truth = load_ground_truth(ground_truth)
    place = named_place(truth.source)
    constant = {"data": data or place[0], "split": split if split is not None else place[1]}
    published = _published(truth, quote, (constant["data"], constant["split"]))
    files = named_results(results)
    draws = video_draws(len(truth.videos), bootstrap, seed) if bootstrap and truth.videos else None
    frames, compared, scored = [], [], {}
    baseline = ""
    first_samples: dict[Key, np.ndarray] = {}
    with bar(len(files) * len(truth.videos), "evaluate", "video", show=progress, delay=1) as shown:
        for name, file in files.items():
            shown.set_postfix_str(name, refresh=False)
            scores = score(
                truth,
                file,
                ap="ap" in wanted,
                tracking="hota" in wanted,
                errors="errors" in wanted,
                gaps="gaps" in wanted,
                by=by,
                score_threshold=score_threshold,
                lenient=lenient,
                jobs=jobs,
                progress=shown.update,
            )
            scored[name] = scores
            row = constant | {"results": name, "source": MEASURED}
            if draws is None:
                frames.append(number_frame(scores.numbers, row))
                continue
            # Only a bar that is there: one drawn before its delay is over would not be closed either.
            shown.set_postfix_str(f"{name}, resampling", refresh=progress and shown.last_print_n > 0)
            samples = resampled(scores, draws)
            found = intervals(samples, confidence)
            numbers = {
                key: replace(found[key], value=value) if key in found else value
                for key, value in scores.numbers.items()
            }
            frames.append(number_frame(numbers, row))
            if not first_samples:
                baseline, first_samples = name, samples
                continue
            paired = intervals(differences(first_samples, samples), confidence)
            row = constant | {"results": name, "baseline": baseline}
            compared.append(number_frame(paired, row, DIFFERENCE_COLUMNS))
    card = {
        "ground truth": truth.source,
        "results": {name: scores.results for name, scores in scored.items()},
        "videos": len(truth.videos),
        "instances": sum(len(video.instances) for video in truth.videos),
        "predictions": {name: scores.num_predictions for name, scores in scored.items()},
        "skipped": {name: dict(scores.skipped) for name, scores in scored.items() if scores.skipped},
        "confidence": confidence,
        "intervals": None
        if draws is None
        else f"{100 * confidence:g} %, {bootstrap} resamples of {len(truth.videos)} videos, seed {seed}",
    }
    return Report(joined([*frames, published]), joined(compared, DIFFERENCE_COLUMNS), scored, card)


def _known(what: str, given: Sequence[str], known: Sequence[str] | Mapping[str, Any]) -> tuple[str, ...]:
    names = (given,) if isinstance(given, str) else tuple(given)
    for name in names:
        if name not in known:
            raise EvaluationFileError(f"{what}: found {name!r}, expected some of {', '.join(known)}")
    return names


def _published(truth: GroundTruth, quote: bool | str, shown_as: tuple[str, str]) -> pd.DataFrame:
    if quote is False:
        return empty_frame()
    name = recognised(truth) if quote is True else quote
    if name is None:
        raise EvaluationFileError(
            f"{truth.source}: its categories are those of no data set with published numbers; expected the "
            f"name of one: {', '.join(data_sets())}"
        )
    return quoted(name, shown_as=shown_as)


def named_place(source: str) -> tuple[str, str]:
    """Data set and split that a ground truth file is of, as its path has it: ``DIR/valid.json``,
    ``DIR/valid/instances.json``, ``DIR/annotations/instances_valid.json``.
    """
    path = Path(source)
    if path.suffix != ".json":
        return source, ""
    *folders, stem = path.resolve().with_suffix("").parts[1:]
    split = stem.removeprefix("instances").removeprefix("annotations").strip("_")
    if not split:
        split = folders.pop() if folders else stem
    while folders and folders[-1] in ("annotations", split):
        folders.pop()
    return (folders[-1] if folders else stem), split


def named_results(results: Many) -> dict[str, Predicted]:
    """Results files by name: what tells their paths apart, or the names that they were given."""
    if isinstance(results, Mapping):
        if not results:
            raise EvaluationFileError("no results file, expected at least one")
        return dict(results)
    if isinstance(results, Results):
        return {named_place(results.source)[1] or results.source: results}
    if isinstance(results, str | Path):
        return {_short_name(Path(results)): results}
    paths = [Path(file) for file in results if isinstance(file, str | Path)]
    if paths and len(paths) == len(results):
        return dict(zip(_told_apart(paths), paths, strict=True))
    return {"results": cast(Predicted, results)}  # parsed content


def _short_name(path: Path) -> str:
    return path.resolve().parent.name or path.stem if path.stem == "results" else path.stem


def _told_apart(paths: Sequence[Path]) -> list[str]:
    """A name for each path: its parts that are not those of all, at the start or at the end."""
    if len(paths) == 1:
        return [_short_name(paths[0])]
    resolved = [path.resolve() for path in paths]
    again = next((path for i, path in enumerate(resolved) if path in resolved[:i]), None)
    if again is not None:
        raise EvaluationFileError(f"{again}: given twice, expected different results files")
    parts = [(*path.parent.parts, path.name.removesuffix(".json")) for path in resolved]
    if len(set(parts)) < len(parts):  # "a.json" and "a"
        parts = [path.parts for path in resolved]
    for end in (0, -1):
        while all(len(p) > 1 for p in parts) and len({p[end] for p in parts}) == 1:
            parts = [p[1:] if end == 0 else p[:-1] for p in parts]
    return ["/".join(p) for p in parts]

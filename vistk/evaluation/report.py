"""One evaluation: the numbers of results files on one ground truth, or on several side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any, cast

import numpy as np
import pandas as pd

from vistk.data.progress import bar
from vistk.evaluation.bootstrap import (
    differences,
    intervals,
    num_steps,
    require_confidence,
    resampled,
    video_draws,
)
from vistk.evaluation.breakdowns import ATTRIBUTES
from vistk.evaluation.files import EvaluationFileError
from vistk.evaluation.first_look import look_at
from vistk.evaluation.keys import Key
from vistk.evaluation.number_table import (
    DIFFERENCE_COLUMNS,
    MEASURED,
    joined,
    number_frame,
    records,
)
from vistk.evaluation.parts import MEAN, PARTS, PartScores, split_results
from vistk.evaluation.printing import Printable, Table, plural
from vistk.evaluation.quoted import data_sets, quoted, recognised
from vistk.evaluation.report_tables import report_tables
from vistk.evaluation.scores import SCORE_THRESHOLD, Predicted, Scores, Truth, score
from vistk.evaluation.selection import describe
from vistk.evaluation.subjects import DataSet, Many, Subject, open_data_sets, overlapping_groups
from vistk.evaluation.ytvis_ap import OFFICIAL, APOptions

METRICS = ("ap", "hota", "errors", "gaps")
DEFAULT_METRICS = ("ap", "hota")
SWEEP = (SCORE_THRESHOLD, *(step / 10 for step in range(10) if step / 10 != SCORE_THRESHOLD))
"""Score thresholds of a sweep, 0 to 0.9; the first is that of all that has only one."""

DataSets = Mapping[str, tuple[Truth, Many]] | Sequence[DataSet]
"""Several ground truths: ``{name: (ground truth, results)}``, or a list of :class:`DataSet`."""


@dataclass(frozen=True)
class Report(Printable):
    """Numbers of results files, fractions 0..1 throughout; percent only in print.

    Attributes:
        frame: one number a row, see :mod:`vistk.evaluation.number_table`.
        differences: paired differences of every number to the first results file on the same data set, with
            their intervals; empty without a bootstrap or with one results file.
        scores: of each results file, by its name; with several data sets by ``"<data set> <split>: <name>"``.
        card: what was evaluated, and how.
    """

    frame: pd.DataFrame
    differences: pd.DataFrame
    scores: Mapping[str, Scores | PartScores]
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
        """``card``; ``metrics``, ``per_category`` and ``counts`` as :attr:`scores`; and all ``numbers`` and
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
    ground_truth: Truth | DataSets,
    results: Many | None = None,
    *,
    metrics: Sequence[str] = DEFAULT_METRICS,
    by: Sequence[str] = (),
    score_threshold: float | Sequence[float] = SCORE_THRESHOLD,
    options: APOptions = OFFICIAL,
    parts: Mapping[str, Truth] | bool = True,
    bootstrap: int = 0,
    seed: int = 0,
    confidence: float = 0.95,
    lenient: bool = False,
    quote: bool = False,
    jobs: int = 1,
    progress: bool = False,
) -> Report:
    """Scores results files: AP and AR as YouTube-VIS and OVIS define them, HOTA, IDF1 and CLEAR.

    ``evaluate({"ovis": (gt, results), "ytvis2021": (gt, results)})`` puts data sets side by side.

    Args:
        ground_truth: a json file or its parsed content; or several with their results, see :data:`DataSets`.
        results: a json file or its parsed content; or several, as a list of paths or ``{name: results}``,
            of which the first is what the others are compared with. None where ``ground_truth`` has them.
        metrics: some of "ap", "hota" (with IDF1 and CLEAR), "errors" (what each kind of error costs) and
            "gaps" (what an oracle would gain).
        by: breakdowns by attributes of the instances: some of
            :data:`vistk.evaluation.breakdowns.ATTRIBUTES`.
        score_threshold: predictions below it do not take part in HOTA, IDF1 and CLEAR (AP has all).
            Several make a sweep (:data:`SWEEP`); the first is that of breakdowns and differences.
        options: what is evaluated, and how AP is. What it selects, and categories that it takes for one,
            hold for all metrics; the rest is of AP alone, without errors and gaps.
        parts: as :attr:`DataSet.parts`: the short and the long videos of YouTube-VIS 2022 are scored apart,
            and the mean is taken, where their annotations lie beside the ground truth, or are given here.
        bootstrap: resamples of the videos, for the intervals of all numbers and, with several results
            files, of their paired differences to the first; 0: none.
        seed, confidence: of the bootstrap.
        lenient: leave out and count entries of results files that cannot be used.
        quote: add published numbers of the data sets, as their names or else their categories tell.
        jobs: processes; the numbers do not depend on it.
        progress: show a bar.

    Raises:
        EvaluationFileError, FileNotFoundError: a file cannot be used; the message says what to mend. Of
            several results files, all are looked at before any is scored.
        ValueError: an argument is not one of those above.
    """
    wanted = _known("metrics", metrics, METRICS)
    if not wanted:
        raise EvaluationFileError(f"metrics: found none, expected some of {', '.join(METRICS)}")
    require_confidence(confidence)
    by = _known("by", by, ATTRIBUTES)
    subjects = open_data_sets(_given(ground_truth, results, parts))
    published = _published(subjects) if quote else []
    files = [(subject, name, file) for subject in subjects for name, file in subject.files.items()]
    if len(files) > 1:
        for subject, _, file in files:
            look_at(file, subject.truth, lenient=lenient)
    work = partial(
        score,
        ap="ap" in wanted,
        tracking="hota" in wanted,
        errors="errors" in wanted,
        gaps="gaps" in wanted,
        by=by,
        score_threshold=score_threshold,
        options=options,
        lenient=lenient,
        jobs=jobs,
    )
    sample = _sampling(bootstrap, seed, progress)
    frames, compared = [], []
    scored: list[dict[str, Scores | PartScores]] = [{} for _ in subjects]
    first: dict[str, tuple[str, Mapping[Key, np.ndarray]]] = {}  # of each place
    num_videos = sum(_num_videos(subject, options) for subject, *_ in files)
    with bar(num_videos, "evaluate", "video", show=progress, delay=1) as shown:
        for subject, name, file in files:
            shown.set_postfix_str(name, refresh=False)
            scores = _score(subject, file, partial(work, progress=shown.update), lenient)
            scored[subjects.index(subject)][name] = scores
            for split, numbers, samples in _by_split(subject, scores, sample):
                row = {"data_set": subject.data_set, "split": split, "results": name}
                found = intervals(samples, confidence)
                with_intervals = {
                    key: replace(found[key], value=value) if key in found else value
                    for key, value in numbers.items()
                }
                frames.append(number_frame(with_intervals, row | {"source": MEASURED}))
                place = f"{subject.data_set} {split}"
                baseline, of_first = first.setdefault(place, (name, samples))
                if samples and baseline != name:
                    paired = intervals(differences(of_first, samples), confidence)
                    compared.append(number_frame(paired, row | {"baseline": baseline}, DIFFERENCE_COLUMNS))
    cards = [_card(subject, own) for subject, own in zip(subjects, scored, strict=True)]
    videos = "the videos" if len(cards) > 1 else plural(cards[0]["videos"], "video")
    card = {
        "data sets": cards,
        "options": describe(options),
        "confidence": confidence,
        "intervals": f"{100 * confidence:g} %, {plural(bootstrap, 'resample')} of {videos}, seed {seed}"
        if bootstrap and any(card["videos"] > 1 for card in cards)
        else None,
    }
    by_name = {
        name if len(subjects) == 1 else f"{subject.place}: {name}": scores
        for subject, own in zip(subjects, scored, strict=True)
        for name, scores in own.items()
    }
    return Report(joined([*frames, *published]), joined(compared, DIFFERENCE_COLUMNS), by_name, card)


def _given(
    ground_truth: Truth | DataSets, results: Many | None, parts: Mapping[str, Truth] | bool
) -> list[DataSet]:
    if results is not None:
        return [DataSet(cast(Truth, ground_truth), results, parts=parts)]
    if not isinstance(parts, bool):
        raise EvaluationFileError("parts: found those of one ground truth, expected them in each DataSet")
    if isinstance(ground_truth, Mapping) and all(
        isinstance(pair, tuple) and len(pair) == 2 for pair in ground_truth.values()
    ):
        return [DataSet(truth, own, name, parts) for name, (truth, own) in ground_truth.items()]
    if isinstance(ground_truth, list | tuple) and all(isinstance(one, DataSet) for one in ground_truth):
        return list(ground_truth)
    raise EvaluationFileError(
        "results: found none, expected them after the ground truth, or {name: (ground truth, results)}"
    )


def _known(what: str, given: Sequence[str], known: Sequence[str] | Mapping[str, Any]) -> tuple[str, ...]:
    names = (given,) if isinstance(given, str) else tuple(given)
    for name in names:
        if name not in known:
            raise EvaluationFileError(f"{what}: found {name!r}, expected some of {', '.join(known)}")
    return names


def _published(subjects: Sequence[Subject]) -> list[pd.DataFrame]:
    """Published numbers of the data sets that there are some of: of one at least."""
    frames = []
    for subject in subjects:
        told = subject.data_set if subject.named and subject.data_set in data_sets() else None
        name = told or recognised(subject.truth)
        if name in ("ytvis2021", "ytvis2022") and subject.parts:
            # The short videos of YouTube-VIS 2022 are those of 2021.
            split, mean = subject.split_of(PARTS["S"]), subject.split_of(MEAN)
            frames.append(quoted("ytvis2021", shown_as=(subject.data_set, split)))
            frames.append(quoted("ytvis2022", shown_as=(subject.data_set, mean)))
        elif name is not None:
            frames.append(quoted(name, shown_as=(subject.data_set, subject.split)))
    if not frames:
        raise EvaluationFileError(
            f"{', '.join(subject.truth.source for subject in subjects)}: its categories are those of no data "
            f"set with published numbers; expected its name: one of {', '.join(data_sets())}, as in "
            f"{data_sets()[0]}=GT.json"
        )
    return frames


def _num_videos(subject: Subject, options: APOptions) -> int:
    return len(subject.truth.videos if options.video_ids is None else set(options.video_ids))


def _score(
    subject: Subject, file: Predicted, work: Callable[..., Scores], lenient: bool
) -> Scores | PartScores:
    if not subject.parts:
        return work(subject.truth, file)
    apart = split_results(subject.parts, file, lenient=lenient)
    return PartScores({suffix: work(truth, apart[suffix]) for suffix, truth in subject.parts.items()})


def _by_split(
    subject: Subject, scores: Scores | PartScores, sample: Callable[[Scores, int], Mapping[Key, np.ndarray]]
) -> Iterator[tuple[str, Mapping[Key, float], Mapping[Key, np.ndarray]]]:
    """Split, numbers, resampled numbers: of the data set, or of each part and the mean."""
    if isinstance(scores, Scores):
        yield subject.split, scores.numbers, sample(scores, 0)
        return
    samples = {suffix: sample(part, n) for n, (suffix, part) in enumerate(scores.parts.items())}
    for suffix, part in scores.parts.items():
        yield subject.split_of(PARTS.get(suffix, suffix)), part.numbers, samples[suffix]
    yield (
        subject.split_of(MEAN),
        scores.numbers,
        scores.mean_samples(samples) if all(samples.values()) else {},
    )


def _sampling(resamples: int, seed: int, progress: bool) -> Callable[[Scores, int], Mapping[Key, np.ndarray]]:
    """Resampled numbers of scores, of the same videos for all results files on a ground truth; those of its
    parts, which are numbered, are drawn independently.
    """

    def sample(scores: Scores, part: int) -> Mapping[Key, np.ndarray]:
        videos = len(scores.ground_truth.videos)
        if not resamples or not videos:
            return {}
        draws = video_draws(videos, resamples, (seed, part) if part else seed)
        with bar(num_steps(scores), "resample", "step", show=progress, delay=1, leave=False) as shown:
            return resampled(scores, draws, shown.update)

    return sample


def _card(subject: Subject, scored: Mapping[str, Scores | PartScores]) -> dict[str, Any]:
    """What was evaluated on one data set; ``scored`` by the name of the results file."""
    of_files = {
        name: list(scores.parts.values()) if isinstance(scores, PartScores) else [scores]
        for name, scores in scored.items()
    }
    counts = next(iter(scored.values())).counts
    of_ap = [scores.ground_truth for scores in next(iter(of_files.values())) if scores.matches is not None]
    return {
        "data_set": subject.data_set,
        "split": subject.split,
        "ground truth": subject.truth.source,
        "videos": counts["videos"],
        "instances": counts["instances"],
        "results": {name: own[0].results for name, own in of_files.items()},
        "predictions": {name: scores.counts["predictions"] for name, scores in scored.items()},
        "skipped": {name: dict(own[0].skipped) for name, own in of_files.items() if own[0].skipped},
        "notes": [*subject.notes, *(note for truth in of_ap for note in overlapping_groups(truth))],
    }

"""Ground truth in two parts that are scored apart: the short and the long videos of YouTube-VIS 2022.

Its server scores the same results file on each part and reports the mean of the two numbers, so that the
71 long videos weigh as much as the 421 short ones, which are those of YouTube-VIS 2021.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from vistk.evaluation.files import EvaluationFileError, GroundTruth, Results, load_ground_truth, load_results
from vistk.evaluation.hota import COUNTS
from vistk.evaluation.keys import ALL, Key
from vistk.evaluation.scores import SCORE_THRESHOLD, Predicted, Scores, Truth, score

PARTS: Mapping[str, str] = {"S": "short", "L": "long"}
"""Suffix of a part's metrics, and its word in file names."""
MEAN = "mean"


@dataclass(frozen=True)
class PartScores:
    """One results file, scored on every part."""

    parts: Mapping[str, Scores]  # by the suffix of its metrics

    @cached_property
    def numbers(self) -> dict[Key, float]:
        """The means of all numbers of the whole parts; no counts, groups or classes. NaN where a part has no
        such number.
        """
        first, *others = (part.numbers for part in self.parts.values())
        keys = [
            key
            for key in first
            if (key.category, key.by) == (ALL, ALL)
            and key.metric not in COUNTS
            and all(key in other for other in others)
        ]
        return {key: float(np.mean([part.numbers[key] for part in self.parts.values()])) for key in keys}

    @property
    def metrics(self) -> dict[str, float | None]:
        """``AP_S``, ``AP_L`` and their mean ``AP``, and likewise every metric that all parts have. A mean is
        None where a part has no such number.
        """
        metrics = [part.metrics for part in self.parts.values()]
        names = [name for name in metrics[0] if all(name in part for part in metrics)]
        means = {name: _mean([part[name] for part in metrics]) for name in names}
        return means | {
            f"{name}_{suffix}": part[name]
            for suffix, part in zip(self.parts, metrics, strict=True)
            for name in names
        }

    @property
    def per_category(self) -> dict[str, dict[str, float | None]]:
        """``{category: {"AP_S": number, ..}}``."""
        out: dict[str, dict[str, float | None]] = {}
        for suffix, part in self.parts.items():
            for category, numbers in part.per_category.items():
                own = {f"{name}_{suffix}": value for name, value in numbers.items()}
                out[category] = out.get(category, {}) | own
        return out

    @property
    def counts(self) -> dict[str, int]:
        """Sums over the parts."""
        counts = [part.counts for part in self.parts.values()]
        return {name: sum(part[name] for part in counts) for name in counts[0]}

    def mean_samples(self, samples: Mapping[str, Mapping[Key, np.ndarray]]) -> dict[Key, np.ndarray]:
        """:attr:`numbers` of resampled parts, given by suffix."""
        return {key: np.mean([part[key] for part in samples.values()], axis=0) for key in self.numbers}


def find_parts(json_path: str | Path) -> dict[str, Path]:
    """The parts that lie beside the annotations of a split: ``{"S": path, "L": path}``, or nothing.

    For ``valid.json`` these are ``gt_short.json`` or ``valid_short.json`` (likewise ``long``) in its folder
    or in a folder ``valid`` beside it; for ``valid/instances.json`` also ``instances_short.json``, in its
    folder or the one above. A part itself has none.

    Raises:
        FileNotFoundError: one part is there, but not the other.
    """
    json_path = Path(json_path)
    if json_path.stem.endswith(tuple(f"_{word}" for word in PARTS.values())):
        return {}
    own_folder = json_path.stem == "instances"
    split = json_path.parent.name if own_folder else json_path.stem
    # What lies beside training videos as gt_short.json is of the validation split.
    stems = dict.fromkeys((*(() if split.startswith(("train", "test")) else ("gt",)), split, json_path.stem))
    above = json_path.parent.parent if own_folder else json_path.parent / split
    for folder in (json_path.parent, above):
        for stem in stems:
            found = {suffix: folder / f"{stem}_{word}.json" for suffix, word in PARTS.items()}
            there = [path for path in found.values() if path.is_file()]
            if len(there) == len(found):
                return found
            if there:
                (missing,) = (path for path in found.values() if path not in there)
                raise FileNotFoundError(
                    f"{there[0]} is there but {missing} is not, expected both parts: they are scored together"
                )
    return {}


def evaluate_parts(
    ground_truth: Truth | None,
    parts: Mapping[str, Truth],
    results: Predicted,
    *,
    score_threshold: float = SCORE_THRESHOLD,
) -> dict[str, float | None]:
    """Scores one results file on every part and takes the means, as the server of YouTube-VIS 2022 does.

    Args:
        ground_truth: annotations of all videos, to check that the parts are complete; None: they are.
        parts: annotations of each part, by the suffix of its metrics.
        results: predictions for the videos of all parts.
        score_threshold: as for :func:`vistk.evaluation.scores.score`.

    Returns:
        :attr:`PartScores.metrics`. The server has AP, AP50, AP75, AR1 and AR10.

    Raises:
        EvaluationFileError, FileNotFoundError: a file cannot be used, or a video is in none or in several
            of the parts; the message says what to mend.
    """
    truths = {suffix: load_ground_truth(part) for suffix, part in parts.items()}
    if ground_truth is not None:
        require_complete(load_ground_truth(ground_truth), truths)
    apart = split_results(truths, results)
    found = {
        suffix: score(truth, apart[suffix], score_threshold=score_threshold)
        for suffix, truth in truths.items()
    }
    return PartScores(found).metrics


def split_results(
    parts: Mapping[str, GroundTruth], results: Predicted, *, lenient: bool = False
) -> dict[str, Results]:
    """The predictions for the videos of each part; raises what :func:`load_results` does."""
    results = load_results(results, union(parts), lenient=lenient)
    return {
        suffix: replace(
            results, videos={v.id: results.videos[v.id] for v in truth.videos if v.id in results.videos}
        )
        for suffix, truth in parts.items()
    }


def _mean(values: Sequence[float | None]) -> float | None:
    defined = [value for value in values if value is not None]
    return math.fsum(defined) / len(defined) if len(defined) == len(values) else None


def union(truths: Mapping[str, GroundTruth]) -> GroundTruth:
    """All parts as one ground truth, named as they are.

    Raises:
        EvaluationFileError: a video is in several parts, or the parts have different categories.
    """
    first, *others = truths.values()
    videos = {video.id: video for video in first.videos}
    for other in others:
        if other.categories != first.categories:
            raise EvaluationFileError(
                f"{other.source} and {first.source} have different categories, expected the same in all parts"
            )
        again = [video.id for video in other.videos if video.id in videos]
        if again:
            raise EvaluationFileError(
                f"{other.source}: {_some(again)} in another part too, expected every video in one part"
            )
        videos |= {video.id: video for video in other.videos}
    source = " and ".join(truth.source for truth in truths.values())
    return GroundTruth(source, tuple(videos[key] for key in sorted(videos)), first.categories)


def require_complete(whole: GroundTruth, truths: Mapping[str, GroundTruth]) -> None:
    """Every video of the whole is in one part, and the other way round.

    Args:
        whole: of all videos; its annotations do not matter.
        truths: each part, by the suffix of its metrics.

    Raises:
        EvaluationFileError: a video is in none or in several of the parts, or in no list of the whole.
    """
    parts = union(truths)
    wanted, found = {video.id for video in whole.videos}, {video.id for video in parts.videos}
    if wanted - found:
        some = _some(sorted(wanted - found))
        raise EvaluationFileError(
            f"{whole.source}: {some} in no part, expected each in one of {parts.source}"
        )
    if found - wanted:
        some = _some(sorted(found - wanted))
        raise EvaluationFileError(f"{parts.source}: {some} not in {whole.source}, expected its videos alone")


def _some(ids: Sequence[int]) -> str:
    """``video 7 is``, or ``3 videos (the first: 7) are``."""
    return f"video {ids[0]} is" if len(ids) == 1 else f"{len(ids)} videos (the first: {ids[0]}) are"

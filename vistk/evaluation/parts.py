"""Ground truth in two parts that are scored apart: the short and the long videos of YouTube-VIS 2022.

Its server scores the same results file on each part and reports the mean of the two numbers, so that the
71 long videos weigh as much as the 421 short ones, which are those of YouTube-VIS 2021.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from vistk.evaluation.files import EvaluationFileError, GroundTruth, Results, load_ground_truth, load_results
from vistk.evaluation.scores import SCORE_THRESHOLD, Predicted, Truth, score

PARTS: Mapping[str, str] = {"S": "short", "L": "long"}
"""Suffix of a part's metrics, and its word in file names."""


def find_parts(json_path: str | Path) -> dict[str, Path]:
    """The parts that lie beside the annotations of a split: ``{"S": path, "L": path}``, or nothing.

    For ``valid.json`` these are ``gt_short.json`` or ``valid_short.json`` (likewise ``long``) in its folder
    or in a folder ``valid`` beside it; for ``valid/instances.json`` also ``instances_short.json``, in its
    folder or the one above.

    Raises:
        FileNotFoundError: one part is there, but not the other.
    """
    json_path = Path(json_path)
    own_folder = json_path.stem == "instances"
    split = json_path.parent.name if own_folder else json_path.stem
    stems = dict.fromkeys(("gt", split, json_path.stem))
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
        ``AP_S``, ``AP_L`` and their mean ``AP``, and likewise every metric that all parts have. A mean is
        None where a part has no such number. The server has AP, AP50, AP75, AR1 and AR10.

    Raises:
        EvaluationFileError, FileNotFoundError: a file cannot be used, or a video is in none or in several
            of the parts; the message says what to mend.
    """
    truths = {suffix: load_ground_truth(part) for suffix, part in parts.items()}
    if ground_truth is not None:
        require_complete(load_ground_truth(ground_truth), truths)
    apart = split_results(truths, results)
    metrics = [
        score(truth, own, score_threshold=score_threshold).metrics
        for truth, own in zip(truths.values(), apart.values(), strict=True)
    ]
    names = [name for name in metrics[0] if all(name in part for part in metrics)]
    means = {name: _mean([part[name] for part in metrics]) for name in names}
    of_parts = {
        f"{name}_{suffix}": part[name] for suffix, part in zip(truths, metrics, strict=True) for name in names
    }
    return means | of_parts


def split_results(parts: Mapping[str, GroundTruth], results: Predicted) -> dict[str, Results]:
    """The predictions for the videos of each part; raises what :func:`load_results` does."""
    results = load_results(results, _union(parts))
    return {
        suffix: replace(
            results, videos={v.id: results.videos[v.id] for v in truth.videos if v.id in results.videos}
        )
        for suffix, truth in parts.items()
    }


def _mean(values: Sequence[float | None]) -> float | None:
    defined = [value for value in values if value is not None]
    return math.fsum(defined) / len(defined) if len(defined) == len(values) else None


def _union(truths: Mapping[str, GroundTruth]) -> GroundTruth:
    """All parts as one ground truth, named as they are."""
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
    parts = _union(truths)
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

"""Ground truth and results files of video instance segmentation, read and checked.

Any data set in the YouTube-VIS json form will do (YouTube-VIS 2019/2021/2022, OVIS, LV-VIS, one's own).
Ids are any integers, 0 included: they are looked up, never used as flags or positions.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from pathlib import Path
from typing import Any

from vistk.data.ytvis import OCCLUSION_WORDS
from vistk.ops import masks as mask_ops
from vistk.ops.runs import first_broken
from vistk.structures import RLE

OCCLUSION_LEVELS = dict(zip(OCCLUSION_WORDS, (0.0, 0.25, 0.75), strict=True))


class EvaluationFileError(ValueError):
    """A ground truth or results file that cannot be evaluated; the message says where and why."""


@dataclass(frozen=True)
class Instance:
    """One annotated instance of a video."""

    category_id: int
    masks: tuple[RLE | None, ...]  # T entries
    area: float  # pixels, mean over the frames with a non-zero area
    iscrowd: bool
    occlusion: float | None  # 0..1, OVIS score of the instance; None where the file does not say


@dataclass(frozen=True)
class Video:
    """One video of the ground truth with its instances in the order of the file."""

    id: int
    height: int
    width: int
    num_frames: int
    instances: tuple[Instance, ...]


@dataclass(frozen=True)
class GroundTruth:
    """A checked ground truth file. Videos and categories are sorted by id, as the official code does."""

    source: str
    videos: tuple[Video, ...]
    categories: Mapping[int, str]  # id -> name

    @property
    def has_occlusion(self) -> bool:
        """Whether any instance carries the per-frame occlusion of OVIS."""
        return any(i.occlusion is not None for video in self.videos for i in video.instances)


@dataclass(frozen=True)
class Prediction:
    """One entry of a results file."""

    category_id: int
    score: float
    masks: tuple[RLE | None, ...]  # T entries


@dataclass(frozen=True)
class Results:
    """A checked results file: the predictions of each video, in the order of the file."""

    source: str
    videos: Mapping[int, tuple[Prediction, ...]]  # by video id; videos without predictions are absent

    def __len__(self) -> int:
        return sum(len(predictions) for predictions in self.videos.values())


def load_ground_truth(ground_truth: str | Path | Mapping[str, Any] | GroundTruth) -> GroundTruth:
    """Reads and checks a ground truth file (a path, its parsed content, or the result of this function).

    The content is not changed. Raises :class:`EvaluationFileError` or ``FileNotFoundError`` with one
    sentence that names file, entry, field, what was found and what was expected.
    """
    if isinstance(ground_truth, GroundTruth):
        return ground_truth
    source, content = _read(ground_truth, "ground truth")
    if not isinstance(content, Mapping):
        raise EvaluationFileError(
            f"{source}: found a {_kind(content)}, expected a dict with 'videos', 'categories' and "
            "'annotations'; is this the results file?"
        )
    for key in ("videos", "categories", "annotations"):
        if not isinstance(content.get(key), Sequence):
            hint = (
                "; published validation and test files come without annotations, take a split that has them"
                if key == "annotations"
                else ""
            )
            raise EvaluationFileError(
                f"{source}: '{key}' is {_kind(content.get(key))}, expected a list of dicts; found the keys "
                f"{sorted(map(str, content))}{hint}"
            )
    categories = _categories(source, content["categories"])
    frames = _videos(source, content["videos"])
    if frames and not content["annotations"]:
        raise EvaluationFileError(
            f"{source}: 'annotations' is empty for {len(frames)} videos, expected at least one annotation "
            "to score against"
        )
    instances: dict[int, list[Instance]] = {video_id: [] for video_id in frames}
    seen: set[int] = set()
    for index, entry in enumerate(content["annotations"]):
        where = f"{source}: annotations[{index}]"
        video_id, instance = _instance(where, entry, frames, categories)
        if "id" in entry:
            annotation_id = _integer(where, entry, "id")
            if annotation_id in seen:
                raise EvaluationFileError(f"{where}: 'id' {annotation_id} occurs twice, expected unique ids")
            seen.add(annotation_id)
        instances[video_id].append(instance)
    videos = (
        Video(video_id, *frames[video_id], instances=tuple(instances[video_id]))
        for video_id in sorted(frames)
    )
    return GroundTruth(source, tuple(videos), categories)


def load_results(
    results: str | Path | Sequence[Mapping[str, Any]] | Results, ground_truth: GroundTruth
) -> Results:
    """Reads a results file (a path, its parsed content, or the result of this function) and checks it
    against the ground truth.

    Raises :class:`EvaluationFileError` or ``FileNotFoundError`` as :func:`load_ground_truth` does.
    """
    if isinstance(results, Results):
        return results
    source, content = _read(results, "results")
    if not isinstance(content, Sequence) or isinstance(content, str):
        hint = "; is this the ground truth?" if isinstance(content, Mapping) and "videos" in content else ""
        raise EvaluationFileError(f"{source}: found a {_kind(content)}, expected a list of predictions{hint}")
    frames = {video.id: (video.height, video.width, video.num_frames) for video in ground_truth.videos}
    video_ids = []
    for index, entry in enumerate(content):
        where = f"{source}: entry {index}"
        _require(where, entry, ("video_id", "category_id", "score", "segmentations"))
        video_ids.append(_integer(where, entry, "video_id"))
    _check_known(source, video_ids, frames, "video", ground_truth)
    category_ids = [
        _integer(f"{source}: entry {index}", entry, "category_id") for index, entry in enumerate(content)
    ]
    _check_known(source, category_ids, ground_truth.categories, "category", ground_truth)

    videos: dict[int, list[Prediction]] = {}
    for index, entry in enumerate(content):
        where = f"{source}: entry {index}"
        score = entry["score"]
        if not isinstance(score, Real) or isinstance(score, bool) or not math.isfinite(score):
            raise EvaluationFileError(f"{where}: 'score' is {score!r}, expected a finite number")
        masks = _masks(where, entry["segmentations"], frames[video_ids[index]])
        videos.setdefault(video_ids[index], []).append(Prediction(category_ids[index], float(score), masks))
    return Results(source, {video_id: tuple(predictions) for video_id, predictions in videos.items()})


def _read(given: Any, name: str) -> tuple[str, Any]:
    """The name to use in messages, and the parsed content."""
    if not isinstance(given, str | Path):
        return name, given
    path = Path(given)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such {name} file, expected a json file")
    try:
        return str(path), json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise EvaluationFileError(f"{path}: the {name} file is not json ({error})") from error


def _kind(value: Any) -> str:
    return "missing" if value is None else type(value).__name__


def _require(where: str, entry: Any, keys: Sequence[str]) -> None:
    if not isinstance(entry, Mapping):
        raise EvaluationFileError(f"{where}: found a {_kind(entry)}, expected a dict")
    missing = [key for key in keys if key not in entry]
    if missing:
        raise EvaluationFileError(
            f"{where}: '{missing[0]}' is missing, found the keys {sorted(map(str, entry))}, "
            f"expected {list(keys)}"
        )


def _integer(where: str, entry: Mapping[str, Any], key: str) -> int:
    value = entry[key]
    if not isinstance(value, Integral) or isinstance(value, bool):
        raise EvaluationFileError(f"{where}: '{key}' is {value!r}, expected an integer")
    return int(value)


def _by_id(
    source: str, name: str, entries: Sequence[Any], keys: Sequence[str], read: Callable[[str, Any], Any]
) -> dict[int, Any]:
    found: dict[int, Any] = {}
    for index, entry in enumerate(entries):
        where = f"{source}: {name}[{index}]"
        _require(where, entry, ("id", *keys))
        key = _integer(where, entry, "id")
        if key in found:
            raise EvaluationFileError(f"{where}: 'id' {key} occurs twice, expected unique ids")
        found[key] = read(where, entry)
    return dict(sorted(found.items()))


def _categories(source: str, entries: Sequence[Any]) -> dict[int, str]:
    return distinct(_by_id(source, "categories", entries, ("name",), lambda where, entry: str(entry["name"])))


def distinct(names: Mapping[int, str]) -> dict[int, str]:
    """Category names by id; two of one name are told apart by the id: reports are keyed by name."""
    counts = list(names.values())
    return {key: name if counts.count(name) == 1 else f"{name} ({key})" for key, name in names.items()}


def _videos(source: str, entries: Sequence[Any]) -> dict[int, tuple[int, int, int]]:
    def read(where: str, entry: Mapping[str, Any]) -> tuple[int, int, int]:
        names = entry.get("file_names")
        if "length" in entry:
            length = _integer(where, entry, "length")
        elif isinstance(names, Sequence):
            length = len(names)
        else:
            raise EvaluationFileError(f"{where}: neither 'length' nor 'file_names', expected one of them")
        if isinstance(names, Sequence) and len(names) != length:
            raise EvaluationFileError(
                f"{where}: 'file_names' has {len(names)} entries, expected 'length' {length}"
            )
        height, width = _integer(where, entry, "height"), _integer(where, entry, "width")
        if min(height, width) < 1 or length < 0:
            raise EvaluationFileError(
                f"{where}: height {height}, width {width} and {length} frames, expected a positive size"
            )
        return height, width, length

    return _by_id(source, "videos", entries, ("height", "width"), read)


def _instance(
    where: str, entry: Any, frames: Mapping[int, tuple[int, int, int]], categories: Mapping[int, str]
) -> tuple[int, Instance]:
    _require(where, entry, ("video_id", "category_id", "segmentations"))
    video_id, category_id = _integer(where, entry, "video_id"), _integer(where, entry, "category_id")
    if video_id not in frames:
        raise EvaluationFileError(
            f"{where}: 'video_id' {video_id} is not the id of any of the {len(frames)} videos"
        )
    if category_id not in categories:
        raise EvaluationFileError(
            f"{where}: 'category_id' {category_id} is not the id of any of the {len(categories)} categories"
        )
    num_frames = frames[video_id][2]
    masks = _masks(where, entry["segmentations"], frames[video_id])
    # The official code takes the areas of the file, which may differ from the masks' (polygons).
    areas = entry.get("areas")
    areas = mask_ops.areas(masks).tolist() if areas is None else _per_frame(where, areas, "areas", num_frames)
    for t, area in enumerate(areas):
        if area is not None and (not isinstance(area, Real) or not math.isfinite(area)):
            raise EvaluationFileError(f"{where}: 'areas' of frame {t} is {area!r}, expected a number or null")
    crowd = entry.get("iscrowd", 0)
    if crowd not in (0, 1):
        raise EvaluationFileError(f"{where}: 'iscrowd' is {crowd!r}, expected 0 or 1")
    return video_id, Instance(
        category_id=category_id,
        masks=masks,
        area=mean_area(areas),
        iscrowd=bool(crowd),
        occlusion=_occlusion(where, entry.get("occlusion"), num_frames),
    )


def mean_area(areas: Sequence[float | None]) -> float:
    """Mean over the frames with a non-zero area, in pixels; 0 without any."""
    present = [float(area) for area in areas if area]
    return sum(present) / len(present) if present else 0.0


def _occlusion(where: str, levels: Any, num_frames: int) -> float | None:
    if levels is None:
        return None
    for t, level in enumerate(_per_frame(where, levels, "occlusion", num_frames)):
        if level is not None and (not isinstance(level, str) or level not in OCCLUSION_LEVELS):
            raise EvaluationFileError(
                f"{where}: 'occlusion' of frame {t} is {level!r}, expected null or one of "
                f"{list(OCCLUSION_LEVELS)}"
            )
    return mean_occlusion(levels)


def mean_occlusion(levels: Sequence[str | None]) -> float | None:
    """OVIS: the mean of the more occluded half of the frames in which the instance is annotated."""
    values = [OCCLUSION_LEVELS[level] for level in levels if level is not None]
    if not values:
        return None
    half = sorted(values, reverse=True)[: math.ceil(len(values) / 2)]
    return sum(half) / len(half)


def _per_frame(where: str, values: Any, key: str, num_frames: int) -> Sequence[Any]:
    if not isinstance(values, Sequence) or isinstance(values, str):
        raise EvaluationFileError(
            f"{where}: '{key}' is {_kind(values)}, expected a list with one entry a frame"
        )
    if len(values) != num_frames:
        raise EvaluationFileError(
            f"{where}: '{key}' has {len(values)} entries, expected {num_frames}, the frames of its video"
        )
    return values


def _masks(where: str, segmentations: Any, size: tuple[int, int, int]) -> tuple[RLE | None, ...]:
    height, width, num_frames = size
    masks: list[RLE | None] = []
    for t, segmentation in enumerate(_per_frame(where, segmentations, "segmentations", num_frames)):
        try:
            masks.append(None if segmentation is None else mask_ops.to_rle(segmentation, height, width))
        except (ValueError, TypeError) as error:
            raise EvaluationFileError(f"{where}: 'segmentations' of frame {t}: {error}") from error
    present = [t for t, mask in enumerate(masks) if mask is not None]
    broken = first_broken([mask for mask in masks if mask is not None])
    if broken is not None:
        raise EvaluationFileError(f"{where}: 'segmentations' of frame {present[broken[0]]}: {broken[1]}")
    return tuple(masks)


def _check_known(
    source: str, ids: Sequence[int], known: Mapping[int, Any], kind: str, ground_truth: GroundTruth
) -> None:
    """Unknown ids usually mean another data set, so the message counts them before naming the first."""
    distinct = set(ids)
    unknown = distinct - known.keys()
    if not unknown:
        return
    index = next(i for i, value in enumerate(ids) if value in unknown)
    raise EvaluationFileError(
        f"{source}: {len(unknown)} of {len(distinct)} {kind} ids are unknown (first in entry {index}, "
        f"'{kind}_id' {ids[index]}; {ground_truth.source} has {len(known)}); "
        "is this another data set or split?"
    )

"""Ground truth for scoring, from a file or from a data set that has been read already."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from vistk.data.ytvis import YTVIS
from vistk.evaluation.reading import (
    EntryError,
    EvaluationFileError,
    by_id,
    collector_paused,
    counted,
    integer,
    is_number,
    per_frame,
    read,
    require,
    short,
    tube,
    what,
)
from vistk.evaluation.records import (
    OCCLUSION_LEVELS,
    GroundTruth,
    Instance,
    Video,
    distinct,
    mean_area,
    mean_occlusion,
)
from vistk.ops.masks import Tube
from vistk.structures import InstanceAnnotation


def load_ground_truth(
    ground_truth: str | Path | Mapping[str, Any] | GroundTruth, *, runs_later: bool = False
) -> GroundTruth:
    """Reads and checks a ground truth file (a path, its parsed content, or the result of this function).

    The content is not changed.

    Args:
        runs_later: leave the runs of the masks to :func:`vistk.evaluation.results.load_results`, which has to
            read them anyway. Whoever uses the masks without it calls :func:`check_masks` first.

    Raises:
        EvaluationFileError, FileNotFoundError: one sentence that names file, entry, field, what was found and
            what was expected.
    """
    if isinstance(ground_truth, GroundTruth):
        return ground_truth
    with collector_paused():
        truth = _read(*read(ground_truth, "ground truth"))
        if not runs_later:
            check_masks(truth.videos)
        return truth


def check_masks(videos: Iterable[Video]) -> None:
    """Looks at the runs of all masks that nobody looked at so far.

    Raises:
        EvaluationFileError: they do not cover their frame, or are none.
    """
    waiting = [
        (instance, Tube(instance.masks), video.height * video.width)
        for video in videos
        for instance in video.instances
        if instance.unchecked
    ]
    checked = counted([(instance.unchecked, masks, pixels) for instance, masks, pixels in waiting])
    for (instance, _, _), masks in zip(waiting, checked, strict=True):
        if isinstance(masks, EntryError):
            raise masks
        instance.check(masks)


def _read(source: str, content: Any) -> GroundTruth:
    if not isinstance(content, Mapping):
        raise EvaluationFileError(
            f"{source}: found {what(content)}, expected a dict with 'videos', 'categories' and "
            "'annotations'; is this the results file?"
        )
    for key in ("videos", "categories", "annotations"):
        if not isinstance(content.get(key), Sequence) or isinstance(content[key], str):
            given = what(content[key]) if key in content else "missing"
            hint = (
                "; published validation and test files come without annotations, take a split that has them"
                if key == "annotations"
                else ""
            )
            raise EvaluationFileError(
                f"{source}: '{key}' is {given}, expected a list of dicts; found the keys "
                f"{sorted(map(str, content))}{hint}"
            )
    categories = distinct(by_id(source, "categories", content["categories"], ("name",), _category_name))
    frames = by_id(source, "videos", content["videos"], ("height", "width"), _frames)
    if frames and not content["annotations"]:
        raise EvaluationFileError(
            f"{source}: 'annotations' is empty for {len(frames)} videos, expected at least one annotation "
            "to score against"
        )
    return _with_annotations(source, content["annotations"], frames, categories)


def _category_name(where: str, entry: Mapping[str, Any]) -> str:
    name = entry["name"]
    if not isinstance(name, str | int) or isinstance(name, bool):
        raise EvaluationFileError(f"{where}: 'name' is {short(name)}, expected a text")
    return str(name)


def _frames(where: str, entry: Mapping[str, Any]) -> tuple[int, int, int]:
    """Height, width and number of frames of a video."""
    names = entry.get("file_names")
    if names is not None and (not isinstance(names, Sequence) or isinstance(names, str)):
        raise EvaluationFileError(f"{where}: 'file_names' is {what(names)}, expected a list of names")
    if "length" in entry:
        length = integer(where, entry, "length")
    elif names is not None:
        length = len(names)
    else:
        raise EvaluationFileError(f"{where}: neither 'length' nor 'file_names', expected one of them")
    if names is not None and len(names) != length:
        raise EvaluationFileError(
            f"{where}: 'file_names' has {len(names)} entries, expected 'length' {length}"
        )
    height, width = integer(where, entry, "height"), integer(where, entry, "width")
    if min(height, width) < 1 or length < 0:
        raise EvaluationFileError(
            f"{where}: height {height}, width {width} and {length} frames, expected a positive size"
        )
    return height, width, length


def _with_annotations(
    source: str,
    annotations: Sequence[Any],
    frames: Mapping[int, tuple[int, int, int]],
    categories: Mapping[int, str],
) -> GroundTruth:
    instances: dict[int, list[Instance]] = {video_id: [] for video_id in frames}
    seen: set[int] = set()
    for index, entry in enumerate(annotations):
        where = f"{source}: annotations[{index}]"
        require(where, entry, ("video_id", "category_id", "segmentations"))
        video_id, category_id = integer(where, entry, "video_id"), integer(where, entry, "category_id")
        if video_id not in frames:
            raise EvaluationFileError(
                f"{where}: 'video_id' {video_id} is not the id of any of the {len(frames)} videos"
            )
        if category_id not in categories:
            raise EvaluationFileError(
                f"{where}: 'category_id' {category_id} is not the id of any of the {len(categories)} "
                "categories"
            )
        height, width, num_frames = frames[video_id]
        masks = tube(where, entry["segmentations"], height, width, num_frames)
        if "id" in entry:
            annotation_id = integer(where, entry, "id")
            if annotation_id in seen:
                raise EvaluationFileError(f"{where}: 'id' {annotation_id} occurs twice, expected unique ids")
            seen.add(annotation_id)
        instances[video_id].append(_instance(where, entry, masks, height * width))
    videos = (Video(key, *frames[key], instances=tuple(instances[key])) for key in sorted(frames))
    return GroundTruth(source, tuple(videos), categories)


def _instance(where: str, entry: Mapping[str, Any], masks: Tube, pixels: int) -> Instance:
    unchecked = where
    # The official code takes the areas of the file, which may differ from the masks' (polygons).
    areas = entry.get("areas")
    if areas is None:
        (checked,) = counted([(where, masks, pixels)])
        if isinstance(checked, EntryError):
            raise checked
        masks, areas, unchecked = checked, checked.areas.tolist(), ""
    areas = per_frame(where, areas, "areas", len(masks))
    for t, area in enumerate(areas):
        if area is not None and not (is_number(area) and area >= 0):
            raise EvaluationFileError(
                f"{where}: 'areas' of frame {t} is {short(area)}, expected a number of pixels or null"
            )
    crowd = entry.get("iscrowd", 0)
    if crowd not in (0, 1):
        raise EvaluationFileError(f"{where}: 'iscrowd' is {short(crowd)}, expected 0 or 1")
    levels = _occlusions(where, entry.get("occlusion"), len(masks))
    return Instance(
        category_id=int(entry["category_id"]),
        masks=masks,
        area=mean_area(areas),
        iscrowd=bool(crowd),
        occlusion=None if levels is None else mean_occlusion(levels),
        areas=tuple(areas),
        occlusions=levels,
        unchecked=unchecked,
    )


def _occlusions(where: str, levels: Any, num_frames: int) -> tuple[str | None, ...] | None:
    if levels is None:
        return None
    for t, level in enumerate(per_frame(where, levels, "occlusion", num_frames)):
        if level is not None and (not isinstance(level, str) or level not in OCCLUSION_LEVELS):
            raise EvaluationFileError(
                f"{where}: 'occlusion' of frame {t} is {short(level)}, expected null or one of "
                f"{list(OCCLUSION_LEVELS)}"
            )
    return tuple(levels)


def ground_truth_of(source: YTVIS) -> GroundTruth:
    """What :func:`load_ground_truth` makes of the same file, or of part of it.

    Args:
        source: a data set with annotations; its videos may be a selection.
    """
    tubes = [
        (f"{source.json_path}: annotation {a.id}", Tube(a.segmentations), v.height * v.width)
        for v in source.videos
        for a in v.annotations
    ]
    checked = iter(counted(tubes))
    videos = []
    for v in source.videos:
        instances = tuple(_annotated(a, next(checked)) for a in v.annotations)
        videos.append(Video(v.video_id, v.height, v.width, len(v), instances))
    videos.sort(key=lambda video: video.id)
    return GroundTruth(str(source.json_path), tuple(videos), distinct(source.categories))


def _annotated(annotation: InstanceAnnotation, masks: Tube | EntryError) -> Instance:
    if isinstance(masks, EntryError):
        raise masks
    return Instance(
        category_id=annotation.category_id,
        masks=masks,
        area=mean_area(annotation.areas),
        iscrowd=annotation.iscrowd,
        occlusion=None if annotation.occlusion is None else mean_occlusion(annotation.occlusion),
        areas=annotation.areas,
        occlusions=annotation.occlusion,
    )

"""Everything that is wrong in a YouTube-VIS or COCO json, where the readers stop at the first fault.

What the readers refuse is an error here, and nothing else in the json is (the masks are in
:mod:`vistk.data.checking.masks`). A COCO image is taken for a video of one frame.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from vistk.data.checking.masks import MaskChecks
from vistk.data.checking.report import ClassCount, Findings
from vistk.data.ytvis import OCCLUSION_WORDS, is_finite

LONG_VIDEO = 300
"""Frames beyond which a video is reported as long."""


@dataclass(frozen=True)
class Fields:
    """How a format calls things."""

    videos: str
    video_id: str
    segmentations: str
    areas: str
    boxes: str
    per_frame: bool  # a list with one entry per frame, or one frame's value


FORMATS = {
    "ytvis": Fields("videos", "video_id", "segmentations", "areas", "bboxes", per_frame=True),
    "coco": Fields("images", "image_id", "segmentation", "area", "bbox", per_frame=False),
}


@dataclass(frozen=True)
class CheckedVideo:
    """A video whose entry can be used."""

    where: str
    id: int
    file_names: tuple[str, ...]
    height: int
    width: int


@dataclass
class Checked:
    """What is left of a json when all its problems are noted."""

    videos: list[CheckedVideo] = field(default_factory=list)
    classes: list[ClassCount] = field(default_factory=list)
    categories: dict[int, str] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)


def check_content(content: dict[str, Any], form: str, findings: Findings, progress: Any) -> Checked:
    """Go through a parsed json.

    Args:
        content: the json's object. Its annotations are emptied along the way, so that memory is free
            again for the images.
        form: a key of ``FORMATS``.
        findings: takes the problems.
        progress: a bar that is moved on by one for each annotation.
    """
    names = FORMATS[form]
    checked = Checked()
    checked.categories = _categories(content, findings)
    videos = _videos(content, names, checked, findings)
    annotations = content.get("annotations")
    used: Counter[int] = Counter()
    seen_in: dict[int, set[int]] = {}
    if annotations in (None, []):
        findings.add("hidden", "field 'annotations' is {}", "missing" if annotations is None else "empty")
    else:
        _annotations(content, names, videos, checked, findings, (used, seen_in), progress)
    checked.classes = [
        ClassCount(identity, name, used[identity], len(seen_in.get(identity, ())))
        for identity, name in sorted(checked.categories.items())
    ]
    if annotations not in (None, []):
        for entry in checked.classes:
            if not entry.instances:
                findings.add("class-unused", "category {} ({!r})", entry.id, entry.name)
        annotated = set().union(*seen_in.values())
        for video in checked.videos:
            if video.id not in annotated:
                findings.add("no-annotations", video.where)
    return checked


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


_MISSING = object()


def _take(entry: dict[str, Any], name: str, kind: type, expected: str, where: str, findings: Findings) -> Any:
    """``entry[name]`` if it is of this type; else None, and a problem."""
    value = entry.get(name, _MISSING)
    if isinstance(value, kind) and not (kind is int and isinstance(value, bool)):
        return value
    found = "missing" if value is _MISSING else _short(value)
    kind_of_problem = "id-type" if name == "id" and value is not _MISSING else "structure"
    findings.add(kind_of_problem, "{}: field '{}' is {}, expected {}", where, name, found, expected)
    return None


def _entries(content: dict[str, Any], name: str, findings: Findings) -> Iterator[tuple[str, dict[str, Any]]]:
    """Where each entry of a top-level list stands, and the entry; what is no object is noted and left out."""
    entries = content.get(name, _MISSING)
    if not isinstance(entries, list):
        found = "missing" if entries is _MISSING else _short(entries)
        findings.add("structure", "field '{}' is {}, expected a list", name, found)
        return
    for i, entry in enumerate(entries):
        if isinstance(entry, dict):
            yield f"{name}[{i}]", entry
        else:
            findings.add("structure", "{}[{}] is {}, expected an object", name, i, _short(entry))


def _new_id(
    entry: dict[str, Any], where: str, taken: dict[int, Any] | set[int], what: str, findings: Findings
) -> int | None:
    """The entry's id if it is an integer not met before."""
    identity = _take(entry, "id", int, "an integer", where, findings)
    if identity is not None and identity in taken:
        findings.add(f"duplicate-{what}-id", "{}: id {}", where, identity)
        return None
    if identity == 0 and what != "annotation":
        findings.add("zero-video-or-category", "{}: id 0", where)
    return identity


def _categories(content: dict[str, Any], findings: Findings) -> dict[int, str]:
    found: dict[int, str] = {}
    for where, entry in _entries(content, "categories", findings):
        identity = _new_id(entry, where, found, "category", findings)
        name = _take(entry, "name", str, "a string", where, findings)
        if identity is None:
            continue
        if name is not None and name in found.values():
            findings.add("category-name", "{}: {!r}", where, name)
        found[identity] = name or f"({identity})"
    if content.get("categories") == []:
        findings.add("structure", "field 'categories' is empty, expected at least one category")
    return found


def _videos(
    content: dict[str, Any], names: Fields, checked: Checked, findings: Findings
) -> dict[int, CheckedVideo | None]:
    """Videos by id; None where the rest of the entry is of no use."""
    videos: dict[int, CheckedVideo | None] = {}
    for where, entry in _entries(content, names.videos, findings):
        identity = _new_id(entry, where, videos, "video", findings)
        if identity is None:
            continue
        where = f"{where} (id {identity})"
        files = _file_names(entry, names, where, findings)
        height = _take(entry, "height", int, "a positive integer", where, findings)
        width = _take(entry, "width", int, "a positive integer", where, findings)
        if height is not None and width is not None and min(height, width) < 1:
            findings.add("structure", "{}: {}x{} pixels, expected a positive size", where, width, height)
            height = None
        videos[identity] = None
        if files is None or height is None or width is None:
            continue
        videos[identity] = video = CheckedVideo(where, identity, files, height, width)
        checked.videos.append(video)
        if names.per_frame:
            _check_length(video, findings)
    lengths = [len(video.file_names) for video in checked.videos]
    checked.counts |= {
        "videos": len(videos),
        "frames": sum(lengths),
        "shortest": min(lengths, default=0),
        "longest": max(lengths, default=0),
    }
    return videos


def _check_length(video: CheckedVideo, findings: Findings) -> None:
    frames = len(video.file_names)
    if frames == 0:
        findings.add("no-frames", video.where)
    elif frames == 1:
        findings.add("one-frame", video.where)
    elif frames > LONG_VIDEO:
        findings.add("long-video", "{}: {} frames", video.where, frames)


def _file_names(
    entry: dict[str, Any], names: Fields, where: str, findings: Findings
) -> tuple[str, ...] | None:
    if not names.per_frame:
        name = _take(entry, "file_name", str, "a file name", where, findings)
        return None if name is None else (name,)
    files = _take(entry, "file_names", list, "a list of file names", where, findings)
    if files is None:
        return None
    wrong = [name for name in files if not isinstance(name, str)]
    if wrong:
        findings.add(
            "structure", "{}: field 'file_names' holds {}, expected strings", where, _short(wrong[0])
        )
    length = entry.get("length", len(files))
    if length != len(files):
        findings.add("length", "{}: length is {}, file_names has {}", where, _short(length), len(files))
    return None if wrong else tuple(files)


def _annotations(
    content: dict[str, Any],
    names: Fields,
    videos: dict[int, CheckedVideo | None],
    checked: Checked,
    findings: Findings,
    tally: tuple[Counter[int], dict[int, set[int]]],
    progress: Any,
) -> None:
    used, seen_in = tally
    masks = MaskChecks(findings)
    seen: set[int] = set()
    count = 0
    for where, entry in _entries(content, "annotations", findings):
        count += 1
        progress.update()
        identity = _new_id(entry, where, seen, "annotation", findings)
        if identity is not None:
            seen.add(identity)
            where = f"{where} (id {identity})"
            if identity == 0:
                findings.add("id-zero", where)
        video_id = _take(entry, names.video_id, int, "an integer", where, findings)
        if video_id is not None and video_id not in videos:
            findings.add("unknown-video", "{}: {} {}", where, names.video_id, video_id)
        category = _take(entry, "category_id", int, "an integer", where, findings)
        if category is not None and category not in checked.categories:
            findings.add("unknown-category", "{}: category_id {}", where, category)
        elif category is not None and video_id in videos:
            used[category] += 1
            seen_in.setdefault(category, set()).add(video_id)
        crowd = entry.get("iscrowd", 0)
        if crowd not in (0, 1):
            findings.add("crowd-value", "{}: iscrowd is {}", where, _short(crowd))
        elif crowd:
            findings.add("crowd", where)
        video = videos.get(video_id)
        if video is not None:
            _check_frames(entry, video, names, where, masks, findings)
        entry.clear()
    masks.flush()
    checked.counts |= {
        "annotations": count,
        "masks": masks.count,
        "null_frames": masks.nulls,
    }


def _per_frame(
    entry: dict[str, Any], name: str, frames: int, names: Fields, where: str, findings: Findings
) -> list[Any] | None:
    """A field with one entry per frame; None, and a problem, if it is of another length."""
    if not names.per_frame:
        return [entry.get(name)]
    values = entry.get(name, _MISSING)
    if not isinstance(values, list):
        found = "missing" if values is _MISSING else _short(values)
        findings.add("structure", "{}: field '{}' is {}, expected a list", where, name, found)
        return None
    if len(values) != frames:
        text = "{}: field '{}' has {} entries, expected {}, one per frame"
        findings.add("length", text, where, name, len(values), frames)
        return None
    return values


def _check_frames(
    entry: dict[str, Any],
    video: CheckedVideo,
    names: Fields,
    where: str,
    masks: MaskChecks,
    findings: Findings,
) -> None:
    """Masks, areas, boxes and occlusion of one annotation."""
    frames = len(video.file_names)
    # The published files say that every annotation has length 1.
    length = 1 if entry.get("length") == 1 else frames
    for name, expected in (("height", video.height), ("width", video.width), ("length", length)):
        if names.per_frame and entry.get(name, expected) != expected:
            text = "{}: {} is {}, its video's is {}"
            findings.add("annotation-size", text, where, name, _short(entry[name]), expected)
    areas = None
    if entry.get(names.areas) is not None:
        areas = _per_frame(entry, names.areas, frames, names, where, findings)
        for t, area in enumerate(areas or ()):
            if area is not None and not is_finite(area):
                findings.add("area-value", "{}, frame {}: area is {}", where, t, _short(area))
                areas = None
                break
    if names.per_frame and entry.get("occlusion") is not None:
        for t, word in enumerate(_per_frame(entry, "occlusion", frames, names, where, findings) or ()):
            if word is not None and word not in OCCLUSION_WORDS:
                findings.add("occlusion-word", "{}, frame {}: {}", where, t, _short(word))
    boxes = _boxes(entry, frames, names, where, findings)
    segmentations = _per_frame(entry, names.segmentations, frames, names, where, findings)
    if segmentations is None:
        return
    if not names.per_frame and segmentations[0] is None:  # only a frame of a video may lack a mask
        found = "null" if names.segmentations in entry else "missing"
        findings.add("segmentation", "{}: field '{}' is {}", where, names.segmentations, found)
        return
    if segmentations and all(segmentation is None for segmentation in segmentations):
        findings.add("no-mask", where)
    for t, segmentation in enumerate(segmentations):
        masks.add(
            segmentation,
            (video.height, video.width),
            where,
            t if names.per_frame else None,
            areas[t] if areas else None,
            boxes[t] if boxes else None,
        )


def _boxes(
    entry: dict[str, Any], frames: int, names: Fields, where: str, findings: Findings
) -> list[Any] | None:
    """Boxes x, y, width, height of each frame, None where there is none or it makes no sense."""
    given = entry.get(names.boxes)
    if given is None:
        return None
    boxes = given if names.per_frame else [given]
    if not isinstance(boxes, list) or len(boxes) != frames:
        found = f"{len(boxes)} entries" if isinstance(boxes, list) else _short(boxes)
        findings.add("box-value", "{}: field '{}' has {}, expected {}", where, names.boxes, found, frames)
        return None
    good: list[Any] = []
    for t, box in enumerate(boxes):
        sound = isinstance(box, list) and len(box) == 4 and all(map(is_finite, box))
        if box is not None and not sound:
            findings.add("box-value", "{}, frame {}: {}", where, t, _short(box))
        good.append(box if sound else None)
    return good

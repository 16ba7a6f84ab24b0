"""COCO video files (frames listed as ``images``, annotations a frame each) to YouTube-VIS.

The form of MMTracking, TAO and BDD100K: ``videos``; ``images`` with ``video_id`` and ``frame_id`` (or
``frame_index``); ``annotations`` with ``image_id`` and ``instance_id`` (or ``track_id``).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from vistk.data.converting.write import (
    Conversion,
    Destination,
    SourceObject,
    SourceVideo,
    common_size,
    selected,
    write,
)
from vistk.data.ytvis import DataError
from vistk.ops.masks import to_rle
from vistk.ops.runs import first_broken
from vistk.structures import RLE

FRAME_KEYS = ("frame_id", "frame_index")
TRACK_KEYS = ("instance_id", "track_id")


@dataclass(frozen=True)
class CocoVideo:
    """What to convert."""

    source: Path  # json file
    images: Path  # folder that its file names are relative to
    videos: Sequence[str] | None = None  # names; None = all


def convert_coco_video(coco: CocoVideo, destination: Destination, progress: bool = False) -> Conversion:
    """Convert a COCO video file. Ids of videos and categories stay as they are.

    All images of a video are frames, annotated or not. Annotations without a mask are dropped; a track
    that is a crowd in any frame is one in all.

    Raises:
        FileNotFoundError: the file, the folder or an image is missing.
        DataError: the file cannot be used; the message names the entry and the field.
    """
    destination.ensure_free()
    content = _read(coco)
    categories = {
        identity: str(_value(entry, "name", where))
        for identity, (where, entry) in _by_id(content, "categories", coco.source).items()
    }
    videos = _by_id(content, "videos", coco.source)
    names = {identity: str(entry.get("name", identity)) for identity, (_, entry) in videos.items()}
    wanted = set(selected(list(names.values()), coco.videos, coco.source))
    frames = _frames(content, videos, coco)
    video_of = {image: video for video, images in frames.items() for image in images}
    tracks: dict[int, list[tuple[str, dict[str, Any]]]] = {identity: [] for identity in videos}
    dropped: Counter[str] = Counter()
    total = 0
    for where, entry in _entries(content, "annotations", coco.source):
        image = _integer(entry, "image_id", where)
        if image not in video_of:
            raise DataError(f"{where}: 'image_id' is {image}, expected the id of one of the images")
        category = _integer(entry, "category_id", where)
        if category not in categories:
            raise DataError(f"{where}: 'category_id' is {category}, expected the id of one of the categories")
        total += 1
        if entry.get("segmentation") in (None, []):
            dropped["annotations without a mask"] += 1
        else:
            tracks[video_of[image]].append((where, entry))
    if total and dropped["annotations without a mask"] == total:
        raise DataError(f"{coco.source}: none of the {total} annotations has a 'segmentation', only boxes")

    def read() -> Iterator[SourceVideo]:
        for identity in sorted(videos):
            if names[identity] not in wanted:
                continue
            if not frames[identity]:
                dropped["videos without images"] += 1
                continue
            yield _video(identity, names[identity], frames[identity], tracks[identity], coco)

    source = f"COCO video file {coco.source.name}"
    return write(destination, read(), categories, source, dropped, total=len(wanted), progress=progress)


def _read(coco: CocoVideo) -> dict[str, Any]:
    if not coco.source.is_file():
        raise FileNotFoundError(f"file {coco.source} does not exist")
    if not coco.images.is_dir():
        raise FileNotFoundError(f"image folder {coco.images} does not exist")
    try:
        content = json.loads(coco.source.read_bytes())
    except ValueError as error:
        raise DataError(f"{coco.source} is not json: {error}") from error
    if not isinstance(content, dict) or not isinstance(content.get("images"), list):
        raise DataError(
            f"{coco.source} is no COCO video file, expected an object with 'videos', 'images', 'annotations' "
            "and 'categories'"
        )
    return content


def _entries(content: dict[str, Any], name: str, path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    entries = content.get(name)
    if not isinstance(entries, list):
        raise DataError(f"{path}: '{name}' is missing or no list")
    for i, entry in enumerate(entries):
        if not isinstance(entry, dict):
            raise DataError(f"{path}: {name}[{i}] is a {type(entry).__name__}, expected an object")
        yield f"{path}: {name}[{i}]", entry


def _value(entry: dict[str, Any], name: str, where: str) -> Any:
    if name not in entry:
        raise DataError(f"{where}: '{name}' is missing, found {', '.join(sorted(entry))}")
    return entry[name]


def _integer(entry: dict[str, Any], name: str, where: str) -> int:
    value = _value(entry, name, where)
    if not isinstance(value, int) or isinstance(value, bool):
        raise DataError(f"{where}: '{name}' is {value!r}, expected an integer")
    return value


def _by_id(content: dict[str, Any], name: str, path: Path) -> dict[int, tuple[str, dict[str, Any]]]:
    found: dict[int, tuple[str, dict[str, Any]]] = {}
    for where, entry in _entries(content, name, path):
        identity = _integer(entry, "id", where)
        if identity in found:
            raise DataError(f"{where}: 'id' is {identity} a second time, expected unique ids")
        found[identity] = where, entry
    return found


def _one_of(entry: dict[str, Any], names: tuple[str, ...], where: str) -> int:
    for name in names:
        if name in entry:
            return _integer(entry, name, where)
    raise DataError(f"{where}: neither '{names[0]}' nor '{names[1]}', found {', '.join(sorted(entry))}")


def _frames(
    content: dict[str, Any], videos: Mapping[int, Any], coco: CocoVideo
) -> dict[int, dict[int, tuple[str, dict[str, Any]]]]:
    """Images of each video, by image id, in the order of their frames."""
    numbered: dict[int, dict[int, int]] = {identity: {} for identity in videos}  # frame to image
    images = _by_id(content, "images", coco.source)
    for identity, (where, entry) in images.items():
        video = _integer(entry, "video_id", where)
        if video not in videos:
            raise DataError(f"{where}: 'video_id' is {video}, expected the id of one of the videos")
        frame = _one_of(entry, FRAME_KEYS, where)
        if frame in numbered[video]:
            raise DataError(f"{where}: frame {frame} of video {video} is given a second time")
        numbered[video][frame] = identity
    return {
        video: {of_frame[frame]: images[of_frame[frame]] for frame in sorted(of_frame)}
        for video, of_frame in numbered.items()
    }


def _video(
    identity: int,
    name: str,
    frames: Mapping[int, tuple[str, dict[str, Any]]],
    annotations: Sequence[tuple[str, dict[str, Any]]],
    coco: CocoVideo,
) -> SourceVideo:
    paths = []
    for where, entry in frames.values():
        file = _value(entry, "file_name", where)
        if not isinstance(file, str) or PurePosixPath(file).is_absolute():
            raise DataError(f"{where}: 'file_name' is {file!r}, expected a path below {coco.images}")
        paths.append(coco.images / file)
    height, width = common_size(paths, name)
    for where, entry in frames.values():
        stored = entry.get("height", height), entry.get("width", width)
        if stored != (height, width):
            raise DataError(
                f"{where}: {stored[1]}x{stored[0]} pixels, the images of video {name} are {width}x{height}"
            )
    position = {image: t for t, image in enumerate(frames)}
    masks: dict[int, list[RLE | None]] = {}
    categories: dict[int, int] = {}
    crowds: set[int] = set()
    for where, entry in annotations:
        track = _one_of(entry, TRACK_KEYS, where)
        category = categories.setdefault(track, entry["category_id"])
        if category != entry["category_id"]:
            raise DataError(
                f"{where}: track {track} is of category {entry['category_id']}, before it was of {category}"
            )
        t = position[entry["image_id"]]
        of_track = masks.setdefault(track, [None] * len(paths))
        if of_track[t] is not None:
            raise DataError(f"{where}: track {track} has a second mask in image {entry['image_id']}")
        of_track[t] = _mask(entry["segmentation"], height, width, where)
        crowd = entry.get("iscrowd", 0)
        if crowd not in (0, 1):
            raise DataError(f"{where}: 'iscrowd' is {crowd!r}, expected 0 or 1")
        if crowd:
            crowds.add(track)
    objects = [SourceObject(key, categories[key], masks[key], key in crowds) for key in sorted(masks)]
    return SourceVideo(name, paths, height, width, objects, identity)


def _mask(segmentation: Any, height: int, width: int, where: str) -> RLE:
    try:
        rle = to_rle(segmentation, height, width)
    except (ValueError, TypeError) as error:
        raise DataError(f"{where}: {error}") from error
    broken = first_broken([rle])
    if broken is not None:
        raise DataError(f"{where}: {broken[1]}")
    return rle

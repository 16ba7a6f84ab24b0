"""Tracks frame by frame in the formats of others: indexed masks, MOTS text, COCO video json."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TextIO

import numpy as np
import torch
from PIL import Image

from vistk.files import replacing, write_text
from vistk.ops.masks import areas, decode, encode
from vistk.structures import RLE
from vistk.viz.colors import color_of

MOST_INDICES = 254
"""Of objects in an indexed png, where 0 is the background and 255, of those who read it, no object."""

MOTS_IGNORE = 10  # class of regions to be ignored
MOTS_A_CLASS = 1000  # ids of a class


class TrackRow(NamedTuple):
    """A track in one frame, as it was known then."""

    id: int
    label: int  # contiguous class
    score: float  # so far
    rle: RLE


@dataclass(frozen=True)
class TrackedImage:
    """A frame and its tracks, the best one first; none where it could not be decoded."""

    number: int  # among the tracked frames
    index: int  # in the source
    time: float  # seconds
    name: str
    size: tuple[int, int]
    tracks: tuple[TrackRow, ...]


def index_map(image: TrackedImage) -> np.ndarray:
    """``(H, W)`` int64: 0 for nobody, i + 1 for track i of the frame; where two meet, the better one."""
    found = np.zeros(image.size, dtype=np.int64)
    for i, track in reversed(list(enumerate(image.tracks, 1))):
        found[decode(track.rle)] = i
    return found


def write_index_mask(path: Path, image: TrackedImage) -> int:
    """An indexed png, as DAVIS has them: track k has the value k + 1 and the colour that it has everywhere.

    Returns:
        Tracks that have no place in it, because their ids are too high.
    """
    values = np.array([0, *(track.id + 1 for track in image.tracks)])
    lost = values > MOST_INDICES
    pixels = np.where(lost, 0, values)[index_map(image)].astype(np.uint8)
    picture = Image.fromarray(pixels)  # "L"; a palette makes it indexed
    picture.putpalette([0, 0, 0, *(v for k in range(MOST_INDICES) for v in color_of(k))])
    picture.save(path, optimize=False)
    return int(lost.sum())


def write_mots(
    folder: Path,
    name: str,
    images: Iterable[TrackedImage],
    tracks: Mapping[int, tuple[int, float]],
    categories: Mapping[int, str],
    numbers: bool,
) -> int:
    """``<name>.txt`` and ``classes.json``, as ``vistk data convert mots`` reads them.

    A line is ``frame object_id class_id height width rle``; ``object_id`` is 1000 x class + the id of the
    track, or, where one is above 999, the tracks of each class in the order in which they come. Of more than
    1000 tracks of a class, those of the lowest scores are left out. Class 10 is kept free: in MOTS it marks
    regions to be ignored.

    Args:
        tracks: class and score of every track.
        categories: name of every class by its id in the data set.
        numbers: frames are numbered as their files are named, not by their place in the source.

    Returns:
        Tracks that are left out.
    """
    classes = mots_classes(categories)
    class_of = dict(enumerate(classes))
    instances = {identity: identity for identity in tracks}
    if max(tracks, default=0) >= MOTS_A_CLASS:
        instances = _renumbered(tracks)
    with replacing(folder / f"{name}.txt") as temporary, temporary.open("w", encoding="ascii") as file:
        for image in images:
            owners = index_map(image)
            frame = int(image.name) if numbers else image.index
            for i, track in enumerate(image.tracks, 1):
                seen = owners == i
                if track.id not in instances or not seen.any():
                    continue
                class_id = class_of[tracks[track.id][0]]
                object_id = MOTS_A_CLASS * class_id + instances[track.id]
                counts_text = encode(torch.from_numpy(seen)[None])[0]["counts"]
                file.write(f"{frame} {object_id} {class_id} {image.size[0]} {image.size[1]} {counts_text}\n")
    write_text(folder / "classes.json", json.dumps({str(k): v for k, v in classes.items()}, indent=1) + "\n")
    return len(tracks) - len(instances)


def _renumbered(tracks: Mapping[int, tuple[int, float]]) -> dict[int, int]:
    """Ids 0, 1, .. of the tracks of each class in their order, without those that find no place."""
    of_class: dict[int, list[int]] = {}
    for identity, (label, _) in tracks.items():
        of_class.setdefault(label, []).append(identity)
    found: dict[int, int] = {}
    for members in of_class.values():
        best = set(sorted(members, key=lambda identity: -tracks[identity][1])[:MOTS_A_CLASS])
        found.update((identity, i) for i, identity in enumerate(one for one in members if one in best))
    return found


def mots_classes(categories: Mapping[int, str]) -> dict[int, str]:
    """Names by class id in MOTS, in the order of the labels: the ids of the data set, but for 0 and 10."""
    free = max(categories, default=0) + 1
    found = {}
    for identity, name in sorted(categories.items()):
        if identity in (0, MOTS_IGNORE):
            free += free == MOTS_IGNORE
            identity, free = free, free + 1
        found[identity] = name
    return found


def write_coco_video(
    path: Path,
    name: str,
    images: Iterable[TrackedImage],
    labels: Mapping[int, int],
    categories: Mapping[int, str],
    files: Sequence[str] | None,
    size: tuple[int, int],
) -> None:
    """``videos``, ``images``, ``annotations``, ``categories`` in one json, an annotation a track and frame.

    Args:
        images: one or more, gone through twice.
        labels: the class of every track, the same in all frames.
        files: of the images, by their place in the source; None = ``<index>.jpg``.
        size: of the video.
    """
    ids = sorted(categories)
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        videos = [{"id": 1, "name": name, "height": size[0], "width": size[1]}]
        kinds = [{"id": identity, "name": categories[identity]} for identity in ids]
        file.write(f'{{"videos": {json.dumps(videos)},\n"categories": {json.dumps(kinds)},\n')
        separator = '"images": [\n'
        for image in images:
            file.write(separator + json.dumps(_coco_image(image, files)))
            separator = ",\n"
        file.write('\n],\n"annotations": [')
        separator, number = "\n", 0
        for image in images:
            found = areas([track.rle for track in image.tracks])
            for track, area in zip(image.tracks, found.tolist(), strict=True):
                number += 1
                entry = {
                    "id": number,
                    "video_id": 1,
                    "image_id": image.number + 1,
                    "category_id": ids[labels[track.id]],
                    "instance_id": track.id,
                    "track_id": track.id,
                    "score": track.score,
                    "iscrowd": 0,
                    "area": area,
                    "bbox": _box(track.rle),
                    "segmentation": track.rle,
                }
                file.write(separator + json.dumps(entry))
                separator = ",\n"
        file.write("\n]}\n")


def _coco_image(image: TrackedImage, files: Sequence[str] | None) -> dict[str, Any]:
    return {
        "id": image.number + 1,
        "video_id": 1,
        "frame_id": image.number,
        "file_name": f"{image.name}.jpg" if files is None else files[image.index],
        "height": image.size[0],
        "width": image.size[1],
        "source_index": image.index,
        "time": round(image.time, 6),
    }


def _box(rle: RLE) -> list[int]:
    """x, y, width and height."""
    mask = decode(rle)
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    left, top = int(columns[0]), int(rows[0])
    return [left, top, int(columns[-1]) - left + 1, int(rows[-1]) - top + 1]


class Spool:
    """Frames on disk until all are known; can be gone through again and again, and is gone with its file.

    Attributes:
        last: class and score of every track in the last frame in which it is, in the order in which the
            tracks came.
    """

    def __init__(self, folder: Path) -> None:
        self._file: TextIO = tempfile.TemporaryFile("w+", dir=folder, encoding="utf-8")  # noqa: SIM115
        self.last: dict[int, tuple[int, float]] = {}

    def add(self, image: TrackedImage) -> None:
        """The next frame."""
        self._file.write(json.dumps(list(vars(image).values())) + "\n")
        self.last.update((track.id, (track.label, track.score)) for track in image.tracks)

    def __iter__(self) -> Iterator[TrackedImage]:
        self._file.seek(0)
        for line in self._file:
            number, index, time, name, size, tracks = json.loads(line)
            rows = tuple(TrackRow(*track) for track in tracks)
            yield TrackedImage(number, index, time, name, (size[0], size[1]), rows)

    def close(self) -> None:
        self._file.close()

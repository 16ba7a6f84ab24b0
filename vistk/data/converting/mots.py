"""MOTS text files (KITTI MOTS, MOTSChallenge) to YouTube-VIS.

A line is ``frame object_id class_id height width rle``, with ``object_id = 1000 * class_id + instance``;
class 10 marks regions to be ignored. Format: Voigtlaender et al., "MOTS: Multi-Object Tracking and
Segmentation", CVPR 2019.

Regions to be ignored have no counterpart in the metrics of YouTube-VIS: a crowd there is matched by
ordinary IoU, within one category, and tracking metrics count it as an object. So they are dropped; or,
with ``ignore="crowd"``, kept for other tools as one crowd annotation in each category of the file.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from pycocotools import mask as coco_mask

from vistk.data.converting.write import (
    Conversion,
    Destination,
    SourceObject,
    SourceVideo,
    common_size,
    image_files,
    selected,
    write,
)
from vistk.data.ytvis import DataError
from vistk.ops.runs import first_broken
from vistk.structures import RLE

CLASSES: Mapping[int, str] = {1: "car", 2: "pedestrian"}
"""Of KITTI MOTS; MOTSChallenge has pedestrians alone."""

IGNORE = 10

IMAGE_FOLDERS = ("images", "training/image_02", "image_02")
"""Where images are looked for, from the folder of the text files upwards."""


@dataclass(frozen=True)
class MotsFolders:
    """What to convert, and how it is to be read."""

    source: Path  # <video>.txt in it or in its instances_txt; or <video>/gt/gt.txt with <video>/img1
    images: Path | None = None  # folder of <video>/<image>; None = looked for
    classes: Path | None = None  # json {class id: name}; None = CLASSES, those that occur
    videos: Sequence[str] | None = None  # None = all
    first_frame: int | None = None  # number of the first image; None = images are named by their number
    ignore: Literal["drop", "crowd"] = "drop"


class Line(NamedTuple):
    """A line of a text file."""

    where: str
    frame: int
    object_id: int
    class_id: int
    rle: RLE


def convert_mots(folders: MotsFolders, destination: Destination, progress: bool = False) -> Conversion:
    """Convert MOTS text files. All images of a video are frames; its categories keep their class ids.

    Raises:
        FileNotFoundError: a folder or file is missing.
        DataError: a file cannot be used; the message names it, and the line.
    """
    destination.ensure_free()
    if not folders.source.is_dir():
        raise FileNotFoundError(f"folder {folders.source} does not exist")
    texts = _texts(folders.source)
    names = selected(list(texts), folders.videos, folders.source)
    known = _read_classes(folders.classes)
    # Twice through the text: which classes there are must be known before the first video is made.
    occurring = {line.class_id for name in names for line in _read(texts[name])} - {IGNORE}
    categories = {i: known[i] for i in sorted(known) if i in occurring or folders.classes is not None}
    dropped: Counter[str] = Counter()

    def videos() -> Iterator[SourceVideo]:
        for name in names:
            lines = _read(texts[name])
            for line in lines:
                if line.class_id not in known and line.class_id != IGNORE:
                    there = ", ".join(f"{i} {name}" for i, name in known.items())
                    raise DataError(f"{line.where}: class {line.class_id} has no name (named: {there})")
            _check_masks(lines)
            yield _video(name, _images(name, texts[name], folders), lines, categories, folders, dropped)

    source = f"MOTS in {folders.source.name}"
    return write(destination, videos(), categories, source, dropped, total=len(names), progress=progress)


def _texts(source: Path) -> dict[str, Path]:
    """Text files by video."""
    for folder in (source / "instances_txt", source):
        found = {path.stem: path for path in sorted(folder.glob("*.txt")) if not path.name.startswith(".")}
        if found:
            return found
    found = {path.parent.parent.name: path for path in sorted(source.glob("*/gt/gt.txt"))}
    if not found:
        raise FileNotFoundError(
            f"no MOTS text in {source}: looked for *.txt, instances_txt/*.txt and */gt/gt.txt"
        )
    return found


def _images(name: str, text: Path, folders: MotsFolders) -> list[Path]:
    if folders.images is not None:
        looked = [folders.images / name, folders.images / name / "img1"]
    elif text.parent.name == "gt":
        looked = [text.parent.parent / "img1"]
    else:
        bases = [text.parent, text.parent.parent]
        looked = [base / folder / name for base in bases for folder in IMAGE_FOLDERS]
    for folder in looked:
        if folder.is_dir():
            images = image_files(folder)
            if images:
                return images
    where = ", ".join(map(str, looked))
    raise FileNotFoundError(f"no images of video {name}: looked in {where}; give --images DIR")


def _read_classes(path: Path | None) -> Mapping[int, str]:
    if path is None:
        return CLASSES
    if not path.is_file():
        raise FileNotFoundError(f"file {path} does not exist")
    try:
        content = json.loads(path.read_bytes())
        found = {int(key): name for key, name in content.items()}
    except (ValueError, AttributeError) as error:
        raise DataError(f"{path}: expected json {{class id: name}}: {error}") from error
    if not found or not all(isinstance(name, str) for name in found.values()) or IGNORE in found:
        raise DataError(f"{path}: expected json {{class id: name}}, without class {IGNORE} (to be ignored)")
    return found


def _read(path: Path) -> list[Line]:
    """The lines of a file; their masks are not looked at."""
    lines = []
    for number, text in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
        parts = text.split()
        if not parts:
            continue
        where = f"{path}, line {number}"
        if len(parts) != 6:
            raise DataError(
                f"{where}: {len(parts)} fields, expected 6: frame, object id, class id, height, width, rle"
            )
        try:
            frame, object_id, class_id, height, width = map(int, parts[:5])
        except ValueError:
            raise DataError(f"{where}: {' '.join(parts[:5])!r}, expected five integers") from None
        if class_id != IGNORE and object_id // 1000 != class_id:
            raise DataError(
                f"{where}: object {object_id} of class {class_id}, expected an id of 1000 x class + instance"
            )
        lines.append(Line(where, frame, object_id, class_id, {"size": [height, width], "counts": parts[5]}))
    return lines


def _check_masks(lines: Sequence[Line]) -> None:
    broken = first_broken([line.rle for line in lines])
    if broken is not None:
        raise DataError(f"{lines[broken[0]].where}: {broken[1]}")


def _video(
    name: str,
    images: Sequence[Path],
    lines: Sequence[Line],
    categories: Mapping[int, str],
    folders: MotsFolders,
    dropped: Counter[str],
) -> SourceVideo:
    size = common_size(images, name)
    position = _positions(images, folders.first_frame)
    masks: dict[int, list[RLE | None]] = {}
    ignored: list[RLE | None] = [None] * len(images)
    for line in lines:
        if line.frame not in position:
            numbers = f"{min(position)} to {max(position)}"
            raise DataError(
                f"{line.where}: frame {line.frame} has no image, those of {name} are numbered {numbers}; "
                "--first-frame says with which number the text begins"
            )
        if tuple(line.rle["size"]) != size:
            height, width = line.rle["size"]
            raise DataError(
                f"{line.where}: the mask is {width}x{height} pixels, the images are {size[1]}x{size[0]}"
            )
        t = position[line.frame]
        if line.class_id == IGNORE:
            before = ignored[t]
            ignored[t] = line.rle if before is None else _union(before, line.rle)
            dropped["masks of regions to be ignored"] += folders.ignore == "drop"
            continue
        of_object = masks.setdefault(line.object_id, [None] * len(images))
        if of_object[t] is not None:
            raise DataError(f"{line.where}: object {line.object_id} has a second mask in frame {line.frame}")
        of_object[t] = line.rle
    objects = [SourceObject(key, key // 1000, masks[key]) for key in sorted(masks)]
    if folders.ignore == "crowd" and any(mask is not None for mask in ignored):
        objects += [SourceObject(1000 * IGNORE, category, ignored, True) for category in categories]
    return SourceVideo(name, images, *size, objects)


def _positions(images: Sequence[Path], first_frame: int | None) -> dict[int, int]:
    """Position of an image by its number in the text."""
    if first_frame is not None:
        return {first_frame + t: t for t in range(len(images))}
    unnumbered = [path for path in images if not path.stem.isdecimal()]
    if unnumbered:
        raise DataError(
            f"{unnumbered[0]} is not named by its number; --first-frame says with which number the text "
            "begins"
        )
    return {int(path.stem): t for t, path in enumerate(images)}


def _union(a: RLE, b: RLE) -> RLE:
    merged = coco_mask.merge([a, b])
    return {"size": list(merged["size"]), "counts": merged["counts"].decode("ascii")}

"""Writes what the converters read as a split that :class:`vistk.data.ytvis.YTVIS` loads.

The readers are :mod:`~vistk.data.converting.masks`, :mod:`~vistk.data.converting.mots` and
:mod:`~vistk.data.converting.coco_video`. Each yields :class:`SourceVideo`; everything about files is here.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from PIL import Image
from pycocotools import mask as coco_mask

from vistk.data.progress import bar
from vistk.data.ytvis import DataError
from vistk.files import replacing
from vistk.ops.masks import areas as mask_areas
from vistk.structures import RLE

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")

CONVERTER = "vistk data convert"
"""Stands in the json of every conversion: nothing else is ever overwritten."""


@dataclass(frozen=True)
class SourceObject:
    """An object of a video in another format."""

    source_id: int | str  # what the source calls it; kept in the json
    category_id: int
    masks: Sequence[RLE | None]  # T entries
    iscrowd: bool = False


@dataclass(frozen=True)
class SourceVideo:
    """A video in another format."""

    name: str  # its folder in the new data set
    images: Sequence[Path]  # T files
    height: int
    width: int
    objects: Sequence[SourceObject]
    id: int | None = None  # None = numbered from 1 on


@dataclass(frozen=True)
class Destination:
    """Where a conversion goes: ``{root}/{split}.json`` and ``{root}/{split}/JPEGImages/<video>/<image>``."""

    root: Path
    split: str = "train"
    copy: bool = False  # copy images; else link to them
    overwrite: bool = False  # replace an earlier conversion

    @property
    def json_path(self) -> Path:
        return self.root / f"{self.split}.json"

    @property
    def folder(self) -> Path:
        return self.root / self.split

    @property
    def image_root(self) -> Path:
        return self.folder / "JPEGImages"

    def ensure_free(self) -> None:
        """Raises DataError if something is in the way that may not be overwritten."""
        if not self.split or PurePosixPath(self.split).name != self.split or self.split.startswith("."):
            raise DataError(f"split {self.split!r} is not the name of a folder")
        there = [path for path in (self.json_path, self.folder) if path.exists()]
        if there and not self.overwrite:
            raise DataError(f"{there[0]} exists; give another split or folder, or --overwrite")
        if there and not self._is_conversion():
            raise DataError(f"{there[0]} was not written by '{CONVERTER}' and is not overwritten")

    def _is_conversion(self) -> bool:
        try:
            info = json.loads(self.json_path.read_bytes())["info"]
            return info["converter"] == CONVERTER
        except (OSError, ValueError, KeyError, TypeError):
            return False


@dataclass
class Conversion:
    """What was written, and what was left out."""

    json_path: Path
    image_root: Path
    counts: Counter[str] = field(default_factory=Counter)  # videos, frames, objects, masks
    dropped: Counter[str] = field(default_factory=Counter)  # what and how many

    def to_text(self) -> str:
        """One line on what there is, one on each thing that was left out."""
        parts = [f"{self.counts[key]} {key}" for key in ("videos", "frames", "objects", "masks")]
        lines = [f"{self.json_path}: {', '.join(parts)}; images in {self.image_root}"]
        lines += [f"  left out: {count} {what}" for what, count in sorted(self.dropped.items()) if count]
        return "\n".join(lines) + "\n"


def write(
    destination: Destination,
    videos: Iterable[SourceVideo],
    categories: Mapping[int, str],
    source: str,
    dropped: Counter[str],
    *,
    total: int,
    progress: bool = False,
) -> Conversion:
    """Write a split; nothing of it is there before all of it is.

    Args:
        videos: read one at a time, in the order in which they are to stand in the json.
        source: what was converted, for the json's info.
        dropped: what the reader left out; read after the last video. Objects without a pixel are added.
        total: number of videos, for the bar.

    Raises:
        DataError: two videos or two of the images of a video would share a name; or what the reader raises.
    """
    destination.ensure_free()
    destination.root.mkdir(parents=True, exist_ok=True)
    conversion = Conversion(destination.json_path, destination.image_root, dropped=dropped)
    content: dict[str, Any] = {
        "info": {"description": f"converted from {source}", "converter": CONVERTER},
        "categories": [
            {"id": identity, "name": name, "supercategory": "object"}
            for identity, name in sorted(categories.items())
        ],
        "videos": [],
        "annotations": [],
    }
    prefix = f".{destination.split}."
    with tempfile.TemporaryDirectory(dir=destination.root, prefix=prefix, suffix=".tmp") as temporary:
        new = Path(temporary) / "new"
        (new / "JPEGImages").mkdir(parents=True)
        with bar(total, f"converting {destination.split}", "video", progress) as shown:
            for number, video in enumerate(videos, 1):
                _add_video(content, video, number, conversion)
                _place_images(video, new / "JPEGImages", destination)
                shown.update()
        if not content["videos"]:
            raise DataError(f"{source} holds no video that can be converted")
        with replacing(destination.json_path) as path:
            path.write_text(json.dumps(content), encoding="utf-8")
            # At no time are there annotations of other images.
            destination.json_path.unlink(missing_ok=True)
            if destination.folder.exists():
                destination.folder.rename(Path(temporary) / "old")
            new.rename(destination.folder)
    return conversion


def _add_video(content: dict[str, Any], video: SourceVideo, number: int, conversion: Conversion) -> None:
    identity = number if video.id is None else video.id
    content["videos"].append(
        {
            "id": identity,
            "width": video.width,
            "height": video.height,
            "length": len(video.images),
            "file_names": [f"{video.name}/{image.name}" for image in video.images],
        }
    )
    conversion.counts += Counter({"videos": 1, "frames": len(video.images)})
    for thing in video.objects:
        areas = [int(area) for area in mask_areas(thing.masks)]
        masks = [mask if area else None for mask, area in zip(thing.masks, areas, strict=True)]
        if not any(areas):
            conversion.dropped["objects without a pixel"] += 1
            continue
        content["annotations"].append(
            {
                "id": len(content["annotations"]) + 1,
                "video_id": identity,
                "category_id": thing.category_id,
                "iscrowd": int(thing.iscrowd),
                "height": video.height,
                "width": video.width,
                "length": len(video.images),
                "segmentations": masks,
                "bboxes": [None if mask is None else coco_mask.toBbox(mask).tolist() for mask in masks],
                "areas": [area or None for area in areas],
                "source_id": thing.source_id,
            }
        )
        conversion.counts += Counter({"objects": 1, "masks": sum(area > 0 for area in areas)})


def _place_images(video: SourceVideo, root: Path, destination: Destination) -> None:
    name = PurePosixPath(video.name)
    if name.is_absolute() or ".." in name.parts or "\\" in video.name or not name.parts:
        raise DataError(f"video name {video.name!r} leads out of the folder of images")
    folder = root / name
    folder.mkdir(parents=True, exist_ok=True)
    replaced = destination.folder.resolve() if destination.folder.exists() else None
    for image in video.images:
        if replaced is not None and replaced in image.resolve().parents:
            raise DataError(f"{image} lies in the folder that is to be overwritten")
        new = folder / image.name
        if os.path.lexists(new):
            raise DataError(f"two images would both be {video.name}/{image.name}")
        if destination.copy:
            shutil.copyfile(image, new)
        else:
            new.symlink_to(os.path.abspath(image))


def image_files(folder: Path, suffixes: Sequence[str] = IMAGE_SUFFIXES) -> list[Path]:
    """The images directly in a folder, by name."""
    return sorted(
        path for path in folder.iterdir() if path.suffix.lower() in suffixes and not path.name.startswith(".")
    )


def subfolders(folder: Path) -> list[Path]:
    """The folders directly in a folder, by name, without hidden ones."""
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def image_size(path: Path) -> tuple[int, int]:
    """Height and width from an image's header.

    Raises:
        FileNotFoundError, DataError: there is no such file, or it is no image.
    """
    try:
        with Image.open(path) as image:
            return image.height, image.width
    except FileNotFoundError:
        raise FileNotFoundError(f"image {path} does not exist") from None
    except (OSError, SyntaxError) as error:
        raise DataError(f"{path} is not an image: {error}") from error


def common_size(images: Sequence[Path], video: str) -> tuple[int, int]:
    """Height and width of all images of a video (at least one).

    Raises:
        DataError: they differ; a YouTube-VIS video has one size.
    """
    first = image_size(images[0])
    for image in images[1:]:
        size = image_size(image)
        if size != first:
            raise DataError(
                f"video {video}: {images[0].name} is {first[1]}x{first[0]} pixels, {image.name} is "
                f"{size[1]}x{size[0]}, expected one size"
            )
    return first


def selected(found: Sequence[str], wanted: Sequence[str] | None, where: Path) -> list[str]:
    """Those of the videos found that are wanted (None: all), by name.

    Raises:
        DataError: one that is wanted is not there.
    """
    if wanted is None:
        return sorted(found)
    missing = sorted(set(wanted) - set(found))
    if missing:
        raise DataError(
            f"{len(missing)} of {len(set(wanted))} videos asked for are not in {where}; the first is "
            f"{missing[0]!r}"
        )
    return sorted(set(wanted))

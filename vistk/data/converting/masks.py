"""Folders of PNG masks, as DAVIS and YouTube-VOS have them, to YouTube-VIS.

``JPEGImages[/480p]/<video>/*.jpg`` and ``Annotations[/480p]/<video>/*.png``. The value of a pixel (the
index into the palette, or the grey level) is the object's id; 0 is background. In colour images every
colour but black is an object. Void pixels belong to no object: they are dropped, as the metrics of
YouTube-VIS have no regions to ignore.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from vistk.data.categories import TABLES
from vistk.data.converting.write import (
    Conversion,
    Destination,
    SourceObject,
    SourceVideo,
    common_size,
    image_files,
    selected,
    subfolders,
    write,
)
from vistk.data.ytvis import DataError
from vistk.ops.masks import encode
from vistk.structures import RLE

MAX_COLOURS = 255
"""More colours than this in one mask are those of a photo, or of lossy compression."""

INDEX_MODES = ("1", "L", "P", "I", "I;16")

Classes = Mapping[str, Mapping[str, str]]
"""Class name by video and object id."""


@dataclass(frozen=True)
class MaskFolders:
    """What to convert, and how it is to be read."""

    source: Path
    images: str = "JPEGImages"
    annotations: str = "Annotations"
    resolution: str | None = None  # the folder between these and the videos, such as 480p
    classes: Path | None = None  # json {video: {object id: class}}; None = meta.json of YouTube-VOS if there
    categories: Sequence[str] | str | None = None  # names by id from 1, or a published table; None = sorted
    videos: Sequence[str] | None = None  # None = all
    void: int | None = 255  # a value that is no object
    all_frames: bool = False  # also frames without a PNG


def convert_masks(folders: MaskFolders, destination: Destination, progress: bool = False) -> Conversion:
    """Convert folders of masks.

    Only frames that have a mask file are kept (YouTube-VOS annotates each fifth), unless
    ``all_frames``, where the others have null masks. Without classes every object is an ``object``.

    Raises:
        FileNotFoundError: a folder or file is missing.
        DataError: a file cannot be used; the message names it.
    """
    destination.ensure_free()
    if not folders.source.is_dir():
        raise FileNotFoundError(f"folder {folders.source} does not exist")
    image_root = _video_root(folders.source / folders.images, folders.resolution)
    mask_root = _video_root(
        folders.source / folders.annotations, folders.resolution or _below(image_root, folders)
    )
    class_file, classes = _read_classes(folders)
    categories = _categories(classes, folders.categories)
    names = selected([path.name for path in subfolders(image_root)], folders.videos, image_root)
    annotated = {path.name for path in subfolders(mask_root)}
    strays = sorted(annotated - {path.name for path in subfolders(image_root)})
    if strays:
        raise FileNotFoundError(f"{mask_root / strays[0]} has no images: {image_root / strays[0]} is missing")
    dropped: Counter[str] = Counter()
    dropped["videos without a mask file"] += sum(name not in annotated for name in names)
    names = [name for name in names if name in annotated]

    def videos() -> Iterator[SourceVideo]:
        ids = {name: identity for identity, name in categories.items()}
        for name in names:
            objects = None if classes is None else _Named(classes.get(name, {}), name, class_file, ids)
            video = _read_video(image_root / name, mask_root / name, folders, objects, dropped)
            if video is not None:
                yield video

    source = f"masks in {folders.source.name}"
    return write(destination, videos(), categories, source, dropped, total=len(names), progress=progress)


def _below(image_root: Path, folders: MaskFolders) -> str | None:
    """The folder between, as the images have it."""
    inside = image_root.relative_to(folders.source / folders.images).as_posix()
    below = folders.source / folders.annotations / inside
    return inside if inside != "." and below.is_dir() else None


def _video_root(folder: Path, resolution: str | None) -> Path:
    """The folder that holds the videos' folders: this one, or the one for a resolution in it."""
    if not folder.is_dir():
        raise FileNotFoundError(f"folder {folder} does not exist")
    if resolution is not None:
        if not (folder / resolution).is_dir():
            there = ", ".join(path.name for path in subfolders(folder)[:8])
            raise FileNotFoundError(f"folder {folder / resolution} does not exist; {folder} holds {there}")
        return folder / resolution
    inside = subfolders(folder)
    between = [path for path in inside if not image_files(path) and subfolders(path)]
    if not between or len(between) < len(inside):
        return folder
    if len(between) > 1:
        names = ", ".join(path.name for path in between)
        raise DataError(f"{folder} holds several resolutions ({names}): choose one with --resolution")
    return between[0]


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        raise FileNotFoundError(f"file {path} does not exist") from None
    except ValueError as error:
        raise DataError(f"{path} is not json: {error}") from error


def _read_classes(folders: MaskFolders) -> tuple[Path, Classes | None]:
    meta = folders.source / "meta.json"
    if folders.classes is None and not meta.is_file():
        return meta, None
    path = folders.classes or meta
    content = _read_json(path)
    if isinstance(content, dict) and isinstance(content.get("videos"), dict):  # YouTube-VOS
        content = {video: _of_objects(entry) for video, entry in content["videos"].items()}
    sound = isinstance(content, dict) and all(
        isinstance(of_video, dict) and all(isinstance(name, str) for name in of_video.values())
        for of_video in content.values()
    )
    if not sound:
        raise DataError(
            f"{path}: expected {{video: {{object id: class}}}}, or the meta.json of YouTube-VOS, with "
            "classes as strings"
        )
    return path, content


def _of_objects(entry: Any) -> Any:
    """Class name by object id of a video of a YouTube-VOS meta.json; another form as it stands."""
    objects = entry.get("objects", {}) if isinstance(entry, dict) else entry
    if not isinstance(objects, dict):
        return objects
    return {
        key: thing.get("category", "object") if isinstance(thing, dict) else thing
        for key, thing in objects.items()
    }


def _categories(classes: Classes | None, given: Sequence[str] | str | None) -> Mapping[int, str]:
    if isinstance(given, str) and given not in TABLES:
        raise DataError(f"data set {given!r} has no table, expected one of {', '.join(TABLES)}")
    if classes is None and given is not None and len(TABLES[given] if isinstance(given, str) else given) > 1:
        raise DataError(
            "there are several categories, but no file says of which one an object is; give --classes FILE"
        )
    if isinstance(given, str):
        return TABLES[given]
    if given is None:
        given = (
            sorted({name for of_video in classes.values() for name in of_video.values()}) if classes else []
        )
    return dict(enumerate(given or ["object"], 1))


@dataclass(frozen=True)
class _Named:
    """Classes of the objects of one video."""

    names: Mapping[str, str]
    video: str
    path: Path
    ids: Mapping[str, int]  # category id by name

    def category(self, key: str) -> int:
        if key not in self.names:
            there = ", ".join(self.names) or "none"
            raise DataError(f"{self.path}: video {self.video}, object {key} has no class (named: {there})")
        name = self.names[key]
        if name not in self.ids:
            raise DataError(
                f"{self.path}: video {self.video}, object {key}: class {name!r} is not a category"
            )
        return self.ids[name]


def _read_video(
    images: Path, masks: Path, folders: MaskFolders, named: _Named | None, dropped: Counter[str]
) -> SourceVideo | None:
    """One video; None, and counted, if there is no frame to keep."""
    name = images.name
    frames = image_files(images)
    of_frame = {path.stem: path for path in image_files(masks, (".png",))}
    lost = sorted(of_frame.keys() - {frame.stem for frame in frames})
    if lost:
        raise FileNotFoundError(f"{of_frame[lost[0]]} has no image in {images}")
    if not folders.all_frames:
        frames = [frame for frame in frames if frame.stem in of_frame]
    if not frames:
        dropped["videos without an annotated frame"] += 1
        return None
    height, width = common_size(frames, name)
    of_object: dict[int | str, list[RLE | None]] = {}
    void_path = None
    coloured: dict[bool, Path] = {}
    for t, frame in enumerate(frames):
        if frame.stem not in of_frame:
            continue
        path = of_frame[frame.stem]
        values, colour = _read_mask(path)
        if values.shape != (height, width):
            raise DataError(
                f"{path} is {values.shape[1]}x{values.shape[0]} pixels, {frame.name} of video {name} is "
                f"{width}x{height}"
            )
        present = np.unique(values)
        if len(present) > MAX_COLOURS + 1 and colour:
            raise DataError(f"{path} has {len(present)} colours, one is an object; was it saved with loss?")
        if present.any():
            coloured[colour] = path
        if not colour and folders.void is not None and folders.void in present:
            void_path = path
            present = present[present != folders.void]
        present = present[present != 0]
        for value in present.tolist():
            key = f"#{value:06x}" if colour else value
            mask = torch.from_numpy(values == value)
            of_object.setdefault(key, [None] * len(frames))[t] = encode(mask[None])[0]
    if len(coloured) == 2:
        raise DataError(f"{coloured[True]} is a colour image, {coloured[False]} is not, expected one kind")
    if void_path is not None and not of_object:
        raise DataError(
            f"{void_path}: the only value beside 0 is {folders.void}, which is void; if it is the object "
            "(as in DAVIS 2016), give --void none"
        )
    if named is not None:
        dropped["objects with a class but no mask"] += len(named.names.keys() - set(map(str, of_object)))
    objects = [
        SourceObject(key, 1 if named is None else named.category(str(key)), of_object[key])
        for key in sorted(of_object)  # type: ignore[type-var]
    ]
    return SourceVideo(name, frames, height, width, objects)


def _read_mask(path: Path) -> tuple[np.ndarray, bool]:
    """``(H, W)`` integers, and whether they are colours."""
    try:
        with Image.open(path) as image:
            mode, pixels = image.mode, np.array(image)
    except (OSError, SyntaxError) as error:
        raise DataError(f"{path} is not an image: {error}") from error
    if mode in INDEX_MODES:
        return pixels.astype(np.uint8) if mode == "1" else pixels, False
    if mode == "RGB" or (mode == "RGBA" and (pixels[..., 3] == 255).all()):
        colours = pixels.astype(np.int32)
        return colours[..., 0] << 16 | colours[..., 1] << 8 | colours[..., 2], True
    raise DataError(f"{path} is a {mode} image, expected indexed, grey or RGB")

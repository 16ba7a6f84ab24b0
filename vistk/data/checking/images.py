"""Are the images of a data set there, readable and of the right size?"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from PIL import Image

from vistk.data.checking.annotations import CheckedVideo
from vistk.data.checking.report import Findings

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"})

THREADS = 8
"""Opening an image mostly waits for the disk, more so for one across a network."""

ORIENTATION = 0x0112  # EXIF tag
EIGHT_BIT_MODES = frozenset({"1", "L", "P", "RGB", "RGBA", "LA", "PA", "CMYK", "YCbCr", "LAB", "HSV", "RGBX"})

Found = tuple[str, str]  # kind of problem and the case


def check_names(videos: Sequence[CheckedVideo], findings: Findings) -> None:
    """What can be said of the file names without looking at the disk."""
    seen: set[str] = set()
    for video in videos:
        for t, name in enumerate(video.file_names):
            if "\\" in name:
                findings.add("backslash", "{}, frame {}: {!r}", video.where, t, name)
            elif _leads_out(name):
                findings.add("outside-folder", "{}, frame {}: {!r}", video.where, t, name)
            if name in seen:
                findings.add("repeated-file", "{}, frame {}: {!r}", video.where, t, name)
            seen.add(name)


def _leads_out(name: str) -> bool:
    path = PurePosixPath(name)
    return path.is_absolute() or ".." in path.parts


def check_images(
    videos: Sequence[CheckedVideo],
    root: Path,
    findings: Findings,
    progress: Any,
    *,
    first_only: bool = False,
    decode: bool = False,
) -> int:
    """Open the images of all videos, or the first one of each.

    Args:
        progress: a bar that is moved on by the number of images.
        decode: decode all pixels, which finds truncated files; else only the header is read.

    Returns:
        How many images were opened.
    """
    folders = Folders(root)
    modes: Counter[str] = Counter()
    opened = 0
    executor = ThreadPoolExecutor(THREADS)
    try:
        look = partial(_check_video, folders=folders, first_only=first_only, decode=decode)
        for found, video_modes, frames in executor.map(look, videos):
            for kind, text in found:
                findings.add(kind, "{}", text)
            modes += video_modes
            opened += sum(video_modes.values())
            progress.update(frames)
    finally:
        executor.shutdown(cancel_futures=True)  # on Ctrl-C do not wait for thousands of videos
    others = sorted((mode, count) for mode, count in modes.items() if mode != "RGB")
    if others:
        findings.notes["image-mode"] = ", ".join(f"{mode} {count}" for mode, count in others)
    return opened


class Folders:
    """What lies in the folders below a root, each listed once; upper and lower case are told apart."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._names: dict[Path, dict[str, str]] = {}
        self._exact: dict[Path, frozenset[str]] = {}

    def find(self, name: str) -> tuple[Path, str | None]:
        """The path of a file, and how it is really spelled if only the case differs (None: as given)."""
        path = self.root / name
        if _leads_out(name) or path.name in self._listing(path.parent):
            return path, None
        real, changed = self.root, False
        for part in PurePosixPath(name).parts:
            if part in self._listing(real):
                real = real / part
                continue
            other = self._names.get(real, {}).get(part.casefold())
            if other is None:
                return path, None
            real, changed = real / other, True
        return path, real.relative_to(self.root).as_posix() if changed else None

    def _listing(self, folder: Path) -> frozenset[str]:
        if folder not in self._exact:
            try:
                names = os.listdir(folder)
            except OSError:
                names = []
            self._names[folder] = {entry.casefold(): entry for entry in names}
            self._exact[folder] = frozenset(names)
        return self._exact[folder]


def _check_video(
    video: CheckedVideo, folders: Folders, first_only: bool, decode: bool
) -> tuple[list[Found], Counter[str], int]:
    """Problems, modes of the images that could be opened, number of images looked at."""
    names = video.file_names[:1] if first_only else video.file_names
    found: list[Found] = []
    modes: Counter[str] = Counter()
    for t, name in enumerate(names):
        if "\\" not in name:  # reported by name
            found += _check_image(video, t, name, folders, decode, modes)
    return found, modes, len(names)


def _check_image(
    video: CheckedVideo, t: int, name: str, folders: Folders, decode: bool, modes: Counter[str]
) -> Iterator[Found]:
    path, real = folders.find(name)
    place = f"{video.where}, frame {t}: {path}"
    try:
        with Image.open(path) as image:
            size, mode = image.size, image.mode
            # Only a JPEG has its EXIF before its pixels.
            turned = image.getexif().get(ORIENTATION, 1) if image.format == "JPEG" else 1
            if decode:
                image.load()
    except FileNotFoundError:
        hint = f", but {real} does" if real else ""
        yield "image-missing", f"{place} does not exist{hint}"
        return
    # SyntaxError is how PIL reports some broken files.
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        yield "image-unreadable", f"{place}: {error}"
        return
    modes[mode] += 1
    if real:
        yield "image-case", f"{place} is {real}"
    if size != (video.width, video.height):
        yield "image-size", f"{place} is {size[0]}x{size[1]}, the json says {video.width}x{video.height}"
    if mode not in EIGHT_BIT_MODES:
        yield "image-depth", f"{place} is {mode}"
    elif mode != "RGB":
        yield "image-mode", f"{place} is {mode}"
    if turned not in (0, 1):
        yield "image-turned", f"{place} has orientation {turned}"


def extra_images(root: Path, named: Iterable[str]) -> Iterator[str]:
    """Images below ``root``, by relative path in order, that are not among those named."""
    known = {PurePosixPath(name).as_posix() for name in named}
    for folder, below, files in os.walk(root):
        below.sort()
        inside = Path(folder).relative_to(root)
        for file in sorted(files):
            path = (inside / file).as_posix()
            if not file.startswith(".") and Path(file).suffix.lower() in IMAGE_SUFFIXES and path not in known:
                yield path

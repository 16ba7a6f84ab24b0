"""Where frames come from, and a folder of images as such a source."""

from __future__ import annotations

import math
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from PIL import Image

from vistk.data.images import read_rgb

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")
FOLDER_RATE = Fraction(25)
"""Frames/s of a folder of images, where nobody says."""


class VideoFileError(ValueError):
    """A video that cannot be read; the message is one sentence."""


@dataclass(frozen=True)
class SourceFrame:
    """A frame of a source, or its place where it cannot be decoded."""

    index: int  # in the source, from 0; frames that cannot be decoded count
    time: float  # seconds after the first frame
    name: str  # of an image file without its suffix, else the index in five digits
    image: np.ndarray | None  # (H, W, 3) uint8 RGB; None = cannot be decoded


@dataclass(frozen=True)
class Selection:
    """Which frames of a source are wanted."""

    every: int = 1  # the first one, and then every n-th
    start: float = 0.0  # seconds after the first frame, included
    end: float = math.inf  # the same, not included
    limit: int | None = None  # frames, at most

    def __post_init__(self) -> None:
        if self.every < 1 or (self.limit is not None and self.limit < 1):
            raise VideoFileError(f"every is {self.every} and limit {self.limit}, expected 1 or more")
        if not 0 <= self.start < self.end:
            raise VideoFileError(
                f"start is {self.start:g} s and end {self.end:g} s, expected 0 <= start < end"
            )

    def expected(self, count: int | None, rate: Fraction) -> int | None:
        """Frames that it leaves of ``count`` at an even ``rate``; None where that cannot be known."""
        if count is not None:
            last = count if math.isinf(self.end) else min(count, math.ceil(self.end * rate - 1e-6))
            left = max(0, last - math.ceil(self.start * rate - 1e-6))
            found = -(-left // self.every)
            return found if self.limit is None else min(found, self.limit)
        return self.limit


class Source(ABC):
    """Frames in order, of one size or of several; a context manager.

    Attributes:
        name: of the file or folder without its suffix.
        rate: frames/s, on average.
        aspect: width of a pixel by its height, as far as it is known before the first frame.
        count: frames, those that cannot be decoded included; None = not known. Of some containers a guess.
        endless: whether it goes on until somebody stops it.
        files: names of the images of a folder; None of others.
        identity: what it is, in plain values: another source has others.
        broken: a sentence about what is missing at its end, once the end was reached; None = nothing is.
    """

    name: str
    rate: Fraction
    aspect: Fraction = Fraction(1)
    count: int | None = None
    endless: bool = False
    files: Sequence[str] | None = None
    identity: Mapping[str, Any]
    broken: str | None = None

    def frames(self, selection: Selection | None = None) -> Iterator[SourceFrame]:
        """The frames that are wanted; can be asked for once.

        Raises:
            VideoFileError, OSError: the source cannot be read any further.
        """
        chosen = selection or Selection()
        return islice(self._frames(chosen), chosen.limit)

    @abstractmethod
    def _frames(self, selection: Selection) -> Iterator[SourceFrame]:
        """All frames that are wanted, but for the limit."""

    def close(self) -> None:  # noqa: B027 (nothing, of a folder)
        """Give back what is open."""

    def __enter__(self) -> Source:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class ImageFolder(Source):
    """Image files in natural order: 2.jpg before 10.jpg."""

    def __init__(self, folder: Path, rate: Fraction) -> None:
        paths = [
            path
            for path in folder.iterdir()
            if path.suffix.lower() in IMAGE_SUFFIXES and path.name[0] != "." and path.is_file()
        ]
        if not paths:
            raise VideoFileError(f"{folder} holds no image, expected files that end in .jpg or .png")
        self.paths = sorted(paths, key=lambda path: natural_key(path.name))
        by_stem: dict[str, Path] = {}
        for path in self.paths:
            before = by_stem.setdefault(path.stem, path)
            if before is not path:
                raise VideoFileError(f"{folder} has both {before.name} and {path.name}, expected one of them")
        self.name = folder.resolve().name
        self.rate, self.count = rate, len(paths)
        self.files = [path.name for path in self.paths]
        found = [path.stat() for path in paths]
        self.identity = {
            "folder": str(folder.resolve()),
            "images": len(paths),
            "bytes": sum(one.st_size for one in found),
            "modified": max(one.st_mtime_ns for one in found),
        }

    def _frames(self, selection: Selection) -> Iterator[SourceFrame]:
        wanted = [
            t for t in range(len(self.paths)) if selection.start <= float(t / self.rate) < selection.end
        ]
        for t in wanted[:: selection.every]:
            path = self.paths[t]
            yield SourceFrame(t, float(t / self.rate), path.stem, _read_image(path))


def natural_key(name: str) -> tuple[list[str | int], str]:
    """Sorts numbers in names as numbers; names that differ in leading zeros alone as text."""
    parts = re.split(r"(\d+)", name)
    return [int(part) if i % 2 else part for i, part in enumerate(parts)], name


def _read_image(path: Path) -> np.ndarray | None:
    """``(H, W, 3)`` uint8, grey images in three equal channels, without alpha; None where it is broken."""
    try:
        if path.suffix.lower() == ".png":
            with Image.open(path) as image:
                if image.mode.startswith("I"):  # 16 bits of grey, which Pillow would cut off at 255
                    return np.repeat((np.asarray(image) >> 8).astype(np.uint8)[..., None], 3, axis=2)
        return np.ascontiguousarray(read_rgb(path).permute(1, 2, 0).numpy())
    except (FileNotFoundError, PermissionError):
        raise
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return None

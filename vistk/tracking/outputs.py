"""What ``vistk track`` writes: all of it into a temporary folder, to be moved when all is known."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType

from vistk.data.frame_sources import Selection, Source, SourceFrame
from vistk.engine.stream import StreamedFrame
from vistk.evaluation.printing import plural
from vistk.files import write_text
from vistk.structures import VideoPrediction
from vistk.tracking.formats import (
    MOST_INDICES,
    MOTS_A_CLASS,
    Spool,
    TrackedImage,
    TrackRow,
    write_coco_video,
    write_index_mask,
    write_mots,
)
from vistk.viz.overlay import Shown, Trails, draw
from vistk.viz.video_writer import VideoWriter, VideoWriterError

RESULTS, OVERLAY, MASKS, MOTS, COCO_VIDEO = (
    "results.json",
    "overlay.mp4",
    "masks",
    "mots",
    "coco_video.json",
)
FOLDERS = (MASKS, MOTS)
NAMES = (RESULTS, OVERLAY, *FOLDERS, COCO_VIDEO)
UNFINISHED = ".vistk-track-"
"""How the temporary folder is called, eight characters more."""

READABLE = 240
"""Pixels that the shorter side of an overlay is enlarged to, about, so that one can read what is on it."""

LARGEST = 4096
"""Pixels that no side is enlarged beyond."""


@dataclass(frozen=True)
class Wanted:
    """What is written beside ``results.json``."""

    min_score: float = 0.3  # of a track so far, to be shown and reported frame by frame
    trails: int = 30  # frames; 0 = none
    video: bool = True
    masks: bool = False
    mots: bool = False
    coco_video: bool = False

    def paths(self, name: str) -> list[str]:
        """Files and folders that are written, of a source of this name."""
        return [
            RESULTS,
            *([OVERLAY] if self.video else []),
            *([MASKS] if self.masks else []),
            *([f"{MOTS}/{name}.txt", f"{MOTS}/classes.json"] if self.mots else []),
            *([COCO_VIDEO] if self.coco_video else []),
        ]


class Outputs:
    """Takes frames as they are tracked; a context manager that leaves nothing behind.

    Args:
        out: the folder of the results, where nothing is replaced.
        source: where the frames are from.
        selection: which of them are tracked.
        categories: name of every class by its id in the data set.
        size: height and width of the first frame.

    Attributes:
        folder: a temporary one in ``out``, gone at the end; :meth:`finish` leaves in it what is to be moved.
        said: what a reader is to know.

    Raises:
        VideoWriterError: there can be no overlay.
    """

    def __init__(
        self,
        out: Path,
        wanted: Wanted,
        source: Source,
        selection: Selection,
        categories: Mapping[int, str],
        size: tuple[int, int],
    ) -> None:
        self.wanted, self.source = wanted, source
        self.categories, self.size = categories, size
        self.frames = self.lost = 0
        self.said: list[str] = []
        self._names = [categories[identity] for identity in sorted(categories)]
        self._trails = Trails(wanted.trails) if wanted.trails else None
        self._scale = max(1, min(round(READABLE / min(size)), LARGEST // max(size)))
        self._too_many = 0
        self._numbered = not source.endless
        self._number = -1  # of the frame before, as it is named
        # The overlay of a part that is cut out begins with that part.
        self._origin: float | None = None if selection.start > 0 else 0.0
        self._stack = ExitStack()
        self._writing = ExitStack()
        with ExitStack() as failing:
            failing.push(self._stack)
            self._spool = Spool(out)
            self._stack.callback(self._spool.close)
            self.folder = Path(tempfile.mkdtemp(prefix=UNFINISHED, dir=out))
            self._stack.callback(shutil.rmtree, self.folder, ignore_errors=True)
            if wanted.masks:
                (self.folder / MASKS).mkdir()
            self._writer = self._overlay(source.rate / selection.every) if wanted.video else None
            failing.pop_all()

    def add(self, frame: SourceFrame, tracked: StreamedFrame | None) -> None:
        """The next frame.

        Args:
            tracked: its tracks; None where it cannot be decoded, and the picture before is shown on.
        """
        rows: tuple[TrackRow, ...] = ()
        size = self.size
        if tracked is not None:
            shown = tracked.above(self.wanted.min_score)
            size = tracked.size
            told = zip(
                shown.ids.tolist(), shown.labels.tolist(), shown.scores.tolist(), shown.rles, strict=True
            )
            rows = tuple(TrackRow(*row[:3], rle=row[3]) for row in told if row[3] is not None)
        else:
            self.lost += 1
        image = TrackedImage(self.frames, frame.index, frame.time, frame.name, size, rows)
        self.frames += 1
        if self._numbered:
            number = int(frame.name) if frame.name.isdecimal() else -1
            self._numbered, self._number = number > self._number, number
        if self._origin is None:
            self._origin = frame.time
        if self.wanted.mots or self.wanted.coco_video:
            self._spool.add(image)
        if tracked is None or frame.image is None:
            return
        if self.wanted.masks:
            self._too_many += write_index_mask(self.folder / MASKS / f"{frame.name}.png", image)
        if self._writer is not None:
            marks = [Shown(r.id, r.rle, f"{self._names[r.label]} {r.score:.2f}") for r in rows]
            if self._trails is not None:
                self._trails.add(marks)
            picture = draw(frame.image, marks, self._trails, scale=self._scale)
            self._writer.write(picture, frame.time - self._origin)

    def finish(self, prediction: VideoPrediction) -> list[str]:
        """After the last frame.

        Returns:
            The files in :attr:`folder` by their paths in it.
        """
        write_text(self.folder / RESULTS, json.dumps(prediction.to_ytvis()) + "\n")
        self._writing.close()
        spool, name, categories = self._spool, self.source.name, self.categories
        if self._too_many:
            many = plural(self._too_many, "mask")
            self.said.append(f"{many} of tracks with ids above {MOST_INDICES - 1} have no place in a png")
        if self.wanted.mots:
            left_out = write_mots(self.folder / MOTS, name, spool, spool.last, categories, self._numbered)
            if left_out:
                self.said.append(
                    f"{plural(left_out, 'track')} of low scores have no place in MOTS, which has ids for "
                    f"{MOTS_A_CLASS} of a class"
                )
        if self.wanted.coco_video:
            labels = {identity: label for identity, (label, _) in spool.last.items()}
            path, files = self.folder / COCO_VIDEO, self.source.files
            write_coco_video(path, name, spool, labels, categories, files, self.size)
        found = (path for path in self.folder.rglob("*") if path.is_file())
        return sorted(path.relative_to(self.folder).as_posix() for path in found)

    @property
    def written(self) -> list[str]:
        """What there is to see, in a line."""
        shown = {MASKS: f"{MASKS}/*.png", f"{MOTS}/classes.json": None}
        named = (shown.get(path, path) for path in self.wanted.paths(self.source.name))
        return [name for name in named if name is not None]

    def _overlay(self, rate: Fraction) -> VideoWriter:
        height, width = self.size
        scaled = (self._scale * height, self._scale * width)
        try:
            writer = VideoWriter(self.folder / OVERLAY, scaled, rate, self.source.aspect)
        except VideoWriterError as error:
            raise VideoWriterError(f"{error}; --no-video does without it") from error
        return self._writing.enter_context(writer)

    def __enter__(self) -> Outputs:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._writing.__exit__(kind or _Unfinished, error or _Unfinished(), trace)
        finally:
            self._stack.close()


class _Unfinished(Exception):
    """A ``with`` block that was left without :meth:`Outputs.finish`."""

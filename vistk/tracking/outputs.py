"""What ``vistk track`` writes: under temporary names, and renamed when all is known."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from vistk.data.frame_sources import Source, SourceFrame
from vistk.engine.stream import StreamedFrame
from vistk.evaluation.printing import plural
from vistk.files import replacing, write_text
from vistk.structures import VideoPrediction
from vistk.tracking.formats import (
    MOST_INDICES,
    Spool,
    TrackedImage,
    TrackRow,
    write_coco_video,
    write_index_mask,
    write_mots,
)
from vistk.viz.overlay import Shown, Trails, draw
from vistk.viz.video_writer import VideoWriter

RESULTS, OVERLAY, MASKS, MOTS, COCO_VIDEO = (
    "results.json",
    "overlay.mp4",
    "masks",
    "mots",
    "coco_video.json",
)
NAMES = (RESULTS, OVERLAY, MASKS, MOTS, COCO_VIDEO)
READABLE = 240
"""Pixels that the shorter side of an overlay is enlarged to, about, so that one can read what is on it."""


@dataclass(frozen=True)
class Wanted:
    """What is written beside ``results.json``."""

    min_score: float = 0.3  # of a track so far, to be shown and reported frame by frame
    trails: int = 30  # frames; 0 = none
    video: bool = True
    masks: bool = False
    mots: bool = False
    coco_video: bool = False


class Outputs:
    """Takes frames as they are tracked; a context manager that leaves nothing behind without :meth:`finish`.

    Args:
        out: the folder.
        source: where the frames are from.
        every: of its frames one in so many is tracked.
        categories: name of every class by its id in the data set.
        size: height and width of the first frame.
    """

    def __init__(
        self,
        out: Path,
        wanted: Wanted,
        source: Source,
        every: int,
        categories: Mapping[int, str],
        size: tuple[int, int],
    ) -> None:
        self.out, self.wanted, self.source = out, wanted, source
        self.categories, self.size = categories, size
        self.frames = self.lost = 0
        self.said: list[str] = []
        self._names = [categories[identity] for identity in sorted(categories)]
        self._trails = Trails(wanted.trails) if wanted.trails else None
        self._scale = max(1, round(READABLE / min(size)))
        self._too_many = 0
        self._stack = ExitStack()
        self._at_the_end = ExitStack()  # what renames, only once the results are there
        self._numbered = not source.endless
        with ExitStack() as failing:
            failing.push(self._stack)
            failing.push(self._at_the_end)
            self._spool = Spool(out)
            self._stack.callback(self._spool.close)
            self._masks = self._temporary_folder() if wanted.masks else None
            self._writer: VideoWriter | None = None
            if wanted.video:
                path = self._at_the_end.enter_context(replacing(out / OVERLAY))
                scaled = (self._scale * size[0], self._scale * size[1])
                writer = VideoWriter(path, scaled, source.rate / every, source.aspect)
                self._writer = self._at_the_end.enter_context(writer)
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
        self._numbered = self._numbered and frame.name.isdecimal()
        if self.wanted.mots or self.wanted.coco_video:
            self._spool.add(image)
        if tracked is None or frame.image is None:
            return
        if self._masks is not None:
            self._too_many += write_index_mask(self._masks / f"{frame.name}.png", image)
        if self._writer is not None:
            marks = [Shown(r.id, r.rle, f"{self._names[r.label]} {r.score:.2f}") for r in rows]
            if self._trails is not None:
                self._trails.add(marks)
            self._writer.write(draw(frame.image, marks, self._trails, scale=self._scale), frame.time)

    def finish(self, prediction: VideoPrediction) -> list[str]:
        """After the last frame.

        Returns:
            What was written.
        """
        write_text(self.out / RESULTS, json.dumps(prediction.to_ytvis()) + "\n")
        written, labels = [RESULTS], self._spool.labels
        self._at_the_end.close()
        if self._writer is not None:
            written.append(OVERLAY)
        if self._masks is not None:
            shutil.rmtree(self.out / MASKS, ignore_errors=True)
            os.chmod(self._masks, 0o755)  # temporary folders are for their owner alone
            self._masks.rename(self.out / MASKS)
            written.append(f"{MASKS}/*.png")
            if self._too_many:
                many = plural(self._too_many, "mask")
                self.said.append(f"{many} of tracks with ids above {MOST_INDICES - 1} have no place in a png")
        if self.wanted.mots:
            folder = self.out / MOTS
            name = self.source.name
            write_mots(folder, name, self._spool, labels, self.categories, self._numbered)
            written.append(f"{MOTS}/{name}.txt")
        if self.wanted.coco_video:
            path = self.out / COCO_VIDEO
            files = self.source.files
            write_coco_video(path, self.source.name, self._spool, labels, self.categories, files, self.size)
            written.append(COCO_VIDEO)
        return written

    def _temporary_folder(self) -> Path:
        folder = Path(tempfile.mkdtemp(prefix=f".{MASKS}-", dir=self.out))
        self._stack.callback(shutil.rmtree, folder, ignore_errors=True)
        return folder

    def __enter__(self) -> Outputs:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._at_the_end.__exit__(kind or _Unfinished, error or _Unfinished(), trace)
        finally:
            self._stack.close()


class _Unfinished(Exception):
    """A ``with`` block that was left without :meth:`Outputs.finish`."""


def clear(out: Path, names: Sequence[str] = NAMES) -> None:
    """Remove what an earlier command wrote."""
    for name in names:
        path = out / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)

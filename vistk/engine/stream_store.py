"""The frames of a stream on disk, in pieces: files that are whole or absent, with a checksum.

Of every frame the masks of its queries are kept and, for the next stream over the same frames, all else that
the segmenter said. No more than two pieces are in memory, one that is read and one that grows.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from torch import Tensor

from vistk.engine.finishing import FrameSize
from vistk.engine.recording import Form, Recording, record, replay
from vistk.engine.shards import ShardError, read_shard, write_shard
from vistk.engine.stored_masks import PackedFrameMasks, PackedMasks, pack_masks
from vistk.engine.windows import Window
from vistk.files import write_text
from vistk.structures import FinishedMasks, FrameQueries

FORMAT = 1  # another one where old pieces would be misread
PIECE = 25  # frames, each a few dozen KB
ABOUT = "stream.json"
LOCK = ".lock"
_FORM = Form("float32", "rle", mask_features=False)
_MASKS, _SHOWN, _QUERIES, _LAST = "masks.", "shown.", "queries.", "last."


class StreamError(ValueError):
    """A stream that cannot go on, or a frame that it cannot take; the message is one sentence."""


class OtherStreamError(StreamError):
    """A folder holds frames of a stream of another kind: another model, size, tracker or release."""


@dataclass(frozen=True)
class StoredFrame:
    """What is known of a frame once it has passed the segmenter."""

    number: int
    checksum: int  # of its pixels
    masks: PackedFrameMasks  # of its queries, at the size of the prediction
    queries: FrameQueries | None = None  # None where masks alone are kept
    shown: PackedFrameMasks | None = None  # at the size of the frame, where that is another one
    last: FrameQueries | None = None  # `Window.last`, of the last frame of a window


def packed_frame(masks: FinishedMasks, size: FrameSize) -> PackedFrameMasks:
    """The same masks as they lie in a file: one text, a few numbers."""
    frame: PackedFrameMasks = PackedMasks(pack_masks([masks]), size)[0]
    return frame


class FrameStore:
    """The frames of a stream: :meth:`find` those that are there, :meth:`add` the others in order.

    A folder that stays is one stream's until :meth:`release`: two of them would write one number each.

    Args:
        folder: of the pieces, ``<number of the first frame>.safetensors``.
        identity: all that the queries depend on, in plain values; ``None`` = only masks are kept.

    Raises:
        OtherStreamError: the folder holds frames of another identity.
        StreamError: another stream has it; it is none, or is damaged, or cannot be written.
    """

    def __init__(self, folder: Path, identity: Mapping[str, Any] | None) -> None:
        self.folder = folder
        self.identity = None if identity is None else {"format of the stream": FORMAT, **identity}
        told = json.dumps(self.identity, sort_keys=True)
        self._key = hashlib.sha256(told.encode()).hexdigest()[:12]
        self._open: _Piece | None = None
        self._pending: list[StoredFrame] = []
        self._damaged: set[int] = set()  # first frames of pieces
        self._lock: FileLock | None = None
        self._is_new = False  # the folder
        if identity is not None:
            self._enter()
            try:
                self._look()
            except BaseException:
                self.release()
                raise

    @property
    def keeps_queries(self) -> bool:
        return self.identity is not None

    def find(self, number: int, checksum: int | None = None) -> StoredFrame | None:
        """A frame, if it is there.

        Args:
            checksum: of its pixels, which have to be those that were stored; ``None`` = whatever they are.

        Raises:
            StreamError: another frame was stored under the number.
        """
        piece = self._open
        if piece is None or not piece.start <= number <= piece.end:
            if not self._begins(number):
                return None
            piece = self._open = self._read(number)
        if piece is None:
            return None
        frame = piece.frames.get(number)
        if frame is None:
            raise StreamError(
                f"{self.folder} has no frame {number}, which was skipped when the others were stored"
            )
        if checksum is not None and checksum != frame.checksum:
            raise StreamError(
                f"{self.folder} has another frame {number} than this; record another video in another folder"
            )
        return frame

    def masks(self, number: int) -> PackedFrameMasks:
        """The masks of a frame that was added, and written.

        Raises:
            StreamError: they are gone.
        """
        frame = self.find(number)
        if frame is None:
            raise StreamError(f"{self.folder} has lost frame {number}, and a stream segments no frame twice")
        return frame.masks

    def refuse(self, number: int) -> None:
        """Raise a StreamError if a frame of this number, which is to be skipped, is there."""
        try:
            there = self.find(number)
        except StreamError:  # skipped then as well
            return
        if there is not None:
            raise StreamError(f"{self.folder} has a frame {number}, which is skipped now")

    def add(self, frame: StoredFrame, propagates: bool) -> None:
        """The next frame, which is not there.

        Args:
            propagates: a piece is to end with a frame that has ``last``.

        Raises:
            StreamError: it cannot be written.
        """
        if self._pending and _sizes(self._pending[0]) != _sizes(frame):
            self.flush()
        self._pending.append(frame)
        ends = len(self._pending) >= PIECE or (self.keeps_queries and self._begins(frame.number + 1))
        if ends and (frame.last is not None or not propagates):
            self.flush()

    def flush(self) -> None:
        """Write what was added; a piece may have fewer frames than others.

        Raises:
            StreamError: it cannot be written.
        """
        if not self._pending:
            return
        pending, self._pending = self._pending, []
        start = pending[0].number
        frames = tuple({} if f.queries is None else {"": replace(f.queries, masks=f.masks)} for f in pending)
        window = Window(start, frames, tuple(f.masks for f in pending), 0)
        recorded = record([window], [""] if frames[0] else [], _FORM)
        tensors = {
            "numbers": torch.tensor([f.number for f in pending]),
            "checksums": torch.tensor([f.checksum for f in pending]),
            **prefixed(_MASKS, recorded.masks),
        }
        for content in recorded.queries.values():
            tensors |= prefixed(_QUERIES, content)
        facts: dict[str, Any] = {"sizes": recorded.size.__dict__}
        if pending[0].shown is not None:
            shown = [f.shown for f in pending if f.shown is not None]
            tensors |= prefixed(_SHOWN, pack_masks(shown))
            facts["shown"] = shown[0].size.__dict__
        if (last := pending[-1].last) is not None:
            tensors |= prefixed(_LAST, {"logits": last.logits, **last.vectors})
        try:
            if self.identity is not None and not (self.folder / ABOUT).is_file():
                write_text(self.folder / ABOUT, json.dumps(self.identity, indent=2) + "\n")
            write_shard(self._path(start), tensors, self._facts(start) | facts)
        except OSError as error:  # a full disk, a folder that is not ours
            raise unwritten(self._path(start), error) from error
        self._damaged.discard(start)

    def release(self) -> None:
        """Leave the folder to other streams; if nothing was written there, it is as it was."""
        if self._lock is None:
            return
        if not (self.folder / ABOUT).is_file():
            with suppress(OSError):  # something of somebody else's lies there
                (self.folder / LOCK).unlink(missing_ok=True)  # held as yet: nobody else has it
                if self._is_new:
                    self.folder.rmdir()
        self._lock.release()
        self._lock = None

    def _enter(self) -> None:
        """Keep other streams out of the folder."""
        if self.folder.exists() and not self.folder.is_dir():
            raise StreamError(f"record: {self.folder} is a file, expected a folder")
        # A stream may be closed in another thread than the one that made it.
        lock = FileLock(self.folder / LOCK, timeout=0, thread_local=False)
        try:
            self._is_new = not self.folder.exists()
            self.folder.mkdir(parents=True, exist_ok=True)
            lock.acquire()
        except Timeout:
            raise StreamError(
                f"{self.folder} is in use by another stream; wait for its end, or record in another folder"
            ) from None
        except OSError as error:
            raise unwritten(self.folder, error) from error
        self._lock = lock

    def _look(self) -> None:
        """At what is in the folder by now."""
        about = self.folder / ABOUT
        if not about.is_file():
            return
        try:
            there = json.loads(about.read_text(encoding="utf-8"))
            others = [
                f"{name} ({there.get(name)} there, {value} here)"
                for name, value in (self.identity or {}).items()
                if there.get(name) != value
            ]
        except (ValueError, AttributeError) as error:
            raise StreamError(f"{about} is damaged; record in another folder, or remove this one") from error
        if others:
            said = ", ".join(others[:3]) + (", .." if len(others) > 3 else "")
            raise OtherStreamError(f"{self.folder} holds frames of another stream: {said}")

    def _begins(self, number: int) -> bool:
        """Whether a piece begins with this frame."""
        return number not in self._damaged and self._path(number).is_file()

    def _read(self, start: int) -> _Piece | None:
        """A piece; ``None`` if it is damaged, and its frames are to be added anew."""
        try:
            tensors, facts = read_shard(self._path(start), self._facts(start))
        except (ShardError, FileNotFoundError) as error:
            if self.identity is None:
                raise StreamError(f"{error}, and a stream segments no frame twice") from error
            warnings.warn(f"{error}; its frames are segmented again", stacklevel=2)
            self._damaged.add(start)
            return None
        return _Piece(tensors, facts)

    def _path(self, start: int) -> Path:
        return self.folder / f"{start:08d}.safetensors"

    def _facts(self, start: int) -> dict[str, Any]:
        return {"format": FORMAT, "key": self._key, "start": start}


class _Piece:
    """Consecutive frames that were read."""

    def __init__(self, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        numbers, checksums = tensors["numbers"].tolist(), tensors["checksums"].tolist()
        self.start, self.end = numbers[0], numbers[-1]
        content = unprefixed(_QUERIES, tensors)
        recording = Recording(
            stored_size(facts["sizes"]), unprefixed(_MASKS, tensors), {"": content} if content else {}
        )
        windows = list(replay(recording))
        masks: list[Any] = [mask for window in windows for mask in window.masks]
        shown: Sequence[PackedFrameMasks | None] = [None] * len(numbers)
        if "shown" in facts:
            shown = PackedMasks(unprefixed(_SHOWN, tensors), stored_size(facts["shown"]))
        last: list[FrameQueries | None] = [None] * len(numbers)
        if vectors := unprefixed(_LAST, tensors):
            last[-1] = FrameQueries(vectors.pop("logits").clone(), {k: v.clone() for k, v in vectors.items()})
        frames = [frame for window in windows for frame in window.frames]
        self.frames = {
            number: StoredFrame(
                number,
                checksums[i],
                masks[i],
                # Copies lie as in a stream that segments, and sums over them come out the same.
                replace(frames[i][""].map(torch.clone), masks=masks[i]) if content else None,
                shown[i],
                last[i],
            )
            for i, number in enumerate(numbers)
        }


def unwritten(path: Path, error: OSError) -> StreamError:
    """What to raise where a file cannot be written: why, in the words of whoever found out."""
    return StreamError(f"{path} cannot be written ({error.__cause__ or error})")


def _sizes(frame: StoredFrame) -> tuple[FrameSize, FrameSize | None]:
    return frame.masks.size, None if frame.shown is None else frame.shown.size


def stored_size(stored: Mapping[str, Sequence[int]]) -> FrameSize:
    return FrameSize(**{name: (side[0], side[1]) for name, side in stored.items()})


def prefixed(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {prefix + name: value for name, value in tensors.items()}


def unprefixed(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}

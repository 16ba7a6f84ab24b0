"""Frames from a video file, a folder of images or a camera, one after the other: memory does not grow.

Video files and cameras are read by PyAV, which is imported when one is opened.
"""

from __future__ import annotations

import heapq
import math
import re
from collections.abc import Iterator, Mapping
from fractions import Fraction
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from vistk.data.frame_sources import FOLDER_RATE, ImageFolder, Selection, Source, SourceFrame, VideoFileError

_CAMERA_PATIENCE = 10.0  # seconds without a frame
_ONE_PICTURE_A_PACKET = frozenset({"h264", "hevc"})
"""Codecs whose decoders drop what they cannot decode without a word, and hide no picture otherwise."""


def require_av() -> ModuleType:
    """The library that reads and writes video.

    Raises:
        VideoFileError: it is not installed.
    """
    try:
        import av
    except ImportError as error:
        raise VideoFileError(f'videos need PyAV ({error}): pip install -e ".[viz]"') from error
    return av


def open_source(given: str | Path, rate: Fraction | None = None) -> Source:
    """A folder of images (jpg, png), a video file, or a camera by its number (``/dev/video<number>``).

    Args:
        rate: frames/s of a folder of images; None = :data:`FOLDER_RATE`. Others know their own.

    Raises:
        FileNotFoundError: there is no such file, folder or camera.
        VideoFileError: it holds no video.
    """
    text, path = str(given), Path(given)
    if not text:
        raise FileNotFoundError(
            "the input is an empty name, expected a video, a folder of images or the number of a camera"
        )
    if path.is_dir():
        return ImageFolder(path, FOLDER_RATE if rate is None else rate)
    if rate is not None:
        raise VideoFileError(f"{text} has a rate of its own, only a folder of images is given one")
    if re.fullmatch(r"\d+", text) and not path.exists():
        return open_camera(int(text))
    if not path.is_file():
        raise FileNotFoundError(
            f"{text}: no such file or folder; expected a video, a folder of images or the number of a camera"
        )
    found = path.stat()
    identity = {"file": str(path.resolve()), "bytes": found.st_size, "modified": found.st_mtime_ns}
    return _Container(_open(text, text), text, path.stem, identity)


def open_camera(number: int) -> Source:
    """A camera of Video4Linux. Its frames come as fast as it makes them; those that nobody takes are lost.

    Raises:
        FileNotFoundError: there is no such device.
        VideoFileError: it gives no video.
    """
    device = f"/dev/video{number}"
    if not Path(device).exists():
        raise FileNotFoundError(f"no camera {number}: there is no {device}")
    container = _open(device, f"camera {number}", format="video4linux2", timeout=_CAMERA_PATIENCE)
    return _Container(container, f"camera {number}", f"camera{number}", {"camera": number}, endless=True)


def _open(address: str, said: str, **settings: Any) -> Any:
    """A container of PyAV that holds video."""
    av = require_av()
    try:
        container = av.open(address, **settings)
    except (av.error.FFmpegError, ValueError) as error:
        if isinstance(error, PermissionError):
            raise PermissionError(f"{said} cannot be opened: permission denied") from error
        what = getattr(error, "strerror", None) or str(error)
        raise VideoFileError(f"{said} cannot be read as a video ({what})") from error
    if not container.streams.video:
        container.close()
        raise VideoFileError(f"{said} holds no video")
    return container


class _Container(Source):
    """A video stream of PyAV, the first one.

    Every packet is expected to come out as a frame. One that raises an error does not; and of codecs that
    drop frames without a word, one that is not there when a later one comes.
    """

    def __init__(
        self,
        container: Any,
        said: str,
        name: str,
        identity: Mapping[str, Any],
        endless: bool = False,
    ) -> None:
        self.container, self.said, self.name = container, said, name
        self.identity, self.endless = identity, endless
        self.stream = container.streams.video[0]
        # With threads for frames, errors are told of later packets than they are in.
        self.stream.thread_type = "SLICE"
        rate = self.stream.average_rate or self.stream.guessed_rate
        self.rate = Fraction(rate) if rate else FOLDER_RATE
        self.aspect = Fraction(self.stream.sample_aspect_ratio or 1)
        self.count = None if endless else self._count()
        self._looked = False  # at how a frame is turned, which the stream does not tell

    def close(self) -> None:
        self.container.close()

    def _count(self) -> int | None:
        if self.stream.frames:
            return int(self.stream.frames)
        if self.stream.duration and self.stream.time_base:
            return round(self.stream.duration * self.stream.time_base * self.rate)
        if self.container.duration:
            return round(Fraction(self.container.duration, 1_000_000) * self.rate)
        return None

    def _frames(self, selection: Selection) -> Iterator[SourceFrame]:
        origin: Fraction | None = None
        before = -1.0
        kept = 0
        for index, (stamp, frame) in enumerate(self._pictures()):
            if stamp is not None and origin is None:
                origin = stamp - index / self.rate
            time = -1.0 if stamp is None or origin is None else float(stamp - origin)
            if time <= before:  # without a time, or with a broken one
                time = 0.0 if before < 0 else before + float(1 / self.rate)
            before = time
            if time >= selection.end:
                return
            if time < selection.start:
                continue
            if kept % selection.every == 0:
                image = None if frame is None else self._upright(frame)
                yield SourceFrame(index, time, f"{index:05d}", image)
            kept += 1

    def _upright(self, frame: Any) -> np.ndarray:
        """A frame of PyAV as ``(H, W, 3)`` uint8 RGB, as it is meant to be seen."""
        image: np.ndarray = frame.to_ndarray(format="rgb24")
        across, down, turned = _directions(frame)
        if turned:
            image = image.swapaxes(0, 1)
            if not self._looked:
                self.aspect = 1 / self.aspect
        self._looked = True
        return np.ascontiguousarray(image[::down, ::across])

    def _pictures(self) -> Iterator[tuple[Fraction | None, Any]]:
        """Time stamps and frames; None for a frame that cannot be decoded, where it would have been."""
        base = self.stream.time_base
        silent = self.stream.codec_context.name in _ONE_PICTURE_A_PACKET
        lost: list[int] = []  # a heap: time stamps of packets that failed or are still to come out

        def passed(stamp: int | None) -> Iterator[tuple[Fraction | None, Any]]:
            while lost and (stamp is None or lost[0] < stamp):
                yield heapq.heappop(lost) * base, None

        for packet in self._packets():
            stamp = packet.pts
            expected = (packet.size > 0 or stamp is not None) and not packet.is_discard
            if silent and expected and stamp is not None:
                heapq.heappush(lost, stamp)
            try:
                frames = packet.decode()
            except require_av().error.FFmpegError:
                if not expected:
                    continue
                if stamp is None:
                    yield None, None
                elif not silent:
                    heapq.heappush(lost, stamp)
                continue
            for frame in frames:
                if frame.pts is None:
                    yield None, frame
                    continue
                yield from passed(frame.pts)
                if lost and lost[0] == frame.pts:
                    heapq.heappop(lost)
                yield frame.pts * base, frame
        yield from passed(None)

    def _packets(self) -> Iterator[Any]:
        """Up to the end, or to where the file breaks off."""
        packets = self.container.demux(self.stream)
        error = require_av().error.FFmpegError
        seen, first, last = 0, math.inf, -math.inf
        while True:
            try:
                packet = next(packets)
            except StopIteration:
                self._ended(seen, last - first)
                return
            except error as problem:
                why = getattr(problem, "strerror", None) or str(problem)
                if self.endless and isinstance(problem, TimeoutError):
                    raise VideoFileError(f"{self.said} gave no frame for {_CAMERA_PATIENCE:g} s") from problem
                if isinstance(problem, OSError) and not self.endless:  # the disk, not what is on it
                    raise OSError(f"{self.said} cannot be read any further ({why})") from problem
                self.broken = f"{self._breaks_off(seen)} ({why})"
                return
            if packet.size > 0:
                seen += 1
                if packet.pts is not None:
                    first, last = min(first, packet.pts), max(last, packet.pts)
            yield packet

    def _ended(self, seen: int, ticks: float) -> None:
        """Containers that break off may end like any other, but earlier than they say.

        Args:
            ticks: from the first frame to the last one.
        """
        if self.count is None or seen >= self.count or not self.stream.time_base:
            return
        lasts = max(0.0, ticks * float(self.stream.time_base)) + float(1 / self.rate)
        a_frame = float(1 / self.rate)
        # A number of frames is exact. A duration may be that of the sound, which often goes on for longer.
        tolerance = a_frame / 2 if self.stream.frames else max(2 * a_frame, 0.05 * lasts)
        if self.count * a_frame - lasts > tolerance:
            self.broken = self._breaks_off(seen)

    def _breaks_off(self, seen: int) -> str:
        expected = "" if self.count is None else f" of about {self.count}"
        return f"{self.said} breaks off after {seen}{expected} frames"


def _directions(frame: Any) -> tuple[int, int, bool]:
    """Where right and down of a frame of PyAV lead (-1: to the left, up), and whether they change places
    first, by its display matrix: quarter turns, mirrors."""
    matrix = frame.side_data.get("DISPLAYMATRIX")
    if matrix is None:
        return 1, 1, False
    a, b, _, c, d = np.frombuffer(bytes(matrix), dtype=np.int32)[:5].tolist()
    # A point (x, y) is shown at (a x + c y, b x + d y).
    turned = abs(b) + abs(c) > abs(a) + abs(d)
    across, down = (c, b) if turned else (a, d)
    return (-1 if across < 0 else 1), (-1 if down < 0 else 1), turned

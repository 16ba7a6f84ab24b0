"""Pictures to an H.264 video that every player and browser shows."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from types import TracebackType

import numpy as np
from PIL import Image

TICKS = 90_000
"""Parts of a second in which frames are timed."""

_ITU709 = 1  # of H.264's tables: primaries, transfer and matrix of HD video
_LIMITED = 1  # range of values, 16 to 235


class VideoWriterError(ValueError):
    """A video that cannot be written; the message is one sentence."""


class VideoWriter:
    """Writes an mp4 with H.264 in yuv420p; a context manager, and the file is whole when it is left.

    H.264 halves both sides of the colours, so sides have to be even: an odd one gets one row or column
    more, a copy of the last. A picture of another size than the video's is scaled to fit, with black bars.

    Args:
        path: the file, replaced; its name need not end in ``.mp4``.
        size: height and width of the pictures.
        rate: frames/s.
        aspect: width of a pixel by its height.

    Raises:
        VideoWriterError: PyAV, or H.264 in it, is missing; the size cannot be encoded.
    """

    def __init__(
        self, path: Path, size: tuple[int, int], rate: Fraction, aspect: Fraction = Fraction(1)
    ) -> None:
        try:
            import av
        except ImportError as error:
            raise VideoWriterError(f'videos need PyAV ({error}): pip install -e ".[viz]"') from error
        self._av = av
        self.size, self.rate = size, rate
        self.frames = 0
        self._last = -1  # tick of the frame before
        if not (0 < size[0] < 2**14 and 0 < size[1] < 2**14):
            raise VideoWriterError(f"pictures of {size[1]}x{size[0]} pixels, expected sides of 1 to 16383")
        self._container = av.open(str(path), "w", format="mp4", container_options={"movflags": "+faststart"})
        try:
            # The rate is for the encoder's budget alone, which takes no fraction of large numbers.
            stream = self._container.add_stream("libx264", rate=rate.limit_denominator(1001))
        except (av.error.FFmpegError, ValueError) as error:
            self._container.close()
            raise VideoWriterError(
                f"PyAV {av.__version__} here has no encoder for H.264 (libx264): {error}"
            ) from error
        stream.height, stream.width = (side + side % 2 for side in size)
        stream.pix_fmt = "yuv420p"
        stream.options = {"crf": "20", "preset": "veryfast"}
        stream.time_base = Fraction(1, TICKS)
        context = stream.codec_context
        context.time_base = Fraction(1, TICKS)
        context.sample_aspect_ratio = aspect
        context.color_primaries = context.color_trc = context.colorspace = _ITU709
        context.color_range = _LIMITED
        self._stream = stream

    def write(self, image: np.ndarray, time: float | None = None) -> None:
        """The next picture.

        Args:
            image: ``(H, W, 3)`` uint8.
            time: seconds after the start at which it is shown; ``None``, or one that is not after the picture
                before: as the rate says.
        """
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
            raise ValueError(f"the picture is {image.dtype} {image.shape}, expected uint8 (H, W, 3)")
        step = max(1, round(TICKS / self.rate))
        tick = self._last + step if self.frames else 0
        if time is not None and round(time * TICKS) > self._last:
            tick = round(time * TICKS)
        image = fitted(image, self.size)
        edges = [(0, side % 2) for side in self.size]
        padded = np.pad(image, (*edges, (0, 0)), mode="edge")
        frame = self._av.VideoFrame.from_ndarray(np.ascontiguousarray(padded), format="rgb24")
        frame = frame.reformat(
            format="yuv420p",
            dst_colorspace=self._av.video.reformatter.Colorspace.ITU709,
            dst_color_range=self._av.video.reformatter.ColorRange.MPEG,
        )
        frame.pts, frame.time_base = tick, Fraction(1, TICKS)
        frame.duration = step  # of the last one; the others last until the next
        self._last = tick
        self.frames += 1
        self._container.mux(self._stream.encode(frame))

    def close(self) -> None:
        """Write what is left."""
        try:
            self._container.mux(self._stream.encode(None))
        finally:
            self._container.close()

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:  # the file is of no use
            self._container.close()


def fitted(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """An image of another size, scaled to fit into ``size``, in the middle, with black bars."""
    if image.shape[:2] == size:
        return image
    height, width = image.shape[:2]
    scale = min(size[0] / height, size[1] / width)
    inner = tuple(
        max(1, min(round(side * scale), most)) for side, most in zip((height, width), size, strict=True)
    )
    small = Image.fromarray(image).resize(inner[::-1], Image.Resampling.BILINEAR)
    canvas = np.zeros((*size, 3), dtype=np.uint8)
    top, left = (size[0] - inner[0]) // 2, (size[1] - inner[1]) // 2
    canvas[top : top + inner[0], left : left + inner[1]] = np.asarray(small)
    return canvas

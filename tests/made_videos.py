"""Videos that tests make: any codec, times of frames, broken packets, display matrices."""

from __future__ import annotations

import struct
from collections.abc import Collection, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

BROKEN = b"\0\0\0\1\x41" + b"\xff" * 40
"""What no decoder takes, in the shape of a packet of H.264, which is why an mp4 takes it."""


def grey(values: Sequence[int], size: tuple[int, int] = (48, 64)) -> list[np.ndarray]:
    """Frames of one grey each; their first 8x8 pixels are white."""
    frames = [np.full((*size, 3), value, np.uint8) for value in values]
    for frame in frames:
        frame[:8, :8] = 255
    return frames


def write_video(
    path: Path,
    frames: Sequence[np.ndarray],
    codec: str = "libx264",
    rate: Fraction | int = 10,
    broken: Collection[int] = (),
    times: Sequence[float] | None = None,
    options: dict[str, str] | None = None,
    aspect: Fraction | int = 1,
) -> Path:
    """A video of ``(H, W, 3)`` frames with even sides.

    Args:
        broken: packets, by their place in the file, that cannot be decoded.
        times: seconds of the frames; None = as the rate says.
        aspect: width of a pixel by its height.
    """
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate)
        stream.height, stream.width = frames[0].shape[:2] if len(frames) else (48, 64)
        stream.pix_fmt = {"mjpeg": "yuvj420p", "ffv1": "bgr0", "rawvideo": "yuv420p"}.get(codec, "yuv420p")
        stream.options = options or ({"crf": "10", "bf": "0"} if codec == "libx264" else {})
        stream.codec_context.sample_aspect_ratio = aspect
        if times is not None:
            stream.time_base = stream.codec_context.time_base = Fraction(1, 1000)
        container.start_encoding()  # a file without frames is one, too
        place = 0
        for t, pixels in enumerate([*frames, None]):
            frame = None
            if pixels is not None:
                frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
                if times is not None:
                    frame.pts, frame.time_base = round(1000 * times[t]), Fraction(1, 1000)
            for packet in stream.encode(frame):
                if place in broken:
                    sound, packet = packet, av.Packet(BROKEN)
                    packet.pts, packet.dts, packet.time_base = sound.pts, sound.dts, sound.time_base
                    packet.stream = stream
                container.mux(packet)
                place += 1
    return path


def set_matrix(path: Path, matrix: tuple[int, int, int, int]) -> Path:
    """Give the only track of an mp4 the display matrix (a, b, c, d)."""
    content = bytearray(path.read_bytes())
    assert content.count(b"tkhd") == 1
    start = content.index(b"tkhd") + 44  # after version, times, ids, duration, layer, volume
    a, b, c, d = (value << 16 for value in matrix)
    content[start : start + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(content)
    return path

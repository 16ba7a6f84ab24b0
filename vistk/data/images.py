"""Decoding of image files, the same for training and inference."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import simplejpeg
import torch
from PIL import Image
from torch import Tensor

_DECODED = frozenset({"Gray", "RGB", "YCbCr"})
"""Colour spaces of JPEGs that have one conversion to RGB, the same in every decoder."""


def read_rgb(path: Path) -> Tensor:
    """An image file as ``(3, H, W)`` uint8 RGB, each pixel a word of four bytes in memory.

    Grey and RGB JPEGs are decoded by libjpeg-turbo straight from the file's bytes: the same pixels as
    Pillow's, in two thirds of the time. All else is left to Pillow, errors included.

    Raises:
        OSError, SyntaxError: as Pillow does: missing, truncated or broken files, or no image at all.
    """
    pixels = _decode_jpeg(path.read_bytes())
    if pixels is None:
        with Image.open(path) as image:
            pixels = np.array(image.convert("RGB").convert("RGBX"))
    return torch.from_numpy(pixels).permute(2, 0, 1)[:3]


def padded(images: Tensor) -> Tensor:
    """``(.., 3, H, W)`` uint8 images with a fourth channel without meaning, each pixel a word of four bytes.

    Words are resized, turned round and taken apart faster than three bytes. What :func:`read_rgb` returns
    lies so in memory, also when cropped, and is not copied: not to be written to.
    """
    steps = images.stride()
    if steps[-3] == 1 and steps[-1] == 4:
        last = images.storage_offset() + sum(
            (n - 1) * step for n, step in zip(images.shape, steps, strict=True)
        )
        if last + 1 < images.untyped_storage().nbytes():  # the last pixel, too, has a fourth byte
            return images.as_strided((*images.shape[:-3], 4, *images.shape[-2:]), steps)
    words = images.new_empty((*images.shape[:-3], *images.shape[-2:], 4))
    words[..., :3] = images.movedim(-3, -1)
    return words.movedim(-1, -3)


def _decode_jpeg(content: bytes) -> np.ndarray | None:
    """``(H, W, 4)`` uint8; ``None`` if this is no JPEG, one of other colours or broken."""
    try:
        _, _, colours, _ = simplejpeg.decode_jpeg_header(content)
        if colours not in _DECODED:
            return None
        # The fast variants of both steps give other pixels than Pillow.
        return simplejpeg.decode_jpeg(content, "RGBX", fastdct=False, fastupsample=False)
    except ValueError:
        return None

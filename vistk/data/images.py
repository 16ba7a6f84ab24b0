"""Decoding of image files, the same for training and inference."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor


def read_rgb(path: Path) -> Tensor:
    """An image file as ``(3, H, W)`` uint8 RGB, the channels of a pixel side by side in memory.

    Grey and RGB JPEGs are decoded by torchvision where it has a decoder: the same pixels as Pillow's (both
    use libjpeg-turbo) in three quarters of the time. All else is left to Pillow, errors included.

    Raises:
        OSError, SyntaxError: as Pillow does: missing, truncated or broken files, or no image at all.
    """
    decode = _jpeg_decoder() if path.suffix.lower() in (".jpg", ".jpeg") else None
    if decode is not None:
        try:
            pixels = decode(str(path))
        except RuntimeError:  # broken in some way; Pillow says in which
            pass
        else:
            if len(pixels) in (1, 3):
                return pixels.expand(3, -1, -1)
    with Image.open(path) as image:
        return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)


@lru_cache(maxsize=1)
def _jpeg_decoder() -> Callable[[str], Tensor] | None:
    """Imported when an image is read: it takes seconds."""
    try:
        from torchvision.io import decode_jpeg, read_file
    except (ImportError, RuntimeError):  # not there any more (deprecated in 0.29), or made for another torch
        return None
    return lambda path: decode_jpeg(read_file(path))

"""Augmentation of clips and resizing for inference: every frame of a clip is changed alike."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from vistk.data.config import DataConfig
from vistk.data.sampling import Stream

_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601


def resized_size(height: int, width: int, short_side: int | None, max_side: int | None) -> tuple[int, int]:
    """Height and width, scaled to the shorter side ``short_side`` or, if less, the longer ``max_side``.

    ``None`` for the first keeps the size, for the second sets no limit.
    """
    scale = 1.0 if short_side is None else short_side / min(height, width)
    if max_side is not None:
        scale = min(scale, max_side / max(height, width))
    return max(1, int(height * scale + 0.5)), max(1, int(width * scale + 0.5))


def resize_images(images: Tensor, size: tuple[int, int]) -> Tensor:
    """``(.., 3, H, W)`` uint8 images at another ``(height, width)``; bilinear, antialiased in shrinking."""
    if images.shape[-2:] == size:
        return images
    # channels_last is how decoded images lie in memory; torch's path for other uint8 images is wrong
    # when the new width is 1 (seen in 2.15).
    flat = images.reshape(-1, *images.shape[-3:]).contiguous(memory_format=torch.channels_last)
    out = F.interpolate(flat, size=size, mode="bilinear", align_corners=False, antialias=True)
    return out.contiguous().reshape(*images.shape[:-2], *size)


def resize_masks(masks: Tensor, size: tuple[int, int]) -> Tensor:
    """``(.., H, W)`` bool masks at another ``(height, width)``: the nearest pixel of the same place."""
    if masks.shape[-2:] == size:
        return masks
    rows, columns = (
        ((torch.arange(new) * 2 + 1) * old).div(2 * new, rounding_mode="floor")
        for new, old in zip(size, masks.shape[-2:], strict=True)
    )
    return masks[..., rows[:, None], columns]


def resize_for_test(images: Tensor, config: DataConfig) -> Tensor:
    """``(.., 3, H, W)`` uint8 frames at the size of inference."""
    height, width = images.shape[-2:]
    return resize_images(images, resized_size(height, width, config.test_short_side, config.test_max_side))


@dataclass(frozen=True)
class ClipTransform:
    """One draw of the training augmentation: crop, resize, flip and colour, for a whole clip."""

    window: tuple[int, int, int, int]  # top, left, height and width of the part that is kept
    size: tuple[int, int]  # height and width after resizing
    flip: bool
    brightness: float = 1.0
    contrast: float = 1.0
    saturation: float = 1.0

    @classmethod
    def draw(cls, stream: Stream, config: DataConfig, height: int, width: int) -> ClipTransform:
        """A random transform of clips of this size."""
        window = (0, 0, height, width)
        if stream.chance(config.crop):
            window = _draw_window(stream, config, height, width)
        short_side = stream.choice(config.train_short_sides) if config.train_short_sides else None
        size = resized_size(*window[2:], short_side, config.train_max_side)
        flip = stream.chance(config.hflip)
        low, high = 1 - config.colour_jitter, 1 + config.colour_jitter
        colour = [stream.uniform(low, high) if config.colour_jitter else 1.0 for _ in range(3)]
        return cls(window, size, flip, *colour)

    def images(self, images: Tensor) -> Tensor:
        """``(T, 3, H, W)`` uint8, transformed."""
        images = resize_images(self._cut(images), self.size)
        if self.flip:
            images = images.flip(-1)
        return _adjust_colour(images, self.brightness, self.contrast, self.saturation)

    def masks(self, masks: Tensor) -> Tensor:
        """``(.., H, W)`` bool, transformed as the images."""
        masks = resize_masks(self._cut(masks), self.size)
        return masks.flip(-1) if self.flip else masks

    def _cut(self, x: Tensor) -> Tensor:
        top, left, height, width = self.window
        return x[..., top : top + height, left : left + width]


def _draw_window(stream: Stream, config: DataConfig, height: int, width: int) -> tuple[int, int, int, int]:
    """A window whose sides lie in ``crop_range`` once the shorter side of the image is ``crop_short_sides``.

    The window is cut from the original pixels, so that a clip is interpolated once, not twice.
    """
    scale = stream.choice(config.crop_short_sides) / min(height, width)
    low, high = config.crop_range
    sides = []
    for side in (height, width):
        scaled = int(side * scale + 0.5)
        wanted = stream.integer(min(low, scaled), min(high, scaled) + 1)
        sides.append(max(1, min(side, int(wanted / scale + 0.5))))
    top = stream.integer(0, height - sides[0] + 1)
    left = stream.integer(0, width - sides[1] + 1)
    return top, left, sides[0], sides[1]


def _adjust_colour(images: Tensor, brightness: float, contrast: float, saturation: float) -> Tensor:
    """Scale brightness, contrast (about the clip's mean grey) and saturation of ``(T, 3, H, W)`` uint8."""
    if brightness == contrast == saturation == 1.0:
        return images
    x = images.float() * brightness
    luma = torch.tensor(_LUMA).view(3, 1, 1)
    if contrast != 1.0:
        mean = (x * luma).sum(1).mean()
        x = mean + (x - mean) * contrast
    if saturation != 1.0:
        grey = (x * luma).sum(1, keepdim=True)
        x = grey + (x - grey) * saturation
    return x.round_().clamp_(0, 255).to(torch.uint8)

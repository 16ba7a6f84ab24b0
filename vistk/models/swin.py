"""Swin Transformer (arXiv 2103.14030) as Mask2Former runs it, on timm's modules.

Mask2Former pads a map to whole windows and then rolls it; timm rolls first and then pads. On maps that
are no multiple of the window, as video frames are at most stages, the two differ by the size of the
features themselves, so published weights need the published order. The blocks here take over timm's
layers under timm's parameter names and run them in that order; timm itself is left as it is.
"""

from __future__ import annotations

import inspect
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vistk.schema import ConfigError

OPTIONS = {"strict_img_size": False, "always_partition": True}
"""Keyword arguments for timm: any frame size, and windows that keep their size and shift at every stage."""

_PARTS = {"norm1", "attn", "drop_path1", "norm2", "mlp", "drop_path2"}


class ShiftedWindowBlock(nn.Module):
    """A block of a Swin stage: attention in windows of a padded, rolled map, then a feed-forward layer.

    Args:
        block: timm's block of the same parameters; its layers are moved here, not copied.

    Raises:
        ConfigError: the installed timm builds its blocks of other parts.
    """

    def __init__(self, block: Any) -> None:
        super().__init__()
        found = {name for name, _ in block.named_children()}
        sizes = hasattr(block, "window_size") and hasattr(block, "shift_size")
        if found != _PARTS or not sizes or "mask" not in inspect.signature(block.attn.forward).parameters:
            raise _other_timm(f"blocks of {', '.join(sorted(found))}")
        self.norm1, self.attn, self.drop_path1 = block.norm1, block.attn, block.drop_path1
        self.norm2, self.mlp, self.drop_path2 = block.norm2, block.mlp, block.drop_path2
        self.window: tuple[int, int] = tuple(block.window_size)
        self.shift: tuple[int, int] = tuple(block.shift_size)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, H, W, C)`` -> the same shape."""
        x = x + self.drop_path1(self._attend(self.norm1(x)))
        return x + self.drop_path2(self.mlp(self.norm2(x)))

    def _attend(self, x: Tensor) -> Tensor:
        height, width = x.shape[1:3]
        tall, wide = self.window
        x = F.pad(x, (0, 0, 0, -width % wide, 0, -height % tall))
        rows, columns = x.shape[1] // tall, x.shape[2] // wide
        mask = None
        if any(self.shift):
            x = x.roll((-self.shift[0], -self.shift[1]), (1, 2))
            mask = shift_mask((rows, columns), self.window, self.shift, x.device, x.dtype)
        windows = x.unflatten(2, (columns, wide)).unflatten(1, (rows, tall)).transpose(2, 3)
        y = self.attn(windows.reshape(-1, tall * wide, x.shape[3]), mask=mask)
        y = y.view(-1, rows, columns, tall, wide, x.shape[3]).transpose(2, 3).reshape(x.shape)
        if any(self.shift):
            y = y.roll(self.shift, (1, 2))
        return y[:, :height, :width]


def shift_mask(
    grid: tuple[int, int],
    window: tuple[int, int],
    shift: tuple[int, int],
    device: torch.device,
    dtype: torch.dtype,
) -> Tensor:
    """Attention bias of a rolled map: -100 between pixels that only the roll brought together.

    Only the last row and the last column of windows hold such pixels, and the two directions are
    independent, so this costs one comparison an entry and is not worth a cache.

    Args:
        grid: rows and columns of windows.
        window: height and width of a window.
        shift: how far the map was rolled, below ``window``.

    Returns:
        ``(rows * columns, N, N)``, N pixels in a window.
    """

    def apart(windows: int, size: int, by: int) -> Tensor:  # (windows, size, size)
        wrapped = torch.arange(size, device=device) >= size - by
        last = torch.arange(windows, device=device) == windows - 1
        return last[:, None, None] & (wrapped[:, None] != wrapped)

    vertical = apart(grid[0], window[0], shift[0])[:, None, :, None, :, None]
    horizontal = apart(grid[1], window[1], shift[1])[None, :, None, :, None, :]
    pixels = window[0] * window[1]
    mask = (vertical | horizontal).reshape(grid[0] * grid[1], pixels, pixels)
    return torch.zeros(mask.shape, device=device, dtype=dtype).masked_fill(mask, -100.0)


def pad_before_roll(body: nn.Module) -> None:
    """Replace, in place, every block of a ``features_only`` Swin of timm by :class:`ShiftedWindowBlock`.

    Raises:
        ConfigError: the installed timm builds Swin of other parts.
    """
    stages: list[Any] = [stage for name, stage in body.named_children() if name.startswith("layers_")]
    if not stages or not all(isinstance(getattr(stage, "blocks", None), nn.Sequential) for stage in stages):
        raise _other_timm("stages without blocks")
    for stage in stages:
        stage.blocks = nn.Sequential(*(ShiftedWindowBlock(block) for block in stage.blocks))


def _other_timm(found: str) -> ConfigError:
    import timm

    return ConfigError(
        f"segmenter.backbone: timm {timm.__version__} builds Swin of {found}, which cannot be run in the "
        "published order; timm 1.0.22 to 1.0.31 are known to fit"
    )

"""Backbones from timm, under the names res2..res5 that the rest of the segmenter uses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from vistk.schema import ConfigError

LEVELS = ("res2", "res3", "res4", "res5")


class Backbone(nn.Module):
    """A timm ``features_only`` network with four feature levels.

    Args:
        name: any timm model with ``features_only`` and at least four levels (``timm.list_models``).
        options: further keyword arguments of the timm model, e.g. ``{"layers": [1, 1, 1, 1]}``.
        stem_pool: keep the max pool of a ResNet's stem; without it all strides halve, which suits
            frames of 64x96 pixels.
        freeze_norm: turn batch norms into fixed affine maps, as the published configurations do.

    Raises:
        ConfigError: the model is unknown to timm, or has no stem pool to remove.
    """

    def __init__(
        self,
        name: str,
        options: Mapping[str, Any] | None = None,
        stem_pool: bool = True,
        freeze_norm: bool = True,
    ) -> None:
        super().__init__()
        import timm  # 12 s cold: not at import of vistk
        from timm.layers import freeze_batch_norm_2d

        if not timm.is_model(name):
            near = timm.list_models(f"*{name.split('_')[0][:6]}*")[:5]
            raise ConfigError(
                f"segmenter.backbone={name!r} is not a timm model; similar names: {', '.join(near) or 'none'}"
            )
        settings: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in (options or {}).items()
        }
        # The last four levels: ResNets have a stride-2 stem before them.
        self.body = timm.create_model(
            name, pretrained=False, features_only=True, out_indices=(-4, -3, -2, -1), **settings
        )
        if not stem_pool:
            if not hasattr(self.body, "maxpool"):
                raise ConfigError(
                    f"segmenter.stem_pool=false needs a backbone with a max pool in its stem; {name} has none"
                )
            self.body.maxpool = nn.Identity()
        info: Any = self.body.feature_info
        divide = 1 if stem_pool else 2
        self.channels = dict(zip(LEVELS, info.channels(), strict=True))
        self.strides = {k: s // divide for k, s in zip(LEVELS, info.reduction(), strict=True)}
        if freeze_norm:
            self.body = freeze_batch_norm_2d(self.body)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Normalised images ``(B, 3, H, W)`` -> ``{"res2": (B, C_2, H_2, W_2), ...}``."""
        return dict(zip(LEVELS, self.body(images), strict=True))

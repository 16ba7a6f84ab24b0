"""Backbones from timm, under the names res2..res5 that the rest of the segmenter uses."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from vistk.models import resnet, swin, vit
from vistk.models.layers import Linear
from vistk.schema import ConfigError

LEVELS = ("res2", "res3", "res4", "res5")
SWIN_MODULES = ("swin_transformer",)
VIT_MODULES = ("vision_transformer", "eva", "deit")
_FEATURES = {"features_only": True, "out_indices": (-4, -3, -2, -1)}  # a ResNet's stem comes before them


class Backbone(nn.Module):
    """A timm network with four feature levels, each of half the size of the one before.

    Three kinds, told apart by the module of timm that defines the name:

    - Swin (``swin_*``): run as Mask2Former does, see :mod:`vistk.models.swin`, with a layer norm on each
      output, ``norm0`` to ``norm3``.
    - Plain vision transformers (``vit_*``, ``deit*``, ``eva*``, DINOv2, DINOv3): one map of stride 16 and
      a ``pyramid`` over it, see :mod:`vistk.models.vit`.
    - All others through timm's ``features_only``: ResNet, ConvNeXt, EfficientNet, ... ResNets are fused
      at inference on a CPU, see :mod:`vistk.models.resnet`.

    Args:
        name: a timm model, with or without a tag of its weights (``timm.list_models``).
        options: further keyword arguments of the timm model, e.g. ``{"layers": [1, 1, 1, 1]}`` or
            ``{"drop_path_rate": 0.3}``.
        stem_pool: keep the max pool of a ResNet's stem; without it all strides halve, which suits
            frames of 64x96 pixels.
        freeze_norm: turn batch norms into fixed affine maps, as the published configurations do. Other
            norms are always trained.
        checkpointing: recompute activations in the backward pass instead of keeping them.
        pretrained: download timm's weights of ``name``. The pyramid of a plain transformer and the
            output norms of Swin have none.

    Raises:
        ConfigError: timm does not know the model or its options, has no weights of it or cannot fetch
            them, it gives no four levels, takes no frames of any size, has no stem pool to remove, or
            cannot recompute activations.
    """

    def __init__(
        self,
        name: str,
        options: Mapping[str, Any] | None = None,
        stem_pool: bool = True,
        freeze_norm: bool = True,
        checkpointing: bool = False,
        pretrained: bool = False,
    ) -> None:
        super().__init__()
        from timm.layers import freeze_batch_norm_2d  # timm takes 12 s cold: not at import of vistk
        from timm.models import is_model_in_modules

        _require_known(name)
        plain = is_model_in_modules(name, VIT_MODULES)
        self.is_swin = is_model_in_modules(name, SWIN_MODULES)
        own = vit.OPTIONS if plain else {**_FEATURES, **(swin.OPTIONS if self.is_swin else {})}
        self.body = _create(name, options or {}, own, pretrained)
        for module in self.body.modules():
            if type(module) is nn.Linear:
                module.__class__ = Linear  # the same parameters and numbers, faster on a CPU
        if not stem_pool:
            if not isinstance(getattr(self.body, "maxpool", None), nn.Module):
                raise ConfigError(
                    f"segmenter.stem_pool=false needs a backbone with a max pool in its stem; {name} has none"
                )
            self.body.maxpool = nn.Identity()
        self.pyramid: vit.SimplePyramid | None = None
        self.patch = 1
        if plain:
            self.patch = vit.patch_size(self.body, name)
            self.body.prune_intermediate_layers(1, prune_norm=False, prune_head=True)
            self.pyramid = vit.SimplePyramid(self.body.embed_dim)
            channels, strides = self.pyramid.channels, (4, 8, 16, 32)
        else:
            info = self.body.feature_info
            channels, strides = info.channels(), info.reduction()
        divide = 1 if stem_pool else 2
        self.channels: dict[str, int] = dict(zip(LEVELS, channels, strict=True))
        self.strides: dict[str, int] = {k: s // divide for k, s in zip(LEVELS, strides, strict=True)}
        # timm's word for (B, H, W, C); most of its models say nothing or NCHW.
        self.channels_last = str(getattr(self.body, "output_fmt", "")).endswith("NHWC")
        if self.is_swin:
            swin.pad_before_roll(self.body)
            for level, width in enumerate(channels):
                self.add_module(f"norm{level}", nn.LayerNorm(width))
        if freeze_norm:
            self.body = freeze_batch_norm_2d(self.body)
        self._require_any_size(name)
        if checkpointing:
            _checkpoint(self.body, name)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Normalised images ``(B, 3, H, W)`` -> ``{"res2": (B, C_2, H_2, W_2), ...}``.

        Height and width are multiples of 32, as the segmenter pads them. Swin takes any size, padded
        with zeros to whole patches as published; convolutional networks take any size too and round.
        """
        if self.pyramid is not None:
            maps = self.pyramid(vit.plain_features(self.body, images, self.patch))
        elif self.is_swin:
            height, width = images.shape[-2:]
            patch = self.strides["res2"]
            maps = self.body(F.pad(images, (0, -width % patch, 0, -height % patch)))
            maps = [getattr(self, f"norm{level}")(x) for level, x in enumerate(maps)]
        else:
            fused = resnet.fused_features(self.body, images)
            maps = self.body(images) if fused is None else fused
        if self.channels_last:
            maps = [x.permute(0, 3, 1, 2).contiguous() for x in maps]
        return dict(zip(LEVELS, maps, strict=True))

    def _require_any_size(self, name: str) -> None:
        """One small frame through the network: what it does not take is said now, not in training."""
        like = next(self.body.parameters())
        height, width = 64, 96
        expected = {
            level: (1, self.channels[level], height // stride, width // stride)
            for level, stride in self.strides.items()
        }
        self.eval()  # running statistics and random streams stay as they are
        try:
            with torch.no_grad():
                maps = self(torch.zeros(1, 3, height, width, device=like.device, dtype=like.dtype))
        except (AssertionError, RuntimeError, ValueError) as error:
            raise ConfigError(
                f"segmenter.backbone={name!r} does not take frames of any size: "
                f"one of {height}x{width} pixels fails ({_brief(error)})"
            ) from error
        finally:
            self.train()
        found = {level: tuple(x.shape) for level, x in maps.items()}
        strides = list(self.strides.values())
        if found != expected or strides != [strides[0] << level for level in range(4)]:
            sizes = ", ".join(f"{x[2]}x{x[3]}" for x in found.values())
            raise ConfigError(
                f"segmenter.backbone={name!r} gives maps of {sizes} for a frame of {height}x{width} pixels, "
                "expected four, each of half the size of the one before"
            )


def pretrained_pixels(name: str) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of the pixels (0 to 255) that timm's weights of ``name`` expect.

    Raises:
        ConfigError: timm does not know the model or its tag, or has no weights of it.
    """
    import timm

    _require_known(name)
    try:
        found = timm.get_pretrained_cfg(name)
    except RuntimeError as error:  # an unknown tag
        raise ConfigError(f"segmenter.backbone={name!r}: {_brief(error)}") from error
    if found is None or not found.has_weights:
        raise ConfigError(
            f"segmenter.backbone_pretrained=true, but timm has no weights of {name}; "
            f"there are {', '.join(timm.list_pretrained(f'{name}*')[:5]) or 'none under similar names'}"
        )
    return [255 * x for x in found.mean], [255 * x for x in found.std]


def _require_known(name: str) -> None:
    import timm

    if not timm.is_model(name):
        near = difflib.get_close_matches(name.partition(".")[0], timm.list_models(), 5)
        raise ConfigError(
            f"segmenter.backbone={name!r} is not a timm model; similar names: {', '.join(near) or 'none'}"
        )


def _create(name: str, options: Mapping[str, Any], own: Mapping[str, Any], pretrained: bool) -> Any:
    """``timm.create_model`` whose failures are one sentence."""
    import timm

    taken = sorted({*own, "pretrained"} & set(options))
    if taken:
        raise ConfigError(
            f"segmenter.backbone_options.{taken[0]} cannot be set for {name}: the segmenter sets it itself"
        )
    settings: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in options.items()}
    try:
        return timm.create_model(name, pretrained=pretrained, **settings, **own)
    except OSError as error:
        if not pretrained:
            raise
        raise ConfigError(
            f"segmenter.backbone_pretrained=true, but the weights of {name} could not be fetched "
            f"({_brief(error)})"
        ) from error
    except TypeError as error:  # a keyword that the model does not have
        raise ConfigError(f"segmenter.backbone_options does not suit {name}: {_brief(error)}") from error
    except (AssertionError, IndexError, RuntimeError, ValueError) as error:
        raise ConfigError(
            f"segmenter.backbone={name!r} with segmenter.backbone_options={dict(options)} cannot be built "
            f"with four feature levels: {_brief(error)}"
        ) from error


def _checkpoint(body: Any, name: str) -> None:
    """Recompute block by block where stages know how, else by the largest parts that timm offers."""
    if any(isinstance(module, _BatchNorm) for module in body.modules()):
        raise ConfigError(
            f"segmenter.backbone_checkpointing=true would update the batch norms of {name} twice a step; "
            "say segmenter.freeze_norm=true too"
        )
    inner = [m for m in body.modules() if m is not body and hasattr(m, "grad_checkpointing")]
    for module in inner:
        module.grad_checkpointing = True
    if not inner:
        if not hasattr(body, "set_grad_checkpointing"):
            raise ConfigError(
                f"segmenter.backbone_checkpointing=true, but timm's {name} cannot recompute its activations"
            )
        body.set_grad_checkpointing(True)
        for module in body.children():  # timm may recompute a stem's activation from its own output
            if getattr(module, "inplace", False):
                module.inplace = False


def _brief(error: BaseException) -> str:
    """The message of an error on one line, without its full stop; its kind where it has none."""
    text = " ".join(str(error).split()).rstrip(".") or type(error).__name__
    return text if len(text) <= 300 else f"{text[:300]}..."

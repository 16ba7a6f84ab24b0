"""The frame-level segmenter: Mask2Former (arXiv 2112.01527) on single frames."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vistk.models.backbone import Backbone, pretrained_pixels
from vistk.models.pixel_decoder import PixelDecoder
from vistk.models.precision import PrecisionConfig, decode_pixels
from vistk.models.transformer_decoder import DecoderOutput, TransformerDecoder
from vistk.schema import ConfigError, require_at_least
from vistk.structures import FrameOutput, FrameQueries

SIZE_DIVISOR = 32
PIXEL_LEVELS = ("pixel3", "pixel4", "pixel5")
"""The pixel decoder's maps, of the size of the backbone's res3, res4 and res5."""

Propagation = Callable[[FrameQueries], Tensor | None]
"""From the queries of a frame, ``(B, Q, ..)`` with the vectors "query", to ``(B, Q, C)`` for the next one."""


@dataclass
class SegmenterConfig:
    """Width and depth of the segmenter. The defaults are the published R50 model."""

    backbone: str = "resnet50"  # a timm model: with four feature levels, Swin, or a plain ViT
    backbone_options: dict[str, Any] = field(default_factory=dict)  # keyword arguments for timm
    backbone_pretrained: bool = False  # download timm's weights of the backbone
    backbone_checkpointing: bool = False  # recompute its activations in the backward pass: less memory
    stem_pool: bool = True  # false halves all strides of a ResNet
    freeze_norm: bool = True  # batch norms, where there are any, as fixed affine maps
    hidden_dim: int = 256
    num_queries: int = 100
    heads: int = 8
    encoder_layers: int = 6
    encoder_feedforward: int = 1024
    points: int = 4
    decoder_layers: int = 9
    decoder_feedforward: int = 2048
    mask_position: bool = False  # sine position code in the mask features
    dense_head: bool = False  # per-pixel classes, for the dense loss
    pixel_mean: list[float] = field(default_factory=lambda: [123.675, 116.28, 103.53])
    pixel_std: list[float] = field(default_factory=lambda: [58.395, 57.12, 57.375])

    def __post_init__(self) -> None:
        minima = dict.fromkeys(("num_queries", "heads", "points", "encoder_layers", "decoder_layers"), 1)
        require_at_least("segmenter", self, hidden_dim=2, **minima)
        if self.hidden_dim % self.heads or self.hidden_dim % 2:
            raise ConfigError(
                f"segmenter.hidden_dim is {self.hidden_dim}, expected an even multiple of "
                f"segmenter.heads={self.heads}"
            )


@dataclass
class TinySegmenterConfig(SegmenterConfig):
    """The same code, small: about 1.3 M parameters, for frames of 64x96 pixels."""

    backbone: str = "resnet18"
    backbone_options: dict[str, Any] = field(
        default_factory=lambda: {"layers": [1, 1, 1, 1], "channels": [48, 64, 128, 192]}
    )
    stem_pool: bool = False
    freeze_norm: bool = False
    hidden_dim: int = 64
    num_queries: int = 10
    heads: int = 4
    encoder_layers: int = 1
    encoder_feedforward: int = 256
    decoder_layers: int = 3
    decoder_feedforward: int = 256
    mask_position: bool = True
    dense_head: bool = True


@dataclass
class SwinTinyConfig(SegmenterConfig):
    """Mask2Former with Swin-T. All its Swin models train with stochastic depth 0.3."""

    backbone: str = "swin_tiny_patch4_window7_224"
    backbone_options: dict[str, Any] = field(default_factory=lambda: {"drop_path_rate": 0.3})


@dataclass
class SwinSmallConfig(SwinTinyConfig):
    """Mask2Former with Swin-S."""

    backbone: str = "swin_small_patch4_window7_224"


@dataclass
class SwinBaseConfig(SwinTinyConfig):
    """Mask2Former with Swin-B, windows of 12, from weights of ImageNet-22k (the tag of the name)."""

    backbone: str = "swin_base_patch4_window12_384.ms_in22k"


@dataclass
class SwinLargeConfig(SwinTinyConfig):
    """Mask2Former, MinVIS and VISAGE with Swin-L: 200 queries, activations recomputed in training."""

    backbone: str = "swin_large_patch4_window12_384.ms_in22k"
    backbone_checkpointing: bool = True
    num_queries: int = 200


class Segmenter(nn.Module):
    """Images in, queries with classes, masks and embeddings out; every frame on its own.

    Args:
        config: width and depth.
        num_classes: K, without "no object".
        precision: arithmetic of the pixel decoder; the attribute of this name may be set later too.

    Raises:
        ConfigError: the backbone cannot be built (:class:`Backbone`), or its pretrained weights expect
            pixels of another mean or standard deviation than ``config`` says.
    """

    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(
        self, config: SegmenterConfig, num_classes: int, precision: PrecisionConfig | None = None
    ) -> None:
        super().__init__()
        self.config = config
        self.num_classes = num_classes
        self.precision = precision or PrecisionConfig()
        if config.backbone_pretrained:
            _require_same_pixels(config)
        self.backbone = Backbone(
            config.backbone,
            config.backbone_options,
            config.stem_pool,
            config.freeze_norm,
            config.backbone_checkpointing,
            config.backbone_pretrained,
        )
        self.pixel_decoder = PixelDecoder(
            self.backbone.channels,
            config.hidden_dim,
            config.encoder_feedforward,
            config.encoder_layers,
            config.heads,
            config.points,
            config.mask_position,
        )
        self.transformer_decoder = TransformerDecoder(
            num_classes,
            config.hidden_dim,
            config.decoder_feedforward,
            config.num_queries,
            config.decoder_layers,
            config.heads,
        )
        self.dense_embed = nn.Conv2d(config.hidden_dim, num_classes + 1, 1) if config.dense_head else None
        self.register_buffer("pixel_mean", torch.tensor(config.pixel_mean).view(3, 1, 1), persistent=False)
        self.register_buffer("pixel_std", torch.tensor(config.pixel_std).view(3, 1, 1), persistent=False)

    @property
    def embed_dim(self) -> int:
        return self.config.hidden_dim

    @property
    def feature_channels(self) -> dict[str, int]:
        """Width of every map of :attr:`FrameOutput.features`, the backbone's first."""
        return self.backbone.channels | dict.fromkeys(PIXEL_LEVELS, self.embed_dim)

    def forward(
        self,
        images: Tensor,
        valid_size: Tensor | None = None,
        propagate: Propagation | None = None,
        previous: FrameQueries | None = None,
    ) -> FrameOutput:
        """Segment frames.

        Args:
            images: ``(.., 3, H, W)`` uint8, RGB; padded here, after normalisation, with zeros at the
                bottom and right to a multiple of 32.
            valid_size: ``(B, 2)`` height and width of each clip before padding, for images
                ``(B, T, 3, H, W)`` that come padded already: their padding is set to zero after
                normalisation too. ``None`` = all pixels are valid.
            propagate: says what is added to the learned queries at the start of a frame, from the queries of
                the frame before; the T frames of ``(B, T, 3, H, W)`` then pass the transformer decoder in
                turn. ``None`` = every frame on its own.
            previous: the queries of the frame before the first, leading dims ``(B,)``; ``None`` = there is
                none, and the first one begins with the learned queries.

        Returns:
            A :class:`FrameOutput` with the leading dims of ``images``; ``aux`` and ``dense_logits`` are
            filled in training mode only.

        Raises:
            TypeError: the weights are of 16 bits.
        """
        if self.pixel_mean.dtype in (torch.float16, torch.bfloat16):
            raise TypeError(
                f"the segmenter's weights are {str(self.pixel_mean.dtype).removeprefix('torch.')}, expected "
                "float32: call .float(), and compute in 16 bits under torch.autocast"
            )
        lead = images.shape[:-3]
        x = (
            self._normalise(images, valid_size).flatten(0, -4)
            if lead
            else self._normalise(images, valid_size)[None]
        )
        features = self.backbone(x)
        mask_features, pyramid = decode_pixels(self.pixel_decoder, features, self.precision)
        if propagate is None:
            out = self.transformer_decoder(mask_features, pyramid, with_aux=self.training)
        else:
            out = self._decode_in_turn(mask_features, pyramid, lead, propagate, previous)
        dense = self.dense_embed(mask_features) if self.dense_embed is not None and self.training else None
        features = features | dict(zip(PIXEL_LEVELS, reversed(pyramid), strict=True))
        flat = FrameOutput(out.logits, out.mask_logits, out.embeds, mask_features, features, out.aux, dense)
        return flat.map(lambda y: y.unflatten(0, lead) if lead else y[0])

    def _decode_in_turn(
        self,
        mask_features: Tensor,
        pyramid: Sequence[Tensor],
        lead: Sequence[int],
        propagate: Propagation,
        previous: FrameQueries | None,
    ) -> DecoderOutput:
        """The T frames of B clips one after the other, each with queries from the one before."""
        if len(lead) != 2:
            raise ValueError(
                f"images of propagated queries: expected (B, T, 3, H, W), found {len(lead)} leading dims"
            )
        frames = []
        for t in range(lead[1]):
            now = slice(t, None, lead[1])  # frame t of every clip
            added = None if previous is None else propagate(previous)
            out = self.transformer_decoder(
                mask_features[now], [x[now] for x in pyramid], self.training, added
            )
            previous = FrameQueries(out.logits, {"query": out.embeds})
            frames.append(out)
        return DecoderOutput.in_turn(frames)

    def _normalise(self, images: Tensor, valid_size: Tensor | None) -> Tensor:
        x = (images.float() - self.pixel_mean) / self.pixel_std
        height, width = x.shape[-2:]
        if valid_size is not None:
            rows = torch.arange(height, device=x.device) < valid_size[:, 0, None]  # (B, H)
            columns = torch.arange(width, device=x.device) < valid_size[:, 1, None]  # (B, W)
            x = x * (rows[:, :, None] & columns[:, None, :])[:, None, None]
        # Not -size % 32: torch.compile cannot follow the remainder of a negative symbol into its backends.
        right, bottom = (-(-size // SIZE_DIVISOR) * SIZE_DIVISOR - size for size in (width, height))
        return F.pad(x, (0, right, 0, bottom))


def _require_same_pixels(config: SegmenterConfig) -> None:
    """Pretrained weights see the pixels that they were trained on, or the reader is told which."""
    for key, expected in zip(("pixel_mean", "pixel_std"), pretrained_pixels(config.backbone), strict=True):
        found = getattr(config, key)
        if any(abs(a - b) > 0.5 for a, b in zip(found, expected, strict=True)):
            raise ConfigError(
                f"segmenter.{key} is {found}, but the pretrained weights of {config.backbone} expect "
                f"{[round(x, 3) for x in expected]}",
                f"segmenter.{key}",
            )

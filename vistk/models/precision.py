"""The arithmetic of the pixel decoder, apart from that of the rest of the segmenter.

The published code forces its pixel decoder to float32 even where all else runs under autocast, and the
pixel decoder holds most of the segmenter's matrix products.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from vistk.schema import ConfigError

ARITHMETICS = ("float32", "tf32", "bfloat16")

Maps = Mapping[str, Tensor]
Decoded = tuple[Tensor, list[Tensor]]


@dataclass
class PrecisionConfig:
    """Where the arithmetic of a part departs from the rest. It changes results a little.

    ``float32`` leaves autocast, as published. ``tf32`` does so too and takes matrix products in TF32 on
    NVIDIA GPUs (8.0 or newer), in the forward pass only. ``bfloat16`` is autocast, with or without an outer
    one. All leave the decoder's outputs and, always, the sampling references in float32. Convolutions in
    float32 follow ``torch.backends.cudnn``, which PyTorch sets to TF32.
    """

    pixel_decoder: str | None = None  # float32 | tf32 | bfloat16; null = as the rest

    def __post_init__(self) -> None:
        if self.pixel_decoder is not None and self.pixel_decoder not in ARITHMETICS:
            near = difflib.get_close_matches(self.pixel_decoder, ARITHMETICS, 1, 0.0)[0]
            raise ConfigError(
                f"precision.pixel_decoder is {self.pixel_decoder!r}, expected null or one of "
                f"{', '.join(ARITHMETICS)}; nearest is {near!r}",
                "precision.pixel_decoder",
            )


def require_usable(config: PrecisionConfig, device: torch.device) -> None:
    """Raises :class:`ConfigError` where ``device`` lacks the arithmetic that ``config`` asks for."""
    if config.pixel_decoder != "tf32":
        return
    found = f"tensors are on {device.type}"
    if device.type == "cuda":
        if torch.version.hip is not None:
            found = "this GPU is of AMD"
        else:
            major, minor = torch.cuda.get_device_capability(device)
            if major >= 8:
                return
            found = f"this GPU has {major}.{minor}"
    raise ConfigError(
        "precision.pixel_decoder=tf32 needs an NVIDIA GPU of compute capability 8.0 or newer, "
        f"and {found}; say float32 or bfloat16",
        "precision.pixel_decoder",
    )


def decode_pixels(decoder: Callable[[Maps], Decoded], features: Maps, config: PrecisionConfig) -> Decoded:
    """``decoder(features)`` in the arithmetic asked for.

    Args:
        decoder: a :class:`vistk.models.pixel_decoder.PixelDecoder` with float32 parameters.
        features: its input, of any floating dtype.

    Returns:
        Mask features and pyramid: float32, or, with ``pixel_decoder=None``, whatever comes.

    Raises:
        ConfigError: the device of ``features`` lacks the arithmetic.
    """
    if config.pixel_decoder is None:
        return decoder(features)
    device = next(iter(features.values())).device
    if config.pixel_decoder == "bfloat16":
        with torch.autocast(device.type, torch.bfloat16):
            mask_features, pyramid = decoder(features)
    else:
        features = {name: x.float() for name, x in features.items()}
        with torch.autocast(device.type, enabled=False):
            if config.pixel_decoder == "tf32":
                require_usable(config, device)
                with _tf32_matmuls():
                    return decoder(features)
            return decoder(features)
    return mask_features.float(), [x.float() for x in pyramid]


@contextmanager
def _tf32_matmuls() -> Iterator[None]:
    """TF32 in matrix products; the switch belongs to the process and is put back."""
    switch = torch.backends.cuda.matmul
    # Where there is a newer name (torch 2.9), reading the older one after somebody used the newer raises.
    name, on = ("fp32_precision", "tf32") if hasattr(switch, "fp32_precision") else ("allow_tf32", True)
    before = getattr(switch, name)
    setattr(switch, name, on)
    try:
        yield
    finally:
        setattr(switch, name, before)

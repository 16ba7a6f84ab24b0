"""Weights on disk: this project's safetensors files and the names of published checkpoints."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from vistk.files import replacing


class CheckpointError(ValueError):
    """Weights that cannot be read or do not fit; the message says what did not match."""


def save_weights(path: Path, state: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> None:
    """Write a safetensors file under a temporary name, then rename it: an old file survives any failure.

    Args:
        path: destination, ``*.safetensors``.
        state: tensors by name; stored on the CPU, contiguous.
        metadata: json-serialisable facts about the weights (configuration, data, command).

    Raises:
        OSError: the file cannot be written, e.g. on a full disk.
    """
    tensors = {name: value.detach().cpu().contiguous() for name, value in state.items()}
    facts = {key: json.dumps(value) for key, value in metadata.items()}
    with replacing(path) as temporary:
        try:
            save_file(tensors, temporary, metadata=facts)
        except SafetensorError as error:  # how the library reports a full disk
            raise OSError(f"weights {path} cannot be written: {error}") from error


def load_weights(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and metadata of a safetensors file.

    Raises:
        CheckpointError: the file is missing or is no complete safetensors file.
    """
    if not path.is_file():
        raise CheckpointError(f"weights {path}: no such file")
    try:
        with safe_open(path, framework="pt") as file:
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
            metadata = {key: json.loads(value) for key, value in (file.metadata() or {}).items()}
    except (SafetensorError, json.JSONDecodeError) as error:
        raise CheckpointError(f"weights {path}: not a complete safetensors file ({error})") from error
    return state, metadata


def load_into(module: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Load ``state`` into ``module``; every name and shape must agree.

    Raises:
        CheckpointError: names what is missing, unexpected or of another shape. The module is unchanged.
    """
    own = module.state_dict()
    missing = sorted(set(own) - set(state))
    unexpected = sorted(set(state) - set(own))
    shapes = [
        f"{name} is {tuple(state[name].shape)} in the file and {tuple(own[name].shape)} in the model"
        for name in sorted(set(own) & set(state))
        if own[name].shape != state[name].shape
    ]
    problems = [
        f"{len(items)} {what} ({', '.join(items[:3])}{', ..' if len(items) > 3 else ''})"
        for what, items in (("of another shape", shapes), ("missing", missing), ("unexpected", unexpected))
        if items
    ]
    if problems:
        raise CheckpointError(f"weights {source} are of another architecture: {'; '.join(problems)}")
    module.load_state_dict(dict(state))


_DETECTRON2_RENAMES = (
    (r"^sem_seg_head\.pixel_decoder\.", "pixel_decoder."),
    (r"^sem_seg_head\.predictor\.", "transformer_decoder."),
    (r"^backbone\.stem\.conv1\.norm\.", "backbone.body.bn1."),
    (r"^backbone\.stem\.conv1\.", "backbone.body.conv1."),
    (r"^(backbone)\.res(\d)\.", lambda m: f"{m[1]}.body.layer{int(m[2]) - 1}."),
    (r"\.shortcut\.norm\.", ".downsample.1."),
    (r"\.shortcut\.", ".downsample.0."),
    (r"^(backbone\..*)\.conv(\d)\.norm\.", r"\1.bn\2."),
)


def from_detectron2_name(name: str) -> str:
    """Our segmenter's name of a parameter of a published Mask2Former-R50 checkpoint."""
    for pattern, replacement in _DETECTRON2_RENAMES:
        name = re.sub(pattern, replacement, name)  # type: ignore[arg-type]
    return name

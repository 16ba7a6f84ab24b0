"""What weights are, from names and shapes alone."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from vistk.models.published_names import translate

_SWINS: Mapping[
    tuple[int, tuple[int, ...], int], str
] = {  # width of the first stage, blocks of each stage, window
    (96, (2, 2, 6, 2), 7): "swint",
    (96, (2, 2, 18, 2), 7): "swins",
    (128, (2, 2, 18, 2), 12): "swinb",
    (192, (2, 2, 18, 2), 12): "swinl",
}
_RESNETS: Mapping[tuple[int, tuple[int, ...]], str] = {  # width of the first block's first layer, blocks
    (64, (3, 4, 6, 3)): "r50",
    (64, (3, 4, 23, 3)): "r101",
    (48, (1, 1, 1, 1)): "tiny",
}
_NAMES = {
    "tiny": "the tiny ResNet",
    "r50": "ResNet-50",
    "r101": "ResNet-101",
    "swint": "Swin-T",
    "swins": "Swin-S",
    "swinb": "Swin-B",
    "swinl": "Swin-L",
    "other": "another backbone",
}
_OPTIONS = {
    "tiny": (10, 64),
    **dict.fromkeys(("r50", "swint", "swins", "swinb"), (100, 256)),
    "swinl": (200, 256),
}
"""Queries and width of ``segmenter=``, by its name."""


@dataclass(frozen=True)
class Description:
    """What a state dict holds; None where it has no such entry.

    Attributes:
        family: whose names it has (``vistk``, ``Detectron2``, ``Transformers``).
        backbone: ``tiny``, ``r50``, ``r101``, ``swint``, ``swins``, ``swinb``, ``swinl`` or ``other``.
        queries: Q.
        classes: K, without "no object".
        hidden_dim: width C of queries and mask features.
        appearance: whether it has VISAGE's heads.
    """

    family: str
    backbone: str
    queries: int | None
    classes: int | None
    hidden_dim: int | None
    appearance: bool

    def __str__(self) -> str:
        name = "VISAGE" if self.appearance else "Mask2Former"
        width = "" if self.hidden_dim in (None, 256) else f" of width {self.hidden_dim}"
        return (
            f"a {name}{width} with {_NAMES[self.backbone]}, {_number(self.queries)} queries "
            f"and {_number(self.classes)} classes"
        )

    @property
    def words(self) -> str | None:
        """The words of a configuration whose segmenter fits; None where no option does."""
        queries, width = _OPTIONS.get(self.backbone, (None, None))
        if width is None or self.hidden_dim != width:
            return None
        other = "" if self.queries == queries else f" segmenter.num_queries={self.queries}"
        return f"segmenter={self.backbone}{other}"


def describe_state(state: Mapping[str, Tensor], source: str = "the given state dict") -> Description:
    """What a state dict of any known family holds.

    Raises:
        CheckpointError: its names are of no family.
    """
    translation = translate(state, source)
    ours = translation.state
    decoder = "segmenter.transformer_decoder"
    queries = _rows(ours, f"{decoder}.query_feat.weight")
    classes = _rows(ours, f"{decoder}.class_embed.weight")
    embed = ours.get(f"{decoder}.query_feat.weight")
    return Description(
        translation.family,
        _backbone(ours),
        queries,
        None if classes is None else classes - 1,
        None if embed is None else embed.shape[-1],
        any(name.startswith("tracker.appearance_decoder.") for name in ours),
    )


def _rows(state: Mapping[str, Tensor], name: str) -> int | None:
    return state[name].shape[0] if name in state else None


def _number(value: int | None) -> str:
    return "no" if value is None else str(value)


def _backbone(state: Mapping[str, Tensor]) -> str:
    body = "segmenter.backbone.body"
    width = _rows(state, f"{body}.layer1.0.conv1.weight")
    if width is not None:
        kind = _RESNETS.get((width, _blocks(state, rf"{body}\.layer(\d)\.(\d+)\.conv1\.weight")), "other")
        bottlenecks = f"{body}.layer1.0.conv3.weight" in state
        return kind if bottlenecks == (kind != "tiny") else "other"  # ResNet-34 has the blocks of ResNet-50
    table = state.get(f"{body}.layers_0.blocks.0.attn.relative_position_bias_table")
    width = _rows(state, f"{body}.patch_embed.proj.weight")
    if table is None or width is None:
        return "other"
    window = (round(table.shape[0] ** 0.5) + 1) // 2
    blocks = _blocks(state, rf"{body}\.layers_(\d)\.blocks\.(\d+)\.norm1\.weight")
    return _SWINS.get((width, blocks, window), "other")


def _blocks(state: Mapping[str, Tensor], pattern: str) -> tuple[int, ...]:
    """How many blocks each stage has."""
    found = [m[1] for m in (re.fullmatch(pattern, name) for name in state) if m]
    return tuple(found.count(stage) for stage in sorted(set(found)))

"""Parameter names of published models and of this project's files, both ways.

A file of this project holds ``segmenter.*`` and ``tracker.*``. Detectron2's names (Mask2Former, MinVIS,
VISAGE) differ from them in prefixes alone; Transformers' Mask2Former also splits joint projections.
The names are in tables of pairs (:mod:`vistk.models.name_tables`), so that the way back is the way there,
read backwards.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from vistk.models.name_tables import (
    DETECTRON2,
    ENCODER,
    JOINT,
    NO_PARAMETER,
    PREDICTOR,
    SPELLINGS,
    TRANSFORMERS,
    pattern_of,
)
from vistk.models.weight_files import CheckpointError


@dataclass
class Translation:
    """A state under our names, ``segmenter.*`` and ``tracker.*``.

    Attributes:
        family: whose names the file has: ``vistk``, ``Detectron2`` or ``Transformers``.
        state: tensors by our names.
        origin: our name to the file's, or to those that were joined, with " + " between.
        ignored: names of the file that are no parameters, and why.
        unknown: names of the file that no table has.
    """

    family: str
    state: dict[str, Tensor] = field(default_factory=dict)
    origin: dict[str, str] = field(default_factory=dict)
    ignored: dict[str, str] = field(default_factory=dict)
    unknown: list[str] = field(default_factory=list)

    def add(self, ours: str | None, theirs: str, value: Tensor) -> None:
        """Take one entry; a second one for the same name is unknown."""
        if ours is None or ours in self.state:
            self.unknown.append(theirs)
        else:
            self.state[ours] = value
            self.origin[ours] = theirs


def family_of(names: Sequence[str]) -> str | None:
    """Whose names these are, or None."""
    names = [_without_wrapper(name) for name in names]
    if any(name.startswith(("segmenter.", "tracker.", "transformer_decoder.")) for name in names):
        return "vistk"
    if any(name.startswith("sem_seg_head.") for name in names):
        return "Detectron2"
    if any(name.removeprefix("model.").startswith("transformer_module.") for name in names):
        return "Transformers"
    return None


def translate(state: Mapping[str, Tensor], source: str) -> Translation:
    """A state of any family under our names.

    Raises:
        CheckpointError: the names are of no family, or of a model of Transformers that is not built here.
    """
    family = family_of(list(state))
    if family is None:
        some = ", ".join(list(state)[:3])
        raise CheckpointError(
            f"weights {source}: no Mask2Former, MinVIS or VISAGE, its entries are {some}, ..; "
            "a backbone alone does not make a segmenter"
        )
    state = {_without_wrapper(name): value for name, value in state.items()}
    if family == "vistk":
        result = Translation(family)
        for name, value in state.items():
            result.add(
                name if name.startswith(("segmenter.", "tracker.")) else f"segmenter.{name}", name, value
            )
        return result
    result = Translation(family)
    for theirs, origin, value in _as_detectron2(state, family, source):
        reason = next((why for pattern, why in NO_PARAMETER if pattern.search(theirs)), None)
        if reason is None:
            result.add(DETECTRON2.there(theirs), origin, value)
        else:
            result.ignored[origin] = reason
    return result


def _without_wrapper(name: str) -> str:
    """Without the prefix of data-parallel training."""
    return name.removeprefix("module.")


def _modern(name: str) -> str:
    """Detectron2's name in a file of any age."""
    head, _, rest = name.partition("sem_seg_head.")
    if head == "" and rest:
        if not rest.startswith(("pixel_decoder.", "predictor.")):
            rest = f"pixel_decoder.{rest}"
        name = f"sem_seg_head.{rest}".replace("predictor.static_query.", "predictor.query_feat.")
    return name


def _as_detectron2(state: Mapping[str, Tensor], family: str, source: str) -> list[tuple[str, str, Tensor]]:
    """Entries as (Detectron2's name, the file's name or names, value)."""
    if family == "Detectron2":
        return [(_modern(name), name, value) for name, value in state.items()]
    spelled = {_published_spelling(name): name for name in state}
    if not any(name.startswith(f"{ENCODER}.embeddings.") for name in spelled):
        raise CheckpointError(
            f"weights {source}: a Mask2Former of Transformers whose backbone is not Swin, which is not read"
        )
    entries, done = [], set()
    for joint, parts in JOINT:
        first = pattern_of(parts[0])
        for name in spelled:
            found = first.fullmatch(name)
            names = [part.format(*found.groups()) for part in parts] if found else []
            if found and all(part in spelled for part in names):
                origins = [spelled[part] for part in names]
                value = torch.cat([state[origin] for origin in origins])
                entries.append((joint.format(*found.groups()), " + ".join(origins), value))
                done.update(names)
    for name, origin in spelled.items():
        if name not in done:
            entries.append((TRANSFORMERS.back(name) or name, origin, state[origin]))
    return entries


def _split(name: str) -> list[str]:
    """Transformers' names of the parts of a joint projection; none for other names."""
    for joint, parts in JOINT:
        found = pattern_of(joint).fullmatch(name)
        if found:
            return [part.format(*found.groups()) for part in parts]
    return []


def _published_spelling(name: str) -> str:
    for pattern, replacement in SPELLINGS:
        name = pattern.sub(replacement, name)
    return name


def to_detectron2(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our ``segmenter.*`` and ``tracker.*`` under Detectron2's names, complete for the published code.

    Raises:
        CheckpointError: a parameter has no published name.
    """
    published: dict[str, Tensor] = {}
    for name, value in state.items():
        if name.endswith(".num_batches_tracked"):  # Detectron2's frozen norms do not count
            continue
        theirs = DETECTRON2.back(name)
        if theirs is None:
            raise CheckpointError(f"{name} has no name in Detectron2's Mask2Former, MinVIS or VISAGE")
        published[theirs] = value
        if name.endswith(".relative_position_bias_table"):
            published[theirs.replace("bias_table", "index")] = _position_index(value)
    classes = published[f"{PREDICTOR}.class_embed.bias"]
    published["criterion.empty_weight"] = torch.ones_like(classes)
    published["criterion.empty_weight"][-1] = 0.1
    return published


def to_transformers(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our segmenter under the names of Transformers' published files; heads of a tracker have none there.

    Raises:
        CheckpointError: a parameter has no published name, e.g. because the backbone is not Swin.
    """
    published: dict[str, Tensor] = {}
    segmenter = {name: value for name, value in state.items() if name.startswith("segmenter.")}
    for name, value in to_detectron2(segmenter).items():
        if name.endswith(".relative_position_index"):
            continue
        parts = _split(name)
        theirs = TRANSFORMERS.there(name)
        if parts:
            published |= dict(zip(parts, value.chunk(3), strict=True))
        elif theirs is not None:
            published[theirs] = value
        else:
            raise CheckpointError(f"{name} has no name in Transformers' Mask2Former, whose backbone is Swin")
    return published


def _position_index(table: Tensor) -> Tensor:
    """Row of the bias table for every pair of pixels of a window (Swin Transformer, arXiv 2103.14030)."""
    window = (round(table.shape[0] ** 0.5) + 1) // 2
    pixel = torch.arange(window)
    y, x = (grid.flatten() for grid in torch.meshgrid(pixel, pixel, indexing="ij"))
    rows, columns = y[:, None] - y + window - 1, x[:, None] - x + window - 1
    return rows * (2 * window - 1) + columns

"""Weights on disk and in modules: this project's safetensors files, and published weights by any name."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn

from vistk.files import replacing
from vistk.models.description import describe_state
from vistk.models.published_names import translate
from vistk.models.weight_files import CheckpointError, read_safetensors

CLASS_PARTS = ("transformer_decoder.class_embed.", "dense_embed.")
"""Parts of the segmenter that belong to the classes of a data set and are made anew for another one."""

_COUNTER = ".num_batches_tracked"  # of batch norms that are not frozen; no published file has it


def save_weights(path: Path, state: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> None:
    """Write a safetensors file under a temporary name, then rename it: an old file survives any failure.

    Args:
        path: destination, ``*.safetensors``.
        state: tensors by name; stored on the CPU, contiguous.
        metadata: json-serialisable facts about the weights (configuration, data, command).

    Raises:
        OSError: the file cannot be written, e.g. on a full disk.
    """
    write_safetensors(path, state, {key: json.dumps(value) for key, value in metadata.items()})


def write_safetensors(path: Path, state: Mapping[str, Tensor], header: Mapping[str, str]) -> None:
    """:func:`save_weights` with a header of plain texts, as other projects write it."""
    tensors = {name: value.detach().cpu().contiguous() for name, value in state.items()}
    with replacing(path) as temporary:
        try:
            save_file(tensors, temporary, metadata=dict(header))
        except SafetensorError as error:  # how the library reports a full disk
            raise OSError(f"{path} cannot be written: {error}") from error


def load_weights(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and metadata of a safetensors file.

    Raises:
        CheckpointError: the file is missing or is no complete safetensors file.
    """
    return read_safetensors(path)


def load_into(module: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Load ``state`` into ``module``; every name and shape must agree.

    Raises:
        CheckpointError: names what is missing, unexpected or of another shape. The module is unchanged.
    """
    own = module.state_dict()
    problems = _problems(
        missing=sorted(set(own) - set(state)),
        unexpected=sorted(set(state) - set(own)),
        shapes=_other_shapes(state, own),
    )
    if problems:
        raise CheckpointError(f"weights {source} are of another architecture: {problems}")
    module.load_state_dict(dict(state))


Shape = tuple[int, ...]


@dataclass(frozen=True)
class LoadReport:
    """What became of the entries of a file and of a model; ``str()`` is a few lines to read.

    Entries of the model are named as in this project's files, ``segmenter.*`` and ``tracker.*``. An entry of
    the file that has no place is an error, so none is listed here.

    Attributes:
        source: the file.
        holds: what it is, in words.
        loaded: entries of the model that have the file's values now.
        renamed: name in the file (joined by " + " where several became one) to name in the model.
        fresh: entries that keep their values on request, though the file has some that would fit.
        skipped_for_shape: entries that keep their values on request, with the shapes in file and model.
        missing: entries that keep their values because the file has none, as allowed.
        ignored: entries of the file that are not used, and why.
    """

    source: str
    holds: str
    loaded: tuple[str, ...] = ()
    renamed: dict[str, str] = field(default_factory=dict)
    fresh: tuple[str, ...] = ()
    skipped_for_shape: tuple[tuple[str, Shape, Shape], ...] = ()
    missing: tuple[str, ...] = ()
    ignored: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        lines = [f"{self.source}: {self.holds}", f"loaded: {len(self.loaded)} entries"]
        if self.renamed:
            theirs, ours = next(iter(self.renamed.items()))
            lines[-1] += f", {len(self.renamed)} of them under another name (first: {theirs} -> {ours})"
        kept = (
            ("fresh, as asked", self.fresh),
            ("fresh, because of another shape in the file", _shape_texts(self.skipped_for_shape)),
            ("fresh, because the file has none", self.missing),
        )
        lines += [f"{what}: {_some(names)}" for what, names in kept if names]
        for reason in dict.fromkeys(self.ignored.values()):
            names = [name for name, why in self.ignored.items() if why == reason]
            lines.append(f"left out, {reason}: {_some(names)}")
        return "\n".join(lines)


def load_published_into(
    segmenter: nn.Module,
    tracker: nn.Module | None,
    state: Mapping[str, Tensor],
    source: str = "the given state dict",
    *,
    fresh_class_head: bool = False,
    fresh_tracker: bool = False,
) -> LoadReport:
    """Load weights of any known family, all or nothing.

    Args:
        segmenter: a :class:`~vistk.models.segmenter.Segmenter`.
        tracker: its heads are loaded too; None leaves the heads of the file unused.
        state: from :func:`vistk.models.weight_files.read_state`.
        source: what to call it in messages.
        fresh_class_head: leave the parts that belong to classes (:data:`CLASS_PARTS`) as they are, for
            another set of classes.
        fresh_tracker: leave the tracker as it is where the file has no heads or those of another tracker,
            as for training it from a segmenter's weights.

    Raises:
        CheckpointError: names are unknown, missing or of another shape beyond what is allowed; says what
            the weights are if they are another model's. Both modules are unchanged.
    """
    translation = translate(state, source)
    given, ignored = dict(translation.state), dict(translation.ignored)
    model = {f"segmenter.{name}": value for name, value in segmenter.state_dict().items()}
    if tracker is not None:
        model |= {f"tracker.{name}": value for name, value in tracker.state_dict().items()}

    def leave_out(names: Collection[str], reason: str) -> None:
        for name in names:
            del given[name]
            ignored[translation.origin[name]] = reason

    heads = {name: value.shape for name, value in given.items() if name.startswith("tracker.")}
    own_heads = {name: value.shape for name, value in model.items() if name.startswith("tracker.")}
    if heads and not own_heads:
        leave_out(heads, "the tracker has no heads")
    elif fresh_tracker and heads != own_heads:
        leave_out(heads, "heads of another tracker")
    leave_out([n for n in given if n.endswith(_COUNTER) and n not in model], "a counter of batch norms")

    class_parts = tuple(f"segmenter.{part}" for part in CLASS_PARTS) if fresh_class_head else ()
    tracker_part = ("tracker.",) if fresh_tracker and not heads.keys() & given.keys() else ()
    may_lack = [n for n in model if n.startswith((*class_parts, *tracker_part)) or n.endswith(_COUNTER)]
    missing = sorted(set(model) - set(given))
    shapes = _other_shapes(given, model)
    problems = _problems(
        missing=sorted(set(missing) - set(may_lack)),
        unexpected=translation.unknown + [translation.origin[n] for n in given if n not in model],
        shapes=[entry for entry in shapes if not (class_parts and entry[0].startswith(class_parts))],
    )
    if problems:
        raise CheckpointError(
            _misfit(state, model, source, fresh_class_head) or f"weights {source} do not fit: {problems}"
        )

    skipped = {name for name, _, _ in shapes}
    fresh = [name for name in given if class_parts and name.startswith(class_parts) and name not in skipped]
    loaded = [name for name in model if name in given and name not in skipped and name not in fresh]
    for prefix, module in (("segmenter.", segmenter), ("tracker.", tracker)):
        part = {name.removeprefix(prefix): given[name] for name in loaded if name.startswith(prefix)}
        if module is not None:
            module.load_state_dict(part, strict=False)  # compared above
    return LoadReport(
        source=source,
        holds=f"{describe_state(state, source)}, in the names of {translation.family}",
        loaded=tuple(loaded),
        renamed={translation.origin[n]: n for n in loaded if translation.origin[n] != n},
        fresh=tuple(fresh),
        skipped_for_shape=tuple(shapes),
        missing=tuple(missing),
        ignored=ignored,
    )


def _misfit(
    state: Mapping[str, Tensor], model: Mapping[str, Tensor], source: str, any_classes: bool
) -> str | None:
    """What the weights are, where that is not what the model is."""
    file, ours = describe_state(state, source), describe_state(model)
    build = [(d.backbone, d.queries, d.hidden_dim) for d in (file, ours)]
    if build[0] == build[1] and (any_classes or file.classes == ours.classes):
        return None
    fits = f"; {file.words} fits" if file.words and build[0] != build[1] else ""
    return f"weights {source} are those of {file}, the model is {ours}{fits}"


def _other_shapes(state: Mapping[str, Tensor], model: Mapping[str, Tensor]) -> list[tuple[str, Shape, Shape]]:
    """Name, shape in the state and shape in the model of entries that both have."""
    return [
        (name, tuple(state[name].shape), tuple(model[name].shape))
        for name in sorted(set(state) & set(model))
        if state[name].shape != model[name].shape
    ]


def _shape_texts(shapes: Collection[tuple[str, Shape, Shape]]) -> list[str]:
    return [f"{name} is {file} in the file and {model} in the model" for name, file, model in shapes]


def _problems(
    missing: Collection[str], unexpected: Collection[str], shapes: Collection[tuple[str, Shape, Shape]]
) -> str:
    """What does not agree, in one line; empty where all does."""
    kinds = (("of another shape", _shape_texts(shapes)), ("missing", missing), ("unexpected", unexpected))
    return "; ".join(f"{len(names)} {what} ({_some(names, count=False)})" for what, names in kinds if names)


def _some(names: Collection[str], count: bool = True) -> str:
    """The first of many names, after their number."""
    listed = ", ".join(list(names)[:3]) + (", .." if len(names) > 3 else "")
    return f"{len(names)} ({listed})" if count else listed

"""Published models: from a file to modules, and from one layout of weights to another."""

from __future__ import annotations

import dataclasses
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from vistk.data.category_check import same_categories
from vistk.files import replacing
from vistk.models.checkpoints import LoadReport, load_published_into, save_weights, write_safetensors
from vistk.models.description import Description, describe_state
from vistk.models.published_names import to_detectron2, to_transformers
from vistk.models.segmenter import Segmenter
from vistk.models.weight_files import CheckpointError, WeightFile, read_state
from vistk.presets import PRESETS, Preset, get_preset
from vistk.trackers.base import Tracker
from vistk.trackers.registry import get_tracker
from vistk.trackers.visage import VISAGE


@dataclass(frozen=True)
class PublishedModel:
    """A published model in modules, both in evaluation mode, and how it came there."""

    preset: Preset
    segmenter: Segmenter
    tracker: Tracker[Any]
    report: LoadReport


def load_published(source: str | Path | Mapping[str, Any], preset: str) -> tuple[Segmenter, Tracker[Any]]:
    """A published model, ready for :func:`vistk.predict`.

    Args:
        source: a file or folder of weights, or a state dict in memory, in the names of Detectron2,
            Transformers or this project; see :func:`vistk.models.weight_files.read_state`.
        preset: name in :data:`vistk.presets.PRESETS`, e.g. ``"visage-r50-ytvis2019"``.

    Returns:
        Segmenter and tracker in evaluation mode, on the CPU; the tracker knows its scoring protocol.
        A MinVIS preset takes VISAGE's weights too and leaves VISAGE's heads unused.

    Raises:
        CheckpointError: the weights cannot be read, or are not those of the preset.
        ConfigError: there is no such preset.
    """
    model = read_published(source, preset)
    return model.segmenter, model.tracker


def read_published(source: str | Path | Mapping[str, Any], preset: str) -> PublishedModel:
    """As :func:`load_published`, with the report of what was loaded."""
    known = get_preset(preset)
    file = read_state(source)
    _require_fit(file, known)
    cls, tracker_config = get_tracker(known.tracker)
    with torch.random.fork_rng(devices=[]):  # the random weights that the file replaces
        segmenter = Segmenter(known.segmenter_config(), known.num_classes)
        tracker = cls(
            tracker_config,
            embed_dim=segmenter.embed_dim,
            feature_channels=segmenter.feature_channels,
            num_classes=known.num_classes,
        )
    report = load_published_into(segmenter, tracker, file.state, file.source)
    tracker.protocol = known.protocol()
    return PublishedModel(known, segmenter.eval(), tracker.eval(), report)


def fits(description: Description, preset: Preset, categories: Mapping[int, str] | None = None) -> bool:
    """Whether weights are of the network, the number of classes and the method of a preset.

    YouTube-VIS 2019 and 2021 both have 40 classes, so more than one preset may fit where the file does not
    name its classes.

    Args:
        categories: the classes that the file names (:attr:`WeightFile.categories`).
    """
    heads = description.appearance or get_tracker(preset.tracker)[0] is not VISAGE
    queries = preset.segmenter_config().num_queries
    network = (description.backbone, description.queries, description.classes)
    classes = categories is None or same_categories(categories, preset.categories)
    return heads and classes and network == (preset.segmenter, queries, preset.num_classes)


def _require_fit(file: WeightFile, preset: Preset) -> None:
    description = describe_state(file.state, file.source)
    if not fits(description, preset, file.categories):
        others = [name for name, other in PRESETS.items() if fits(description, other, file.categories)]
        raise CheckpointError(
            f"weights {file.source} are those of {description}, which is not {preset.name}; presets that "
            f"fit: {', '.join(others) or 'none'}"
        )


LAYOUTS = ("vistk", "detectron2", "transformers")
_SUFFIXES = {
    "vistk": (".safetensors",),
    "detectron2": (".pth", ".pkl"),
    "transformers": (".safetensors", ".bin"),
}


def convert(source: str | Path, target: str | Path, preset: str, layout: str | None = None) -> LoadReport:
    """Write the weights of a published model in another layout; an old file survives any failure.

    Args:
        source: as for :func:`load_published`.
        target: the new file.
        preset: what the weights are.
        layout: one of :data:`LAYOUTS`. ``vistk`` (``.safetensors``) is what a run writes and ``weights=``
            takes; ``detectron2`` (``.pth``, or ``.pkl`` as in its model zoo) is what the published code
            loads; ``transformers`` (``.safetensors``, ``.bin``) is the segmenter alone, with Swin. None =
            by the suffix: the first of them that has it.

    Returns:
        What was read; heads of a tracker that the layout has no names for are in its ``ignored``.

    Raises:
        CheckpointError: the weights cannot be read or are not those of the preset, or the layout has no
            such suffix or no names for them.
        OSError: the file cannot be written.
    """
    target = Path(target)
    layout = layout or next((name for name in LAYOUTS if target.suffix in _SUFFIXES[name]), None)
    if layout is None or target.suffix not in _SUFFIXES[layout]:
        wanted = [s for name in LAYOUTS if layout in (None, name) for s in _SUFFIXES[name]]
        raise CheckpointError(
            f"{target}: expected a file that ends in {' or '.join(dict.fromkeys(wanted))}"
            + (f" for the layout {layout}" if layout else "")
        )
    model = read_published(source, preset)
    state = {f"segmenter.{name}": value for name, value in model.segmenter.state_dict().items()}
    state |= {f"tracker.{name}": value for name, value in model.tracker.state_dict().items()}
    if layout == "vistk":
        facts = {
            "segmenter": dataclasses.asdict(model.segmenter.config),
            "tracker": model.preset.tracker,
            "categories": {str(number): name for number, name in model.preset.categories.items()},
            "words": list(model.preset.words()),
            "preset": preset,
        }
        save_weights(target, state, facts)
    elif layout == "detectron2":
        _write(target, {"model": to_detectron2(state), "__author__": "vistk"})
    else:
        if target.suffix == ".safetensors":
            write_safetensors(target, to_transformers(state), {"format": "pt"})
        else:
            _write(target, to_transformers(state))
        heads = [name for name in state if not name.startswith("segmenter.")]
        nameless = dict.fromkeys(heads, "for Transformers has no such heads")
        return dataclasses.replace(model.report, ignored=model.report.ignored | nameless)
    return model.report


def _write(target: Path, tree: Mapping[str, Any]) -> None:
    """A file of PyTorch, or a pickle of numpy arrays."""
    with replacing(target) as temporary:
        if target.suffix == ".pkl":
            arrays = {name: value.numpy() for name, value in tree["model"].items()}
            with temporary.open("wb") as file:
                pickle.dump({**tree, "model": arrays}, file)
            return
        try:
            torch.save(dict(tree), temporary)
        except RuntimeError as error:  # how PyTorch reports a full disk
            raise OSError(f"weights {target} cannot be written: {error}") from error

"""The weights that a run begins with: packaged ones, those of an earlier run, or published ones."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from vistk.config import RunConfig
from vistk.data.category_check import same_categories
from vistk.models.checkpoints import CheckpointError, load_published_into
from vistk.models.description import describe_state
from vistk.models.published_names import translate
from vistk.models.segmenter import Segmenter
from vistk.models.weight_files import WeightFile, read_state
from vistk.trackers.base import Tracker

START_WEIGHTS = {"tiny": Path(__file__).parent / "weights" / "tiny-synthetic.safetensors"}
"""Start weights in the package, by segmenter; docs/start_weights.md says how they were made."""


def start_weights(config: RunConfig, accelerator: Accelerator) -> Path | None:
    """The file that ``weights`` names; None for random weights."""
    if config.weights != "default":
        return Path(config.weights) if config.weights else None
    packaged = START_WEIGHTS.get(config.choices["segmenter"])
    if packaged is None:
        accelerator.print(
            f"no start weights come with segmenter={config.choices['segmenter']}: random weights"
        )
    return packaged


def load_start_weights(
    path: Path | None,
    config: RunConfig,
    segmenter: Segmenter,
    tracker: Tracker[Any],
    categories: Mapping[int, str],
    accelerator: Accelerator,
) -> bool:
    """Load a file of any known format; the class parts stay fresh where the data set has other classes.

    Returns:
        Whether every part of the segmenter has its start weights.

    Raises:
        CheckpointError: the file is missing, broken or of another architecture; or it would be evaluated
            without weights that it lacks.
    """
    if path is None:
        if config.eval_only:
            raise CheckpointError("eval_only=true evaluates trained weights: say weights=FILE")
        return False
    file = read_state(path)
    other = _other_classes(file, categories)
    if other is not None and config.eval_only:
        raise CheckpointError(f"weights {path} know other classes than the data: {other}")
    if config.eval_only:
        _require_heads(file, tracker, config.choices["tracker"])
    report = load_published_into(
        segmenter,
        tracker,
        file.state,
        str(path),
        fresh_class_head=other is not None,
        fresh_tracker=not config.eval_only,
    )
    accelerator.print(report)
    if other is not None:
        accelerator.print(
            f"{path} knows other classes ({other}): "
            "the class heads of the segmenter start from random weights"
        )
    return other is None and not any(name.startswith("segmenter.") for name in report.missing)


def _require_heads(file: WeightFile, tracker: Tracker[Any], name: str) -> None:
    own = {f"tracker.{key}" for key in tracker.state_dict()}
    heads = {key for key in translate(file.state, file.source).state if key.startswith("tracker.")}
    if own and own != heads:
        found = f"heads of tracker {file.metadata.get('tracker', 'unknown')}" if heads else "no tracker heads"
        raise CheckpointError(
            f"weights {file.source} hold {found}, expected those of tracker={name}, which eval_only=true "
            "would evaluate untrained"
        )


def _other_classes(file: WeightFile, categories: Mapping[int, str]) -> str | None:
    """How the classes of a file differ from those of the data, in words; None where they do not.

    Published files do not name their classes; as many as the data has are taken for the same.
    """
    named = file.categories
    if named is None:
        count = describe_state(file.state, file.source).classes
        return None if count == len(categories) else f"{count} there, {len(categories)} in the data"
    if same_categories(named, categories):
        return None
    pairs = ((key, named.get(key), categories.get(key)) for key in sorted({*named, *categories}))
    key, there, here = next(pair for pair in pairs if pair[1] != pair[2])
    return f"category {key} is {there or 'none'} there, {here or 'none'} in the data"

"""From words and a file of weights to a segmenter and a tracker: what the file says need not be said."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from vistk.composer import parse_word, readable
from vistk.config import DEFAULT_SCHEMA, RunConfig, compose, merge_words
from vistk.data.categories import TABLES
from vistk.data.category_check import same_categories
from vistk.experiment import build_tracker
from vistk.files import file_hash
from vistk.models.checkpoints import load_published_into
from vistk.models.description import describe_state
from vistk.models.precision import require_usable
from vistk.models.published_names import translate
from vistk.models.segmenter import Segmenter
from vistk.models.weight_files import CheckpointError, WeightFile, files_of, read_state
from vistk.presets import PRESETS, get_preset
from vistk.published import fits
from vistk.schema import ConfigError, cast, to_tree
from vistk.start_weights import START_WEIGHTS
from vistk.structures import ScoringProtocol
from vistk.trackers.base import Tracker

GROUPS = ("tracker", "segmenter", "precision", "data")
"""First parts of the words that matter here."""

KEYS = ("preset", "weights", "data.test_short_side", "data.test_max_side")
KEYS_OF_SCORING = ("evaluation.keep_top", "evaluation.rescore")


class TrackingError(ValueError):
    """A video that cannot be tracked as asked; the message is one sentence."""


@dataclass(frozen=True)
class Model:
    """What tracks, both modules in evaluation mode on their device.

    Attributes:
        categories: name of every class by its id in the data set; label ``i`` is the ``i``-th by rising id.
        words: all words that say what it is, those of the weights included.
        said: in a line, for whoever waits.
        identity: all that its results depend on, in plain values.
        weights: the file.
    """

    segmenter: Segmenter
    tracker: Tracker[Any]
    config: RunConfig
    categories: Mapping[int, str]
    words: tuple[str, ...]
    said: str
    identity: Mapping[str, Any]
    weights: Path

    @property
    def protocol(self) -> ScoringProtocol:
        scoring = self.config.evaluation
        return ScoringProtocol(scoring.keep_top, scoring.rescore, tuple(sorted(self.categories)))


def open_model(words: Sequence[str], device: torch.device) -> Model:
    """The model that words name. What they leave open is as the file of weights says: segmenter, tracker with
    its knobs, classes, test size. Without ``weights=`` those in the package are taken.

    Raises:
        ConfigError: a word cannot be used, or has no say in tracking.
        CheckpointError: the weights cannot be read, or are not those of what the words name.
        TrackingError: words and weights contradict each other, or leave something open.
    """
    said = [readable(word) for word in words]
    values = {word.key_or_group: word.value() for word in map(parse_word, said)}
    keys = set(values)
    path = _weights(values)
    file = read_state(path)
    recorded = _recorded(file, keys)
    composed = compose(merge_words(recorded, said, DEFAULT_SCHEMA))
    for key in sorted(keys):
        if not _matters(key):
            raise ConfigError(
                f"{key} has no say in tracking; words are tracker=, segmenter=, preset=, weights= and "
                "their keys, data=, data.test_short_side, data.test_max_side, precision.*, "
                f"{' and '.join(KEYS_OF_SCORING)}",
                key,
            )
    config: RunConfig = composed.config
    config = dataclasses.replace(config, segmenter=_segmenter_config(config, file, keys))
    if not recorded and not keys & {"preset", "segmenter", "tracker"}:
        raise TrackingError(_who_are_you(file))
    categories = _categories(config, file)
    require_usable(config.precision, device)
    with torch.random.fork_rng(devices=[]):  # the random weights that the file replaces
        segmenter = Segmenter(
            dataclasses.replace(config.segmenter, backbone_pretrained=False),
            len(categories),
            config.precision,
        )
        name = config.choices["tracker"]
        tracker = build_tracker(name, config.tracker, segmenter)
    if tracker.uses_targets:
        raise TrackingError(f"tracker={name} reads ground truth, which a video does not have")
    _require_heads(file, tracker, name)
    report = load_published_into(segmenter, tracker, file.state, file.source)
    packaged = path in START_WEIGHTS.values()
    own = (
        f"tracker {name}" if any(tracker.state_dict()) else f"tracker {name}, which has no weights of its own"
    )
    source = f"the packaged weights {path.name}" if packaged else report.source
    names = list(categories.values())
    classes = ", ".join(names[:4]) + (", .." if len(names) > 4 else "")
    holds = report.holds.partition(", in the names of")[0]
    return Model(
        segmenter.to(device).eval(),
        tracker.to(device).eval(),
        config,
        categories,
        composed.overrides,
        f"{source}: {holds} ({classes}); {own}",
        _identity(config, categories, path, device),
        path,
    )


def _matters(key: str) -> bool:
    parts = key.partition(".")
    return key in (*KEYS, *KEYS_OF_SCORING) or (parts[0] in GROUPS and (parts[0] != "data" or not parts[1]))


def _weights(values: Mapping[str, Any]) -> Path:
    """The file that the words name, or that in the package."""
    given = values.get("weights", "default")
    if given is None:
        raise TrackingError("weights=null are random ones, expected a file of trained weights")
    if given != "default":
        return Path(str(given))
    if preset := values.get("preset"):
        get_preset(str(preset))
        raise TrackingError(f"preset={preset} needs its weights, which do not come along: say weights=FILE")
    segmenter = values.get("segmenter", DEFAULT_SCHEMA.groups["segmenter"].default)
    if segmenter not in START_WEIGHTS:
        raise TrackingError(
            f"no weights come with segmenter={segmenter}, only with {', '.join(START_WEIGHTS)}: "
            "say weights=FILE"
        )
    return START_WEIGHTS[segmenter]


def _recorded(file: WeightFile, keys: set[str]) -> tuple[str, ...]:
    """The words of the run that wrote the file, as far as they matter here."""
    if "tracker" not in file.metadata:
        return ()
    if "preset" in keys:  # says all of it
        return ()
    words = file.metadata.get("words", [])
    told = [readable(word) for word in words if isinstance(word, str)] if isinstance(words, list) else []
    kept = {}
    for word in told:
        key = parse_word(word).key_or_group
        if key != "weights" and _matters(key):
            kept[key] = word
    kept.setdefault("tracker", f"tracker={file.metadata['tracker']}")
    if isinstance(preset := file.metadata.get("preset"), str) and preset in PRESETS:
        kept = {"preset": f"preset={preset}"} | kept
    return tuple(kept.values())


def _segmenter_config(config: RunConfig, file: WeightFile, keys: set[str]) -> Any:
    """That of the file, unless words name another one: then the weights have to fit those."""
    named = file.metadata.get("segmenter")
    ours = to_tree(config.segmenter)
    if not isinstance(named, dict):
        return config.segmenter
    theirs = {key: value for key, value in named.items() if key in ours}
    if not any(key.partition(".")[0] in ("segmenter", "preset") for key in keys):
        try:
            return cast(type(config.segmenter), ours | theirs, "segmenter")
        except ConfigError as error:
            raise CheckpointError(f"weights {file.source}: {error}") from error
    for key, value in theirs.items():
        if key not in ("backbone_pretrained", "backbone_checkpointing") and ours[key] != value:
            raise TrackingError(
                f"weights {file.source} are of a segmenter with {key}={value}, but the words say {ours[key]}"
            )
    return config.segmenter


def _who_are_you(file: WeightFile) -> str:
    description = describe_state(file.state, file.source)
    named = [name for name, preset in PRESETS.items() if fits(description, preset, file.categories)]
    return (
        f"weights {file.source} are those of {description}, and do not say of which tracker and classes; "
        f"say preset=NAME (fitting: {', '.join(named) or 'none'}), or tracker=NAME "
        f"{description.words or 'segmenter=NAME'}"
    )


def _categories(config: RunConfig, file: WeightFile) -> Mapping[int, str]:
    """Those of the file, of the preset or of the data set that the words name; else numbers."""
    said = TABLES.get(config.data.categories or "")
    if config.preset:
        said = PRESETS[config.preset].categories
    named = file.categories
    if named is not None:
        if said is not None and not same_categories(named, said):
            whose = f"preset={config.preset}" if config.preset else f"data={config.choices['data']}"
            raise TrackingError(
                f"weights {file.source} know other classes than {whose}: {_some(named)} there, "
                f"{_some(said)} here"
            )
        return dict(sorted(named.items()))
    count = describe_state(file.state, file.source).classes
    if said is not None:
        return dict(sorted(said.items()))
    return {i: f"class {i}" for i in range(1, (count or 0) + 1)}


def _some(categories: Mapping[int, str]) -> str:
    names = list(categories.values())
    return f"{len(names)} ({', '.join(names[:3])}{', ..' if len(names) > 3 else ''})"


def _require_heads(file: WeightFile, tracker: Tracker[Any], name: str) -> None:
    own = {f"tracker.{key}" for key in tracker.state_dict()}
    heads = {key for key in translate(file.state, file.source).state if key.startswith("tracker.")}
    if own and own != heads:
        there = file.metadata.get("tracker", "another tracker")
        found = f"heads of tracker {there}" if heads else "no heads of a tracker"
        raise TrackingError(
            f"weights {file.source} hold {found}, expected those of tracker={name}; other weights "
            "are given by weights=FILE"
        )


def _identity(
    config: RunConfig, categories: Mapping[int, str], path: Path, device: torch.device
) -> dict[str, Any]:
    return {
        "weights hash": file_hash(*files_of(path)),
        "tracker": config.choices["tracker"],
        **{f"tracker.{key}": value for key, value in to_tree(config.tracker).items()},
        "precision.pixel_decoder": config.precision.pixel_decoder,
        "evaluation.keep_top": config.evaluation.keep_top,
        "evaluation.rescore": config.evaluation.rescore,
        "categories": {str(key): name for key, name in categories.items()},
        "device": device.type,
    }

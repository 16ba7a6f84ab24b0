"""The cells of a sweep, and what of their configuration decides what is trained."""

from __future__ import annotations

import dataclasses
import fnmatch
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from vistk.config import CONFIG_FILE, DATA_SETS, RunConfig, compose, load, to_dict
from vistk.data.config import SyntheticConfig
from vistk.experiment import WEIGHTS, build_tracker
from vistk.models.segmenter import Segmenter
from vistk.schema import ConfigError
from vistk.sweeps.definition import Row, Sweep
from vistk.trackers.base import Tracker
from vistk.trackers.registry import get_tracker

NOT_TRAINING = (
    "choices",
    "preset",
    "seed",
    "run_dir",
    "resume",
    "evaluation",
    "cache",
    "logger",
    "tracker",
    "train.log_every",
    "train.checkpoint_every",
    "data.eval_splits",
    "data.test_short_side",
    "data.test_max_side",
    "data.num_workers",
)
"""Keys (or sections) that do not change what is trained. Seeds and trackers are looked at apart."""

OWN = (
    *("run_dir", "resume", "weights", "eval_only", "evaluation.rows", "cache", "logger", "choices"),
    "*.num_workers",
)
"""Keys (or sections) in which the configuration of a run may differ from what its row says."""


@dataclass(frozen=True)
class Cell:
    """One row on one data set with one seed: a run of ``experiments/run.py`` in a directory of its own."""

    row: str
    data: str
    seed: int
    words: tuple[str, ...]  # as they are said of the row, with data set and seed
    config: RunConfig
    run_dir: Path
    retrain: bool = False
    weights_of: str | None = None  # the row on whose weights it is evaluated
    has_weights: bool = True  # whether its tracker has any

    @property
    def label(self) -> str:
        return f"{self.row}, {self.data}, seed {self.seed}"

    @property
    def metrics(self) -> Path:
        """Is there once the run is finished."""
        return self.run_dir / "metrics.json"

    @property
    def weights(self) -> Path:
        """Where it leaves what it trained."""
        return self.run_dir / WEIGHTS


def make_cells(sweep: Sweep, out: Path) -> tuple[list[Cell], list[str]]:
    """All cells of a sweep, composed and checked, in the order of data sets, seeds and rows.

    Nothing is started or written. Run directories are made from the words, below ``out``.

    Returns:
        The cells, and the data sets that are left out because no word says where they lie.

    Raises:
        ConfigError, FileNotFoundError: names the row, and what is wrong with it.
    """
    cells: list[Cell] = []
    left_out = []
    shapes = _Shapes()
    for data, data_words in sweep.data.items():
        named = [f"data={data}"] if data in DATA_SETS else []
        own: list[Cell] = []
        try:
            for name, row in sweep.rows.items():
                own += _cells_of_row(name, row, data, [*named, *data_words, *sweep.words], sweep, out, shapes)
        except _NoRootError:
            if len(sweep.data) == 1:
                raise
            left_out.append(data)
            continue
        cells += sorted(own, key=lambda cell: sweep.seeds.index(cell.seed))  # stable: rows in their order
    if not cells:
        raise ConfigError(f"all data sets lie in folders of yours: say data={left_out[0]} data.root=DIR")
    _refuse_twins(cells)
    for cell in cells:
        _refuse_other_run(cell)
    return cells, left_out


def training_key(config: RunConfig) -> str:
    """Text that is equal for runs that train the same but for their trackers, given equal seeds."""
    tree = to_dict(config)
    ignored = (*NOT_TRAINING, "train") if config.eval_only else NOT_TRAINING
    return json.dumps(dict(_flat(tree, ignored)), sort_keys=True, default=str)


def tracker_key(config: RunConfig) -> str:
    """Text that is equal for trackers that train the same: their class, and the fields that are not of
    association alone.
    """
    cls, _ = get_tracker(config.choices["tracker"])
    fields = {k: v for k, v in to_dict(config)["tracker"].items() if k not in cls.association_fields}
    return json.dumps([cls.__module__, cls.__qualname__, fields], sort_keys=True, default=str)


class _NoRootError(ConfigError):
    """A data set that lies in a folder of the user's, and no word says in which."""


def _cells_of_row(
    name: str, row: Row, data: str, words: Sequence[str], sweep: Sweep, out: Path, shapes: _Shapes
) -> Iterator[Cell]:
    said = [*words, *row.words]
    try:
        composed = compose(said)
        config: RunConfig = composed.config
        if config.data.root is None and not isinstance(config.data, SyntheticConfig):
            raise _NoRootError(f"data={config.data.name} lies in a folder of yours: say data.root=DIR")
        has_weights = shapes.has_weights(config)
        if config.weights not in (None, "default") and not Path(config.weights).is_file():
            raise FileNotFoundError(f"there is no file weights={config.weights}")
        if config.eval_only and config.weights is None:
            raise ConfigError("eval_only=true evaluates trained weights: say weights=FILE")
    except FileNotFoundError as error:
        raise FileNotFoundError(f"row {name!r}: {error}") from error
    except ConfigError as error:
        raise type(error)(f"row {name!r} on {data}: {error}", error.key) from error
    folder = out.joinpath(*composed.run_dir.parts[1:])
    for seed in sweep.seeds:
        yield Cell(
            name,
            data,
            seed,
            (*said, f"seed={seed}"),
            dataclasses.replace(config, seed=seed),
            folder / f"seed{seed}",
            row.retrain,
            row.weights_of,
            has_weights,
        )


class _Shapes:
    """Trackers on segmenters without numbers: whether their fields fit, and whether they are trained.

    A tracker without weights of its own may train the segmenter in its own way.
    """

    def __init__(self) -> None:
        self._segmenters: dict[str, Segmenter] = {}

    def has_weights(self, config: RunConfig) -> bool:
        key = json.dumps(to_dict(config)["segmenter"], sort_keys=True)
        if key not in self._segmenters:
            with torch.device("meta"):
                bare = dataclasses.replace(config.segmenter, backbone_pretrained=False)
                self._segmenters[key] = Segmenter(bare, num_classes=1)
        # Built in any case, which checks its fields.
        tracker = build_tracker(config.choices["tracker"], config.tracker, self._segmenters[key])
        shapes_segmenter = type(tracker).losses is not Tracker.losses or tracker.propagates
        return bool(tracker.state_dict()) or shapes_segmenter


def _refuse_twins(cells: Sequence[Cell]) -> None:
    first: dict[Path, Cell] = {}
    for cell in cells:
        other = first.setdefault(cell.run_dir, cell)
        if other is not cell:
            raise ConfigError(f"rows {other.row!r} and {cell.row!r} say the same on {cell.data}")


def _refuse_other_run(cell: Cell) -> None:
    """A directory may hold the same words from a time when defaults were others."""
    path = cell.run_dir / CONFIG_FILE
    if not path.is_file():
        return
    there, here = (dict(_flat(to_dict(config), OWN)) for config in (load(path).config, cell.config))
    for key in sorted(there.keys() | here.keys()):
        if there.get(key) != here.get(key):
            raise ConfigError(
                f"row {cell.row!r}: {path} holds another configuration: {key} is {there.get(key)!r} there "
                f"and {here.get(key)!r} here; remove it, or say --out DIR",
                key,
            )


def _flat(tree: Mapping[str, Any], ignored: Sequence[str], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in tree.items():
        key = f"{prefix}{name}"
        if any(fnmatch.fnmatchcase(key, pattern) for pattern in ignored):
            continue
        if isinstance(value, Mapping):
            yield from _flat(value, ignored, f"{key}.")
        else:
            yield key, value

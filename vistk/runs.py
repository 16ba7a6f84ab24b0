"""Run directories, read back.

A run directory is what ``experiments/run.py`` leaves: ``config.yaml``, ``metrics.json`` and
``rows/<row>/<split>/results.json``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from vistk.composer import parse_word
from vistk.config import CONFIG_FILE, NEUTRAL_KEYS

OWN, ALL_ROWS = "own", "all"
NOT_SAID = ("tracker", "data", "data.root", "seed", *NEUTRAL_KEYS)
"""Keys (patterns) whose words do not name a row of a table: its columns say them, or no number depends on
them."""


class RunError(ValueError):
    """A directory that is not a finished run; the message says what is missing."""


@dataclass(frozen=True)
class Cell:
    """One row of one run on one split."""

    words: tuple[str, ...]  # what the run is, beside its row
    data: str
    split: str  # as metrics.json has it: a split, or a part of one
    seed: int
    metrics: Mapping[str, Any]
    run_dir: Path
    row: str
    name: str = ""  # what the row of a table is called; empty: row and words

    @property
    def label(self) -> str:
        """What tells it apart from others."""
        return self.name or " ".join([self.row, *self.words])


def find_runs(paths: Sequence[str | Path]) -> list[Path]:
    """The finished runs among directories and below them, in order. Others may be on their way.

    Raises:
        FileNotFoundError: there is no such directory, or no finished run in any.
    """
    first: dict[Path, Path] = {}
    for path in map(Path, paths):
        if not path.is_dir():
            raise FileNotFoundError(f"{path}: no such directory, expected a run or a folder of runs")
        for run_dir in _finished(path):
            first.setdefault(run_dir.resolve(), run_dir)
    if not first:
        raise FileNotFoundError(
            f"{', '.join(map(str, paths))}: no finished run there or below, expected metrics.json beside "
            f"{CONFIG_FILE}"
        )
    return list(first.values())


def without_runs(paths: Sequence[str | Path]) -> list[Path]:
    """The directories that :func:`find_runs` found nothing in."""
    return [path for path in map(Path, paths) if not _finished(path)]


def _finished(path: Path) -> list[Path]:
    return sorted(file.parent for file in path.rglob("metrics.json") if (file.parent / CONFIG_FILE).is_file())


def files_of(run_dir: Path) -> list[Path]:
    """What is read of a run."""
    own = [run_dir / name for name in ("metrics.json", CONFIG_FILE)]
    return [*own, *run_dir.glob("rows/*/*/results.json")]


def read_run(run_dir: Path, rows: str | Sequence[str] = OWN) -> tuple[list[Cell], dict[str, Any]]:
    """The rows of a run on every split that was scored, and its card.

    Args:
        rows: names; "own" is that of the run's tracker, "all" are all.

    Raises:
        RunError: a file cannot be read, or is not what a run writes.
    """
    try:
        content = json.loads((run_dir / "metrics.json").read_text(encoding="utf-8"))
        tree: Any = OmegaConf.to_container(OmegaConf.load(run_dir / CONFIG_FILE), resolve=False)
        data, tracker = tree["choices"]["data"], tree["choices"]["tracker"]
        named = {OWN: [tracker], ALL_ROWS: list(content["rows"])}
        names = [rows] if isinstance(rows, str) else rows
        wanted = {row for name in names for row in named.get(name, [name])}
        said = tuple(_said(word, data) for word in tree.get("words", []) if _names_a_row(word))
        cells = [
            Cell(said, data, split, int(tree["seed"]), metrics, run_dir, row)
            for row, splits in content["rows"].items()
            if row in wanted
            for split, metrics in splits.items()
        ]
        return cells, dict(content["card"])
    except (OSError, YAMLError, OmegaConfBaseException) as error:
        raise RunError(f"{run_dir}: cannot be read ({error})") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RunError(f"{run_dir}: not what experiments/run.py leaves ({error!r})") from error


def _names_a_row(word: str) -> bool:
    return not any(fnmatchcase(parse_word(word).key_or_group, pattern) for pattern in NOT_SAID)


def _said(word: str, data: str) -> str:
    """The word without the name of the data set that a preset ends in."""
    return word.removesuffix(f"-{data}") if word.startswith("preset=") else word

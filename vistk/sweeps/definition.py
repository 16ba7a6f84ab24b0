"""What a sweep is: named rows, data sets and seeds; from a YAML file, or from words with commas."""

from __future__ import annotations

import itertools
import re
import shlex
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from vistk.composer import first_line, parse_word, readable
from vistk.config import slug
from vistk.evaluation.report_tables import TRACKING
from vistk.schema import ConfigError, cast

OWN_KEYS = ("run_dir", "resume", "evaluation.rows")
"""Keys that a sweep says itself."""

NAMED_KEYS = ("seed", "data", *OWN_KEYS)
"""Keys that rows must not say: seeds and data sets are named beside the rows."""

METRICS = (
    *("AP", "AP50", "AP75", "AR1", "AR10", "AR100"),
    *(f"{kind}{group}" for kind in ("AP", "AR") for group in ("s", "m", "l", "so", "mo", "ho")),
    *TRACKING,
    *("identity_permutations", "frames_per_second"),
)
"""What a run knows of its rows, and a table can have as columns."""


@dataclass
class Row:
    """One row of the table.

    Attributes:
        retrain: trained for itself, although another row trains the same.
        weights_of: name of the row on whose weights it is evaluated, whatever it would train itself.
    """

    words: list[str] = field(default_factory=list)
    retrain: bool = False
    weights_of: str | None = None


@dataclass
class Published:
    """A row of a published table, in percent as printed there. It is shown, and compared with nothing."""

    row: str
    data: str
    source: str
    split: str = "valid"
    AP: float | None = None
    AP50: float | None = None
    AP75: float | None = None
    AR1: float | None = None
    AR10: float | None = None


@dataclass
class Sweep:
    """A table: rows by name, each on every data set with every seed.

    Attributes:
        rows: by name; the first one is what the others are compared with.
        title: a line above the table.
        words: of all rows, after those of the data set and before those of the row.
        data: words of each data set by name. A name that ``data=`` knows says ``data=NAME`` itself.
        metrics: columns of the table; None: as ``vistk compare`` has them.
        quote: show the published numbers of the data sets.
        published: rows of the table that this one is the counterpart of.
        name: of the folder that holds the runs; the stem of the file.
    """

    rows: dict[str, Row]
    title: str = ""
    words: list[str] = field(default_factory=list)
    seeds: list[int] = field(default_factory=lambda: [0, 1, 2])
    data: dict[str, list[str]] = field(default_factory=lambda: {"synthetic": []})
    metrics: list[str] | None = None
    quote: bool = False
    published: list[Published] = field(default_factory=list)
    name: str = "sweep"

    def __post_init__(self) -> None:
        for key in ("rows", "seeds", "data"):
            if not getattr(self, key):
                raise ConfigError(f"{key} is empty, expected at least one", key)
        for metric in self.metrics or ():
            if metric not in METRICS:
                raise ConfigError(
                    f"metrics: found {metric}, expected some of {', '.join(METRICS)}", "metrics"
                )
        for seed in self.seeds:
            if self.seeds.count(seed) > 1:
                raise ConfigError(f"seeds: {seed} is named twice", "seeds")
        _refuse(self.words, (*OWN_KEYS, "seed", "data"), "words")
        for name, words in self.data.items():
            _refuse(words, (*OWN_KEYS, "seed"), f"data.{name}")
        for name, row in self.rows.items():
            _refuse(row.words, NAMED_KEYS, f"rows.{name}")
            if row.weights_of is not None and (
                row.weights_of not in self.rows or self.rows[row.weights_of].weights_of or row.retrain
            ):
                able = ", ".join(
                    other for other, its in self.rows.items() if its.weights_of is None and other != name
                )
                raise ConfigError(
                    f"rows.{name}.weights_of: expected a row that trains ({able}), found {row.weights_of}"
                )


def load_sweep(path: str | Path) -> Sweep:
    """A sweep from its YAML file; ``data`` may name another file beside it, which holds that mapping.

    Raises:
        FileNotFoundError: there is no such file.
        ConfigError: one sentence naming file and key, what was found and what was expected.
    """
    path = Path(path)
    tree = _read(path)
    if isinstance(tree.get("data"), str):
        tree["data"] = _read(path.parent / tree["data"])
    if "name" in tree:
        raise ConfigError(f"{path}: unknown key 'name'; a sweep is called as its file", "name")
    try:
        return cast(Sweep, _spelled_out(tree) | {"name": path.stem})
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}", error.key) from error


def with_words(sweep: Sweep, words: Sequence[str]) -> Sweep:
    """The sweep with the words of a command line: ``data=`` picks data sets, ``seed=`` replaces the seeds
    (both with commas, if need be), all others are said in all rows, before the rows' own.

    Raises:
        ConfigError: a word cannot be used.
    """
    common = []
    for word in words:
        key, values = _values(word)
        if key == "seed":
            sweep = replace(sweep, seeds=[_seed(value) for value in values])
        elif key == "data":
            unknown = [value for value in values if value not in sweep.data]
            if unknown:
                raise ConfigError(f"data={unknown[0]}: the sweep has {', '.join(sweep.data)}", "data")
            sweep = replace(sweep, data={value: sweep.data[value] for value in dict.fromkeys(values)})
        elif len(values) > 1:
            raise ConfigError(
                f"cannot use {word!r}: the rows of a sweep are in its file; a list is written [a,b]", key
            )
        else:
            common.append(word)
    _refuse(common, OWN_KEYS, "")
    _refuse_common_root(sweep.data, common)
    return replace(sweep, words=[*sweep.words, *common])


def sweep_of_words(words: Sequence[str]) -> Sweep:
    """Words with commas, ``tracker=minvis,visage seed=0,1,2``, as a sweep: one row for every combination of
    values other than seeds and data sets, in the order of the words. ``range(1,4)`` is Hydra's as well.

    Raises:
        ConfigError: a word cannot be read, or is the sweep's own.
    """
    axes: list[list[str]] = []
    common: list[str] = []
    seeds, data = ["0"], {"synthetic": list[str]()}
    for word in words:
        key, values = _values(word)
        twice = next((value for value in values if values.count(value) > 1), None)
        if twice is not None:
            raise ConfigError(f"cannot use {word!r}: {twice} is named twice", key)
        if key == "seed":
            seeds = values
        elif key == "data":
            data = {value: [] for value in values}
        elif len(values) > 1:
            axes.append([f"{key}={value}" for value in values])
        else:
            common.append(word)
    named = [_values(word) for word in common if word.startswith("preset=")]
    if named and not any(_values(word)[0] == "data" for word in words):
        data = {"preset": []}  # which says what its data are
    if not axes and len(seeds) == len(data) == 1:
        raise ConfigError(
            "nothing to sweep: expected a word with several values, as in tracker=minvis,visage"
        )
    _refuse_common_root(data, common)
    combinations = itertools.product(*axes)
    rows = {" ".join(row) or "all": Row(list(row)) for row in combinations}
    return Sweep(rows, "", common, [_seed(seed) for seed in seeds], data, name=slug(",".join(words)))


def _refuse_common_root(data: Collection[str], common: Sequence[str]) -> None:
    if len(data) > 1 and any(_values(word)[0] == "data.root" for word in common):
        raise ConfigError(f"data.root is of one data set: say which, data={'|'.join(data)}", "data.root")


def _values(word: str) -> tuple[str, list[str]]:
    """Key and values of a word; several where Hydra's grammar sees a sweep."""
    try:
        override = OverridesParser.create().parse_override(readable(word))
        if not override.is_sweep_override():
            return override.key_or_group, [word.partition("=")[2]]
        if not override.is_discrete_sweep():
            raise ConfigError(f"cannot use {word!r}: expected values that can be counted, a,b or range(1,4)")
        return override.key_or_group, [str(value) for value in override.sweep_string_iterator()]
    except HydraException as error:
        raise ConfigError(f"cannot read {word!r}: expected key=value ({first_line(error)})") from error


def _seed(text: str) -> int:
    if not re.fullmatch(r"-?\d+", text):
        raise ConfigError(f"seed={text}: expected a whole number", "seed")
    return int(text)


def _refuse(words: Sequence[str], keys: Sequence[str], where: str) -> None:
    for word in words:
        try:
            key = parse_word(readable(word)).key_or_group
        except ConfigError as error:
            raise ConfigError(f"{where}: {error}" if where else str(error), where) from error
        if key in keys:
            prefix = f"{where}: " if where else ""
            raise ConfigError(f"{prefix}cannot use {word!r}: the sweep says {key} itself", where)


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(f"no sweep file {path}")
    try:
        tree = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
    except (YAMLError, OmegaConfBaseException, OSError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        said = f"line {mark.line + 1}: {error.problem}" if mark else first_line(error)  # type: ignore[union-attr]
        raise ConfigError(f"{path}: cannot be read as yaml ({said})") from error
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: expected keys and values, found {type(tree).__name__}")
    return {_text(key, path): value for key, value in tree.items()}


def _text(key: Any, path: Path | str) -> str:
    if isinstance(key, bool) or not isinstance(key, (str, int, float)):
        raise ConfigError(f"{path}: found the key {key!r}, expected text; write it in quotes")
    return str(key)


def _spelled_out(tree: Mapping[str, Any]) -> dict[str, Any]:
    """The tree with words as lists: they may be one line of text, and a row may be nothing but its words."""
    out = dict(tree)
    if "words" in out:
        out["words"] = _words(out["words"], "words")
    if isinstance(rows := out.get("rows"), Mapping):
        out["rows"] = {_text(name, "rows"): _row(row, f"rows.{name}") for name, row in rows.items()}
    if isinstance(data := out.get("data"), Mapping):
        out["data"] = {_text(name, "data"): _words(words, f"data.{name}") for name, words in data.items()}
    return out


def _row(row: Any, key: str) -> Any:
    if not isinstance(row, Mapping):
        return {"words": _words(row, key)}
    return {**row, "words": _words(row.get("words"), f"{key}.words")}


def _words(value: Any, key: str) -> list[str]:
    if isinstance(value, str):
        try:
            return shlex.split(value)
        except ValueError as error:
            raise ConfigError(f"{key}: cannot be read as words ({error}): {value!r}", key) from error
    if value is None:
        return []
    if isinstance(value, list) and all(isinstance(word, str) for word in value):
        return value
    raise ConfigError(f"{key}: expected words, as a list or a line of text, found {value!r}", key)

"""The configuration of a run: one dataclass, composed from words with Hydra's grammar.

``compose(["tracker=visage", "data=ytvis", "train.lr=1e-4"])`` picks one option of each group
(:data:`DEFAULT_SCHEMA`), sets keys, and checks every value against the dataclasses, which stand next
to the classes they configure. The words also name the run directory, so that saying the same words
again finds the same run; the clock has no part in it. ``config.yaml`` in that directory replays it.
"""

from __future__ import annotations

import argparse
import fnmatch
import hashlib
import json
import os
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn, get_type_hints

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from vistk.composer import (
    Group,
    Schema,
    compose_words,
    first_line,
    merge_words,
    options,
    parse_word,
    readable,
)
from vistk.data.config import (
    CocoConfig,
    DataConfig,
    OVISConfig,
    SyntheticConfig,
    YTVIS2019Config,
    YTVIS2021Config,
    YTVIS2022Config,
)
from vistk.engine.cache import MODES, CacheConfig
from vistk.engine.loggers import AUTO, NONE, LoggerConfig, ServiceLoggerConfig
from vistk.engine.train import JointTrainConfig, StillsTrainConfig, TrainConfig
from vistk.engine.video_tracker import EvalConfig
from vistk.files import write_text
from vistk.models.precision import PrecisionConfig
from vistk.models.segmenter import SegmenterConfig, TinySegmenterConfig
from vistk.presets import SEGMENTERS, get_preset
from vistk.schema import ConfigError, describe, join, leaves, to_tree
from vistk.trackers.registry import get_tracker, tracker_names

CONFIG_FILE = "config.yaml"
LEFT_BEHIND = ("log.jsonl", "checkpoints", "rows", "metrics.json", "weights.safetensors")
"""What lies in the directory of a run that has done something."""

NEUTRAL_KEYS = (
    *("run_dir", "resume", "*.num_workers", "train.log_every", "train.checkpoint_every"),
    *("cache", "choices.cache", "cache.dir", "cache.max_gb", "cache.mask_features"),
    *("logger", "choices.logger", "logger.*"),
)
"""Keys (patterns) that do not change results: left out of the run directory's name and of the hash."""


@dataclass
class RunConfig:
    """Everything that decides a run. The fields without a default are groups, see :data:`DEFAULT_SCHEMA`."""

    tracker: Any  # the Config of the tracker that choices["tracker"] names
    data: DataConfig
    segmenter: SegmenterConfig
    train: TrainConfig
    evaluation: EvalConfig = field(default_factory=EvalConfig)
    precision: PrecisionConfig = field(default_factory=PrecisionConfig)
    cache: CacheConfig = field(default_factory=CacheConfig)
    logger: LoggerConfig = field(default_factory=LoggerConfig)
    choices: dict[str, str] = field(default_factory=dict)  # chosen option of each group; set by compose
    preset: str | None = None  # published model whose words come before those that are said
    seed: int = 0
    weights: str | None = "default"  # path; "default" = packaged start weights that fit; null = random
    eval_only: bool = False
    resume: bool = True
    run_dir: str | None = None  # null = made from the words


DATA_SETS = {
    "synthetic": SyntheticConfig,
    "ytvis": DataConfig,
    "ytvis2019": YTVIS2019Config,
    "ytvis2021": YTVIS2021Config,
    "ytvis2022": YTVIS2022Config,
    "ovis": OVISConfig,
    "coco": CocoConfig,
}

LOGGERS = {
    AUTO: LoggerConfig,
    NONE: LoggerConfig,
    "tensorboard": LoggerConfig,
    "wandb": ServiceLoggerConfig,
    "trackio": ServiceLoggerConfig,
}

DEFAULT_SCHEMA = Schema(
    RunConfig,
    {
        "tracker": Group("visage", tracker_names, lambda name: get_tracker(name)[1]),
        "data": options("synthetic", DATA_SETS),
        "segmenter": options("tiny", {"tiny": TinySegmenterConfig, **SEGMENTERS}),
        "train": options(
            "video", {"video": TrainConfig, "stills": StillsTrainConfig, "joint": JointTrainConfig}
        ),
        "cache": options("off", dict.fromkeys(("off", *MODES), CacheConfig)),
        "logger": options(AUTO, LOGGERS),
    },
    shorthands={"preset": lambda name: get_preset(name).words()},
)
"""The groups of a run and their options; plug-ins and ``module:Class`` count as trackers.

``preset=NAME`` stands for the words of a published model (:mod:`vistk.presets`).
"""


@dataclass(frozen=True)
class Composed:
    """What words come to."""

    config: Any  # an instance of the schema's root, e.g. RunConfig
    overrides: tuple[str, ...]  # the words, those of a replayed file first
    run_dir: Path


def compose(argv: Sequence[str], schema: Schema = DEFAULT_SCHEMA) -> Composed:
    """Words, and optionally ``--config FILE``, as a checked configuration.

    Values come from the dataclasses, then from the file, then from the words.

    Raises:
        ConfigError: one sentence naming the word or key, what was found and what was expected.
        FileNotFoundError: there is no such file.
    """
    arguments = _parser().parse_intermixed_args(list(argv))
    base = _read(Path(arguments.config)) if arguments.config else {}
    said = [readable(word) for word in arguments.words]
    config, choices = compose_words(said, schema, base, arguments.config or "")
    words = merge_words(base.get("words", []), said, schema)
    return Composed(config, words, _run_dir(config, words, schema, choices))


def command_line(argv: Sequence[str] | None = None, schema: Schema = DEFAULT_SCHEMA) -> Composed:
    """:func:`compose` for a script: answers ``--help`` and ``--cfg job``, prints errors, then exits.

    Bad words end the process with one message and exit code 2.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        arguments = _parser().parse_intermixed_args(words)
        composed = compose(words, schema)
        if arguments.help:
            _leave(help_text(composed, schema))
        if arguments.cfg:
            _leave(to_yaml(composed))
    except (ConfigError, FileNotFoundError) as error:
        if os.environ.get("RANK", "0") == "0":  # one message from many processes
            print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    return composed


def to_dict(config: Any) -> dict[str, Any]:
    """A configuration as dicts, lists and scalars."""
    tree = to_tree(config)
    assert isinstance(tree, dict)
    return tree


def to_yaml(composed: Composed) -> str:
    """The text of ``config.yaml``: the words, then every value."""
    tree = {"words": list(composed.overrides), **to_dict(composed.config)}
    return OmegaConf.to_yaml(OmegaConf.create(tree))


def save(composed: Composed) -> Path:
    """Writes ``config.yaml`` into the run directory, at once or not at all.

    Raises:
        ConfigError: the directory holds a run with another configuration, and ``resume`` is on.
    """
    path = composed.run_dir / CONFIG_FILE
    # A run that stopped at its first look at weights or data left nothing that could be mixed up.
    begun = any((composed.run_dir / name).exists() for name in LEFT_BEHIND)
    if path.exists() and begun and getattr(composed.config, "resume", False):
        _refuse_other_run(path, composed)
    return write_text(path, to_yaml(composed))


def load(path: Path | str, schema: Schema = DEFAULT_SCHEMA) -> Composed:
    """The run that a ``config.yaml`` describes; ``path`` may be its directory.

    Raises:
        FileNotFoundError: there is no such file.
        ConfigError: the file cannot be read, or does not fit the schema.
    """
    path = Path(path)
    return compose(["--config", str(path / CONFIG_FILE if path.is_dir() else path)], schema)


def config_hash(config: Any) -> str:
    """Twelve hexadecimal digits that name a configuration; :data:`NEUTRAL_KEYS` do not enter."""
    values = {key: value for key, value in _flat(to_dict(config)) if not _is_neutral(key)}
    text = json.dumps(values, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def help_text(composed: Composed, schema: Schema = DEFAULT_SCHEMA) -> str:
    """Groups with their options, then every key with its type and the value that it has now."""
    lines = ["Words are key=value; Hydra's grammar.", "", "Choices:"]
    for name, group in schema.groups.items():
        marked = [f"[{n}]" if n == composed.config.choices[name] else n for n in group.names()]
        lines.append(f"  {name}={' | '.join(marked)}")
    lines += ["", "Keys (with the choices in brackets):"]
    rows = [(key, value, _hint(composed.config, key)) for key, value in leaves(composed.config)]
    lines += [
        f"  {key}={_as_word(value)}  ({describe(hint)})" for key, value, hint in rows if key != "choices"
    ]
    lines += [
        "",
        "--config FILE  start from a config.yaml",
        "--cfg job      print the configuration, run nothing",
    ]
    return "\n".join(lines) + "\n"


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ConfigError(message)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(add_help=False, allow_abbrev=False)
    parser.add_argument("--help", "-h", action="store_true")
    parser.add_argument("--cfg", "-c", choices=["job"])
    parser.add_argument("--config")
    parser.add_argument("words", nargs="*")
    return parser


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(f"no configuration file {path}")
    try:
        tree = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
    except (YAMLError, OmegaConfBaseException, OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read as yaml ({first_line(error)})") from error
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: expected keys and values, found {type(tree).__name__}")
    words = tree.get("words", [])
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise ConfigError(f"{path}: words: expected a list of key=value, found {words!r}", "words")
    return {str(key): value for key, value in tree.items()}


def _run_dir(config: Any, words: Sequence[str], schema: Schema, choices: dict[str, str]) -> Path:
    if getattr(config, "run_dir", None):
        return Path(config.run_dir)
    tree = to_dict(config)
    said = {}
    for word in words:
        key = parse_word(word).key_or_group
        if key in schema.path or _is_neutral(key):
            continue
        value: Any = choices.get(key, tree)
        for part in () if key in choices else key.split("."):
            value = value[part]
        said[key] = _as_word(value)
    text = ",".join(f"{key}={value}" for key, value in sorted(said.items()))
    return Path("runs", *(slug(choices[name]) for name in schema.path), slug(text) or "default")


def _as_word(value: Any) -> str:
    """A value as one says it: ``null``, ``true``, ``[1,2]``; text in quotes only where it would mislead."""
    plain = isinstance(value, str) and not re.search("[,=]", value)
    return str(value) if plain else json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def slug(text: str, longest: int = 100) -> str:
    """``text`` as a file name; where it had to change, a hash keeps different texts apart."""
    clean = re.sub(r"[^A-Za-z0-9._=,+-]+", "-", text)
    if clean == text and len(text) <= longest and not text.startswith("."):
        return text
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    return f"{clean[: longest - 9].strip('.-')}-{digest}"


def _refuse_other_run(path: Path, composed: Composed) -> None:
    there = dict(_flat({k: v for k, v in _read(path).items() if k != "words"}))
    # through yaml, as the file went: 1e4 and 10000.0 are one value
    here = dict(_flat(OmegaConf.to_container(OmegaConf.create(to_yaml(composed)))))
    for key in sorted(k for k in there.keys() | here.keys() if k != "words" and not _is_neutral(k)):
        if there.get(key) != here.get(key):
            raise ConfigError(
                f"{path} holds another configuration: {key} is {there.get(key)!r} there and "
                f"{here.get(key)!r} here; name another run_dir, say resume=false, or remove it",
                key,
            )


def _is_neutral(key: str) -> bool:
    return any(fnmatch.fnmatchcase(key, pattern) for pattern in NEUTRAL_KEYS)


def _flat(tree: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, join(prefix, str(key)))
        else:
            yield join(prefix, str(key)), value


def _hint(config: Any, key: str) -> Any:
    *parents, name = key.split(".")
    for part in parents:
        config = getattr(config, part)
    return get_type_hints(type(config))[name]


def _leave(text: str) -> NoReturn:
    if os.environ.get("RANK", "0") == "0":
        sys.stdout.write(text)
    raise SystemExit(0)

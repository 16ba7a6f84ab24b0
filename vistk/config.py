"""The configuration of a run: one dataclass, composed from words with Hydra's grammar.

``compose(["tracker=visage", "data=ovis", "train.lr=1e-4"])`` picks one option of each group
(:data:`DEFAULT_SCHEMA`), sets keys, and checks every value against the dataclasses, which stand next
to the classes they configure. The words also name the run directory, so that saying the same words
again finds the same run; the clock has no part in it. ``config.yaml`` in that directory replays it.

Hydra does the grammar and the merging, through its compose API. Types are checked by
:func:`vistk.schema.cast` instead of OmegaConf, because OmegaConf 2.3 refuses frozen dataclasses and
``Literal``; so the ConfigStore is given the defaults as trees.
"""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import fnmatch
import hashlib
import json
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn, get_type_hints

from hydra import compose as hydra_compose
from hydra import initialize
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from vistk.schema import ConfigError, cast, describe, is_schema, join, leaves, to_tree

CONFIG_FILE = "config.yaml"

NEUTRAL_KEYS = ("run_dir", "resume", "*.num_workers")
"""Keys (patterns) that do not change results: left out of the run directory's name and of the hash."""

_ROOT, _REPLAY = "vistk_run", "vistk_replay"  # names in the ConfigStore


@dataclass
class RunConfig:
    """Everything that decides a run. The first fields are groups, see :data:`DEFAULT_SCHEMA`."""

    tracker: Any  # the Config of the chosen tracker
    data: Any
    segmenter: Any
    train: Any
    evaluation: Any
    choices: dict[str, str] = field(default_factory=dict)  # chosen option of each group; set by compose
    seed: int = 0
    weights: str | None = "default"  # path; "default" = packaged start weights that fit; null = random
    eval_only: bool = False
    resume: bool = True
    run_dir: str | None = None  # null = made from the words


@dataclass(frozen=True)
class Group:
    """A part of the configuration that is chosen by name.

    Attributes:
        default: the option taken when no word names another.
        names: gives the names for messages and help; more may be accepted by ``make``.
        make: gives the dataclass instance (or class, where fields have no default) of a name;
            raises ``ValueError`` with one sentence where there is none.
    """

    default: str
    names: Callable[[], Iterable[str]]
    make: Callable[[str], Any]


def options(default: str, table: Mapping[str, Callable[[], Any]]) -> Group:
    """A group with a closed list of options, each made when it is asked for."""

    def make(name: str) -> Any:
        if name not in table:
            raise ValueError(f"known are {', '.join(table)}")
        return table[name]()

    return Group(default, lambda: tuple(table), make)


@dataclass(frozen=True)
class Schema:
    """A root dataclass and the groups among its fields. ``path`` groups name the run directory."""

    root: type
    groups: Mapping[str, Group]
    path: tuple[str, ...] = ("data", "tracker")


@dataclass(frozen=True)
class Composed:
    """What words come to."""

    config: Any  # an instance of the schema's root, e.g. RunConfig
    overrides: tuple[str, ...]  # the words, those of a replayed file first
    run_dir: Path


def compose(argv: Sequence[str], schema: Schema | None = None) -> Composed:
    """Words, and optionally ``--config FILE``, as a checked configuration.

    Values come from the dataclasses, then from the file, then from the words. A word that chooses
    another option of a group than the file drops the file's values of that group.

    Raises:
        ConfigError: one sentence naming the word or key, what was found and what was expected.
        FileNotFoundError: there is no such file.
    """
    schema = schema or DEFAULT_SCHEMA
    arguments = _parser().parse_intermixed_args(list(argv))
    replayed = _read(Path(arguments.config)) if arguments.config else {}
    new_words = tuple(arguments.words)
    parsed = [_parse(word) for word in new_words]

    said = {o.key_or_group: _choice(o) for o in parsed if o.key_or_group in schema.groups}
    recorded = _recorded_choices(replayed, schema, arguments.config)
    choices = {name: group.default for name, group in schema.groups.items()} | recorded | said
    sections = {name: _make(name, choice, schema.groups[name]) for name, choice in choices.items()}

    file_tree = {key: value for key, value in replayed.items() if key not in ("choices", "words")}
    for name in said:
        if said[name] != recorded.get(name):
            file_tree.pop(name, None)
    known = _Keys(schema, sections)
    for key in _dotted(file_tree, known):
        known.check(key, choices, where=f"{arguments.config}: ")
    for override in parsed:
        known.check(override.key_or_group, choices)

    with _registered(schema, choices, sections, file_tree):
        try:
            with initialize(config_path=None, job_name="vistk", version_base="1.3"):
                tree = OmegaConf.to_container(hydra_compose(_ROOT, overrides=list(new_words)), resolve=False)
        except (HydraException, OmegaConfBaseException) as error:
            raise ConfigError(_first_line(error)) from error
    assert isinstance(tree, dict)
    words = _merge_words(replayed.get("words", []), new_words, said, schema)
    try:
        config = _cast_root(schema, sections, tree, choices)
    except ConfigError as error:
        if arguments.config and not any(error.key.startswith(o.key_or_group) for o in parsed):
            raise ConfigError(f"{arguments.config}: {error}", error.key) from error
        raise
    return Composed(config, words, _run_dir(config, words, schema, choices))


def command_line(argv: Sequence[str] | None = None, schema: Schema | None = None) -> Composed:
    """:func:`compose` for a script: answers ``--help`` and ``--cfg job``, prints errors, then exits.

    Bad words end the process with one message and exit code 2.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    schema = schema or DEFAULT_SCHEMA
    arguments = _parser().parse_intermixed_args(words)
    again = [*(["--config", arguments.config] if arguments.config else []), *arguments.words]
    try:
        composed = compose(again, schema)
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
    if path.exists() and getattr(composed.config, "resume", False):
        _refuse_other_run(path, composed)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(to_yaml(composed), encoding="utf-8")
    temporary.replace(path)
    return path


def load(path: Path | str, schema: Schema | None = None) -> Composed:
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


def help_text(composed: Composed, schema: Schema | None = None) -> str:
    """Groups with their options, then every key with its type and the value that it has now."""
    schema = schema or DEFAULT_SCHEMA
    lines = ["Words are key=value; Hydra's grammar.", "", "Choices:"]
    for name, group in schema.groups.items():
        marked = [f"[{n}]" if n == composed.config.choices[name] else n for n in group.names()]
        lines.append(f"  {name}={' | '.join(marked)}")
    lines += ["", "Keys (with the choices in brackets):"]
    rows = [(key, value, _hint(composed.config, key)) for key, value in leaves(composed.config)]
    lines += [
        f"  {key}={'null' if value is None else value}  ({describe(hint)})"
        for key, value, hint in rows
        if key != "choices"
    ]
    lines += ["", "--config FILE  start from a config.yaml", "--cfg job      print the configuration, run nothing"]
    return "\n".join(lines) + "\n"


# -- words ------------------------------------------------------------------------------------------


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--help", "-h", action="store_true")
    parser.add_argument("--cfg", "-c", choices=["job"])
    parser.add_argument("--config")
    parser.add_argument("words", nargs="*")
    return parser


def _parse(word: str) -> Override:
    try:
        override = OverridesParser.create().parse_override(word)
    except HydraException as error:
        raise ConfigError(f"cannot read {word!r}: expected key=value ({_first_line(error)})") from error
    if override.is_delete():
        raise ConfigError(f"cannot use {word!r}: words set values, nothing can be removed")
    if override.is_sweep_override():
        raise ConfigError(f"cannot use {word!r}: one run takes one value; a list is written [a,b]")
    return override


def _choice(override: Override) -> str:
    value = override.value()
    if isinstance(value, (list, dict)):
        name = override.key_or_group
        raise ConfigError(f"{name}={value}: expected the name of one option; values are {name}.<key>=...", name)
    return str(value)


def _make(name: str, choice: str, group: Group) -> Any:
    try:
        return group.make(choice)
    except ValueError as error:
        near = difflib.get_close_matches(choice, list(group.names()), n=1, cutoff=0.4)
        hint = f"did you mean '{near[0]}'?" if near else _first_line(error)
        raise ConfigError(f"unknown {name} {choice!r}; {hint}", name) from error


class _Keys:
    """The keys that words may set, given the chosen options."""

    def __init__(self, schema: Schema, sections: Mapping[str, Any]) -> None:
        self.schema = schema
        self.leaves: set[str] = set()
        for f in dataclasses.fields(schema.root):
            owner = sections.get(f.name, get_type_hints(schema.root)[f.name])
            if is_schema(owner):
                self.leaves |= {key for key, _ in leaves(owner, f.name)}
            elif f.name != "choices":
                self.leaves.add(f.name)
        parents = {key[:i] for key in self.leaves for i, char in enumerate(key) if char == "."}
        self.sections = parents | set(sections)

    def __contains__(self, key: str) -> bool:
        below_a_dict = any(key.startswith(f"{leaf}.") for leaf in self.leaves)
        return key in self.leaves or key in self.sections or below_a_dict

    def check(self, key: str, choices: Mapping[str, str], where: str = "") -> None:
        if key in self:
            return
        raise ConfigError(f"{where}unknown key {key!r}; {self._hint(key, choices)}", key)

    def _hint(self, key: str, choices: Mapping[str, str]) -> str:
        group, _, rest = key.partition(".")
        if rest and group in self.schema.groups:
            for name in self.schema.groups[group].names():
                owner = self.schema.groups[group].make(name)
                if name != choices[group] and key in {k for k, _ in leaves(owner, group)}:
                    return f"{group}={name} has it, {group}={choices[group]} has not"
        everything = sorted(self.leaves | self.sections)
        same_leaf = [known for known in everything if known.endswith(f".{key}")]
        near = same_leaf or difflib.get_close_matches(key, everything, n=1, cutoff=0.6)
        if near:
            return f"did you mean '{near[0]}'?"
        inside = sorted(k for k in self.leaves if k.startswith(f"{group}."))
        return f"known are {', '.join(inside or sorted({k.partition('.')[0] for k in everything}))}"


# -- composition ------------------------------------------------------------------------------------


@contextmanager
def _registered(
    schema: Schema, choices: Mapping[str, str], sections: Mapping[str, Any], file_tree: Mapping[str, Any]
) -> Iterator[None]:
    """Puts the options into Hydra's ConfigStore, and leaves the store as it was found.

    ``_self_`` comes first in the defaults: last, it would silently undo words such as ``tracker.w=2``.
    """
    store = ConfigStore.instance()
    found = store.repo
    store.repo = {name: node for name, node in found.items() if name not in schema.groups}
    try:
        for name, section in sections.items():
            store.store(group=name, name=choices[name], node=to_tree(section))
        hints = get_type_hints(schema.root)
        root: dict[str, Any] = {}
        for f in dataclasses.fields(schema.root):
            if f.name not in schema.groups and f.name != "choices":
                root[f.name] = to_tree(hints[f.name] if is_schema(hints[f.name]) else schema.root)[f.name]
        defaults: list[Any] = ["_self_", *({name: choices[name]} for name in schema.groups)]
        if file_tree:
            store.store(name=_REPLAY, node=dict(file_tree))
            defaults.append(_REPLAY)
        store.store(name=_ROOT, node={"defaults": defaults, **root})
        yield
    finally:
        store.repo = found


def _cast_root(
    schema: Schema, sections: Mapping[str, Any], tree: Mapping[Any, Any], choices: Mapping[str, str]
) -> Any:
    hints = get_type_hints(schema.root)
    values: dict[str, Any] = {"choices": dict(choices)}
    for name, value in tree.items():
        section = sections.get(name)
        owner = hints[name] if section is None else section if isinstance(section, type) else type(section)
        values[name] = cast(owner, value, name)
    return schema.root(**values)


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(f"no configuration file {path}")
    try:
        tree = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
    except (YAMLError, OmegaConfBaseException, OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read as yaml ({_first_line(error)})") from error
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: expected keys and values, found {type(tree).__name__}")
    words = tree.get("words", [])
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise ConfigError(f"{path}: words: expected a list of key=value, found {words!r}", "words")
    return {str(key): value for key, value in tree.items()}


def _recorded_choices(replayed: Mapping[str, Any], schema: Schema, file: str | None) -> dict[str, str]:
    recorded = replayed.get("choices") or {}
    if not isinstance(recorded, dict) or not set(recorded) <= set(schema.groups):
        groups = ", ".join(schema.groups)
        raise ConfigError(f"{file}: choices: expected options of {groups}, found {recorded!r}", "choices")
    return {name: str(choice) for name, choice in recorded.items()}


def _merge_words(
    old: Sequence[str], new: Sequence[str], said: Mapping[str, str], schema: Schema
) -> tuple[str, ...]:
    """Old words that still hold, then the new ones."""
    keys = {_parse(word).key_or_group for word in new}
    chosen = {o.key_or_group: _choice(o) for o in map(_parse, old) if o.key_or_group in schema.groups}
    changed = {name for name, choice in said.items() if chosen.get(name, schema.groups[name].default) != choice}
    kept = []
    for word in old:
        key = _parse(word).key_or_group
        if key not in keys and key.partition(".")[0] not in changed:
            kept.append(word)
    return (*kept, *new)


# -- the run directory ------------------------------------------------------------------------------


def _run_dir(config: Any, words: Sequence[str], schema: Schema, choices: Mapping[str, str]) -> Path:
    if getattr(config, "run_dir", None):
        return Path(config.run_dir)
    tree = to_dict(config)
    said = {}
    for word in words:
        key = _parse(word).key_or_group
        if key in schema.path or _is_neutral(key):
            continue
        value: Any = choices[key] if key in choices else tree
        if key not in choices:
            for part in key.split("."):
                value = value[part]
        said[key] = value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))
    text = ",".join(f"{key}={value}" for key, value in sorted(said.items()))
    return Path("runs", *(_slug(choices[name]) for name in schema.path), _slug(text) or "default")


def _slug(text: str, longest: int = 100) -> str:
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


# -- small helpers ----------------------------------------------------------------------------------


def _is_neutral(key: str) -> bool:
    return any(fnmatch.fnmatchcase(key, pattern) for pattern in NEUTRAL_KEYS)


def _flat(tree: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, join(prefix, str(key)))
        else:
            yield join(prefix, str(key)), value


def _dotted(tree: Mapping[Any, Any], known: _Keys, prefix: str = "") -> Iterator[str]:
    for key, value in tree.items():
        full = join(prefix, str(key))
        if isinstance(value, Mapping) and full in known.sections:
            yield from _dotted(value, known, full)
        else:
            yield full


def _hint(config: Any, key: str) -> Any:
    *parents, name = key.split(".")
    for part in parents:
        config = getattr(config, part)
    return get_type_hints(type(config))[name]


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _leave(text: str) -> NoReturn:
    if os.environ.get("RANK", "0") == "0":
        sys.stdout.write(text)
    raise SystemExit(0)


# -- the groups of a run ----------------------------------------------------------------------------

"""Words in Hydra's grammar to an instance of a dataclass, some fields of which are chosen by name.

Hydra does the grammar and the merging, through its compose API. Types are checked by
:func:`vistk.schema.cast` instead of OmegaConf, because OmegaConf 2.3 refuses frozen dataclasses and
``Literal``; so the ConfigStore is given the defaults as trees. Hydra's global state is left as found.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, get_type_hints

from hydra import compose as hydra_compose
from hydra import initialize
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from vistk.schema import MISSING, ConfigError, cast, is_schema, join, leaves, to_tree

_ROOT, _REPLAY = "vistk_run", "vistk_replay"  # names in the ConfigStore


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
    """A root dataclass and the groups among its fields.

    Attributes:
        path: groups that name the run directory.
        shorthands: fields whose value stands for other words, by a function from the value to the words;
            raises ``ValueError`` with one sentence for a value that stands for none.
    """

    root: type
    groups: Mapping[str, Group]
    path: tuple[str, ...] = ("data", "tracker")
    shorthands: Mapping[str, Callable[[str], Sequence[str]]] = field(default_factory=dict)


def compose_words(
    words: Sequence[str], schema: Schema, base: Mapping[str, Any] | None = None, base_name: str = ""
) -> tuple[Any, dict[str, str]]:
    """An instance of the schema's root, and the chosen option of each group.

    Values come from the dataclasses, then from ``base`` (a tree as in ``config.yaml``, read from the
    file ``base_name``), then from the words. A word that chooses another option of a group than
    ``base`` drops the values of ``base`` for that group.

    Raises:
        ConfigError: one sentence naming the word or key, what was found and what was expected.
    """
    base = base or {}
    words = _spelled_out(words, schema)
    parsed = [parse_word(word) for word in words]
    defaults = {name: group.default for name, group in schema.groups.items()}
    recorded = defaults | _recorded_choices(base, schema, base_name)
    said = {o.key_or_group: choice_of(o) for o in parsed if o.key_or_group in schema.groups}
    choices = recorded | said
    sections = {
        name: _make(name, choice, schema.groups[name], "" if name in said or not base else f"{base_name}: ")
        for name, choice in choices.items()
    }

    dropped = {name for name in said if said[name] != recorded[name]} | {"choices", "words"}
    base_tree = {key: value for key, value in base.items() if key not in dropped}
    known = _Keys(schema, sections)
    for key in _dotted(base_tree, known):
        known.check(key, choices, where=f"{base_name}: ")
    for override in parsed:
        key = override.key_or_group
        known.check(key, choices)
        if key in known.sections and isinstance(value := override.value(), dict):
            for inner in _dotted(value, known, key):
                known.check(inner, choices)

    with _registered(schema, choices, sections, base_tree), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The version_base parameter")  # Hydra 1.3 wants it said
        try:
            with initialize(config_path=None, job_name="vistk", version_base="1.3"):
                tree = OmegaConf.to_container(hydra_compose(_ROOT, overrides=list(words)), resolve=False)
        except (HydraException, OmegaConfBaseException) as error:
            raise ConfigError(" ".join(str(error).strip().splitlines())) from error
    assert isinstance(tree, dict)
    try:
        return _cast_root(schema, sections, tree, choices), choices
    except ConfigError as error:
        if base_tree and not any(error.key.startswith(o.key_or_group) for o in parsed):
            raise ConfigError(f"{base_name}: {error}", error.key) from error
        raise


def _spelled_out(words: Sequence[str], schema: Schema) -> Sequence[str]:
    """The words, those that a shorthand among them stands for first, so that they can be overridden.

    Of a shorthand that is said twice the last one counts, as of every key.
    """
    said = {o.key_or_group: o.value() for o in map(parse_word, words) if o.key_or_group in schema.shorthands}
    for key, value in said.items():
        if value is not None:
            try:
                meant = schema.shorthands[key](str(value))
            except ValueError as error:
                raise ConfigError(f"{key}={value}: {error}", key) from error
            words = merge_words(meant, words, schema)
    return words


def merge_words(old: Sequence[str], new: Sequence[str], schema: Schema) -> tuple[str, ...]:
    """The old words that still hold beside the new ones, then the new ones."""
    before, after = [parse_word(word) for word in old], [parse_word(word) for word in new]
    chosen = {name: group.default for name, group in schema.groups.items()}
    chosen |= {o.key_or_group: choice_of(o) for o in before if o.key_or_group in schema.groups}
    said = {o.key_or_group: choice_of(o) for o in after if o.key_or_group in schema.groups}
    changed = {name for name, choice in said.items() if chosen[name] != choice}
    overridden = {o.key_or_group for o in after}
    keys = zip(old, (o.key_or_group for o in before), strict=True)
    kept = [word for word, key in keys if key not in overridden and key.partition(".")[0] not in changed]
    return (*kept, *new)


def parse_word(word: str) -> Override:
    """One word as Hydra reads it; refuses sweeps and removals."""
    try:
        override = OverridesParser.create().parse_override(word)
    except HydraException as error:
        raise ConfigError(f"cannot read {word!r}: expected key=value ({first_line(error)})") from error
    if override.is_delete():
        raise ConfigError(f"cannot use {word!r}: words set values, nothing can be removed")
    if override.is_sweep_override():
        raise ConfigError(f"cannot use {word!r}: one run takes one value; a list is written [a,b]")
    return override


def readable(word: str) -> str:
    """The word, its value in quotes where Hydra's grammar cannot read it bare.

    Such are paths with spaces, brackets, umlauts, ``~`` or ``=``, among them those of runs. Lists, dicts
    and what is quoted already stay as they are, so that their mistakes are reported.
    """
    key, equals, value = word.partition("=")
    if not re.fullmatch(r"[\w.]+", key) or not value or value[0] in "'\"[{" or value.endswith("\\"):
        return word
    try:
        OverridesParser.create().parse_override(word)
    except HydraException:
        escaped = value.replace("'", "\\'")
        return f"{key}{equals}'{escaped}'"
    return word


def choice_of(override: Override) -> str:
    """The option that a word such as ``tracker=visage`` names."""
    value = override.value()
    if isinstance(value, (list, dict)):
        name = override.key_or_group
        raise ConfigError(
            f"{name}={value}: expected the name of one option; values are {name}.<key>=...", name
        )
    return str(value)


def _make(name: str, choice: str, group: Group, where: str) -> Any:
    try:
        return group.make(choice)
    except ValueError as error:
        near = difflib.get_close_matches(choice, list(group.names()), n=1, cutoff=0.6)
        hint = f"did you mean '{near[0]}'?" if near else first_line(error)
        raise ConfigError(f"{where}unknown {name} {choice!r}; {hint}", name) from error


class _Keys:
    """The keys that words may set, given the chosen options."""

    def __init__(self, schema: Schema, sections: Mapping[str, Any]) -> None:
        self.schema = schema
        self.leaves: dict[str, Any] = {}
        for f in dataclasses.fields(schema.root):
            owner = sections.get(f.name, get_type_hints(schema.root)[f.name])
            if is_schema(owner):
                self.leaves |= dict(leaves(owner, f.name))
            elif f.name != "choices":
                self.leaves[f.name] = to_tree(schema.root)[f.name]
        parents = {key[:i] for key in self.leaves for i, char in enumerate(key) if char == "."}
        self.sections = parents | set(sections)

    def __contains__(self, key: str) -> bool:
        dicts = [leaf for leaf, value in self.leaves.items() if isinstance(value, Mapping)]
        below_a_dict = any(key.startswith(f"{leaf}.") for leaf in dicts)
        return key in self.leaves or key in self.sections or below_a_dict

    def check(self, key: str, choices: Mapping[str, str], where: str = "") -> None:
        if key in self:
            return
        raise ConfigError(f"{where}unknown key {key!r}; {self._hint(key, choices)}", key)

    def _hint(self, key: str, choices: Mapping[str, str]) -> str:
        group, _, rest = key.partition(".")
        if rest and group in self.schema.groups:
            options = self.schema.groups[group]
            for name in sorted(options.names(), key=lambda name: name != options.default):
                if name != choices[group] and key in dict(leaves(options.make(name), group)):
                    return f"{group}={name} has it, {group}={choices[group]} has not"
        everything = sorted(self.leaves.keys() | self.sections)
        parent, _, last = key.rpartition(".")
        prefix = f"{parent}." if parent in self.sections else ""
        inside = [known.removeprefix(prefix) for known in everything if known.startswith(prefix)]
        near = difflib.get_close_matches(last if prefix else key, inside, n=1, cutoff=0.6)
        near = near or [known for known in inside if known.endswith(f".{last}")]
        if near:
            return f"did you mean '{prefix}{near[0]}'?"
        top = [known for known in inside if "." not in known]
        return f"known are {', '.join(prefix + known for known in top)}"


@contextmanager
def _registered(
    schema: Schema, choices: Mapping[str, str], sections: Mapping[str, Any], base_tree: Mapping[str, Any]
) -> Iterator[None]:
    """Puts the options into Hydra's ConfigStore, and leaves the store as it was found.

    The root's own node (``_self_``) comes first in the defaults and holds no group: later, or with
    groups, it would silently win over the chosen options and the replayed file.
    """
    store = ConfigStore.instance()
    found = store.repo
    store.repo = {name: node for name, node in found.items() if name not in schema.groups}
    try:
        for name, section in sections.items():
            store.store(group=name, name=choices[name], node=to_tree(section))
        hints = get_type_hints(schema.root)
        root = {
            key: value for key, value in to_tree(schema.root).items() if key not in (*sections, "choices")
        }
        for name, value in root.items():
            if value == MISSING and is_schema(hints[name]):
                root[name] = to_tree(hints[name])
        defaults: list[Any] = ["_self_", *({name: choices[name]} for name in schema.groups)]
        if base_tree:
            store.store(name=_REPLAY, node=dict(base_tree))
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


def _recorded_choices(replayed: Mapping[str, Any], schema: Schema, file: str | None) -> dict[str, str]:
    recorded = replayed.get("choices") or {}
    if not isinstance(recorded, dict) or not set(recorded) <= set(schema.groups):
        groups = ", ".join(schema.groups)
        raise ConfigError(f"{file}: choices: expected options of {groups}, found {recorded!r}", "choices")
    return {name: str(choice) for name, choice in recorded.items()}


def _dotted(tree: Mapping[Any, Any], known: _Keys, prefix: str = "") -> Iterator[str]:
    for key, value in tree.items():
        full = join(prefix, str(key))
        if isinstance(value, Mapping) and full in known.sections:
            yield from _dotted(value, known, full)
        else:
            yield full


def first_line(error: BaseException) -> str:
    """The first line of an error's message."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]

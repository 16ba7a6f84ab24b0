"""The knobs of a search: fields of a tracker that association alone reads, and the values that are tried."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args, get_type_hints

from vistk.composer import parse_word
from vistk.schema import ConfigError, cast, to_tree
from vistk.trackers.ablations import ABLATIONS
from vistk.trackers.base import Range, Tracker
from vistk.trackers.registry import get_tracker

PREFIX = "tracker."


class TuningError(ValueError):
    """A search that cannot be done as it was asked for; the message is one sentence for the user."""


@dataclass(frozen=True)
class Knob:
    """A field of the tracker's configuration, and what is tried for it."""

    name: str
    values: Range | tuple[Any, ...]
    whole: bool  # whether the numbers of a range are whole ones
    default: Any  # value that the words come to

    @property
    def count(self) -> float:
        """Number of values; infinite for a range of real numbers."""
        if isinstance(self.values, tuple):
            return len(self.values)
        return len(self.listed()) if self.whole else math.inf

    def listed(self) -> Sequence[Any]:
        """All values, where they are counted."""
        if isinstance(self.values, tuple):
            return self.values
        return range(math.ceil(self.values.low), math.floor(self.values.high) + 1)

    def holds(self, value: Any) -> bool:
        """Whether a value is one of those that are tried."""
        if isinstance(self.values, tuple):
            return any(type(value) is type(known) and value == known for known in self.values)
        number = isinstance(value, int | float) and not isinstance(value, bool)
        return number and self.values.low <= value <= self.values.high

    def near(self, value: Any) -> Any:
        """A value as it is tried: one that can be said again, of three digits at most."""
        if isinstance(self.values, tuple) or self.whole:
            return value
        return min(max(float(f"{value:.3g}"), self.values.low), self.values.high)

    def __str__(self) -> str:
        if isinstance(self.values, tuple):
            return " | ".join(map(said, self.values))
        return f"{self.values.low:g}..{self.values.high:g}" + (",log" if self.values.log else "")


def find_knobs(
    tracker: str,
    config: Any,
    held: Collection[str] = (),
    given: Mapping[str, Range | Sequence[Any]] | None = None,
) -> tuple[list[Knob], list[str]]:
    """What is searched: the tracker's ``association_fields`` that it, or the user, says values of.

    Args:
        tracker: name; what makes an ablation is not searched.
        config: the tracker's configuration, as the words have it.
        held: fields that keep their values, unless they are ``given``.
        given: values by field, in place of the tracker's own.

    Returns:
        The knobs in the order of the fields, and the fields that nobody says values of.

    Raises:
        TuningError: there is nothing to search, or a field may not be searched, or cannot have a value.
    """
    given = given or {}
    cls, _ = get_tracker(tracker)
    hints = get_type_hints(type(config))
    fields = [f.name for f in dataclasses.fields(config) if f.name in cls.association_fields]
    _require_known(tracker, cls, fields, given)
    if cls.uses_targets:
        raise TuningError(f"tracker={tracker} is given the ground truth, so there is nothing to tune")
    fixed = {*held, *ABLATIONS.get(tracker, ("", {}))[1]} - given.keys()
    space: dict[str, Range | Sequence[Any]] = dict(cls.search_space) | dict(given)
    if cls.search_space:
        space |= {name: (False, True) for name in fields if hints[name] is bool and name not in space}
    knobs = [
        _knob(name, space[name], hints[name], config)
        for name in fields
        if name in space and name not in fixed
    ]
    unknown = [name for name in fields if name not in space and name not in fixed]
    if not knobs:
        raise TuningError(_nothing(tracker, fields, unknown))
    return knobs, unknown


def _require_known(
    tracker: str, cls: type[Tracker[Any]], fields: Sequence[str], given: Iterable[str]
) -> None:
    for name in given:
        if name not in fields:
            known = ", ".join(fields) or "none"
            raise TuningError(
                f"{PREFIX}{name} is no association field of tracker={tracker} (there are {known}): another "
                "value may ask for other queries, or another training"
            )


def _nothing(tracker: str, fields: Sequence[str], unknown: Sequence[str]) -> str:
    if unknown:
        return (
            f"tracker={tracker} has no ranges for {', '.join(unknown)}; say some, e.g. "
            f"--range {PREFIX}{unknown[0]}=0..1 or --choices {PREFIX}{unknown[0]}=A,B"
        )
    if fields:
        all_of = ", ".join(fields)
        return f"tracker={tracker}: {all_of} are said, or make the ablation, so nothing is left to tune"
    return (
        f"tracker={tracker} has no association_fields, so there is nothing to tune without another training"
    )


def _knob(name: str, values: Range | Sequence[Any], hint: Any, config: Any) -> Knob:
    key, default = f"{PREFIX}{name}", getattr(config, name)
    kinds = {hint, *get_args(hint)}
    if isinstance(values, Range):
        if not kinds & {int, float}:
            raise TuningError(f"{key} is no number, expected --choices {key}=A,B")
        knob = Knob(name, values, float not in kinds, default)
        if knob.whole and knob.count < 2:
            raise TuningError(f"{key}={knob}: expected two whole numbers at least")
        return knob
    try:
        chosen = tuple(cast(hint, value, key) for value in values)
    except ConfigError as error:
        raise TuningError(str(error)) from error
    if len(set(map(repr, chosen))) < max(2, len(chosen)):
        raise TuningError(
            f"{key}: found {', '.join(map(said, chosen))}, expected two different values at least"
        )
    return Knob(name, chosen, False, default)


def read_range(text: str) -> tuple[str, Range]:
    """``tracker.NAME=LOW..HIGH``, or ``..,log``: field and range.

    Raises:
        TuningError: it reads otherwise.
    """
    name, values = _named(text, "LOW..HIGH")
    ends, comma, scale = values.partition(",")
    low, dots, high = ends.partition("..")
    try:
        if not dots or (comma and scale != "log"):
            raise ValueError("expected LOW..HIGH, or LOW..HIGH,log")
        return name, Range(float(low), float(high), log=bool(comma))
    except ValueError as error:
        raise TuningError(f"--range {text}: {error}") from error


def read_choices(text: str) -> tuple[str, tuple[Any, ...]]:
    """``tracker.NAME=A,B,..``: field and values, as words have them.

    Raises:
        TuningError: it reads otherwise.
    """
    name, values = _named(text, "A,B")
    try:
        found = parse_word(f"{name}=[{values}]").value()
    except ConfigError as error:
        raise TuningError(f"--choices {text}: {error}") from error
    assert isinstance(found, list)
    return name, tuple(map(to_tree, found))


def _named(text: str, expected: str) -> tuple[str, str]:
    key, equals, values = text.partition("=")
    if not key.startswith(PREFIX) or not equals:
        raise TuningError(f"found {text!r}, expected {PREFIX}NAME={expected}")
    return key.removeprefix(PREFIX), values


def said(value: Any) -> str:
    """A value as a word has it."""
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    return str(value)


def words(values: Mapping[str, Any]) -> list[str]:
    """Values of fields, to be said again."""
    return [f"{PREFIX}{name}={said(value)}" for name, value in values.items()]

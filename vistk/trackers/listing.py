"""``vistk trackers``: names, where they come from, and their knobs."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import fields
from inspect import formatannotation
from typing import Any, get_type_hints

from vistk.schema import to_tree
from vistk.trackers.contract import ContractError, check_tracker
from vistk.trackers.registry import get_tracker, origin, tracker_names


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Names are optional: none stands for all."""
    parser.add_argument("names", nargs="*", metavar="NAME", help="these alone; also module:Class")
    parser.add_argument("--check", action="store_true", help="do they keep the contract of all trackers?")


def run(arguments: argparse.Namespace) -> int:
    """Print a paragraph a tracker; returns the exit code, 1 if a tracker breaks the contract.

    Raises:
        vistk.trackers.registry.TrackerNameError: no tracker has that name.
    """
    broken = False
    for i, name in enumerate(arguments.names or tracker_names()):
        try:
            lines = list(paragraph(name))
            if arguments.check:
                found = breach(name)
                lines.append(f"  breaks the contract: {found}" if found else "  keeps the contract")
                broken |= found is not None
        except Exception as error:  # of another package, whatever it is: the others are to be listed
            if arguments.names:
                raise
            broken |= arguments.check
            lines = [f"{name} ({origin(name)})", f"  cannot be loaded: {type(error).__name__}: {error}"]
        print(*([""] if i else []), *lines, sep="\n")
    return int(broken)


def breach(name: str) -> str | None:
    """How a tracker with the fields of its name breaks the contract, or ``None``."""
    try:
        check_tracker(name)
    except Exception as error:  # of the tracker itself, too, which the checks pass on
        kind = "" if isinstance(error, ContractError) else f"{type(error).__name__}: "
        return "\n  ".join([f"{kind}{error}", *getattr(error, "__notes__", [])])
    return None


def paragraph(name: str) -> Iterator[str]:
    """Name, origin, what it is, and a line a knob: ``tracker.<key>=<value>`` and its type.

    The ablation of a tracker has the values in which it differs, and the knobs are those of the tracker.
    """
    cls, config = get_tracker(name)
    yield f"{name} ({origin(name) if ':' not in name else name.partition(':')[0]})"
    if cls.__doc__:
        yield f"  {cls.__doc__.strip().partition(chr(10))[0]}"
    hints = get_type_hints(type(config))
    published = cls.Config()
    knobs = [field for field in fields(config) if field.init]
    changed = [f for f in knobs if getattr(config, f.name) != getattr(published, f.name)]
    if changed:
        knobs = changed
    words = [f"tracker.{field.name}={_word(getattr(config, field.name))}" for field in knobs]
    width = max(map(len, words), default=0)
    for field, word in zip(knobs, words, strict=True):
        yield f"  {word:<{width}}  {formatannotation(hints[field.name])}"


def _word(value: Any) -> str:
    """A value as the command line takes it."""
    tree = to_tree(value)
    if tree is None or isinstance(tree, bool):
        return {None: "null", True: "true", False: "false"}[tree]
    if isinstance(tree, list):
        return f"[{','.join(map(_word, tree))}]"
    return str(tree)

"""Dataclasses as schemas: to plain trees of lists and dicts, and back with every value checked.

The values of a configuration come from a command line or a yaml file, the types from the annotations
of a dataclass. YAML reads ``1e-4`` as text and ``no`` as a boolean, tuples come back as lists, and
frozen dataclasses and ``Literal`` want no special care of their owners; :func:`cast` settles all of
that in one place and says what is wrong in one sentence.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import math
import types
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

MISSING = "???"
"""Stands in a tree for a field without a default (the mark that OmegaConf uses)."""

_YAML_WORDS = {True: ("yes", "on", "true"), False: ("no", "off", "false")}


class ConfigError(ValueError):
    """A configuration that cannot be used. The message is one sentence; ``key`` is the dotted field."""

    def __init__(self, message: str, key: str = "") -> None:
        super().__init__(message)
        self.key = key


def require_at_least(owner: str, config: Any, **minima: float) -> None:
    """For ``__post_init__``: fields that must not be below a number, and are finite.

    Raises:
        ConfigError: names the key, what was found and what was expected.
    """
    for name, minimum in minima.items():
        value = getattr(config, name)
        if not minimum <= value < math.inf:  # NaN too
            expected = "a finite number" if value == math.inf else f"{minimum} or more"
            raise ConfigError(f"{owner}.{name} is {value}, expected {expected}", join(owner, name))


def is_schema(value: Any) -> bool:
    """Whether ``value`` is a dataclass or an instance of one."""
    return dataclasses.is_dataclass(value)


def join(prefix: str, name: str) -> str:
    """``"tracker", "weight"`` to ``"tracker.weight"``; no dot after an empty prefix."""
    return f"{prefix}.{name}" if prefix else name


def to_tree(value: Any) -> Any:
    """A dataclass (its defaults) or an instance as dicts, lists and scalars, ready for yaml or json.

    Fields of a class without a default become :data:`MISSING`.
    """
    if isinstance(value, type) and is_schema(value):
        return {f.name: to_tree(_default(f)) for f in dataclasses.fields(value) if f.init}
    if is_schema(value):
        return {f.name: to_tree(getattr(value, f.name)) for f in dataclasses.fields(value) if f.init}
    if isinstance(value, Mapping):
        return {str(key): to_tree(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_tree(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    return value


def leaves(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys and values of the fields that are not themselves dataclasses."""
    for f in dataclasses.fields(value):
        if f.init:
            item = _default(f) if isinstance(value, type) else getattr(value, f.name)
            if is_schema(item):
                yield from leaves(item, join(prefix, f.name))
            else:
                yield join(prefix, f.name), item


def _default(f: dataclasses.Field[Any]) -> Any:
    if f.default is not dataclasses.MISSING:
        return f.default
    return MISSING if f.default_factory is dataclasses.MISSING else f.default_factory()


def cast(annotation: Any, value: Any, key: str = "") -> Any:
    """``value``, a plain tree, as an instance of ``annotation``.

    Args:
        annotation: a dataclass, ``bool``, ``int``, ``float``, ``str``, ``Path``, ``Literal``, unions of
            these, and ``list``, ``tuple``, ``dict`` (or ``Sequence``, ``Mapping``) of these; ``Any``.
        key: dotted name of the value, for the messages.

    Raises:
        ConfigError: the value does not fit, a field is unknown or missing, or ``__post_init__`` refused.
    """
    if value == MISSING and isinstance(value, str):
        raise ConfigError(f"{key} has no default; say {key}=...", key)
    if isinstance(annotation, type) and is_schema(annotation):
        return _cast_dataclass(annotation, value, key)
    if isinstance(value, str) and "${" in value:
        raise ConfigError(f"{key}: interpolation is not used here, found {value!r}; write the value", key)
    origin, args = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType):
        return _cast_union(annotation, args, value, key)
    if origin is Literal:
        return _cast_literal(args, value, key)
    if origin is tuple or annotation is tuple:
        return _cast_tuple(annotation, args or (Any, ...), value, key)
    if (origin or annotation) in (list, collections.abc.Sequence):
        items = _expect_list(annotation, value, key)
        item_type = args[0] if args else Any
        return [cast(item_type, item, f"{key}[{i}]") for i, item in enumerate(items)]
    if (origin or annotation) in (dict, collections.abc.Mapping):
        if not isinstance(value, Mapping):
            raise _mismatch(annotation, value, key)
        key_type, item_type = args or (Any, Any)
        return {cast(key_type, k, key): cast(item_type, v, join(key, str(k))) for k, v in value.items()}
    return _cast_scalar(annotation, value, key)


def _cast_dataclass(cls: type, value: Any, key: str) -> Any:
    if isinstance(value, cls):
        return value
    fields = {f.name: f for f in dataclasses.fields(cls) if f.init}
    if not isinstance(value, Mapping):
        found = _show(value)
        raise ConfigError(f"{key}: expected the keys {', '.join(fields)}, found {found}", key)
    for name in value:
        if name not in fields:
            full = join(key, str(name))
            raise ConfigError(f"unknown key {full!r}; known there: {', '.join(fields)}", full)
    hints = get_type_hints(cls)
    values = {}
    for name, f in fields.items():
        item = value[name] if name in value else _default(f)
        # A field annotated by a base class or Any keeps the dataclass of its default.
        default = None if hints[name] in (bool, int, float, str) else _default(f)
        hint = type(default) if is_schema(default) and not isinstance(default, type) else hints[name]
        values[name] = cast(hint, item, join(key, name))
    try:
        return cls(**values)
    except ConfigError:
        raise
    except ValueError as error:
        message = str(error)
        raise ConfigError(message if not key or key in message else f"{key}: {message}", key) from error


def _cast_union(annotation: Any, args: tuple[Any, ...], value: Any, key: str) -> Any:
    if value is None:
        if type(None) in args:
            return None
        raise _mismatch(annotation, value, key)
    options = [arg for arg in args if arg is not type(None)]
    if len(options) == 1:  # X | None: the message of X says more than that of the union
        return cast(options[0], value, key)
    for option in options:  # an exact fit before any conversion: 3 stays an int in ``float | int``
        if isinstance(option, type) and type(value) is option:
            return value
    for option in options:
        try:
            return cast(option, value, key)
        except ConfigError:
            continue
    raise _mismatch(annotation, value, key)


def _cast_literal(options: tuple[Any, ...], value: Any, key: str) -> Any:
    for option in options:
        if type(option) is type(value) and option == value:
            return option
    if isinstance(value, bool):  # yaml's reading of a bare yes, no, on, off
        for word in _YAML_WORDS[value]:
            if word in options:
                return word
    raise ConfigError(f"{key}: expected one of {', '.join(map(str, options))}, found {_show(value)}", key)


def _expect_list(annotation: Any, value: Any, key: str) -> Sequence[Any]:
    if isinstance(value, (list, tuple)):
        return value
    raise _mismatch(annotation, value, key)


def _cast_tuple(annotation: Any, args: tuple[Any, ...], value: Any, key: str) -> tuple[Any, ...]:
    items = _expect_list(annotation, value, key)
    if len(args) == 2 and args[1] is Ellipsis:
        return tuple(cast(args[0], item, f"{key}[{i}]") for i, item in enumerate(items))
    if len(items) != len(args):
        raise ConfigError(f"{key}: expected {len(args)} values, found {len(items)}: {_show(value)}", key)
    pairs = enumerate(zip(args, items, strict=True))
    return tuple(cast(arg, item, f"{key}[{i}]") for i, (arg, item) in pairs)


def _cast_scalar(annotation: Any, value: Any, key: str) -> Any:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if annotation is Any or (annotation in (None, type(None)) and value is None):
        return value
    if annotation is bool and isinstance(value, bool):
        return value
    if annotation is int and number and float(value).is_integer():  # 1e4 steps
        return int(value)
    if annotation is float and number:
        return float(value)
    if annotation is float and isinstance(value, str):  # YAML 1.1 takes 1e-4 for text
        try:
            return float(value)
        except ValueError:
            raise _mismatch(annotation, value, key) from None
    if annotation in (str, Path):
        if isinstance(value, (str, Path)) or (number and isinstance(value, int)):
            return annotation(str(value))
        if isinstance(value, (bool, float)):
            raise ConfigError(f"{key}: expected text, found {_show(value)}; write it in quotes", key)
    raise _mismatch(annotation, value, key)


def _mismatch(annotation: Any, value: Any, key: str) -> ConfigError:
    return ConfigError(f"{key}: expected {describe(annotation)}, found {_show(value)}", key)


def _show(value: Any) -> str:
    return "null" if value is None else repr(value)


def describe(annotation: Any) -> str:
    """An annotation in words: ``float | None`` is "a number or null"."""
    origin, args = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType):
        return " or ".join(describe(arg) for arg in args)
    if origin is Literal:
        return "one of " + ", ".join(map(str, args))
    if origin is tuple and Ellipsis not in args:
        return f"a list of {len(args)} values"
    if origin in (list, tuple, collections.abc.Sequence):
        return "a list"
    if origin in (dict, collections.abc.Mapping):
        return "a dict"
    names = {bool: "true or false", int: "a whole number", float: "a number", str: "text", Path: "a path"}
    names |= {type(None): "null", list: "a list", tuple: "a list", dict: "a dict"}
    return names.get(annotation, getattr(annotation, "__name__", str(annotation)))

"""Plain values to annotated types."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Optional, Union

import pytest

from vistk.schema import MISSING, ConfigError, cast, describe, leaves, to_tree


@dataclass
class Base:
    size: int = 1


@dataclass
class Derived(Base):
    extra: float = 2.0


@dataclass(frozen=True)
class Outer:
    name: str
    part: Base = field(default_factory=Derived)
    pairs: tuple[tuple[int, float], ...] = ((1, 0.5),)
    path: Path = Path("a/b")
    hidden: int = field(default=0, init=False)


@pytest.mark.parametrize(
    ("annotation", "value", "expected"),
    [
        (float | str, "1e-4", "1e-4"),  # an exact fit comes before a conversion
        (float | None, "1e-4", 1e-4),
        (Union[int, float], 2.5, 2.5),  # noqa: UP007
        (Union[int, float], 2.0, 2.0),  # noqa: UP007
        (Optional[int], None, None),  # noqa: UP045
        (int | list[int], [1, 2], [1, 2]),
        (Literal[1, "all"], "all", "all"),
        (Literal["on", "off"], False, "off"),
        (Literal["no", None], None, None),
        (float, "inf", float("inf")),
        (float, ".5", 0.5),
        (bool, False, False),
        (Path, "x/y", Path("x/y")),
        (str, 7, "7"),
        (Any, {"a": [1]}, {"a": [1]}),
        (Sequence[float], (1, 2), [1.0, 2.0]),
        (list, ["a", 1], ["a", 1]),
        (Mapping[str, int], {"a": 1.0}, {"a": 1}),
        (tuple[int, ...], [], ()),
        (Base, {}, Base()),
    ],
)
def test_cast(annotation: Any, value: Any, expected: Any) -> None:
    result = cast(annotation, value, "key")
    assert result == expected
    assert type(result) is type(expected)


@pytest.mark.parametrize(
    ("annotation", "value", "message"),
    [
        (int | float, "x", "key: expected a whole number or a number, found 'x'"),
        (float | None, True, "key: expected a number, found True"),
        (Literal[1], True, "key: expected one of 1, found True"),
        (int, float("inf"), "key: expected a whole number, found inf"),
        (int, float("nan"), "key: expected a whole number, found nan"),
        (str, None, "key: expected text, found null"),
        (dict[str, int], [1], "key: expected a dict, found [1]"),
        (dict[str, int], {"a": "x"}, "key.a: expected a whole number, found 'x'"),
        (tuple[int, int], 3, "key: expected a list of 2 values, found 3"),
        (Outer, {}, "key.name has no default; say key.name=..."),
        (Outer, {"name": "a", "hidden": 3}, "unknown key 'key.hidden'; known there: name, part, pairs, path"),
    ],
)
def test_refusals(annotation: Any, value: Any, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        cast(annotation, value, "key")
    assert str(caught.value) == message
    assert caught.value.key.startswith("key")


def test_tree_and_back() -> None:
    outer = Outer("a", Derived(3, 4.0), ((2, 1.0), (3, 0.0)), Path("c"))
    tree = to_tree(outer)
    expected = {"name": "a", "part": {"size": 3, "extra": 4.0}, "pairs": [[2, 1.0], [3, 0.0]], "path": "c"}
    assert tree == expected
    assert cast(Outer, tree) == outer  # the part keeps the class of its default


def test_tree_of_a_class_marks_what_must_be_said() -> None:
    assert to_tree(Outer)["name"] == MISSING
    assert dict(leaves(Outer))["part.extra"] == 2.0


def test_descriptions() -> None:
    assert describe(float | None) == "a number or null"
    assert describe(Literal["a", "b"]) == "one of a, b"
    assert describe(list[int]) == describe(Sequence[int]) == "a list"

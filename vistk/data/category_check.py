"""Whether a file is of the published data set that it is taken for."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice

from vistk.data.categories import TABLES
from vistk.data.ytvis import YTVIS, DataError


def check_categories(source: YTVIS, expected: str) -> None:
    """Check that a file has the categories of a published data set, ids and names.

    Names may differ in case, ``_``, ``-`` and spaces.

    Args:
        expected: a key of :data:`vistk.data.categories.TABLES`.

    Raises:
        DataError: it has not; says how its categories differ, and which data set they are from.
    """
    if same_categories(source.categories, TABLES[expected]):
        return
    found = _names(source.categories)
    exact = [name for name, other in TABLES.items() if _names(other) == found]
    if exact:
        raise DataError(
            f"{source.json_path} has the categories of {' and '.join(exact)} "
            f"({_first(source.categories)}), data={expected} expects {_first(TABLES[expected])}; "
            f"say {' or '.join(f'data={name}' for name in exact)}"
        )
    closest = max(TABLES, key=lambda name: (_shared(found, name), name == expected))
    likeness = "" if closest == expected else f" (they are closest to those of {closest})"
    raise DataError(
        f"{source.json_path} has other categories than data={expected} expects: "
        f"{_difference(source.categories, TABLES[expected])}{likeness}; for data of your own say data=ytvis"
    )


def same_categories(first: Mapping[int, str], second: Mapping[int, str]) -> bool:
    """Whether ids and names are equal; names may differ in case, ``_``, ``-`` and spaces."""
    return _names(first) == _names(second)


def _plain(name: str) -> str:
    return name.lower().replace("_", "").replace("-", "").replace(" ", "")


def _names(categories: Mapping[int, str]) -> dict[int, str]:
    return {identity: _plain(name) for identity, name in categories.items()}


def _shared(found: Mapping[int, str], name: str) -> int:
    """How many names a table has in common with what was found."""
    return len(set(found.values()) & set(_names(TABLES[name]).values()))


def _first(categories: Mapping[int, str], count: int = 3) -> str:
    """The first categories in words."""
    text = ", ".join(f"{identity} = {name}" for identity, name in islice(categories.items(), count))
    return text + (", .." if len(categories) > count else "")


def _difference(categories: Mapping[int, str], table: Mapping[int, str]) -> str:
    """How the categories of a file differ from a table, in words."""
    by_name = {_plain(name): identity for identity, name in table.items()}
    known = {identity: name for identity, name in categories.items() if _plain(name) in by_name}
    moved = {identity: name for identity, name in known.items() if by_name[_plain(name)] != identity}
    present = set(_names(known).values())
    lacking = {identity: name for identity, name in table.items() if _plain(name) not in present}
    more = {identity: name for identity, name in categories.items() if identity not in known}
    parts = []
    if moved:
        identity, name = next(iter(moved.items()))
        parts.append(
            f"{len(moved)} of the {len(table)} names have another id ({identity} = {name}, expected "
            f"{by_name[_plain(name)]})"
        )
    if lacking:
        parts.append(f"{len(lacking)} of the {len(table)} are missing ({_first(lacking)})")
    if more:
        parts.append(f"{len(more)} are not among them ({_first(more)})")
    return ", ".join(parts) or "names are given twice"

"""What is asked for by a name, and what to say where there is no such thing."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

NOBODY = -1
"""In place of a number: no track, no instance."""


class InspectionError(ValueError):
    """What was asked for is not in the run; the message names what is nearest."""


def require_known(kind: str, name: str, known: Iterable[str], where: str) -> None:
    """
    Raises:
        InspectionError: with what is nearest, and all that there is if that is little.
    """
    names = list(known)
    if name in names:
        return
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.0)
    said = f", nearest is {near[0]!r}" if near else ""
    listed = f"; there are {', '.join(names)}" if 0 < len(names) <= 12 else ""
    raise InspectionError(f"{where}: no {kind} {name!r}{said}{listed}")

"""Video instance segmentation research: one segmenter, interchangeable trackers, one evaluator.

What most programs need is here; everything is imported when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vistk.engine.predict import predict
    from vistk.engine.stream import Stream, StreamError, push_together
    from vistk.engine.supervision import from_supervision, to_supervision
    from vistk.published import load_published

__all__ = [
    "Stream",
    "StreamError",
    "from_supervision",
    "load_published",
    "predict",
    "push_together",
    "to_supervision",
]

_HOMES = {
    "Stream": "vistk.engine.stream",
    "StreamError": "vistk.engine.stream",
    "from_supervision": "vistk.engine.supervision",
    "load_published": "vistk.published",
    "predict": "vistk.engine.predict",
    "push_together": "vistk.engine.stream",
    "to_supervision": "vistk.engine.supervision",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'vistk' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])

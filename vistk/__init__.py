"""Video instance segmentation research: one segmenter, interchangeable trackers, one evaluator.

What most programs need is here; everything is imported when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vistk.engine.predict import predict
    from vistk.published import load_published

__all__ = ["load_published", "predict"]

_HOMES = {"predict": "vistk.engine.predict", "load_published": "vistk.published"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'vistk' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])

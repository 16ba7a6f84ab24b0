"""Scores of results files: :func:`evaluate`, imported when it is first asked for."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vistk.evaluation.ap_options import APOptions
    from vistk.evaluation.report import Report, evaluate
    from vistk.evaluation.subjects import DataSet

__all__ = ["APOptions", "DataSet", "Report", "evaluate"]

_PLACES = {"APOptions": "ap_options", "DataSet": "subjects", "Report": "report", "evaluate": "report"}


def __getattr__(name: str) -> Any:
    if name in _PLACES:
        return getattr(import_module(f"vistk.evaluation.{_PLACES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

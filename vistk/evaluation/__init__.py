"""Scores of results files: :func:`evaluate`, imported when it is first asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vistk.evaluation.report import Report, evaluate

__all__ = ["Report", "evaluate"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from vistk.evaluation import report

        return getattr(report, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

"""Comparison tables: one row a tracker, one column a metric on a split, one card below.

Metrics are fractions (0..1) everywhere but in print, where they are percent with one decimal.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from vistk.evaluation.printing import latex_table, markdown_table, percent
from vistk.files import write_text

METRICS = ("AP", "AP50", "AP75", "AR1", "AR10", "AssA", "IDF1")
QUOTED = " (quoted)"
"""Ends the row name of numbers that were published, not measured here."""

CARD_FIELDS = (
    "seeds",
    "kept predictions",
    "test size",
    "score threshold",
    "commit",
    "config hash",
    "weights hash",
    "device",
    "frames/s",
    "peak memory",
)

Metrics = Mapping[str, Any]
"""``{"AP": 0.36, ..}``; other keys are not looked at, a missing one or ``None`` is undefined."""


def comparison_table(
    measured: Mapping[str, Mapping[str, Metrics | Sequence[Metrics]]],
    quoted: Mapping[str, Mapping[str, Metrics]] | None = None,
    metrics: Sequence[str] = METRICS,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The means and, where a cell has several runs, the standard deviations of a comparison.

    Args:
        measured: ``{tracker: {split: metrics}}``; a list of metrics holds one entry a seed.
        quoted: published numbers in the same form, also 0..1; their rows come last and end in
            :data:`QUOTED`.
        metrics: columns of each split.

    Returns:
        Two frames of one row a tracker and ``(split, metric)`` columns: means, and sample standard
        deviations over seeds (NaN for fewer than two). NaN where undefined in any of the runs.

    Raises:
        ValueError: a metric is above 1, as percentages are.
    """
    rows = dict(measured) | {name + QUOTED: splits for name, splits in (quoted or {}).items()}
    splits = list(dict.fromkeys(split for row in rows.values() for split in row))
    columns = pd.MultiIndex.from_product([splits, metrics], names=["split", "metric"])
    mean = pd.DataFrame(np.nan, index=pd.Index(list(rows), name="tracker", dtype=object), columns=columns)
    spread = mean.copy()
    for tracker, row in rows.items():
        for split, cell in row.items():
            runs = [cell] if isinstance(cell, Mapping) else list(cell)
            for metric in metrics:
                values = np.array([_fraction(run.get(metric), tracker, split, metric) for run in runs])
                if len(values):
                    mean.loc[tracker, (split, metric)] = values.mean()
                if len(values) > 1:
                    spread.loc[tracker, (split, metric)] = values.std(ddof=1)
    return mean, spread


def _fraction(value: float | None, tracker: str, split: str, metric: str) -> float:
    if value is None:
        return math.nan
    if value > 1:
        raise ValueError(
            f"{tracker}, {split}, {metric}: found {value}, expected a fraction (0..1), not percent"
        )
    return float(value)


def ordered_card(values: Mapping[str, Any]) -> dict[str, Any]:
    """The card of a table: :data:`CARD_FIELDS` first and in their order, None where not given."""
    return {name: values.get(name) for name in CARD_FIELDS} | {
        name: value for name, value in values.items() if name not in CARD_FIELDS
    }


def to_markdown(frame: pd.DataFrame, card: Mapping[str, Any], spread: pd.DataFrame | None = None) -> str:
    """A GitHub table in percent for each split, which its corner names; the card as a list below."""
    printed = printed_cells(frame, spread)
    blocks = []
    for split in frame.columns.unique(0):
        part = printed[split]
        rows = [[str(name), *row] for name, row in zip(part.index, part.to_numpy().tolist(), strict=True)]
        blocks.append(markdown_table([str(split), *map(str, part.columns)], rows, left=1))
    blocks.append("\n".join(f"- {line}" for line in _card_lines(card)))
    return "\n\n".join(blocks) + "\n"


def to_latex(frame: pd.DataFrame, card: Mapping[str, Any], spread: pd.DataFrame | None = None) -> str:
    """A booktabs table in percent with the splits side by side, the card as comments below."""
    printed = printed_cells(frame, spread)
    rows = [[str(name), *row] for name, row in zip(printed.index, printed.to_numpy().tolist(), strict=True)]
    metrics = [str(metric) for metric in frame.columns.get_level_values(1)]
    splits = [(str(split), frame[split].shape[1]) for split in frame.columns.unique(0)]
    table = latex_table(["", *metrics], rows, above=splits)
    return "\n".join([table, *(f"% {line}" for line in _card_lines(card))]) + "\n"


def printed_cells(frame: pd.DataFrame, spread: pd.DataFrame | None = None) -> pd.DataFrame:
    """The cells as text: ``36.2``, ``36.2 ± 0.4`` with a spread, ``-`` where undefined."""
    text = frame.map(percent)
    if spread is None:
        return text
    suffix = spread.map(lambda value: "" if math.isnan(value) else f" ± {100 * value:.1f}")
    return text + suffix.where(frame.notna(), "")


def write_table(
    frame: pd.DataFrame,
    card: Mapping[str, Any],
    directory: str | Path,
    name: str = "table",
    spread: pd.DataFrame | None = None,
) -> list[Path]:
    """Writes ``name`` as ``.md`` and ``.tex`` (percent, card below), ``.csv`` and ``.json`` (fractions in
    full precision; the json with the card). Each file is whole or absent; returns their paths.
    """
    card = ordered_card(card)
    rows = {
        str(tracker): {
            split: {metric: _json_value(row[split, metric]) for metric in frame[split].columns}
            for split in frame.columns.unique(0)
        }
        for tracker, row in frame.iterrows()
    }
    content = json.dumps({"rows": rows, "card": card}, indent=2, allow_nan=False, default=str) + "\n"
    flat = frame.set_axis([" ".join(map(str, column)) for column in frame.columns], axis=1)
    directory = Path(directory)
    texts = {
        "md": to_markdown(frame, card, spread),
        "csv": flat.to_csv(),
        "tex": to_latex(frame, card, spread),
        "json": content,
    }
    return [write_text(directory / f"{name}.{suffix}", text) for suffix, text in texts.items()]


def _card_lines(card: Mapping[str, Any]) -> list[str]:
    return [f"{name}: {'-' if value is None else value}" for name, value in card.items()]


def _json_value(value: float) -> float | None:
    return None if math.isnan(value) else float(value)

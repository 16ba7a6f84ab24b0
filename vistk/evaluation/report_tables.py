"""The tables of a report, made of its frame."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from vistk.evaluation.breakdowns import ATTRIBUTES
from vistk.evaluation.explained import BY_ERROR, BY_EVENT, BY_ORACLE
from vistk.evaluation.hota import COUNTS
from vistk.evaluation.number_table import MEASURED
from vistk.evaluation.printing import Table, percent, plural
from vistk.evaluation.side_by_side import distinct, side_by_side

TRACKING = ("HOTA", "DetA", "AssA", "LocA", "IDF1", "IDP", "IDR", "MOTA", "MOTP")
SIDE_BY_SIDE = ("AP", "AP50", "AP75", "AR1", "AR10", "HOTA", "AssA", "IDF1")
FEW = ("AP", "AssA", "IDF1")  # where more than two data sets and splits stand side by side
OF_CLASSES = ("AP", "AP50", "AR10", "HOTA", "AssA", "IDF1")
COMPARED = ("AP", "AP50", "AP75", "HOTA", "DetA", "AssA", "IDF1")
VERDICTS = ("AP", "HOTA")
COUNTED = (*COUNTS, "instances", "errors", "events")
_ROUNDING = 1e-9  # percent: what sums of floats may differ by, which is nobody's win


def report_tables(frame: pd.DataFrame, differences: pd.DataFrame, card: Mapping[str, Any]) -> list[Table]:
    """All tables of a report's frame: data sets and splits side by side, then one after the other."""
    places = distinct(frame, ["data_set", "split"])
    out = [] if len(places) == 1 else list(_side_by_side(frame, differences, len(places)))
    for data_set, split in places:
        own = frame[(frame["data_set"] == data_set) & (frame["split"] == split)]
        compared = differences[(differences["data_set"] == data_set) & (differences["split"] == split)]
        tables = [*_overall(own), *_explained(own), *_groups(own), *_classes(own)]
        tables += _differences(compared, card)
        place = f"{data_set} {split}".strip()
        out += [replace(table, title=f"{place}: {table.title}") for table in tables]
    return [*out, Table("", (), (), note=_reading(card))]


def _side_by_side(frame: pd.DataFrame, differences: pd.DataFrame, num_places: int) -> Iterator[Table]:
    metrics = SIDE_BY_SIDE if num_places < 3 else FEW
    yield side_by_side(_whole(frame), metrics, _one_cell, title="side by side", note=_at_thresholds(frame))
    compared = _whole(differences)
    if len(compared) and compared["baseline"].nunique() == 1:
        title = f"side by side: difference to {compared['baseline'].iloc[0]}"
        yield side_by_side(compared, metrics, partial(_one_cell, signed=True), title=title)


def _whole(frame: pd.DataFrame) -> pd.DataFrame:
    """Numbers of whole data sets, at the first score threshold."""
    return _first_threshold(frame[(frame["class"] == "all") & (frame["by"] == "all")])


def _one_cell(rows: pd.DataFrame, signed: bool = False) -> str:
    return "-" if rows.empty else _cell(next(rows.itertuples()), signed)


def _at_thresholds(frame: pd.DataFrame) -> str:
    thresholds = frame["score_threshold"].dropna()
    return f"HOTA, AssA, IDF1 at score ≥ {thresholds.iloc[0]:g}." if len(thresholds) else ""


def _overall(frame: pd.DataFrame) -> Iterator[Table]:
    whole = frame[(frame["class"] == "all") & (frame["by"] == "all")]
    rows = whole[whole["score_threshold"].isna()]
    if len(rows):
        names = [name for (name,) in distinct(rows, ["metric"])]
        yield side_by_side(rows, names, _one_cell, title="AP and AR")
    names = _ordered(whole["metric"], (*TRACKING, *COUNTS))
    if names:
        rows = whole[whole["score_threshold"].notna()]
        pairs = distinct(rows, ["results", "score_threshold"])
        order = {name: at for at, (name,) in enumerate(distinct(rows, ["results"]))}
        lines = [
            [name, f"{threshold:g}", *cells(_at(rows[rows["results"] == name], threshold), names)]
            for name, threshold in sorted(pairs, key=lambda pair: (order[pair[0]], pair[1]))
        ]
        first = rows["score_threshold"].iloc[0]
        note = f"All else is at score ≥ {first:g}." if rows["score_threshold"].nunique() > 1 else ""
        yield Table("tracking", ["results", "score ≥", *names], lines, note=note)


def _explained(frame: pd.DataFrame) -> Iterator[Table]:
    """Errors, identity events and oracle gaps of the whole file."""
    whole = frame[frame["class"] == "all"]
    results = [name for (name,) in distinct(whole[whole["source"] == MEASURED], ["results"])]
    notes = {
        BY_ERROR: "dAP: what mending all errors of a kind would add to AP50; they do not add up.",
        BY_EVENT: "Changes of the track that covers an instance, by cause.",
        BY_ORACLE: "What AP lacks, put right step by step: identities, then classes, then masks; missing is "
        "what nobody saw. AP = 100 - association - classification - mask - missing.",
    }
    titles = {BY_ERROR: "errors", BY_EVENT: "identity events", BY_ORACLE: "gaps to an oracle, in AP"}
    for by, metrics in {BY_ERROR: ("dAP", "errors"), BY_EVENT: ("events",), BY_ORACLE: ("AP gap",)}.items():
        own = whole[whole["by"] == by]
        if own.empty:
            continue
        header = [by, *_headings(results, metrics)]
        note, thresholds = notes[by], own["score_threshold"].dropna()
        if len(thresholds):
            note += f" At score ≥ {thresholds.iloc[0]:g}."
        lines = []
        for (group,) in distinct(own, ["group"]):
            rows = own[own["group"] == group]
            if by != BY_EVENT or rows["value"].any():
                lines.append(
                    [group, *(cell for r in results for cell in cells(rows[rows["results"] == r], metrics))]
                )
        if not lines:
            header, note = [], f"None. {note}"
        yield Table(titles[by], header, lines, note=note)


def _reading(card: Mapping[str, Any]) -> str:
    """How to read the tables."""
    lines = ["Percent."]
    for own in card["data sets"]:
        place = f"{own['data_set']} {own['split']}".strip() + ": " if len(card["data sets"]) > 1 else ""
        predictions = ", ".join(f"{count} ({name})" for name, count in own["predictions"].items())
        there = f"{plural(own['videos'], 'video')}, {plural(own['instances'], 'instance')}"
        lines.append(f"{place}{there}; predictions: {predictions}.")
        for name, reasons in own["skipped"].items():
            text = ", ".join(f"{reason}: {count}" for reason, count in reasons.items())
            lines.append(f"Left out of {name}: {text}.")
        lines += own["notes"]
    lines.append(
        "Tracking metrics count the predictions with at least the score named, pooled over classes; AP has "
        "all."
    )
    if card["options"]:
        lines.append(f"Not as officially: {card['options']}.")
    if card["intervals"]:
        lines.append(f"± is half of an interval ({card['intervals']}).")
    return " ".join(lines)


def _groups(frame: pd.DataFrame) -> Iterator[Table]:
    for (by,) in distinct(frame[frame["by"].isin(ATTRIBUTES)], ["by"]):
        own = frame[frame["by"] == by]
        names = [name for (name,) in distinct(own, ["metric"])]
        lines = []
        groups, results = (distinct(own, [column]) for column in ("group", "results"))
        for (group,), (name,) in itertools.product(groups, results):
            rows = own[(own["group"] == group) & (own["results"] == name)]
            if (rows.loc[rows["metric"] == "instances", "value"] > 0).any():
                lines.append([group, name, *cells(rows, names)])
        if not lines:  # crowds alone
            continue
        threshold = own["score_threshold"].max()
        note = "" if math.isnan(threshold) else f"AssA and DetRe at score ≥ {threshold:g}. "
        note += "Instances outside a group are ignored in its AP."
        yield Table(f"by {by} ({ATTRIBUTES[by].what})", [by, "results", *names], lines, left=2, note=note)


def _classes(frame: pd.DataFrame) -> Iterator[Table]:
    own = frame[(frame["class"] != "all") & (frame["by"] == "all")]
    if own["class"].nunique() < 2:  # one is what the whole is
        return
    own = _first_threshold(own)
    results = [name for (name,) in distinct(own, ["results"])]
    metrics = OF_CLASSES if len(results) == 1 else ("AP", "AssA")
    names = _ordered(own["metric"], metrics)
    header = ["class", *_headings(results, names)]
    lines = [
        [
            category,
            *(cell for r in results for cell in cells(rows[rows["results"] == r], names)),
        ]
        for (category,) in distinct(own, ["class"])
        for rows in [own[own["class"] == category]]
    ]
    yield Table("classes", header, lines, note=_at_first_threshold(own, names))


def _differences(differences: pd.DataFrame, card: Mapping[str, Any]) -> Iterator[Table]:
    whole = differences[(differences["class"] == "all") & (differences["by"] == "all")]
    if whole.empty:
        return
    names = _ordered(whole["metric"], COMPARED)
    whole = _first_threshold(whole)
    baseline = whole["baseline"].iloc[0]
    lines = [
        [name, *cells(whole[whole["results"] == name], names, signed=True)]
        for (name,) in distinct(whole, ["results"])
    ]
    sentences = [
        verdict(row, card["confidence"]) for _, row in whole[whole["metric"].isin(VERDICTS)].iterrows()
    ]
    note = "\n".join(f"- {sentence}" for sentence in sentences)
    above = _at_first_threshold(whole, names)
    yield Table(
        f"difference to {baseline}",
        ["results", *names],
        lines,
        note="\n\n".join(text for text in (above, note) if text),
    )


def verdict(row: Mapping[str, Any] | pd.Series, confidence: float) -> str:
    """A paired difference in one sentence: which is better, by how much, or that it cannot be told."""
    b, a, metric = row["results"], row["baseline"], row["metric"]
    value, low, high = (100 * float(row[name]) for name in ("value", "low", "high"))
    if math.isnan(value):
        return f"{b} and {a} cannot be compared in {metric}: it is undefined."
    if math.isnan(low) or math.isnan(high):
        return f"{b} and {a} differ by {value:+z.1f} {metric}; too few videos to tell how sure that is."
    half, sure = (high - low) / 2, f"{100 * confidence:g} %"
    if low > _ROUNDING:
        return f"{b} beats {a} by {value:.1f} ± {half:.1f} {metric} ({sure})."
    if high < -_ROUNDING:
        return f"{b} loses to {a} by {-value:.1f} ± {half:.1f} {metric} ({sure})."
    # Not as ±: intervals may be lopsided, and the half of one that holds 0 smaller than the difference.
    return (
        f"{b} and {a} cannot be told apart: the difference is {value:+z.1f} {metric}, between {low:+z.1f} "
        f"and {high:+z.1f} ({sure})."
    )


def cells(rows: pd.DataFrame, metrics: Sequence[str], signed: bool = False) -> list[str]:
    """The numbers of some metrics as text."""
    found = {row.metric: row for row in rows.itertuples()}
    return [_cell(found[name], signed) if name in found else "-" for name in metrics]


def _cell(number: Any, signed: bool) -> str:
    counted = number.metric in COUNTED
    value, half = number.value, (number.high - number.low) / 2
    if number.metric == "instances":  # what there is, no measurement
        half = float("nan")
    if math.isnan(value):
        return "-"
    text = f"{value:z.0f}" if counted else percent(value)
    sign = "+" if signed and float(text) > 0 else ""
    return sign + text + ("" if math.isnan(half) else f" ± {half:.0f}" if counted else f" ± {100 * half:.1f}")


def _headings(results: Sequence[str], metrics: Sequence[str]) -> list[str]:
    """Of columns for each metric of each results file; of one alone, the metrics."""
    return [f"{name} {m}" if len(results) > 1 else m for name in results for m in metrics]


def _first_threshold(rows: pd.DataFrame) -> pd.DataFrame:
    """The numbers without a score threshold, and those with the first one."""
    thresholds = rows["score_threshold"]
    return rows[thresholds.isna() | (thresholds == thresholds.dropna().head(1).sum())]


def _at_first_threshold(rows: pd.DataFrame, metrics: Sequence[str]) -> str:
    """Which score threshold numbers of a table have, of rows with one; empty where none has any."""
    own = rows[rows["metric"].isin(metrics) & rows["score_threshold"].notna()]
    if own.empty:
        return ""
    names = ", ".join(_ordered(own["metric"], metrics))
    return f"{names} at score ≥ {own['score_threshold'].iloc[0]:g}."


def _at(rows: pd.DataFrame, threshold: float) -> pd.DataFrame:
    return rows[np.isclose(rows["score_threshold"], threshold, rtol=0, atol=1e-12)]


def _ordered(found: pd.Series, wanted: Sequence[str]) -> list[str]:
    """Those of ``wanted`` that are there."""
    there = set(found)
    return [name for name in wanted if name in there]

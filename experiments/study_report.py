"""A study in print: a table a question, and what was expected of it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from study_findings import CONTRAST, EASY, FRAME_STEP, HARD, RESAMPLES, SPLITS, TARGETS, Findings

from vistk.evaluation.bootstrap import Interval
from vistk.evaluation.printing import markdown_table, percent
from vistk.evaluation.tables import printed_cells


@dataclass(frozen=True)
class Check:
    """A number that the benchmark was made to have."""

    what: str
    found: str
    holds: bool


def checks(sets: Mapping[str, Findings]) -> list[Check]:
    """The expectations: of the first set as the benchmark, of the others as controls."""
    (name, benchmark), *controls = sets.items()
    oracle, identity = benchmark.mean.loc["oracle", ("track", "AP")], benchmark.mean.loc["identity"]
    gap = benchmark.difference["AP"]
    found = [
        (f"{name}: oracle AP on track is at least 60", oracle, oracle >= 0.6),
        (f"{name}: VISAGE - MinVIS on static is within 1 AP", gap["static"].value, _small(gap["static"])),
        (f"{name}: identity AP on swap is below 20", identity["swap", "AP"], identity["swap", "AP"] < 0.2),
        (
            f"{name}: the interval of VISAGE - MinVIS on swap starts above 0",
            gap["swap"].low,
            gap["swap"].low > 0,
        ),
        (f"{name}: the interval of its {CONTRAST} starts above 0", gap[CONTRAST].low, gap[CONTRAST].low > 0),
    ]
    for control, findings in controls:
        for split in HARD:
            difference = findings.difference["AP"][split]
            found.append(
                (
                    f"{control}: VISAGE - MinVIS on {split} is within 1 AP",
                    difference.value,
                    _small(difference),
                )
            )
    return [Check(what, percent(value), bool(holds)) for what, value, holds in found]


def _small(interval: Interval) -> bool:
    return abs(interval.value) < 0.01


def render(command: str, sets: Mapping[str, Findings], failed: Sequence[str] = ()) -> str:
    """The study as markdown, metrics in percent."""
    seeds = "; ".join(
        f"{name} (weights {found.weights}): seeds {', '.join(map(str, found.seeds))}"
        for name, found in sets.items()
    )
    blocks = [f"```bash\n{command}\n```", f"{seeds}."]
    blocks += [f"Missing: {sentence}." for sentence in failed]
    for name, found in sets.items():
        blocks += [
            f"**{name}: every tracker**, percent, mean ± standard deviation over seeds",
            _comparison(found),
        ]
    hard, easy = " and ".join(HARD), " and ".join(EASY)
    blocks += [
        f"**VISAGE - MinVIS**, points, mean over seeds with a 95 % interval over clips ({RESAMPLES} paired "
        f"resamples); {CONTRAST}: mean of {hard} less mean of {easy}",
        _differences(sets),
        "**Identity permutations**, percent of the frames in which every track kept the query slot of its "
        "number",
        _shares(sets),
        "**Probes**, R2 of ridge regressions on held-out videos, mean over seeds, no less than -1; of the "
        f"queries that show an annotated instance (IoU > 0.5), one frame in {FRAME_STEP} of all splits",
        _probes(sets),
        "**Expectations**",
        markdown_table(
            ["", "found", ""],
            [
                [check.what, check.found, "as expected" if check.holds else "not as expected"]
                for check in checks(sets)
            ],
            left=1,
        ),
    ]
    return "\n\n".join(blocks) + "\n"


def _comparison(found: Findings) -> str:
    printed = printed_cells(found.mean, found.spread)
    header = ["tracker", *(" ".join(map(str, column)) for column in printed.columns)]
    rows = [[str(row), *cells] for row, cells in zip(printed.index, printed.to_numpy().tolist(), strict=True)]
    return markdown_table(header, rows, left=1)


def _differences(sets: Mapping[str, Findings]) -> str:
    columns = [*SPLITS, CONTRAST]
    rows = [
        [name, metric, *(_with_interval(by_split[column]) for column in columns)]
        for name, found in sets.items()
        for metric, by_split in found.difference.items()
    ]
    return markdown_table(["weights", "metric", *columns], rows, left=2)


def _with_interval(interval: Interval) -> str:
    return f"{percent(interval.value)} [{percent(interval.low)}, {percent(interval.high)}]"


def _shares(sets: Mapping[str, Findings]) -> str:
    rows = [
        [name, row, *(percent(found.share(row, split)) for split in SPLITS)]
        for name, found in sets.items()
        for row in ("minvis", "visage")
    ]
    return markdown_table(["weights", "tracker", *SPLITS], rows, left=2)


def _probes(sets: Mapping[str, Findings]) -> str:
    rows = [
        [name, features, *(_r2(found.r2(features, target)) for target in TARGETS)]
        for name, found in sets.items()
        for features in found.probes[0]
    ]
    return markdown_table(["weights", "predicted from", *TARGETS], rows, left=2)


def _r2(value: float) -> str:
    return "-" if math.isnan(value) else f"{max(value, -1.0):.2f}"

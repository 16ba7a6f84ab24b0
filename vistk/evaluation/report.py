"""One evaluation: numbers of a results file against its ground truth, and ``vistk evaluate``."""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vistk.evaluation.bootstrap import Interval, bootstrap, paired_bootstrap
from vistk.evaluation.files import EvaluationFileError, GroundTruth, Results, load_ground_truth, load_results
from vistk.evaluation.hota import TrackingCounts, track_cell, tracking_metrics
from vistk.evaluation.overlaps import cells
from vistk.evaluation.printing import markdown_table, percent
from vistk.evaluation.ytvis_ap import (
    MatchedCells,
    accumulate,
    average_precision,
    average_recall,
    match_cell,
    range_names,
    summarize,
)
from vistk.files import write_text

SCORE_THRESHOLD = 0.3
COUNTS = ("IDSW", "Frag", "MT", "PT", "ML")


@dataclass(frozen=True)
class Report:
    """The numbers of one results file, with what is needed to resample them."""

    ground_truth: GroundTruth
    metrics: Mapping[str, float | None]  # 0..1 (MOTA may be negative), None where undefined
    per_category: Mapping[str, Mapping[str, float | None]]  # by category name
    counts: Mapping[str, int]  # of videos, instances, predictions; of identity switches and the like
    matches: MatchedCells
    tracking: TrackingCounts

    def as_dict(self) -> dict[str, Any]:
        """The metrics at the top level, then ``per_category``, ``counts`` and ``score_threshold``."""
        return {
            **self.metrics,
            "per_category": {name: dict(values) for name, values in self.per_category.items()},
            "counts": dict(self.counts),
            "score_threshold": self.tracking.score_threshold,
        }

    def to_json(self, path: str | Path, extra: Mapping[str, Any] | None = None) -> Path:
        """Writes :meth:`as_dict` and ``extra`` in full precision; undefined numbers are null."""
        content = self.as_dict() | dict(extra or {})
        return write_text(path, json.dumps(content, indent=2, allow_nan=False) + "\n")

    def to_markdown(self) -> str:
        """Tables in percent: AP and AR, tracking, categories."""
        tracking = ("HOTA", "DetA", "AssA", "LocA", "IDF1", "IDP", "IDR", "MOTA")
        detection = [name for name in self.metrics if name not in tracking]
        columns = list(next(iter(self.per_category.values()), {}))
        blocks = [
            markdown_table(detection, [[percent(self.metrics[name]) for name in detection]]),
            markdown_table(
                [*tracking, *COUNTS],
                [[*(percent(self.metrics[n]) for n in tracking), *(str(self.counts[n]) for n in COUNTS)]],
            ),
            f"Percent. Tracking metrics count predictions with score >= {self.tracking.score_threshold:g}, "
            f"pooled over categories; {self.counts['videos']} videos, {self.counts['instances']} instances, "
            f"{self.counts['predictions']} predictions.",
            markdown_table(
                ["category", *columns],
                [
                    [category, *map(percent, values.values())]
                    for category, values in self.per_category.items()
                ],
                left=1,
            ),
        ]
        return "\n\n".join(blocks) + "\n"


def evaluate(
    ground_truth: str | Path | Mapping[str, Any] | GroundTruth,
    results: str | Path | Sequence[Mapping[str, Any]] | Results,
    *,
    score_threshold: float = SCORE_THRESHOLD,
) -> Report:
    """Scores a results file: AP and AR as YouTube-VIS and OVIS define them, HOTA, IDF1 and CLEAR.

    Args:
        ground_truth, results: json files, or their parsed contents.
        score_threshold: predictions below it do not take part in HOTA, IDF1 and CLEAR (AP has all).

    Raises:
        EvaluationFileError, FileNotFoundError: a file cannot be used; the message says what to mend.
    """
    if math.isnan(score_threshold):
        raise ValueError("score_threshold is NaN, expected a number")
    ground_truth = load_ground_truth(ground_truth)
    results = load_results(results, ground_truth)
    ranges = range_names(ground_truth)
    matched, tracked = [], []
    for cell in cells(ground_truth, results):
        matched.append(match_cell(cell, ranges))
        tracked.append((cell.video, cell.category, track_cell(cell, score_threshold)))
    num_videos = len(ground_truth.videos)
    matches = MatchedCells(ranges, num_videos, len(ground_truth.categories), tuple(matched))
    tracking = TrackingCounts.stack(tracked, score_threshold=score_threshold, num_videos=num_videos)

    accumulated = accumulate(matches)
    columns = {
        "AP": average_precision(accumulated),
        "AP50": average_precision(accumulated, threshold=0.5),
        "AR10": average_recall(accumulated, max_detections=10),
    }
    per_category = {}
    for k, name in enumerate(ground_truth.categories.values()):
        values = {column: float(numbers[k]) for column, numbers in columns.items()}
        track_values = tracking_metrics(tracking.pooled(k))
        values |= {column: float(track_values[column]) for column in ("HOTA", "AssA", "IDF1")}
        per_category[name] = {column: defined(value) for column, value in values.items()}
    pooled = tracking.pooled()
    metrics = summarize(accumulated) | {name: float(v) for name, v in tracking_metrics(pooled).items()}
    return Report(
        ground_truth=ground_truth,
        metrics={name: defined(value) for name, value in metrics.items()},
        per_category=per_category,
        counts={
            "videos": num_videos,
            "instances": sum(len(video.instances) for video in ground_truth.videos),
            "predictions": len(results),
            **{name: int(pooled[name]) for name in COUNTS},
        },
        matches=matches,
        tracking=tracking,
    )


def defined(value: float) -> float | None:
    """None for NaN, which json does not know."""
    return None if math.isnan(value) else value


def _intervals_table(title: str, intervals: Mapping[str, Interval]) -> str:
    rows = [[name, *map(percent, (i.value, i.low, i.high))] for name, i in intervals.items()]
    return f"{title}\n\n" + markdown_table(["metric", "value", "low", "high"], rows, left=1) + "\n"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``vistk evaluate``."""
    parser.add_argument("ground_truth", metavar="GT.json", help="annotations in the YouTube-VIS form")
    parser.add_argument("results", metavar="RESULTS.json", help="list of predictions in the YouTube-VIS form")
    parser.add_argument("--json", metavar="OUT.json", help="write the numbers in full precision")
    parser.add_argument(
        "--score-threshold",
        type=float,
        default=SCORE_THRESHOLD,
        help="smallest score that counts for HOTA, IDF1 and MOTA (default %(default)s)",
    )
    parser.add_argument(
        "--bootstrap",
        type=int,
        default=0,
        metavar="N",
        help="95 %% intervals from N resamples of the videos (default: none)",
    )
    parser.add_argument(
        "--baseline",
        metavar="RESULTS.json",
        help="with --bootstrap: intervals of the difference to these results instead",
    )
    parser.add_argument("--seed", type=int, default=0, help="of the resampling (default %(default)s)")


def run(args: argparse.Namespace) -> int:
    """``vistk evaluate``: prints the tables, writes the json; 0, or 2 after a one-line error."""
    try:
        if args.baseline and args.bootstrap < 1:
            raise EvaluationFileError("--baseline needs --bootstrap N with N >= 1")
        ground_truth = load_ground_truth(args.ground_truth)
        report = evaluate(ground_truth, args.results, score_threshold=args.score_threshold)
        text, extra = report.to_markdown(), {}
        if args.bootstrap:
            if args.baseline:
                baseline = evaluate(ground_truth, args.baseline, score_threshold=args.score_threshold)
                title = f"Difference to {args.baseline}"
                intervals = paired_bootstrap(baseline, report, resamples=args.bootstrap, seed=args.seed)
            else:
                title = "Intervals"
                intervals = bootstrap(report, resamples=args.bootstrap, seed=args.seed)
            title += (
                f" (95 %, {args.bootstrap} resamples of {report.counts['videos']} videos, seed {args.seed})"
            )
            text += "\n" + _intervals_table(title, intervals)
            extra["difference" if args.baseline else "intervals"] = {
                name: [defined(i.value), defined(i.low), defined(i.high)] for name, i in intervals.items()
            }
        if args.json:
            report.to_json(args.json, extra)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(text, end="")
    return 0

"""What the runs of a study say together; :mod:`study` makes the runs."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from vistk.comparison import frame_readers, frame_targets
from vistk.config import Composed
from vistk.data.layouts import find_split
from vistk.data.scenes import KINDS
from vistk.data.synthetic import ensure
from vistk.data.ytvis import YTVIS, DataError
from vistk.engine.windows import segment_windows
from vistk.evaluation.bootstrap import Interval, percentile_interval, resampled_metrics, video_draws
from vistk.evaluation.probes import centre, cross_validated_r2, match_masks, mean_colour
from vistk.evaluation.scores import Scores, defined, score
from vistk.evaluation.tables import comparison_table
from vistk.experiment import build_tracker
from vistk.models.checkpoints import load_into, load_weights
from vistk.models.segmenter import Segmenter
from vistk.ops.masks import decode
from vistk.trackers.base import Tracker
from vistk.trackers.registry import get_tracker

SPLITS = KINDS
HARD, EASY = ("swap", "reenter"), ("static", "track")
CONTRAST = "hard - easy"
"""Column of mean(swap, reenter) - mean(static, track)."""

METRICS = ("AP", "AssA", "IDF1")
NEEDED_ROWS = ("identity", "minvis", "visage", "oracle")
TARGETS = ("position", "colour given class")
RESAMPLES = 1000
FRAME_STEP = 3
"""Of the frames that are probed: neighbours are nearly the same."""

CARD_FIELDS = ("kept predictions", "test size", "score threshold", "commit", "weights hash", "device")


@dataclass(frozen=True)
class Findings:
    """What the runs from one set of start weights say."""

    weights: str
    seeds: tuple[int, ...]
    runs: tuple[Mapping[str, Any], ...]  # {row: {split: metrics}} of each seed
    mean: pd.DataFrame  # over seeds, fractions; see comparison_table
    spread: pd.DataFrame
    card: Mapping[str, Any]
    difference: Mapping[str, Mapping[str, Interval]]  # VISAGE - MinVIS, {metric: {split or CONTRAST: ..}}
    probes: tuple[Mapping[str, Mapping[str, float]], ...]  # {features: {target: R2}} of each seed

    def share(self, row: str, split: str) -> float:
        """Share of frames in which every track kept the query slot of its number, mean over seeds."""
        return float(np.mean([run[row][split]["identity_permutations"] for run in self.runs]))

    def r2(self, features: str, target: str) -> float:
        """R2 of a probe, mean over seeds."""
        return float(np.mean([probes[features][target] for probes in self.probes]))

    def as_dict(self) -> dict[str, Any]:
        """Everything in full precision, undefined numbers as None."""
        return {
            "weights": self.weights,
            "seeds": list(self.seeds),
            "card": dict(self.card),
            "runs": [{row: dict(splits) for row, splits in run.items()} for run in self.runs],
            "visage - minvis": {
                metric: {
                    split: {"value": defined(i.value), "low": defined(i.low), "high": defined(i.high)}
                    for split, i in columns.items()
                }
                for metric, columns in self.difference.items()
            },
            "probes": [
                {features: {t: defined(r2) for t, r2 in targets.items()} for features, targets in p.items()}
                for p in self.probes
            ],
        }


def collect(
    weights: str,
    runs: Mapping[int, Composed],
    probe: Callable[[Composed], Mapping[str, Mapping[str, float]]],
) -> Findings:
    """Reads the finished runs (by seed) from one set of start weights.

    Raises:
        DataError: ``metrics.json`` of a run cannot be used.
        ValueError: a subclass of it; results, weights or data of a run cannot be used.
        OSError: a file is missing.
    """
    contents = [_read_metrics(run.run_dir / "metrics.json") for run in runs.values()]
    metrics = [
        {row: {split: splits[split] for split in SPLITS} for row, splits in content["rows"].items()}
        for content in contents
    ]
    cells = {row: {split: [run[row][split] for run in metrics] for split in SPLITS} for row in metrics[0]}
    mean, spread = comparison_table(cells, metrics=METRICS)
    reports = {split: [_reports(run, split) for run in runs.values()] for split in SPLITS}
    cards = [content["card"] for content in contents]
    card = {name: ", ".join(dict.fromkeys(str(c.get(name)) for c in cards)) for name in CARD_FIELDS}
    return Findings(
        weights=weights,
        seeds=tuple(runs),
        runs=tuple(metrics),
        mean=mean,
        spread=spread,
        card={"seeds": ", ".join(map(str, runs))} | card,
        difference=difference_intervals(reports),
        probes=tuple(probe(run) for run in runs.values()),
    )


def _read_metrics(path: Path) -> dict[str, Any]:
    """The content of a ``metrics.json``; rows that were not measured on all splits are a fault."""
    try:
        content = json.loads(path.read_text())
        rows = {row: set(splits) for row, splits in content["rows"].items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path} is not what experiments/run.py writes ({error!r}); remove it") from error
    for row in dict.fromkeys([*NEEDED_ROWS, *rows]):
        if not set(SPLITS) <= rows.get(row, set()):
            raise DataError(
                f"{path}: row {row} has the splits {', '.join(sorted(rows.get(row, ()))) or 'none'}, "
                f"expected {', '.join(SPLITS)}; remove it to evaluate again"
            )
    return content


def _source(run: Composed, split: str) -> YTVIS:
    return YTVIS.load(*find_split(ensure(run.config.data, [split]), split))


def _reports(run: Composed, split: str) -> tuple[Scores, Scores]:
    """MinVIS and VISAGE on a split."""
    truth = find_split(ensure(run.config.data, [split]), split)[0]
    threshold = run.config.evaluation.track_score
    minvis, visage = (
        score(truth, run.run_dir / "rows" / row / split / "results.json", score_threshold=threshold)
        for row in ("minvis", "visage")
    )
    return minvis, visage


def difference_intervals(
    reports: Mapping[str, Sequence[tuple[Scores, Scores]]], resamples: int = RESAMPLES
) -> dict[str, dict[str, Interval]]:
    """95 % intervals of b - a, averaged over seeds, by a bootstrap over the videos of each split.

    In a resample all seeds have the same videos, so the interval is that of the mean over these seeds on
    other videos; it does not hold the chance of other seeds.

    Args:
        reports: ``{split: [(a, b) of each seed]}`` for all of SPLITS.

    Returns:
        ``{metric: {split: interval}}``, and :data:`CONTRAST` beside the splits.
    """
    out: dict[str, dict[str, Interval]] = {}
    samples: dict[str, dict[str, np.ndarray]] = {metric: {} for metric in METRICS}
    for k, split in enumerate(SPLITS):  # each split has its own videos, so its own draws
        pairs = reports[split]
        draws = video_draws(len(pairs[0][0].ground_truth.videos), resamples, seed=k)
        values = [(resampled_metrics(a, draws), resampled_metrics(b, draws)) for a, b in pairs]
        for metric in METRICS:
            samples[metric][split] = np.mean([b[metric] - a[metric] for a, b in values], axis=0)
    for metric, by_split in samples.items():
        hard, easy = (np.mean([by_split[split] for split in group], axis=0) for group in (HARD, EASY))
        by_split[CONTRAST] = hard - easy
        out[metric] = {name: percentile_interval(sample) for name, sample in by_split.items()}
    return out


def probe_run(run: Composed) -> dict[str, dict[str, float]]:
    """``{features: {target: R2}}``, of all TARGETS, from a run's weights on all SPLITS.

    Raises:
        CheckpointError: the weights are missing or do not fit.
        OSError, DataError: the data cannot be read.
    """
    config = run.config
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    sources = {split: _source(run, split) for split in SPLITS}
    segmenter = Segmenter(config.segmenter, next(iter(sources.values())).num_classes)
    tracker = build_tracker("visage", config.tracker, segmenter)
    path = run.run_dir / "weights.safetensors"
    state, _ = load_weights(path)
    for module, prefix in ((segmenter, "segmenter."), (tracker, "tracker.")):
        part = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
        load_into(module, part, str(path))
        module.to(device).eval()
    samples = [
        sample
        for split, source in sources.items()
        for sample in probe_samples(segmenter, tracker, source, split, config, device)
    ]
    return probe_r2(samples)


@dataclass(frozen=True)
class Sample:
    """An annotated instance in a frame, and the query that shows it."""

    video: str
    label: int
    position: np.ndarray  # (2,) x and y, 0..1
    colour: np.ndarray  # (3,) RGB, 0..1
    vectors: Mapping[str, np.ndarray]  # {features: (C,)}


def probe_samples(
    segmenter: Segmenter,
    tracker: Tracker[Any],
    source: YTVIS,
    split: str,
    config: Any,
    device: torch.device,
) -> list[Sample]:
    """The instances of every :data:`FRAME_STEP`-th frame of a split that a query shows (IoU > 0.5)."""
    # MinVIS hands the segmenter's embeddings through as they are.
    describers = {"visage": tracker, "minvis": build_tracker("minvis", get_tracker("minvis")[1], segmenter)}
    samples = []
    for video in source.videos:
        readers = frame_readers(source, video, config.data)[::FRAME_STEP]
        size = (video.height, video.width)
        windows = segment_windows(segmenter, describers, readers, size, config.evaluation.window, device)
        frames = (queries for window in windows for queries in window.frames)
        for t, truth, queries in zip(
            range(0, len(video), FRAME_STEP), frame_targets(source, video)[::FRAME_STEP], frames, strict=True
        ):
            image = source.read_frame(video, t).numpy()
            own = queries["visage"].vectors
            vectors = {"embedding": queries["minvis"].vectors["query"].float().numpy()}
            vectors |= {f"{name} head": vector.float().numpy() for name, vector in own.items()}
            vectors["slot"] = np.eye(queries["visage"].num_queries)
            masks = queries["visage"].masks
            assert masks is not None
            for query, instance in zip(*match_masks(masks.rles, truth.masks), strict=True):
                mask = decode(truth.masks[instance])
                samples.append(
                    Sample(
                        f"{split} {video.video_id}",
                        int(truth.labels[instance]),
                        centre(mask),
                        mean_colour(image, mask),
                        {name: vector[query] for name, vector in vectors.items()},
                    )
                )
    return samples


def probe_r2(samples: Sequence[Sample]) -> dict[str, dict[str, float]]:
    """R2 of position and of colour given class, from every kind of vector; NaN without samples."""
    if not samples:
        names = ("embedding", "query head", "appearance head", "slot")
        return {name: dict.fromkeys(TARGETS, float("nan")) for name in names}
    videos = np.array([sample.video for sample in samples])
    labels = np.array([sample.label for sample in samples])
    position = np.stack([sample.position for sample in samples])
    colour = np.stack([sample.colour for sample in samples])
    out = {}
    for name in samples[0].vectors:
        vectors = np.stack([sample.vectors[name] for sample in samples])
        r2 = (
            cross_validated_r2(vectors, position, videos),
            cross_validated_r2(vectors, colour, videos, given=labels),
        )
        out[name] = dict(zip(TARGETS, r2, strict=True))
    return out

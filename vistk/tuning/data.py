"""Which videos a search is tuned on, and on which others it is judged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from accelerate import Accelerator

from vistk.config import RunConfig
from vistk.data.config import DataConfig, SyntheticConfig
from vistk.data.ytvis import YTVIS
from vistk.evaluation.ground_truth import ground_truth_of
from vistk.splits import LOCAL, EvaluationSplit, open_data, open_splits
from vistk.tuning.knobs import TuningError

FRESH = "fresh"
"""Stands for the evaluation splits of the generated benchmark, drawn anew: no run has seen these videos."""
FRESH_SEED = 10_000  # is added to data.seed


@dataclass(frozen=True)
class TuningData:
    """Splits by name; no video is on both sides."""

    tuning: Mapping[str, EvaluationSplit]
    report: Mapping[str, EvaluationSplit]
    categories: Mapping[int, str]
    notes: Mapping[str, str]  # for the card of the table


def choose_splits(
    data: DataConfig, on: Sequence[str] = (), report: Sequence[str] = ()
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What is tuned on and reported on, where it is not said: videos held out of training, or generated ones
    drawn anew; and the evaluation splits.

    Raises:
        TuningError: a split is on both sides, or one side is empty.
    """
    if not on:
        if data.local_split is not None:
            on = (LOCAL,)
        elif isinstance(data, SyntheticConfig):
            on = (FRESH,)
        else:
            raise TuningError(
                f"data={data.name}: say which split to tune on, --on SPLIT; or data.local_split=0.15, in "
                "training too, which holds out training videos"
            )
    report = tuple(report) or tuple(split for split in data.eval_splits if split not in on)
    both = [split for split in on if split in report]
    if both:
        raise TuningError(
            f"{', '.join(both)} to tune on and to report on, expected other videos: what was tuned on tells "
            "nothing about the gain"
        )
    if not report:
        raise TuningError(f"nothing is left to report on beside {', '.join(on)}, expected --report SPLIT")
    for name, given in (("--on", on), ("--report", report)):
        if LOCAL in given and data.local_split is None:
            raise TuningError(f"{name} {LOCAL}: say data.local_split=0.15, as the training did")
    if FRESH in report or (FRESH in on and not isinstance(data, SyntheticConfig)):
        raise TuningError(f"{FRESH} is for tuning on data=synthetic alone")
    return tuple(on), report


def open_tuning_data(
    config: RunConfig, on: Sequence[str], report: Sequence[str], accelerator: Accelerator
) -> TuningData:
    """The annotations of both sides; no image is opened.

    Args:
        on, report: as of :func:`choose_splits`.

    Raises:
        TuningError: a tuning split has no annotations, or both sides have videos in common.
        DataError, FileNotFoundError, ConfigError: see :func:`vistk.splits.open_data`.
    """
    named = [split for split in (*on, *report) if split not in (LOCAL, FRESH)]
    data = replace(config.data, eval_splits=named or config.data.eval_splits)
    if LOCAL not in (*on, *report):
        data = replace(data, local_split=None)
    opened = open_data(replace(config, data=data, eval_only=True), accelerator)
    tuning = {split: opened.evaluation[split] for split in on if split != FRESH}
    notes = dict(opened.notes)
    if FRESH in on:
        assert isinstance(config.data, SyntheticConfig)
        tuning |= _fresh(config.data, report, accelerator)
        notes[FRESH] = f"generated with data.seed={config.data.seed + FRESH_SEED}"
    shown = {split: opened.evaluation[split] for split in report}
    for name, split in tuning.items():
        if not split.scored:
            raise TuningError(f"{split.source.json_path} has no annotations, expected some to tune on {name}")
        if not split.source.videos:
            raise TuningError(f"{split.source.json_path} has no videos, expected some to tune on {name}")
        for other, beside in shown.items():
            if common := _files(split.source) & _files(beside.source):
                raise TuningError(
                    f"{name} and {other} have {len(common)} videos in common, expected other videos to "
                    "report on than to tune on"
                )
    return TuningData(tuning, shown, opened.categories, notes)


def _fresh(
    data: SyntheticConfig, report: Sequence[str], accelerator: Accelerator
) -> dict[str, EvaluationSplit]:
    """The splits that are reported on, drawn with another seed."""
    splits = [split for split in report if split != LOCAL] or data.eval_splits
    root = None if data.root is None else str(Path(data.root) / FRESH)
    other = replace(data, seed=data.seed + FRESH_SEED, root=root)
    opened = open_splits(other, splits, accelerator)
    return {
        f"{FRESH} {name}": EvaluationSplit(source, ground_truth_of(source)) for name, source in opened.items()
    }


def _files(source: YTVIS) -> set[Path]:
    """The first frame of every video."""
    return {(source.image_root / video.file_names[0]).resolve() for video in source.videos if len(video)}

"""One search from words to table, in a folder in which it goes on when it is started again."""

from __future__ import annotations

import json
import shutil
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from filelock import FileLock, Timeout

from vistk.comparison import commit
from vistk.composer import parse_word
from vistk.config import Composed, RunConfig, config_hash, slug
from vistk.engine.progress import progress_bar
from vistk.evaluation.printing import percent, plural
from vistk.evaluation.submission import write_submission
from vistk.evaluation.tables import ordered_card
from vistk.experiment import build_tracker
from vistk.files import file_hash, write_text
from vistk.models.precision import require_usable
from vistk.models.segmenter import Segmenter
from vistk.models.weight_files import files_of
from vistk.splits import EvaluationSplit
from vistk.start_weights import load_start_weights, start_weights
from vistk.trackers.base import Range
from vistk.tuning.data import TuningData, choose_splits, open_tuning_data
from vistk.tuning.knobs import PREFIX, Knob, TuningError, find_knobs, words
from vistk.tuning.objective import METRICS, Family, TrackedSplit
from vistk.tuning.report import (
    BEST,
    DEFAULT,
    OTHER,
    TUNED,
    SplitNumbers,
    TuningReport,
    frames_of,
    numbers_of,
    with_means,
)
from vistk.tuning.search import Journal, Sampler, Trial, require_optuna, search, simplified

QUERIES = "queries"
"""Folder of a search's own queries, where ``cache=off``; gone when it is done."""


@dataclass(frozen=True)
class Asked:
    """What is asked of a search, beside the words of a run."""

    trials: int = 200
    on: Sequence[str] = ()  # splits; none: see vistk.tuning.data.choose_splits
    report: Sequence[str] = ()
    metric: str = "AP"
    seed: int = 0
    space: Mapping[str, Range | Sequence[Any]] = field(default_factory=dict)  # by field of the tracker
    bootstrap: int = 1000


def default_folder(composed: Composed, asked: Asked) -> Path:
    """Where a search lies, as its words and options say: other ones are another search."""
    config: RunConfig = composed.config
    own = [asked.metric, *(["on " + " ".join(asked.on)] if asked.on else []), f"seed{asked.seed}"]
    name = slug(" ".join(own).replace(" ", "-"))
    base = (
        Path("runs", "tune", *composed.run_dir.parts[1:]) if config.run_dir is None else Path(config.run_dir)
    )
    return base / name


def tune(composed: Composed, said: Sequence[str], asked: Asked, out: Path, command: str = "") -> Path:
    """Search, or what is left of it, in ``out``.

    Args:
        composed: the run whose tracker is tuned; nothing is trained.
        said: the words of the call; a knob that one of them sets keeps its value.
        command: for the card.

    Returns:
        Path of ``table.md``. Beside it ``table.csv|tex|json``, ``trials.jsonl``, ``search.json`` and
        ``rows/<default|best>/<split>/results.json``.

    Raises:
        ValueError: a subclass of it; the search cannot be done as it is asked for, and the message says why.
        OSError: a file cannot be read or written.
        KeyboardInterrupt: the trials so far are in ``out``; the same call goes on.
    """
    require_optuna()
    if asked.metric not in METRICS:
        raise TuningError(f"metric {asked.metric!r}, expected one of {', '.join(METRICS)}")
    config: RunConfig = replace(composed.config, eval_only=True)
    on, report = choose_splits(config.data, asked.on, asked.report)
    held = {parse_word(word).key_or_group.removeprefix(PREFIX) for word in said}
    knobs, unknown = find_knobs(config.choices["tracker"], config.tracker, held, asked.space)
    if unknown:
        keys = ", ".join(PREFIX + name for name in unknown)
        print(f"nobody says what to try for {keys}; --range {PREFIX}{unknown[0]}=LOW..HIGH does")
    out.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(out / ".lock", timeout=0):
            return _tune(config, replace(asked, on=on, report=report), knobs, out, command)
    except Timeout:
        raise TuningError(f"{out} is in use by another process; wait for it to end") from None


def _tune(config: RunConfig, asked: Asked, knobs: Sequence[Knob], out: Path, command: str) -> Path:
    began = time.monotonic()
    accelerator = Accelerator(cpu=not torch.cuda.is_available())
    require_usable(config.precision, accelerator.device)
    facts: dict[str, Any] = {"commit": commit(), "config hash": config_hash(config)}
    data = open_tuning_data(config, asked.on, asked.report, accelerator)
    family, facts["weights hash"] = _family(config, data, accelerator)
    journal = Journal(
        out,
        {
            "tracker": config.choices["tracker"],
            "configuration": facts["config hash"],
            "weights": facts["weights hash"],
            "metric": asked.metric,
            "seed": asked.seed,
            "tuning splits": {name: _digest(split) for name, split in data.tuning.items()},
            "knobs": {knob.name: [str(knob), knob.default] for knob in knobs},
        },
    )
    done = {"trials": asked.trials, "report": list(asked.report), "bootstrap": asked.bootstrap}
    if _is_done(out, done):
        print(f"{out / 'table.json'} is there already")
        return out / "table.md"
    config = _with_cache(config, out)

    def opened(name: str, split: EvaluationSplit) -> TrackedSplit:
        return TrackedSplit(config, family, name, split, accelerator)

    tuning = [opened(name, split) for name, split in data.tuning.items()]

    def tried(values: Mapping[str, Any]) -> dict[str, float]:
        tracker = family.member(values)
        return {split.name: split.metric(split.results(tracker), asked.metric) for split in tuning}

    history = _searched(knobs, tried, asked, journal, accelerator)
    best, losses = simplified(knobs, history, tried)
    rows = {DEFAULT: history[0].values, BEST: best.values}
    trackers = {row: family.member(values) for row, values in rows.items()}
    splits: dict[str, list[SplitNumbers]] = {TUNED: [], OTHER: []}
    for name, split in {**data.tuning, **data.report}.items():
        role = TUNED if name in data.tuning else OTHER
        there = next((one for one in tuning if one.name == name), None) or opened(name, split)
        results = {row: there.results(tracker) for row, tracker in trackers.items()}
        _write_results(out, split, name, results)
        if split.scored:
            scored = {row: there.scored(entries) for row, entries in results.items()}
            bootstrap = asked.bootstrap if role == OTHER else 0
            threshold = config.evaluation.track_score
            splits[role].append(numbers_of(name, role, scored, threshold, bootstrap, len(splits[role])))
    frame, differences = frames_of(config.data.name, [*with_means(splits[OTHER]), *with_means(splits[TUNED])])
    facts |= data.notes
    facts |= {"time": f"{time.monotonic() - began:.0f} s", "command": command}
    found = TuningReport(
        metric=asked.metric,
        frame=frame,
        differences=differences,
        knobs=knobs,
        default=history[0],
        best=best,
        losses=losses,
        trials=len(history),
        notes=[
            f"{split.source.json_path} has no annotations, so nothing is scored on {name}: submission.zip of "
            f"both is in {out / 'rows'}/*/{name}."
            for name, split in data.report.items()
            if not split.scored
        ],
        card=ordered_card(_card(config, asked, accelerator) | facts),
        asked=done,
    )
    found.write(out)
    shutil.rmtree(out / QUERIES, ignore_errors=True)
    return out / "table.md"


def _searched(
    knobs: Sequence[Knob],
    tried: Callable[[Mapping[str, Any]], Mapping[str, float]],
    asked: Asked,
    journal: Journal,
    accelerator: Accelerator,
) -> list[Trial]:
    """The trials, with a bar that has the best so far."""
    sampler = Sampler(knobs, asked.trials, asked.seed)
    before = len(journal.read())
    if before:
        print(f"{plural(before, 'trial')} were finished before")
    best: list[Trial] = []
    with progress_bar(accelerator, total=asked.trials, desc=f"tune {asked.metric}", unit="trial") as bar:

        def done(trial: Trial) -> None:
            best[:] = [max([*best, trial], key=lambda one: one.rank)]
            first = trial.score if not trial.step else None
            shown.setdefault(DEFAULT, percent(first))
            shown[BEST] = percent(best[0].score)
            bar.set_postfix(shown, refresh=False)
            bar.update()

        shown: dict[str, str] = {}
        try:
            return search(knobs, tried, asked.trials, sampler, journal, done)
        except KeyboardInterrupt:
            if best:
                so_far = " ".join(words(best[0].values))
                print(f"\nbest so far, {asked.metric} {percent(best[0].score)}: {so_far}")
            raise


def _family(config: RunConfig, data: TuningData, accelerator: Accelerator) -> tuple[Family, str | None]:
    """Segmenter and tracker with their weights, and the hash of these."""
    start = start_weights(config, accelerator)
    segmenter = Segmenter(
        replace(config.segmenter, backbone_pretrained=False), len(data.categories), config.precision
    )
    name = config.choices["tracker"]
    tracker = build_tracker(name, config.tracker, segmenter)
    load_start_weights(start, config, segmenter, tracker, data.categories, accelerator)
    segmenter.to(accelerator.device).eval()
    tracker.to(accelerator.device).eval()
    return Family(name, config.tracker, segmenter, tracker), file_hash(*files_of(start)) if start else None


def _with_cache(config: RunConfig, out: Path) -> RunConfig:
    """With a cache that takes all queries: every trial reads them."""
    mode = config.choices["cache"]
    cache = config.cache
    if mode == "off":
        cache = replace(cache, dir=str(out / QUERIES), mask_features=True)
    mode = "read" if mode == "read" else "write"
    return replace(config, cache=cache, choices={**config.choices, "cache": mode})


def _digest(split: EvaluationSplit) -> str:
    """Names the annotations and the choice of videos."""
    ids = ",".join(str(video.video_id) for video in split.source.videos)
    return f"{file_hash(split.source.json_path)}-{zlib.crc32(ids.encode()):08x}"


def _is_done(out: Path, asked: Mapping[str, Any]) -> bool:
    try:
        return bool(json.loads((out / "table.json").read_text(encoding="utf-8"))["asked"] == asked)
    except (OSError, ValueError, KeyError):
        return False


def _write_results(
    out: Path, split: EvaluationSplit, name: str, results: Mapping[str, Sequence[Mapping[str, Any]]]
) -> None:
    for row, entries in results.items():
        path = write_text(out / "rows" / row / name / "results.json", json.dumps(entries))
        if not split.scored:
            write_submission(path, path.with_name("submission.zip"))


def _card(config: RunConfig, asked: Asked, accelerator: Accelerator) -> dict[str, Any]:
    side = config.data.test_short_side
    gpu = accelerator.device.type == "cuda"
    return {
        "seeds": asked.seed,
        "kept predictions": config.evaluation.keep_top,
        "test size": f"short side {side}" if side else "as the files are",
        "rescored": config.evaluation.rescore,
        "score threshold": f"{config.evaluation.track_score} (HOTA, AssA, IDF1)",
        "tracker": config.choices["tracker"],
        "data": config.data.name,
        "queries stored as": config.cache.dtype,
        "device": torch.cuda.get_device_name() if gpu else f"CPU, {torch.get_num_threads()} threads",
        "intervals": f"95 %, {plural(asked.bootstrap, 'resample')} of the videos"
        if asked.bootstrap
        else None,
        "optuna": require_optuna().__version__,
        "torch": torch.__version__,
    }

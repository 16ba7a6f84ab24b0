"""A whole experiment: data, weights, training, evaluation of every row, the comparison table."""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Mapping
from datetime import timedelta
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import InitProcessGroupKwargs, broadcast
from filelock import FileLock, Timeout
from torch import Tensor, nn

from vistk.comparison import commit, compare
from vistk.composer import parse_word
from vistk.config import NEUTRAL_KEYS, Composed, RunConfig, config_hash, save
from vistk.data.clips import training_clips
from vistk.data.mixing import ClipSource
from vistk.engine.loggers import AUTO, PACKAGES, RunLogger, choose, forget
from vistk.engine.train import train
from vistk.files import file_hash
from vistk.models.checkpoints import save_weights
from vistk.models.precision import require_usable
from vistk.models.segmenter import Segmenter
from vistk.models.weight_files import files_of
from vistk.presets import get_preset
from vistk.schema import ConfigError
from vistk.splits import RunData, open_data
from vistk.start_weights import load_start_weights, start_weights
from vistk.trackers.ablations import ABLATIONS
from vistk.trackers.base import Tracker
from vistk.trackers.registry import get_tracker
from vistk.watching import make_logger, make_sampler, results_of

WEIGHTS = "weights.safetensors"
"""What a run trains, in its directory."""


def run(composed: Composed) -> Path:
    """Run an experiment, or what is left of it, in its run directory.

    Returns:
        Path of ``metrics.json``. Beside it: ``config.yaml``, ``log.jsonl``, ``weights.safetensors``,
        ``rows/<row>/<split>/results.json`` and ``table.md|csv|tex|json``.

    Raises:
        ValueError: a subclass of it; the input cannot be used, and the message says what to mend.
        OSError: a file cannot be read or written.
        vistk.engine.train.Interrupted: stopped on request; the same words resume.
    """
    logger = choose(composed.config.choices["logger"])
    accelerator = _accelerator(composed.config, composed.run_dir, logger)
    if not accelerator.is_main_process:
        return _run(composed, accelerator, logger)
    composed.run_dir.mkdir(parents=True, exist_ok=True)
    try:
        # After Ctrl-C a launcher may return before its child has written the checkpoint.
        with FileLock(composed.run_dir / ".lock", timeout=1):  # longer than a sweep's look at it
            return _run(composed, accelerator, logger)
    except Timeout:
        raise ConfigError(f"{composed.run_dir} is in use by another process; wait for it to end") from None


def _run(composed: Composed, accelerator: Accelerator, logger_name: str | None) -> Path:
    config: RunConfig = composed.config
    run_dir = composed.run_dir
    require_usable(config.precision, accelerator.device)
    began_at = commit()  # the code that runs, whatever is committed meanwhile
    metrics_path = run_dir / "metrics.json"
    if accelerator.is_main_process:
        save(composed)
    accelerator.wait_for_everyone()
    if config.resume and metrics_path.exists():
        accelerator.print(f"{metrics_path} is there already; resume=false runs it again\n")
        accelerator.print((run_dir / "table.md").read_text())
        return metrics_path

    if config.preset and (meant := get_preset(config.preset).data) != config.choices["data"]:
        accelerator.print(
            f"preset={config.preset} is of data={meant}: what it says of its data (sizes, for one) does "
            f"not hold for data={config.choices['data']}, all else does"
        )
    data = open_data(config, accelerator)
    start = start_weights(config, accelerator)
    torch.manual_seed(config.seed)
    # Weights that a file replaces at once need no download.
    segmenter = Segmenter(
        dataclasses.replace(
            config.segmenter, backbone_pretrained=config.segmenter.backbone_pretrained and start is None
        ),
        len(data.categories),
        config.precision,
    )
    tracker = build_tracker(config.choices["tracker"], config.tracker, segmenter)
    fits = load_start_weights(start, config, segmenter, tracker, data.categories, accelerator)
    rows = build_rows(config, segmenter, tracker, accelerator)
    if not config.resume and accelerator.is_main_process:
        shutil.rmtree(run_dir / "checkpoints", ignore_errors=True)
        forget(run_dir)
        for path in (metrics_path, run_dir / "log.jsonl"):
            path.unlink(missing_ok=True)
    accelerator.wait_for_everyone()

    with make_logger(logger_name, composed, data, accelerator) as logger:
        if data.training is not None:
            clips = training_clips(data.training, config.data, data.stills)
            accelerator.print(_training_said(config, data))
            if logger_name is None and config.choices["logger"] == AUTO:
                accelerator.print(
                    f"no curves but log.jsonl: TensorBoard is not installed ({PACKAGES['tensorboard']})"
                )
            _train(composed, fits, segmenter, tracker, clips, data, accelerator, logger)
        trained = config.train.steps if logger.began else 0
        if config.choices["logger"] != AUTO:  # which is for runs that train
            logger.begin(0)  # does nothing where training began it
        path = _evaluate(composed, segmenter, tracker, rows, data, start, began_at, accelerator)
        if logger.began:
            logger.log(results_of(path), trained, again=True)
    return path


def _evaluate(
    composed: Composed,
    segmenter: Segmenter,
    tracker: Tracker[Any],
    rows: Mapping[str, Tracker[Any]],
    data: RunData,
    start: Path | None,
    began_at: str | None,
    accelerator: Accelerator,
) -> Path:
    """Every row over every split, with the card's facts; gives the path of ``metrics.json``."""
    config, run_dir = composed.config, composed.run_dir
    _same_on_all_processes(segmenter, accelerator)
    for row in rows.values():
        if row.state_dict():  # those with heads have the trained ones: build_rows left out all others
            row.load_state_dict(tracker.state_dict())
        row.to(accelerator.device).eval()
    segmenter.to(accelerator.device).eval()
    facts = {"commit": began_at, "config hash": config_hash(config)}
    if accelerator.is_main_process:  # which wrote the weights and writes the card
        start_hash = file_hash(*files_of(start)) if start else None
        facts["weights hash"] = start_hash if data.training is None else file_hash(run_dir / WEIGHTS)
        facts["start weights hash"] = start_hash
    facts |= {**data.notes, "command": " ".join(["experiments/run.py", *composed.overrides])}
    return compare(config, run_dir, segmenter, rows, data.evaluation, accelerator, facts)


def _training_said(config: RunConfig, data: RunData) -> str:
    """What is trained on, in a line."""
    assert data.training is not None
    said = f"{len(data.training.videos):,} training videos of {data.training.json_path}"
    if data.stills is None:
        return said
    stills, videos = config.data.stills.ratio
    return (
        f"{said} and {len(data.stills.videos):,} stills of {data.stills.json_path}, "
        f"batches {stills:g} of stills to {videos:g} of videos"
    )


def _same_on_all_processes(module: nn.Module, accelerator: Accelerator) -> None:
    """Running statistics of batch norms from process 0, whose weights were saved."""
    if accelerator.num_processes > 1:
        for buffer in module.buffers():
            buffer.copy_(broadcast(buffer.to(accelerator.device), from_process=0))


def _train(
    composed: Composed,
    fits: bool,
    segmenter: Segmenter,
    tracker: Tracker[Any],
    clips: ClipSource,
    data: RunData,
    accelerator: Accelerator,
    logger: RunLogger,
) -> None:
    """Train what the configuration says, and save the weights of both."""
    config: RunConfig = composed.config
    settings = config.train
    if settings.freeze_segmenter is None:
        settings = dataclasses.replace(settings, freeze_segmenter=fits)
    elif settings.freeze_segmenter and not fits:
        raise ConfigError(
            "train.freeze_segmenter=true, but parts of the segmenter have no start weights, so trackers "
            "would learn from noise; give weights=FILE that fit, or say train.freeze_segmenter=false"
        )
    accelerator.print(
        f"segmenter {config.choices['segmenter']} ({_millions(segmenter)}, "
        f"{'frozen' if settings.freeze_segmenter else 'trained'}), tracker {config.choices['tracker']} "
        f"({_millions(tracker)})"
    )
    sampler = make_sampler(config, data, composed.run_dir)
    train(
        segmenter,
        tracker,
        clips,
        settings,
        accelerator,
        composed.run_dir,
        config.seed,
        config.data.num_workers,
        logger,
        sampler,
    )
    if accelerator.is_main_process:
        facts = {
            "segmenter": dataclasses.asdict(config.segmenter),
            "tracker": config.choices["tracker"],
            "categories": {str(k): v for k, v in data.categories.items()},
            "words": [word for word in composed.overrides if not _is_neutral(word)],
        }
        save_weights(composed.run_dir / WEIGHTS, _joined(segmenter, tracker), facts)


def _is_neutral(word: str) -> bool:
    """Whether the weights do not depend on a word: their hash must not either."""
    return any(fnmatchcase(parse_word(word).key_or_group, pattern) for pattern in NEUTRAL_KEYS)


def _millions(module: nn.Module) -> str:
    return f"{sum(p.numel() for p in module.parameters()) / 1e6:.2f} M"


def _accelerator(config: RunConfig, run_dir: Path, logger: str | None) -> Accelerator:
    # Without cpu=True a machine without a GPU starts processes that each believe to be alone.
    accelerator = Accelerator(
        cpu=not torch.cuda.is_available(),
        gradient_accumulation_steps=config.train.accumulate,
        log_with=logger,
        project_dir=run_dir,
        # The others wait while one process scores a large split, longer than the usual ten minutes.
        kwargs_handlers=[InitProcessGroupKwargs(timeout=timedelta(hours=6))],
    )
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world != accelerator.num_processes:
        raise ConfigError(f"launched as {world} processes, but Accelerate sees {accelerator.num_processes}")
    return accelerator


def build_tracker(name: str, tracker_config: Any, segmenter: Segmenter) -> Tracker[Any]:
    """A tracker with fresh weights, made for a segmenter."""
    cls, _ = get_tracker(name)
    try:
        return cls(
            tracker_config,
            embed_dim=segmenter.embed_dim,
            feature_channels=segmenter.feature_channels,
            num_classes=segmenter.num_classes,
        )
    except ValueError as error:  # a field out of its range
        raise ConfigError(f"tracker={name}: {error}") from error


def _joined(segmenter: nn.Module, tracker: nn.Module) -> dict[str, Tensor]:
    return {f"segmenter.{k}": v for k, v in segmenter.state_dict().items()} | {
        f"tracker.{k}": v for k, v in tracker.state_dict().items()
    }


def build_rows(
    config: RunConfig, segmenter: Segmenter, trained: Tracker[Any], accelerator: Accelerator
) -> dict[str, Tracker[Any]]:
    """The trackers of the table: the trained one, its ablations, and those without weights.

    Raises:
        vistk.trackers.registry.TrackerNameError: a row has no tracker.
    """
    name = config.choices["tracker"]
    rows: dict[str, Tracker[Any]] = {}
    for row in dict.fromkeys([*config.evaluation.rows, name]):
        if row == name:
            rows[row] = trained
            continue
        _, row_config = get_tracker(row)
        if row in ABLATIONS and ABLATIONS[row][0] == name:
            row_config = dataclasses.replace(config.tracker, **ABLATIONS[row][1])
        try:
            tracker = build_tracker(row, row_config, segmenter)
        except ConfigError as error:  # the ablation of a tracker that the words have changed
            accelerator.print(f"row {row} is left out: {error}")
            continue
        own, given = tracker.state_dict(), trained.state_dict()
        if own and {k: v.shape for k, v in own.items()} != {k: v.shape for k, v in given.items()}:
            accelerator.print(f"row {row} is left out: it has heads that tracker={name} did not train")
            continue
        rows[row] = tracker
    return rows

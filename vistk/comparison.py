"""The comparison: every tracker over every split on one segmenter, scored and put in a table."""

from __future__ import annotations

import json
import resource
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from vistk.config import RunConfig
from vistk.data.transforms import resize_for_test
from vistk.data.ytvis import YTVIS
from vistk.engine.cache import QueryCache
from vistk.engine.difference import difference
from vistk.engine.infer import TrackedVideo, Video, track_video, track_videos
from vistk.engine.progress import progress_bar
from vistk.engine.shards import CacheError
from vistk.evaluation.parts import PARTS, evaluate_parts
from vistk.evaluation.report import evaluate
from vistk.evaluation.submission import write_submission
from vistk.evaluation.tables import METRICS, comparison_table, to_markdown, write_table
from vistk.files import file_hash, write_text
from vistk.models.segmenter import Segmenter
from vistk.splits import EvaluationSplit
from vistk.structures import FrameTargets, VideoRecord
from vistk.trackers.base import Tracker


def frame_readers(source: YTVIS, video: VideoRecord, data: Any) -> list[Callable[[], Tensor]]:
    """For each frame a function that reads it and resizes it for testing."""

    def read(t: int) -> Tensor:
        return resize_for_test(source.read_frame(video, t)[None], data)[0]

    return [partial(read, t) for t in range(len(video))]


def frame_targets(source: YTVIS, video: VideoRecord) -> list[FrameTargets]:
    """Ground truth of every frame, crowds left out."""
    labels = {category: label for label, category in enumerate(source.category_ids)}
    targets = []
    for t in range(len(video)):
        shown = [
            (i, annotation, rle)
            for i, (annotation, rle) in enumerate(
                zip(video.annotations, source.frame_rles(video, t), strict=True)
            )
            if rle is not None and not annotation.iscrowd
        ]
        targets.append(
            FrameTargets(
                torch.tensor([i for i, _, _ in shown], dtype=torch.int64),
                torch.tensor([labels[a.category_id] for _, a, _ in shown], dtype=torch.int64),
                tuple(rle for _, _, rle in shown),
            )
        )
    return targets


def open_cache(
    config: RunConfig,
    segmenter: Segmenter,
    rows: Mapping[str, Tracker[Any]],
    source: YTVIS,
    split: str,
    accelerator: Accelerator,
) -> QueryCache | None:
    """The cache of a split's queries, as ``cache=..`` says; None for ``off``. Says what is there.

    Raises:
        CacheError: ``cache=read``, and not everything is there.
    """
    mode = config.choices["cache"]
    if mode == "off":
        return None
    propagating = [row for row, tracker in rows.items() if tracker.propagates]
    if propagating and mode != "auto":
        raise CacheError(
            f"cache={mode}, but row {propagating[0]} has its frames segmented for itself alone, and they "
            "are not stored; cache=auto does so for that row and reads the queries of the others"
        )
    rows = {row: tracker for row, tracker in rows.items() if row not in propagating}
    if not rows:
        return None
    data = {
        "annotations": file_hash(source.json_path),
        "data.test_short_side": config.data.test_short_side,
        "data.test_max_side": config.data.test_max_side,
    }
    cache = QueryCache(config.cache, mode, segmenter, rows, source.videos, data)
    count, lacking = len(source.videos), len(cache.lacking())
    said = f"reading the queries of {count - lacking} of {count} videos of {split} from cache {cache.folder}"
    said += f" ({cache.num_bytes() / 1e6:.1f} MB)"
    accelerator.print(f"{said}, segmenting and storing {lacking}" if lacking else said)
    return cache


def _track_split(
    config: RunConfig,
    segmenter: Segmenter,
    rows: Mapping[str, Tracker[Any]],
    source: YTVIS,
    split: str,
    cache: QueryCache | None,
    accelerator: Accelerator,
    run_dir: Path,
) -> dict[str, dict[str, Any]]:
    """Results of every row on one split, merged over processes: entries and counters."""
    counters = {"frames": 0, "cached": 0, "identical": 0, "segment_seconds": 0.0, "track_seconds": 0.0}
    merged: dict[str, dict[str, Any]] = {row: {"results": [], **counters} for row in rows}
    mine = source.videos[accelerator.process_index :: accelerator.num_processes]
    found = _tracked(config, segmenter, rows, source, mine, cache, accelerator.device)
    for tracked in progress_bar(accelerator, found, total=len(mine), desc=f"evaluate {split}", unit="video"):
        for row, result in tracked.items():
            _add(merged[row], result)
            read = cache is not None and cache.last == "read" and not rows[row].propagates
            merged[row]["cached"] += result.num_frames if read else 0
    merged = _over_processes(merged, run_dir / "rows", split, accelerator)
    # Equal scores are ranked by their order in the file, which must not depend on the processes.
    place = {video.video_id: i for i, video in enumerate(source.videos)}
    for total in merged.values():
        total["results"].sort(key=lambda entry: place[entry["video_id"]])
    return merged


def _over_processes(
    own: dict[str, dict[str, Any]], folder: Path, split: str, accelerator: Accelerator
) -> dict[str, dict[str, Any]]:
    """The sums of all processes, in each of them, through files: results of long videos are large."""
    merged = own
    if accelerator.num_processes > 1:
        paths = [folder / f".{split}.{rank}.json" for rank in range(accelerator.num_processes)]
        write_text(paths[accelerator.process_index], json.dumps(own))
        accelerator.wait_for_everyone()
        parts = [json.loads(path.read_text()) for path in paths]
        merged = {
            row: {key: sum((p[row][key] for p in parts[1:]), parts[0][row][key]) for key in own[row]}
            for row in own
        }
        accelerator.wait_for_everyone()
    if accelerator.is_main_process:  # those of a run that was killed as well, however many processes it had
        for path in folder.glob(f".{split}.*.json"):
            path.unlink()
    return merged


def _tracked(
    config: RunConfig,
    segmenter: Segmenter,
    rows: Mapping[str, Tracker[Any]],
    source: YTVIS,
    videos: Sequence[VideoRecord],
    cache: QueryCache | None,
    device: torch.device,
) -> Iterator[dict[str, TrackedVideo]]:
    """Results of every row on each of these videos: several at once, or one by one where there is a cache."""

    def opened(video: VideoRecord) -> Video:
        return Video(
            frame_readers(source, video, config.data),
            (video.height, video.width),
            video.video_id,
            source.category_ids,
            frame_targets(source, video) if source.has_annotations else None,
        )

    if cache is None:
        yield from track_videos(segmenter, rows, map(opened, videos), config.evaluation, device)
        return
    for video in videos:
        it = opened(video)
        track = partial(
            track_video,
            segmenter,
            rows,
            it.frames,
            it.output_size,
            config.evaluation,
            device,
            it.video_id,
            it.category_ids,
            it.targets,
        )
        tracked = track(source=partial(cache.windows, video))
        if cache.last == "stored" and cache.stored == 1 and config.cache.dtype != "float32":
            _say_difference(config.cache.dtype, video, tracked, track())
        yield tracked


def _say_difference(
    dtype: str,
    video: VideoRecord,
    cached: Mapping[str, TrackedVideo],
    live: Mapping[str, TrackedVideo],
) -> None:
    """What storing in few bits did to the predictions, of the row that it changed most."""
    found = {row: difference(cached[row].prediction, live[row].prediction) for row in cached}
    row = max(found, key=lambda row: (found[row].others, found[row].masks, found[row].score))
    print(f"{dtype} against live on video {video.video_id}, row {row}, which changed most: {found[row]}")


def _add(total: dict[str, Any], result: TrackedVideo) -> None:
    total["results"] += result.prediction.to_ytvis()
    total["frames"] += result.num_frames
    total["identical"] += result.identical
    total["segment_seconds"] += result.segment_seconds
    total["track_seconds"] += result.track_seconds


def compare(
    config: RunConfig,
    run_dir: Path,
    segmenter: Segmenter,
    rows: Mapping[str, Tracker[Any]],
    splits: Mapping[str, EvaluationSplit],
    accelerator: Accelerator,
    facts: Mapping[str, Any],
) -> Path:
    """Track every row on every split, score those whose truth is known; write it all into ``run_dir``.

    Beside the results of a split that cannot be scored lies ``submission.zip``, for a server.

    Args:
        facts: further entries of the table's card, "command" among them.

    Returns:
        Path of ``metrics.json``.
    """
    metrics: dict[str, dict[str, Any]] = {row: {} for row in rows}
    speeds: dict[str, list[float]] = {row: [] for row in rows}  # frames/s of each split
    cached: list[float] = []  # share of the frames of each row and split whose queries were read
    caches = {
        name: open_cache(config, segmenter, rows, split.source, name, accelerator)
        for name, split in splits.items()
    }
    for name, split in splits.items():
        known = split.source.has_annotations
        wanted = {row: tracker for row, tracker in rows.items() if known or not tracker.uses_targets}
        tracked = _track_split(
            config, segmenter, wanted, split.source, name, caches[name], accelerator, run_dir
        )
        if not accelerator.is_main_process:
            continue
        for row, total in tracked.items():
            path = write_text(run_dir / "rows" / row / name / "results.json", json.dumps(total["results"]))
            if not split.scored:
                write_submission(path, path.with_name("submission.zip"))
            seconds = total["segment_seconds"] + total["track_seconds"]
            speeds[row].append(total["frames"] / max(seconds, 1e-9))
            cached.append(total["cached"] / max(total["frames"], 1))
            counted = {
                "identity_permutations": total["identical"] / max(total["frames"], 1),
                "frames_per_second": speeds[row][-1],
            }
            for column, numbers in scores(name, split, path, config.evaluation.track_score).items():
                metrics[row][column] = numbers | counted
        if not split.scored:
            hint = "; data.local_split=0.15, in training too, holds out training videos to score"
            accelerator.print(
                f"{split.source.json_path} has no annotations: results.json and submission.zip are written "
                f"to {run_dir / 'rows'}/*/{name}, nothing is scored{'' if config.data.local_split else hint}"
            )
    path = run_dir / "metrics.json"
    if accelerator.is_main_process:
        card = _card(config, speeds[config.choices["tracker"]], cached, accelerator, facts)
        table = {row: splits for row, splits in metrics.items() if splits}
        frame, _ = comparison_table(table, metrics=[*METRICS, *_occlusion_metrics(table)])
        write_table(frame, card, run_dir)
        write_text(path, json.dumps({"rows": metrics, "card": card}, indent=2) + "\n")
        print("\n" + to_markdown(frame, card))
        print(f"table and results in {run_dir}")
    accelerator.wait_for_everyone()
    return path


def scores(
    name: str, split: EvaluationSplit, results: Path, score_threshold: float
) -> dict[str, dict[str, Any]]:
    """The metrics of a results file by column of the table: the split and, where it has parts, each part.

    Where there are parts (YouTube-VIS 2022), the column of the split has the means over the parts.
    """
    if split.parts:
        numbers = evaluate_parts(split.truth, split.parts, results, score_threshold=score_threshold)
        ends = {f"{name} ({PARTS[suffix]})": f"_{suffix}" for suffix in split.parts}
        columns: dict[str, dict[str, Any]] = {
            column: {key.removesuffix(end): value for key, value in numbers.items() if key.endswith(end)}
            for column, end in ends.items()
        }
        return columns | {f"{name} (mean)": {key: numbers[key] for key in next(iter(columns.values()))}}
    if split.truth is not None:
        return {name: dict(evaluate(split.truth, results, score_threshold=score_threshold).metrics)}
    return {}


def _occlusion_metrics(table: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> list[str]:
    """AP by occlusion, where any split has it (OVIS)."""
    found = {key for row in table.values() for numbers in row.values() for key in numbers}
    return [name for name in ("APso", "APmo", "APho") if name in found]


def _card(
    config: RunConfig,
    speeds: Sequence[float],
    cached: Sequence[float],
    accelerator: Accelerator,
    facts: Mapping[str, Any],
) -> dict[str, Any]:
    """What a reader needs to judge or repeat the table."""
    tracker = config.choices["tracker"]
    timed = f"segmenter and {tracker}"
    if any(cached):
        timed = f"{tracker}, {100 * sum(cached) / len(cached):.0f} % of the queries from a cache"
    if torch.cuda.is_available():
        memory = f"{torch.cuda.max_memory_allocated() / 2**20:.0f} MiB (GPU)"
        device = torch.cuda.get_device_name()
    else:
        memory = f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10:.0f} MiB (host)"
        device = f"CPU, {torch.get_num_threads()} threads"
    side = config.data.test_short_side
    arithmetic = config.precision.pixel_decoder
    return {
        "seeds": config.seed,
        "kept predictions": config.evaluation.keep_top,
        "test size": f"short side {side}" if side else "as the files are",
        "rescored": config.evaluation.rescore,
        "score threshold": f"{config.evaluation.track_score} (AssA, IDF1)",
        **{name: fact for name, fact in facts.items() if name != "command"},
        **({"pixel decoder": arithmetic} if arithmetic else {}),
        "device": device,
        "frames/s": f"{sum(speeds) / len(speeds):.0f} ({timed})" if speeds else None,
        **({} if config.choices["cache"] == "off" else {"queries stored as": config.cache.dtype}),
        "peak memory": memory,
        "processes": accelerator.num_processes,
        "precision of training": accelerator.mixed_precision,
        "torch": torch.__version__,
        "command": facts["command"],
    }


def commit() -> str | None:
    """Commit of the working tree this package lies in, marked where files differ; None elsewhere."""
    git = ["git", "-C", str(Path(__file__).parent)]
    try:
        head = subprocess.run(
            [*git, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, check=True
        )
        dirty = subprocess.run(
            [*git, "status", "--porcelain", "-uno"], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return head.stdout.strip() + ("-modified" if dirty.stdout.strip() else "")

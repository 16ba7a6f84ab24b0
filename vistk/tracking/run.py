"""One video from its frames to its tracks, in a folder in which it goes on when it was interrupted."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from fractions import Fraction
from importlib.metadata import PackageNotFoundError, version
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from tqdm import tqdm

from vistk.comparison import commit
from vistk.data.frame_sources import Selection, Source, SourceFrame
from vistk.data.progress import style
from vistk.data.video_files import open_source
from vistk.engine.stream import Stream
from vistk.engine.train import Interrupt, Interrupted
from vistk.evaluation.printing import plural
from vistk.files import write_text
from vistk.tracking.model import Model, TrackingError, open_model
from vistk.tracking.outputs import NAMES, RESULTS, Outputs, Wanted, clear

ABOUT = "about.json"
STORE = ".segmented"
"""Folder of the queries of the frames so far; gone when all is done."""


@dataclass(frozen=True)
class Asked:
    """What is to be tracked, and how."""

    given: str  # a video file, a folder of frames or the number of a camera
    words: Sequence[str] = ()
    selection: Selection = field(default_factory=Selection)
    rate: Fraction | None = None  # frames/s of a folder
    short_side: int | None = None  # pixels; None = as the words say
    max_side: int | None = None
    device: str | None = None  # None = a GPU where there is one
    wanted: Wanted = field(default_factory=Wanted)


def track(
    asked: Asked,
    out: Path,
    *,
    overwrite: bool = False,
    keep: bool = False,
    say: Callable[[str], None] = print,
    progress: bool = True,
) -> Path:
    """Track a video, or what is left of it, into ``out``.

    Args:
        overwrite: replace what another command left in ``out``.
        keep: leave the queries of the frames in ``out``, so that the same frames need no segmenting again.
        say: is told what a reader would want to know, line by line.
        progress: show a bar.

    Returns:
        Path of ``results.json``. Beside it ``about.json`` and what ``asked.wanted`` names.

    Raises:
        ValueError: a subclass of it; the video cannot be tracked as asked, and the message says why.
        OSError: a file cannot be read or written.
        Interrupted: stopped on request; the same call goes on.
    """
    device = _device(asked.device)
    with open_source(asked.given, asked.rate) as source:
        model = open_model(asked.words, device)
        say(model.said)
        plan = _plan(asked, source, model)
        out.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(out / ".lock", timeout=0):
                if not _is_new(out, plan, overwrite):
                    say(f"{out / 'results.json'} is there already, of the same command")
                    return out / RESULTS
                return _track(asked, source, model, plan, out, keep, say, progress)
        except Timeout:
            raise TrackingError(f"{out} is in use by another process; wait for it to end") from None


def _track(
    asked: Asked,
    source: Source,
    model: Model,
    plan: Mapping[str, Any],
    out: Path,
    keep: bool,
    say: Callable[[str], None],
    progress: bool,
) -> Path:
    selection, sides = asked.selection, plan["network"]
    leading, frames = _up_to_the_first(source.frames(selection), asked.given)
    first = leading[-1].image
    assert first is not None
    size = (first.shape[0], first.shape[1])
    resumed = (out / STORE).exists()
    if resumed:
        say("goes on: what was segmented before is read")
    total = selection.expected(source.count, source.rate)
    began = time.monotonic()
    with (
        Interrupt().watch() as interrupt,
        Stream(
            model.segmenter,
            model.tracker,
            short_side=sides["short side"],
            max_side=sides["max side"],
            protocol=model.protocol,
            record=True if source.endless else out / STORE,
        ) as stream,
        Outputs(out, asked.wanted, source, selection.every, model.categories, size) as outputs,
        tqdm(total=total, desc=source.name, unit="frame", disable=not progress, **style()) as bar,
    ):
        _write_about(out, plan, None)  # from here on the folder is that of this command
        for frame in chain(leading, frames):
            if frame.image is None:
                stream.skip()
                outputs.add(frame, None)
            else:
                outputs.add(frame, stream.push(frame.image))
            bar.update()
            if interrupt.requested:
                if source.endless:
                    break
                after = plural(outputs.frames, "frame")
                raise Interrupted(f"stopped after {after}: the same command goes on from there in {out}")
        prediction = stream.close()
        written = outputs.finish(prediction)
    seconds = time.monotonic() - began
    if outputs.lost:
        outputs.said.append(
            f"{outputs.lost} of {plural(outputs.frames, 'frame')} could not be decoded, and have no masks"
        )
    made = {
        "source": source.name,
        "frames": outputs.frames,
        "frames that could not be decoded": outputs.lost,
        "height": size[0],
        "width": size[1],
        "frames/s of the source": float(source.rate),
        "tracklets": len(prediction.tracklets),
        "seconds": {"all": round(seconds, 1), **{k: round(v, 1) for k, v in vars(stream.seconds).items()}},
        "resumed": resumed,
        "weights": str(model.weights),
        "words": list(model.words),
        "written": written,
        "notes": outputs.said,
        "versions": _versions(),
    }
    _write_about(out, plan, made)
    if not keep:
        shutil.rmtree(out / STORE, ignore_errors=True)
    for line in outputs.said:
        say(line)
    say(
        f"{plural(outputs.frames, 'frame')}, {plural(len(prediction.tracklets), 'tracklet')}, "
        f"{outputs.frames / seconds:.1f} frames/s: {', '.join(written)} in {out}"
    )
    return out / RESULTS


def _up_to_the_first(
    frames: Iterator[SourceFrame], given: str
) -> tuple[list[SourceFrame], Iterator[SourceFrame]]:
    """Frames up to the first one that can be decoded, which says how large the video is; and the others."""
    leading = []
    for frame in frames:
        leading.append(frame)
        if frame.image is not None:
            return leading, frames
    if not leading:
        raise TrackingError(f"{given} has no frame to be tracked")
    raise TrackingError(f"{given}: of {plural(len(leading), 'frame')} none can be decoded")


def _device(name: str | None) -> torch.device:
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:  # no such kind, none here, none of that number
        raise TrackingError(
            f"device {name!r} cannot be used ({str(error).strip().splitlines()[0]}); expected cpu, cuda or "
            "cuda:<number>"
        ) from error
    return device


def _plan(asked: Asked, source: Source, model: Model) -> dict[str, Any]:
    """All that the outputs depend on, in plain values."""
    data, chosen = model.config.data, asked.selection
    plan = {
        "input": {
            **source.identity,
            "rate": str(source.rate),
            "every": chosen.every,
            "start": chosen.start,
            "end": str(chosen.end),
            "limit": chosen.limit,
        },
        "network": {
            **model.identity,
            "short side": data.test_short_side if asked.short_side is None else asked.short_side,
            "max side": data.test_max_side if asked.max_side is None else asked.max_side,
        },
        "shown": asdict(asked.wanted),
    }
    return dict(json.loads(json.dumps(plan)))


def _is_new(out: Path, plan: Mapping[str, Any], overwrite: bool) -> bool:
    """Whether there is anything left to do; what another command left is refused, or removed.

    Raises:
        TrackingError: another command has used the folder.
    """
    about = out / ABOUT
    there = [name for name in (*NAMES, STORE) if (out / name).exists()]
    if not about.exists():
        if there and not overwrite:
            raise TrackingError(
                f"{out} holds {there[0]} of another command; give another folder or say --overwrite"
            )
        clear(out, (*NAMES, STORE))
        return True
    try:
        found = json.loads(about.read_text(encoding="utf-8"))
        before, made = found["asked"], found["made"]
        others = list(_differences(before, plan))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        if not overwrite:
            raise TrackingError(f"{about} is damaged; remove it, or say --overwrite") from error
        before, made, others = {}, None, ["all of it"]
    if not others:
        if made is not None and (out / RESULTS).exists() and not overwrite:
            if "camera" in plan["input"]:
                raise TrackingError(f"{out} holds a recording; give another folder or say --overwrite")
            return False
    elif not overwrite:
        raise TrackingError(
            f"{about} is of another command: {others[0]}; give another folder or say --overwrite"
        )
    if overwrite:
        same = all(before.get(part) == plan[part] for part in ("input", "network"))
        clear(out, (*NAMES, ABOUT, *(() if same else (STORE,))))
    return True


def _differences(there: Mapping[str, Any], here: Mapping[str, Any]) -> Iterator[str]:
    for part in here:
        for key in {**there[part], **here[part]}:
            old, new = there[part].get(key), here[part].get(key)
            if old != new:
                yield f"{part}: {key} is {old} there and {new} here"


def _write_about(out: Path, plan: Mapping[str, Any], made: Mapping[str, Any] | None) -> None:
    """``made`` is what came of it, None while it is at work."""
    write_text(out / ABOUT, json.dumps({"asked": plan, "made": made}, indent=2) + "\n")


def _versions() -> dict[str, str | None]:
    found: dict[str, str | None] = {"commit": commit()}
    for name in ("vis-toolkit", "torch", "av"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # not needed: a folder of frames, and no overlay
            found[name] = None
    return found

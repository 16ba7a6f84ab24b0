"""One video from its frames to its tracks, in a folder in which it goes on when it was interrupted."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
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
from vistk.engine.stream_store import OtherStreamError
from vistk.engine.train import Interrupt, Interrupted
from vistk.evaluation.printing import plural
from vistk.tracking.folder import STORE, Folder
from vistk.tracking.model import Model, TrackingError, open_model
from vistk.tracking.outputs import RESULTS, Outputs, Wanted


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
        overwrite: replace what another command wrote into ``out``, once all is done.
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
        folder = Folder(out, _plan(asked, source, model))
        if not source.endless:
            folder.require_apart([Path(asked.given), *(Path(asked.given, n) for n in source.files or ())])
        folder.make()
        try:
            with FileLock(out / ".lock", timeout=0):
                if folder.is_done(overwrite):
                    say(f"{out / RESULTS} is there already, of the same command")
                    return out / RESULTS
                folder.require_ours(asked.wanted.paths(source.name))
                folder.sweep()
                return _track(asked, source, model, folder, keep, say, progress)
        except Timeout:
            raise TrackingError(f"{out} is in use by another process; wait for it to end") from None


def _track(
    asked: Asked,
    source: Source,
    model: Model,
    folder: Folder,
    keep: bool,
    say: Callable[[str], None],
    progress: bool,
) -> Path:
    selection, out = asked.selection, folder.out
    leading, frames = _up_to_the_first(source.frames(selection), asked.given)
    first = leading[-1].image
    assert first is not None
    size = (first.shape[0], first.shape[1])
    folder.drop_other_frames()
    total = selection.expected(source.count, source.rate)
    began = time.monotonic()
    with (
        Interrupt().watch() as interrupt,
        Outputs(out, asked.wanted, source, selection, model.categories, size) as outputs,
        _stream(model, folder, source.endless, say) as stream,
        tqdm(total=total, desc=source.name, unit="frame", disable=not progress, **style()) as bar,
    ):
        resumed = any((out / STORE).glob("*.safetensors"))
        if resumed:
            say("goes on: what was segmented before is read")
        folder.claim()
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
        folder.take(outputs.folder, outputs.finish(prediction))
    seconds = time.monotonic() - began
    if source.broken is not None:
        outputs.said.append(source.broken)
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
        "written": outputs.written,
        "notes": outputs.said,
        "versions": _versions(),
    }
    folder.finish(made)
    if not keep:
        folder.drop_frames()
    for line in outputs.said:
        say(line)
    say(
        f"{plural(outputs.frames, 'frame')}, {plural(len(prediction.tracklets), 'tracklet')}, "
        f"{outputs.frames / seconds:.1f} frames/s: {', '.join(outputs.written)} in {out}"
    )
    return out / RESULTS


def _stream(model: Model, folder: Folder, endless: bool, say: Callable[[str], None]) -> Stream:
    """A stream over what was segmented before, unless that is of no use any more."""
    sides = folder.plan["network"]

    def opened() -> Stream:
        return Stream(
            model.segmenter,
            model.tracker,
            short_side=sides["short side"],
            max_side=sides["max side"],
            protocol=model.protocol,
            record=True if endless else folder.out / STORE,
        )

    try:
        return opened()
    except OtherStreamError:
        say("what was segmented before is of another version, and is segmented again")
        folder.drop_frames()
        return opened()


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
        why = str(error).strip().splitlines()[0].partition(". ")[0]  # the rest is advice to download things
        raise TrackingError(
            f"device {name!r} cannot be used ({why}); expected cpu, cuda or cuda:<number>"
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


def _versions() -> dict[str, str | None]:
    found: dict[str, str | None] = {"commit": commit()}
    for name in ("vis-toolkit", "torch", "av"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # not needed: a folder of frames, and no overlay
            found[name] = None
    return found

"""``vistk show`` as a function: pictures of one video of a run, as files."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import Any

from PIL import Image

from vistk.files import replacing
from vistk.inspection import decisions, pictures
from vistk.inspection.associations import AssociationStep, trace
from vistk.inspection.names import InspectionError, require_known
from vistk.inspection.run_view import RunView, VideoView
from vistk.viz.figures import png
from vistk.viz.video_writer import VideoWriter

WHAT = ("strip", "timeline", "similarities", "memory", "embedding")
WORST = "worst"
MOST_FIGURES = 6
"""Frames of similarities and tracks of memories, unless they are named."""
FILM_RATE = Fraction(5)
"""Frames/s of a video, which are slow enough to be looked at."""


@dataclass(frozen=True)
class Asked:
    """What is to be shown of a run."""

    video: str  # id, name, or "worst"
    split: str | None = None  # None: the only one; for the worst video any
    rows: Sequence[str] = ()  # none: the run's tracker, and MinVIS beside it
    what: Sequence[str] = WHAT
    frames: Sequence[int] | None = None  # None: all that tell something
    metric: str = "AP"  # by which the worst video is worst, for the first of the rows
    film: bool = False  # a video file, too
    out: Path | None = None  # None: RUN/show/<split>/<video>
    say: Callable[[str], None] = field(default=print)


def show(run: RunView, asked: Asked) -> list[Path]:
    """Write pictures, each whole or not at all.

    Returns:
        The files, in the order of ``asked.what``.

    Raises:
        InspectionError: a row, split, video, frame or picture is unknown, and the message names what is
            nearest; or a package is missing that draws it.
        CheckpointError: the run's weights are gone, which all but strips and timelines need.
        OSError: a file cannot be read or written.
    """
    if not asked.what:
        raise InspectionError(f"--what names no picture; there are {', '.join(WHAT)}")
    for name in asked.what:
        require_known("picture", name, WHAT, "--what")
    rows = list(asked.rows) or default_rows(run)
    for row in rows:
        require_known("row", row, run.rows, run.name)
    view = find_video(run, asked, rows[0])
    frames = _frames(view, asked.frames)
    out = asked.out or run.run_dir / "show" / view.split.name / str(view.video_id)
    written = []
    try:
        for name, picture in _pictures(view, rows, frames, asked):
            written.append(_save(picture, out / f"{name}.png"))
            asked.say(str(written[-1]))
    except ImportError as error:  # an extra; what else is imported here is there
        raise InspectionError(str(error)) from error
    if asked.film:
        written.append(_film(view, rows, frames, out / "side-by-side.mp4"))
        asked.say(str(written[-1]))
    return written


def default_rows(run: RunView) -> list[str]:
    """The run's own tracker first, then what it is compared with: MinVIS, where it was tracked."""
    own = run.config.choices["tracker"]
    return [row for row in (own, "minvis") if row in run.rows][: 1 if own == "minvis" else 2] or [run.rows[0]]


def find_video(run: RunView, asked: Asked, row: str) -> VideoView:
    """The video that is asked for."""
    splits = [asked.split] if asked.split is not None else list(run.splits)
    if asked.video != WORST:
        if len(splits) > 1:
            raise InspectionError(
                f"{run.name} has several splits, and each may have a video {asked.video}: say --split "
                f"{' or '.join(splits)}"
            )
        return run.split(splits[0]).find(asked.video)
    opened = [run.split(split) for split in splits]
    known = [split for split in opened if split.has_truth and row in split.rows]
    if not known:
        require_known("row", row, opened[0].rows, f"{run.name} on {opened[0].name}")
        opened[0].scores(row)  # says that the truth is hidden
    worst = [(split, split.worst(row, asked.metric)) for split in known]
    sign = known[0].scores(row).sign(asked.metric)
    found = [(sign * videos[0][1], i, videos[0]) for i, (_, videos) in enumerate(worst) if videos]
    if not found:
        raise InspectionError(f"{run.name}: {asked.metric} is undefined for every video")
    _, i, (video_id, value) = min(found)
    asked.say(f"video {video_id} of {worst[i][0].name}: {asked.metric} {value:.3g} of {row}, the worst")
    return worst[i][0].video(video_id)


def _frames(view: VideoView, frames: Sequence[int] | None) -> Sequence[int] | None:
    if not len(view):
        raise InspectionError(f"{view.split.run.name}: {view.title} has no frames")
    for t in frames or ():
        if not 0 <= t < len(view):
            raise InspectionError(
                f"{view.split.run.name}: {view.title} has no frame {t}, expected 0 to {len(view) - 1}"
            )
    return frames


def _pictures(
    view: VideoView, rows: Sequence[str], frames: Sequence[int] | None, asked: Asked
) -> Iterator[tuple[str, Any]]:
    """Name of the file, and what is to be in it."""
    steps: dict[str, list[AssociationStep]] = {}
    for what in asked.what:
        if what == "strip":
            yield what, pictures.strip(view, rows, frames)
            continue
        for row in rows:
            if what == "timeline":
                yield f"{what}-{row}", pictures.timeline(view, row)
                continue
            if row not in steps:
                steps[row] = trace(view, row)
            drawn = 0
            for name, figure in _TRACED[what](view, row, steps[row], frames, asked.say):
                if figure is not None:
                    yield f"{what}-{row}-{name}", figure
                    drawn += 1
            if not drawn:
                asked.say(f"no {what} of {row}: {_WITHOUT[what]}")


def _similarities(
    view: VideoView,
    row: str,
    steps: Sequence[AssociationStep],
    frames: Sequence[int] | None,
    say: Callable[[str], None],
) -> Iterator[tuple[str, Any]]:
    chosen = frames
    if chosen is None:
        deciding = decisions.deciding_frames(view, row)
        chosen = deciding[:MOST_FIGURES]
        if len(deciding) > MOST_FIGURES:
            say(f"similarities of {row}: {MOST_FIGURES} of {len(deciding)} frames; --frames names others")
    return ((f"{t:05d}", decisions.similarity_figure(view, row, steps, t)) for t in chosen)


def _memories(
    view: VideoView,
    row: str,
    steps: Sequence[AssociationStep],
    frames: Sequence[int] | None,
    say: Callable[[str], None],
) -> Iterator[tuple[str, Any]]:
    numbers = decisions.remembering_tracks(view, row)
    if len(numbers) > MOST_FIGURES and any(step.memory is not None for step in steps):
        say(f"memory of {row}: {MOST_FIGURES} of {len(numbers)} tracks")
    return ((f"track-{n}", decisions.memory_of_track(view, row, steps, n)) for n in numbers[:MOST_FIGURES])


def _embeddings(
    view: VideoView,
    row: str,
    steps: Sequence[AssociationStep],
    frames: Sequence[int] | None,
    say: Callable[[str], None],
) -> Iterator[tuple[str, Any]]:
    names = decisions.vector_names(steps)
    return ((name, decisions.embedding_figure(view, row, steps, name)) for name in names)


_TRACED: dict[str, Callable[..., Iterator[tuple[str, Any]]]] = {
    "similarities": _similarities,
    "memory": _memories,
    "embedding": _embeddings,
}
_WITHOUT = {
    "similarities": "it compared nothing where it went wrong, or it did not; --frames says which to show",
    "memory": "it has none that is known",
    "embedding": "it has no vectors",
}


def _film(view: VideoView, rows: Sequence[str], frames: Sequence[int] | None, path: Path) -> Path:
    """Truth and rows side by side, as a video."""
    numbers = range(len(view)) if frames is None else frames
    shown = pictures.side_by_side(view, rows, numbers)
    first = next(shown)
    with (
        replacing(path) as temporary,
        VideoWriter(temporary, (first.shape[0], first.shape[1]), FILM_RATE) as writer,
    ):
        for picture in chain([first], shown):
            writer.write(picture)
    return path


def _save(picture: Any, path: Path) -> Path:
    with replacing(path) as temporary:
        if isinstance(picture, Image.Image):
            picture.save(temporary, "PNG")
        else:
            temporary.write_bytes(png(picture))
    return path

"""Trackers side by side on a video, live, and judged where its people were checked by eye.

    python examples/real_video/live.py vtest.avi -o out

Writes a video with a panel for each tracker, who was where when, and a table of identity switches.
Without weights, background subtraction is the segmenter; ``--segmenter RUN/weights.safetensors`` takes a
network that ``experiments/run.py`` trained on this example's data set.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from identities import load_identities
from lanes import TRACKERS, BackgroundLanes
from panels import Panels, people_timeline, sheet, tracks_timeline
from stretch import Stretch, hand_checked
from tqdm import tqdm
from video import frame_rate, read_frames

from vistk.files import replacing, write_text
from vistk.structures import FrameTargets, VideoPrediction
from vistk.viz.overlay import Shown
from vistk.viz.video_writer import VideoWriter

BACKGROUND = "background"
BY_EYE = "by eye"
COUNTS = ("switches", "fragments", "tracks")
SHARES = ("IDF1", "AssA", "HOTA")
TABLES = ("table.md", "table.csv")
ENDLESS = 10**9  # frames that no video has


class Lanes(Protocol):
    """Trackers that are given one frame after the other."""

    def pass_by(self, frame: np.ndarray) -> None: ...

    def push(self, frame: np.ndarray, targets: FrameTargets | None) -> dict[str, tuple[Shown, ...]]: ...

    @property
    def seconds(self) -> dict[str, float]: ...

    def close(self) -> dict[str, VideoPrediction]: ...


@dataclass(frozen=True)
class Demo:
    """What came of it."""

    frames: range  # source frames that were tracked
    predictions: Mapping[str, VideoPrediction]
    numbers: Mapping[str, Mapping[str, float]]  # by tracker; empty where nobody checked the people
    frames_per_second: float  # drawing and writing included


def demo(
    video: Path,
    out: Path,
    lanes: Lanes,
    frames: range,
    stretch: Stretch | None,
    *,
    track_score: float = 0.0,
    panel_width: int = 384,
) -> Demo:
    """Tracks ``frames`` of a video and writes everything to ``out``.

    Args:
        lanes: fresh ones. They see the frames before the first, and those between, in passing.
        frames: source frames; may reach beyond the end of the video.
        stretch: whose people were checked; None: nobody's, so there are no numbers.
        track_score: least video score of a track that is judged.

    Raises:
        ValueError: the video ends before the first frame.
    """
    rate = frame_rate(video) / frames.step
    panels: Panels | None = None
    tracked = 0
    begun = time.perf_counter()
    with replacing(out / "side_by_side.mp4") as path, ExitStack() as files:
        for index, image in _frames(video, frames):
            if index not in frames:
                lanes.pass_by(image)
                continue
            if panels is None:
                begun = time.perf_counter()
            targets = None if stretch is None else stretch.targets(index)
            shown = lanes.push(image, targets)
            if stretch is not None:
                shown = {BY_EYE: stretch.shown(index), **shown}
            if panels is None:
                panels = Panels(list(shown), (image.shape[1], image.shape[0]), panel_width)
                writer = files.enter_context(VideoWriter(path, panels.canvas, rate))
            writer.write(panels.draw(image, shown, f"frame {index}"))
            tracked += 1
        if not tracked:
            raise ValueError(f"{video}: the video ends before frame {frames.start}")
    seconds = time.perf_counter() - begun
    frames = frames[:tracked]
    predictions = lanes.close()
    numbers = {}
    if stretch is not None:
        numbers = stretch.judge(predictions, frames, track_score)
        spent = lanes.seconds
        rows = {name: row | {"ms": 1000 * spent[name] / tracked} for name, row in numbers.items()}
        _write_table(out, rows)
    else:  # of another time
        for table in TABLES:
            (out / table).unlink(missing_ok=True)
    _write_timelines(out, predictions, frames, stretch, track_score)
    for name, prediction in predictions.items():
        write_text(out / "results" / f"{name}.json", json.dumps(prediction.to_ytvis()))
    return Demo(frames, predictions, numbers, tracked / seconds)


def _frames(video: Path, frames: range) -> Iterator[tuple[int, np.ndarray]]:
    """Source frames up to the last one, with bars that say how fast they are."""
    bar = tqdm(total=frames.start, desc="frames before", unit="frame") if frames.start else None
    for index, image in enumerate(read_frames(video)):
        if index == frames.start:
            if bar is not None:
                bar.close()
            known = len(frames) if frames.stop < ENDLESS else None
            bar = tqdm(total=known, desc="live", unit="frame")
        yield index, image
        if bar is not None and (index < frames.start or index in frames):
            bar.update()
        if index == frames[-1]:
            break
    if bar is not None:
        bar.close()


def _write_table(out: Path, rows: Mapping[str, Mapping[str, float]]) -> None:
    lines = [
        f"| tracker | {' | '.join((*COUNTS, *SHARES))} | ms a frame |",
        f"|---|{'---:|' * (len(COUNTS) + len(SHARES) + 1)}",
    ]
    for name, row in rows.items():
        cells = [f"{row[key]:.0f}" for key in COUNTS] + [f"{100 * row[key]:.1f}" for key in SHARES]
        lines.append(f"| {name} | {' | '.join(cells)} | {row['ms']:.1f} |")
    write_text(out / "table.md", "\n".join(lines) + "\n")
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["tracker", *COUNTS, *SHARES, "ms"])
    writer.writerows([name, *(row[key] for key in (*COUNTS, *SHARES, "ms"))] for name, row in rows.items())
    write_text(out / "table.csv", text.getvalue())


def _write_timelines(
    out: Path,
    predictions: Mapping[str, VideoPrediction],
    frames: range,
    stretch: Stretch | None,
    track_score: float,
) -> None:
    pictures = []
    for name, prediction in predictions.items():
        if stretch is not None:
            covering = stretch.tracks_over_time(prediction, frames, track_score).T
            title = f"{name}, source frames {stretch.frames[0]} to {stretch.frames[-1]}, every {frames.step}."
            pictures.append(people_timeline(np.maximum(covering, -1), covering > -2, title))
        else:
            present = {
                tracklet.track_id: np.array([rle is not None for rle in tracklet.segmentations])
                for tracklet in prediction.tracklets
                if tracklet.score >= track_score
            }
            pictures.append(tracks_timeline(present, name))
    with replacing(out / "timelines.png") as path:
        sheet(pictures).save(path, format="png")


def _range(text: str) -> tuple[int, int]:
    first, _, last = text.partition("-")
    if not (first.isdecimal() and last.isdecimal() and int(first) <= int(last)):
        raise argparse.ArgumentTypeError(f"found {text!r}, expected FIRST-LAST, as 650-792")
    return int(first), int(last)


def _names(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise argparse.ArgumentTypeError(f"found {text!r}, expected names with commas, as minvis,visage")
    return names


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("video", type=Path, help="video of a fixed camera")
    parser.add_argument("-o", "--out", type=Path, required=True, help="folder to write to")
    parser.add_argument(
        "--trackers",
        metavar="LIST",
        type=_names,
        help=f"names with commas (default: {','.join(TRACKERS)}, and oracle where people were checked)",
    )
    parser.add_argument(
        "--segmenter",
        default=BACKGROUND,
        help="'background', or weights.safetensors in the directory of a run (default: %(default)s)",
    )
    parser.add_argument(
        "--frames",
        type=_range,
        metavar="FIRST-LAST",
        help="source frames, both included (default: those whose people were checked; without, all)",
    )
    parser.add_argument("--every", type=int, default=2, metavar="N", help="track every n-th (default: 2)")
    parser.add_argument(
        "--identities",
        default=str(Path(__file__).with_name("identities.json")),
        help="who is where, checked by eye; 'none' for a video that nobody checked: then no numbers",
    )
    parser.add_argument(
        "--track-score",
        type=float,
        help="least score of a track that is judged (default: 0 with the background, else 0.1)",
    )
    parser.add_argument(
        "--panel-width", type=int, default=384, metavar="PIXELS", help="of a tracker (default: 384)"
    )
    return parser.parse_args(argv)


def run(arguments: argparse.Namespace) -> Demo:
    """The demo as the command line says."""
    if arguments.every < 1:
        raise ValueError(f"--every is {arguments.every}, expected 1 or more")
    identities = None if arguments.identities == "none" else load_identities(Path(arguments.identities))
    everything = (0, ENDLESS)
    first, last = arguments.frames or ((identities.first, identities.last) if identities else everything)
    frames = range(first, last + 1, arguments.every)
    if identities:
        judged = sum(identities.first <= frame <= identities.last for frame in frames)
        if judged < 2:
            raise ValueError(
                f"people were checked in the frames {identities.first} to {identities.last}, of which "
                f"{judged} are tracked; expected 2 or more, or --identities none, which judges nobody"
            )
    on_background = arguments.segmenter == BACKGROUND
    names = arguments.trackers or [*TRACKERS, *(["oracle"] if identities and on_background else [])]
    track_score = arguments.track_score
    if track_score is None:
        track_score = 0.0 if on_background else 0.1
    if "oracle" in names and not (identities and on_background):
        raise ValueError("the oracle runs on the background alone, and where people were checked by eye")
    lanes: Lanes
    if on_background:
        lanes = BackgroundLanes(names)
    else:
        if not Path(arguments.segmenter).is_file():
            raise FileNotFoundError(f"--segmenter: no such file {arguments.segmenter}")
        from trained import TrainedLanes  # the background needs no network

        lanes = TrainedLanes(names, Path(arguments.segmenter), track_score)
    stretch = hand_checked(arguments.video, identities, frames) if identities else None
    return demo(
        arguments.video,
        arguments.out,
        lanes,
        frames,
        stretch,
        track_score=track_score,
        panel_width=arguments.panel_width,
    )


def main(argv: list[str] | None = None) -> int:
    arguments = _arguments(argv)
    try:
        done = run(arguments)
    except (OSError, ValueError, ImportError) as error:
        print(f"live: {error}", file=sys.stderr)
        return 1
    table = arguments.out / "table.md"
    if done.numbers:
        print(table.read_text(), end="")
    print(
        f"{len(done.frames)} frames, {done.frames_per_second:.1f} a second with {len(done.predictions)} "
        f"trackers; side_by_side.mp4, timelines.png and more in {arguments.out}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())

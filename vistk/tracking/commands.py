"""``vistk track``: arguments and printing."""

from __future__ import annotations

import argparse
import math
import sys
from fractions import Fraction
from pathlib import Path

from vistk.data.frame_sources import FOLDER_RATE, Selection, VideoFileError
from vistk.engine.train import Interrupted
from vistk.evaluation.commands import at_least
from vistk.tracking.outputs import Wanted
from vistk.tracking.run import Asked, track


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``vistk track``."""
    parser.epilog = (
        "The same command goes on where it was interrupted. Exit code: 0, 2 after a one-line error, 130 "
        "after Ctrl-C; with 0, that is how a camera ends."
    )
    parser.add_argument(
        "input", metavar="INPUT", help="a video file, a folder of frames (jpg, png) or the number of a camera"
    )
    parser.add_argument(
        "words",
        metavar="WORD",
        nargs="*",
        help="tracker=visage weights=RUN/weights.safetensors .. (default: the packaged weights)",
    )
    parser.add_argument("-o", "--out", type=Path, required=True, metavar="OUT", help="folder of the results")
    frames = parser.add_argument_group("which frames")
    frames.add_argument(
        "--every", type=at_least(1), default=1, metavar="N", help="every N-th frame (default %(default)s)"
    )
    frames.add_argument("--limit", type=at_least(1), metavar="N", help="no more than N frames")
    frames.add_argument("--start", type=_seconds, default=0.0, metavar="S", help="seconds that are left out")
    frames.add_argument("--end", type=_seconds, default=math.inf, metavar="S", help="second to stop at")
    frames.add_argument(
        "--fps",
        type=_rate,
        metavar="F",
        help=f"frames per second of a folder, as 12.5 or 30000/1001 (default {FOLDER_RATE})",
    )
    network = parser.add_argument_group("how they are segmented")
    for side, which in (("short", "shorter"), ("max", "longer")):
        network.add_argument(
            f"--{side}-side",
            type=at_least(1),
            metavar="PX",
            help=f"the {which} side of what the network sees{', at most' if side == 'max' else ''} (default: "
            "that of the preset, of the weights' run or of the words, else that of the frames)",
        )
    network.add_argument(
        "--device", metavar="NAME", help="cpu, cuda, cuda:1 (default: a GPU if there is one)"
    )
    made = parser.add_argument_group("what is written beside results.json")
    made.add_argument(
        "--min-score",
        type=_share,
        default=Wanted.min_score,
        metavar="S",
        help="score so far from which a track is shown and reported frame by frame (default %(default)s)",
    )
    made.add_argument(
        "--trails",
        type=at_least(0),
        default=Wanted.trails,
        metavar="N",
        help="frames that a trail reaches back; 0: none (default %(default)s)",
    )
    made.add_argument("--no-video", action="store_true", help="no overlay.mp4")
    made.add_argument("--masks", action="store_true", help="masks/*.png: indexed, value = track + 1")
    made.add_argument("--mots", action="store_true", help="mots/<name>.txt")
    made.add_argument("--coco-video", action="store_true", help="coco_video.json")
    parser.add_argument("--overwrite", action="store_true", help="replace what another command left in OUT")
    parser.add_argument(
        "--keep",
        action="store_true",
        help="keep what was segmented: with --overwrite, other outputs of the same frames come at once",
    )


def run(arguments: argparse.Namespace) -> int:
    """``vistk track``: says what it does; a bar goes to stderr. Raises what the library raises."""
    more = [word for word in arguments.words if "=" not in word]
    if more:  # as of a glob that found several
        raise VideoFileError(f"expected one INPUT, found {' and '.join([arguments.input, *more])}")
    asked = Asked(
        given=arguments.input,
        words=arguments.words,
        selection=Selection(arguments.every, arguments.start, arguments.end, arguments.limit),
        rate=arguments.fps,
        short_side=arguments.short_side,
        max_side=arguments.max_side,
        device=arguments.device,
        wanted=Wanted(
            min_score=arguments.min_score,
            trails=arguments.trails,
            video=not arguments.no_video,
            masks=arguments.masks,
            mots=arguments.mots,
            coco_video=arguments.coco_video,
        ),
    )
    try:
        track(asked, arguments.out, overwrite=arguments.overwrite, keep=arguments.keep)
    except Interrupted as stop:
        print(stop, file=sys.stderr)
        return 130
    except KeyboardInterrupt:  # before the first frame, or the second time
        print("interrupted: the same command goes on", file=sys.stderr)
        return 130
    return 0


def _seconds(text: str) -> float:
    value = _number(text)
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds, 0 or more")
    return value


def _share(text: str) -> float:
    value = _number(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 to 1")
    return value


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _rate(text: str) -> Fraction:
    try:
        value = Fraction(text)
    except (ValueError, ZeroDivisionError):
        value = Fraction(0)
    if value <= 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of frames per second, above 0")
    return value

"""``vistk show``: arguments and printing."""

from __future__ import annotations

import argparse
from pathlib import Path

from vistk.evaluation.commands import words
from vistk.inspection.names import InspectionError
from vistk.inspection.run_view import RunView
from vistk.inspection.show import WHAT, WORST, Asked, show


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``vistk show``."""
    parser.epilog = (
        "The pictures are RUN/show/<split>/<video>/*.png. Numbers and colours: a track is called after the "
        "annotated instance that it covers first, in every row. Exit code: 0, or 2 after a one-line error."
    )
    parser.add_argument("run", metavar="RUN", help="run directory")
    parser.add_argument(
        "video", metavar="VIDEO", help=f"id of the video, the folder of its frames, or '{WORST}'"
    )
    parser.add_argument(
        "words", metavar="WORD", nargs="*", help="what has changed since the run: data.root=DIR"
    )
    parser.add_argument("--split", metavar="NAME", help="split of the video, where the run has several")
    parser.add_argument(
        "--rows",
        type=words,
        default=(),
        metavar="LIST",
        help="rows of the run to be shown (default: the run's tracker, and minvis)",
    )
    parser.add_argument(
        "--what",
        type=words,
        default=WHAT,
        metavar="LIST",
        help=f"pictures (default {','.join(WHAT)}); the last three track the video again",
    )
    parser.add_argument(
        "--frames",
        type=_frames,
        metavar="LIST",
        help="3-9, or 0,4,6-8, from 0 (default: of strips those around failures, of similarities failures)",
    )
    parser.add_argument(
        "--metric",
        default="AP",
        metavar="NAME",
        help=f"by which '{WORST}' is meant, for the first row: AP, IDF1, IDSW, .. (default %(default)s)",
    )
    parser.add_argument("--video", dest="film", action="store_true", help="write side-by-side.mp4 as well")
    parser.add_argument("-o", "--out", type=Path, metavar="DIR", help="folder of the pictures")


def run(arguments: argparse.Namespace) -> int:
    """``vistk show``: prints what it wrote. Raises what the library raises."""
    for word in arguments.words:
        key, equals, _ = word.partition("=")
        if not equals or not (key.startswith(("data.", "cache.")) or key == "evaluation.track_score"):
            raise InspectionError(
                f"{word!r} is not for show, which looks at the run as it was; expected data.KEY=VALUE or "
                "cache.KEY=VALUE for what was moved since, or evaluation.track_score=SCORE"
            )
    asked = Asked(
        video=arguments.video,
        split=arguments.split,
        rows=arguments.rows,
        what=arguments.what,
        frames=arguments.frames,
        metric=arguments.metric,
        film=arguments.film,
        out=arguments.out,
    )
    show(RunView(arguments.run, arguments.words), asked)
    return 0


def _frames(text: str) -> tuple[int, ...]:
    """``3-5,9`` to 3, 4, 5, 9."""
    found: list[int] = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        try:
            span = range(int(first), int(last or first) + 1)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is no list of frames like 3-9 or 0,4,6-8") from None
        if not span:
            raise argparse.ArgumentTypeError(f"{text!r} has a frame that comes before the first one")
        found += span
    return tuple(dict.fromkeys(found))

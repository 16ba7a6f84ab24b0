"""``vistk report``: arguments, and the page that is written."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from vistk.evaluation.commands import at_least, words
from vistk.files import write_text
from vistk.pages.collect import collect
from vistk.pages.page import html, is_report
from vistk.pages.pictures import Budget, add_pictures
from vistk.runs import ALL_ROWS, OWN

PAGE = "index.html"


class ReportError(ValueError):
    """A report that must not be written where it was asked for; the message is one sentence."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``vistk report``."""
    parser.epilog = (
        "The page holds all it shows and opens from disk. Runs that differ in seed only are one row. Exit "
        "code: 0, or 2 after a one-line error."
    )
    parser.add_argument("runs", metavar="DIR", nargs="+", help="run directories, or folders of them")
    parser.add_argument(
        "-o",
        "--out",
        metavar="DIR",
        type=Path,
        default=Path("report"),
        help="folder of the page (%(default)s)",
    )
    parser.add_argument(
        "--rows",
        type=words,
        default=(ALL_ROWS,),
        metavar="LIST",
        help=f"rows of each run: names, '{OWN}' for that of its tracker, or '{ALL_ROWS}' (the default)",
    )
    parser.add_argument(
        "--quoted", action="store_true", help="add published numbers of the data sets, marked as quoted"
    )
    parser.add_argument("--title", default="vistk report", help="title of the page (default %(default)s)")
    pictures = parser.add_argument_group("pictures")
    pictures.add_argument(
        "--worst",
        type=at_least(0),
        default=Budget.worst,
        metavar="N",
        help="videos of each row and split that are shown, by rising AP (default %(default)s)",
    )
    pictures.add_argument(
        "--megabytes",
        type=at_least(0),
        default=Budget.megabytes,
        metavar="N",
        help="of all pictures together; the worst video of every row comes first (default %(default)s)",
    )
    pictures.add_argument(
        "--frames",
        type=at_least(1),
        default=Budget.frames,
        metavar="N",
        help="of each video; of a longer one those around its failures (default %(default)s)",
    )
    pictures.add_argument(
        "--side",
        type=at_least(16),
        default=Budget.side,
        metavar="PIXELS",
        help="of the longer side of a picture, if the frame is larger (default %(default)s)",
    )
    parser.add_argument(
        "--jobs", type=at_least(1), default=1, metavar="N", help="processes (default %(default)s)"
    )


def run(arguments: argparse.Namespace) -> int:
    """``vistk report``: writes the page and says where. Raises what the library raises."""
    path = require_page(arguments.out)
    budget = Budget(arguments.worst, arguments.megabytes, arguments.frames, arguments.side)
    collected = collect(
        arguments.runs, rows=arguments.rows, quote=arguments.quoted, jobs=arguments.jobs, progress=True
    )
    add_pictures(collected, budget, progress=True)
    write_text(path, html(collected.content, arguments.title))
    shown = len(collected.content["pictures"])
    for note in collected.content["notes"]:
        print(note, file=sys.stderr)
    print(f"{path}: {path.stat().st_size / 1e6:.1f} MB, {shown} videos with pictures")
    return 0


def require_page(folder: Path) -> Path:
    """Where the page of a folder is written.

    Raises:
        ReportError: it is no folder, or what lies there is something else than a report.
    """
    path = folder / PAGE
    if folder.exists() and not folder.is_dir():
        raise ReportError(f"{folder}: found a file, expected a new folder or one with a report")
    if path.is_file():
        with path.open(encoding="utf-8", errors="replace") as file:
            known = is_report(file.read(4096))
    else:
        known = not folder.exists() or not any(folder.iterdir())
    if not known:
        raise ReportError(
            f"{folder}: found something else than a report there, expected a new or empty folder, or a "
            "report to be replaced"
        )
    return path

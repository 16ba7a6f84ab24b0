"""``vistk evaluate``: arguments and printing."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from pathlib import Path

from vistk.evaluation.breakdowns import ATTRIBUTES
from vistk.evaluation.printing import Printable
from vistk.evaluation.quoted import data_sets
from vistk.evaluation.report import DEFAULT_METRICS, METRICS, SWEEP, evaluate
from vistk.evaluation.scores import SCORE_THRESHOLD

TABLE_SUFFIXES = {".md": "to_markdown", ".tex": "to_latex", ".csv": "to_csv"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``vistk evaluate``."""
    parser.epilog = (
        "More than one results file gives a comparison with paired differences to the first. "
        "Exit code: 0, or 2 after a one-line error."
    )
    parser.add_argument("ground_truth", metavar="GT.json", help="annotations in the YouTube-VIS form")
    parser.add_argument(
        "results", metavar="RESULTS.json", nargs="+", help="list of predictions in the YouTube-VIS form"
    )
    parser.add_argument(
        "--metrics",
        type=words,
        default=DEFAULT_METRICS,
        metavar="LIST",
        help=f"some of {','.join(METRICS)} (default {','.join(DEFAULT_METRICS)}): ap with recall, hota with "
        "IDF1 and CLEAR, what each kind of error costs, what an oracle would gain",
    )
    parser.add_argument(
        "--by",
        type=words,
        default=(),
        metavar="LIST",
        help=f"AP, recall and association by groups of instances: some of {','.join(ATTRIBUTES)}",
    )
    parser.add_argument(
        "--score-threshold",
        type=_thresholds,
        default=(SCORE_THRESHOLD,),
        metavar="LIST",
        help="smallest score that counts for HOTA, IDF1 and CLEAR; several with commas, or 'sweep' for "
        f"{SWEEP[0]:g} to {SWEEP[-1]:g} (default {SCORE_THRESHOLD:g})",
    )
    parser.add_argument(
        "--bootstrap",
        type=at_least(0),
        metavar="N",
        help="95 %% intervals from N resamples of the videos (default: 1000 with several results files, "
        "which are compared on the same resamples; none with one)",
    )
    parser.add_argument("--seed", type=at_least(0), default=0, help="of the resampling (default %(default)s)")
    parser.add_argument(
        "--quoted",
        nargs="?",
        const=True,
        default=False,
        metavar="DATA",
        help=f"add published numbers, marked as quoted: {', '.join(data_sets())} (default: by the classes)",
    )
    add_output_arguments(parser)
    parser.add_argument(
        "--lenient", action="store_true", help="leave out and count entries that cannot be used"
    )


def add_output_arguments(parser: argparse.ArgumentParser) -> None:
    """Where to write what is printed, and by how many processes it is worked out."""
    parser.add_argument("--json", metavar="OUT.json", help="write all numbers in full precision")
    parser.add_argument(
        "--table",
        metavar="OUT.md",
        action="append",
        default=[],
        type=table_path,
        help="write the tables: .md, .tex (booktabs), or all numbers as .csv; may be repeated",
    )
    parser.add_argument(
        "--jobs", type=at_least(1), default=1, metavar="N", help="processes (default %(default)s)"
    )


def run(arguments: argparse.Namespace) -> int:
    """``vistk evaluate``: prints the tables and writes the files. Raises what the library raises."""
    resamples = arguments.bootstrap
    if resamples is None:
        resamples = 1000 if len(arguments.results) > 1 else 0
    report = evaluate(
        arguments.ground_truth,
        arguments.results,
        metrics=arguments.metrics,
        by=arguments.by,
        score_threshold=arguments.score_threshold,
        bootstrap=resamples,
        seed=arguments.seed,
        lenient=arguments.lenient,
        quote=arguments.quoted,
        jobs=arguments.jobs,
        progress=True,
    )
    write_outputs(report, arguments)
    return 0


def write_outputs(report: Printable, arguments: argparse.Namespace) -> None:
    """Writes the files that :func:`add_output_arguments` asked for, and prints the tables: also where a file
    cannot be written, as they took long.
    """
    try:
        if arguments.json:
            report.to_json(arguments.json)
        for path in arguments.table:
            getattr(report, TABLE_SUFFIXES[path.suffix])(path)
    finally:
        print(report.to_markdown(), end="")


def table_path(text: str) -> Path:
    """A file of tables, by its suffix."""
    path = Path(text)
    if path.suffix not in TABLE_SUFFIXES:
        raise argparse.ArgumentTypeError(f"{text}: expected a name that ends in {', '.join(TABLE_SUFFIXES)}")
    return path


def words(text: str) -> tuple[str, ...]:
    """Words with commas between them."""
    return tuple(word.strip() for word in text.split(",") if word.strip())


def _thresholds(text: str) -> tuple[float, ...]:
    if text == "sweep":
        return SWEEP
    try:
        values = tuple(float(word) for word in text.split(","))
    except ValueError:
        values = (float("nan"),)
    if not all(map(math.isfinite, values)):
        raise argparse.ArgumentTypeError(f"found {text!r}, expected finite numbers with commas, or 'sweep'")
    return values


def at_least(least: int) -> Callable[[str], int]:
    """Reads a whole number that is no smaller."""

    def read(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = least - 1
        if value < least:
            raise argparse.ArgumentTypeError(f"found {text!r}, expected a whole number, at least {least}")
        return value

    return read

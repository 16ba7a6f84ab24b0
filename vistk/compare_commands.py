"""``vistk compare``: arguments and printing."""

from __future__ import annotations

import argparse

from vistk.evaluation.commands import (
    add_output_arguments,
    at_least,
    require_outputs,
    words,
    write_outputs,
)
from vistk.run_comparison import FEW_METRICS, METRICS, compare_runs
from vistk.runs import ALL_ROWS, OWN, files_of, find_runs


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``vistk compare``."""
    parser.epilog = (
        "Runs that differ in seed only are one row, with mean and standard deviation; data sets and splits "
        "are columns. Exit code: 0, or 2 after a one-line error."
    )
    parser.add_argument("runs", metavar="DIR", nargs="+", help="run directories, or folders of them")
    parser.add_argument(
        "--rows",
        type=words,
        default=(OWN,),
        metavar="LIST",
        help=f"rows of each run: names, '{OWN}' for that of its tracker, or '{ALL_ROWS}' (default {OWN})",
    )
    parser.add_argument(
        "--metrics",
        type=words,
        metavar="LIST",
        help=f"columns of each data set and split (default {','.join(METRICS)}; where more than two stand "
        f"side by side {','.join(FEW_METRICS)})",
    )
    parser.add_argument(
        "--quoted", action="store_true", help="add published numbers of the data sets, marked as quoted"
    )
    parser.add_argument(
        "--bootstrap",
        type=at_least(0),
        default=1000,
        metavar="N",
        help="resamples of the videos for paired differences to the first run; 0: none (default %(default)s)",
    )
    parser.add_argument("--seed", type=at_least(0), default=0, help="of the resampling (default %(default)s)")
    add_output_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """``vistk compare``: prints the tables and writes the files. Raises what the library raises."""
    require_outputs(arguments, [path for run_dir in find_runs(arguments.runs) for path in files_of(run_dir)])
    comparison = compare_runs(
        arguments.runs,
        rows=arguments.rows,
        metrics=arguments.metrics,
        quote=arguments.quoted,
        bootstrap=arguments.bootstrap,
        seed=arguments.seed,
        jobs=arguments.jobs,
        progress=True,
    )
    write_outputs(comparison, arguments)
    return 0

"""``vistk tune``: arguments and printing."""

from __future__ import annotations

import argparse
import shlex
import sys
from contextlib import redirect_stdout
from pathlib import Path

from vistk.config import compose
from vistk.evaluation.commands import at_least, words
from vistk.tuning.data import FRESH
from vistk.tuning.knobs import read_choices, read_range
from vistk.tuning.objective import METRICS
from vistk.tuning.run import Asked, default_folder, tune
from vistk.tuning.search import require_optuna


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``vistk tune``."""
    parser.epilog = (
        "Words are those of experiments/run.py; one that sets a knob holds it. The same command goes on "
        "where it was, and --trials may grow. Exit code: 0, 2 after a one-line error, 130 after Ctrl-C."
    )
    parser.add_argument("words", metavar="WORD", nargs="*", help="tracker=visage data=ovis weights=FILE ..")
    parser.add_argument("--config", metavar="FILE", help="start from the config.yaml of a run")
    parser.add_argument(
        "--trials", type=at_least(1), default=200, metavar="N", help="trials in all (default %(default)s)"
    )
    parser.add_argument(
        "--on",
        type=words,
        default=(),
        metavar="LIST",
        help="splits to tune on (default: local where data.local_split is said; for data=synthetic "
        f"'{FRESH}', its evaluation splits drawn anew)",
    )
    parser.add_argument(
        "--report",
        type=words,
        default=(),
        metavar="LIST",
        help="other splits to report on (default: data.eval_splits without those to tune on)",
    )
    parser.add_argument(
        "--metric",
        choices=METRICS,
        default=METRICS[0],
        help="what is maximised, the mean over the splits to tune on (default %(default)s)",
    )
    parser.add_argument(
        "--range",
        action="append",
        default=[],
        metavar="KEY=LOW..HIGH",
        help="what to try for a knob, in place of what its tracker says: tracker.decay=0..1; "
        "LOW..HIGH,log searches the logarithm",
    )
    parser.add_argument(
        "--choices", action="append", default=[], metavar="KEY=A,B", help="the same, from a list of values"
    )
    parser.add_argument("--seed", type=at_least(0), default=0, help="of the search (default %(default)s)")
    parser.add_argument(
        "--bootstrap",
        type=at_least(0),
        default=1000,
        metavar="N",
        help="resamples of the videos for the difference on the splits to report on; 0: none (default "
        "%(default)s)",
    )
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="folder of the search (default below runs/tune)"
    )


def run(arguments: argparse.Namespace) -> int:
    """``vistk tune``: prints the tables; all else goes to stderr. Raises what the library raises."""
    require_optuna()
    composed = compose([*arguments.words, *(["--config", arguments.config] if arguments.config else [])])
    asked = Asked(
        trials=arguments.trials,
        on=arguments.on,
        report=arguments.report,
        metric=arguments.metric,
        seed=arguments.seed,
        space=dict([*map(read_range, arguments.range), *map(read_choices, arguments.choices)]),
        bootstrap=arguments.bootstrap,
    )
    out = arguments.out or default_folder(composed, asked)
    try:
        with redirect_stdout(sys.stderr):
            table = tune(composed, arguments.words, asked, out, f"vistk {shlex.join(sys.argv[1:])}")
    except KeyboardInterrupt:
        print(f"interrupted: the trials so far are in {out}, and the same command goes on", file=sys.stderr)
        return 130
    print(table.read_text(encoding="utf-8"), end="")
    print(f"table, trials and results in {out}", file=sys.stderr)
    return 0

"""``experiments/sweep.py`` and ``experiments/run.py -m``: arguments, and the order of things."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from vistk.evaluation.commands import at_least
from vistk.schema import ConfigError
from vistk.sweeps.cells import Cell, make_cells
from vistk.sweeps.children import Children, Launcher, make_launcher
from vistk.sweeps.definition import Sweep, load_sweep, sweep_of_words, with_words
from vistk.sweeps.plan import Job, make_jobs
from vistk.sweeps.tables import NothingScoredError, make_table

MULTIRUN = ("-m", "--multirun")


def sweep_main(argv: Sequence[str], script: Path, launcher: Launcher | None = None) -> int:
    """The command ``experiments/sweep.py FILE [WORDS] [options]``.

    Args:
        script: ``experiments/run.py``.
        launcher: how runs are started; None: as the options say.

    Returns:
        0: done; 1: a run failed, and the others are in the table; 2: bad input, nothing was started;
        130: interrupted.
    """
    parser = _parser("python experiments/sweep.py", "Runs every cell of a table, and prints the table.")
    parser.add_argument("file", type=Path, metavar="FILE", help="a sweep, as those in experiments/sweeps/")
    parser.add_argument(
        "words", nargs="*", metavar="WORD", help="key=value for all rows; data=A,B and seed=0,1 pick columns"
    )
    arguments = parser.parse_intermixed_args(list(argv))
    command = f"python experiments/sweep.py {shlex.join(argv)}"
    return _answered(
        lambda: _run(
            with_words(load_sweep(arguments.file), arguments.words), arguments, command, script, launcher
        )
    )


def multirun_main(argv: Sequence[str], script: Path, launcher: Launcher | None = None) -> int:
    """``experiments/run.py -m WORDS [options]``; arguments and exit codes as those of :func:`sweep_main`."""
    parser = _parser("python experiments/run.py", "Runs every combination of words with commas.")
    parser.add_argument(*MULTIRUN, action="store_true", required=True, help="sweep over words with commas")
    parser.add_argument("words", nargs="*", metavar="WORD", help="key=value, or key=a,b,c")
    arguments = parser.parse_intermixed_args(list(argv))
    command = f"python experiments/run.py {shlex.join(argv)}"
    return _answered(lambda: _run(sweep_of_words(arguments.words), arguments, command, script, launcher))


def _parser(prog: str, description: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=prog, description=description, allow_abbrev=False)
    parser.epilog = (
        "Exit code: 0 done, 1 a run failed (the table has the others), 2 bad input, 130 interrupted. The "
        "same command goes on where it was."
    )
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="folder of runs and table (default runs/sweeps/NAME)"
    )
    parser.add_argument(
        "--jobs", type=at_least(1), metavar="N", help="runs at once (default: one a GPU; one on a CPU)"
    )
    parser.add_argument(
        "--launch",
        type=shlex.split,
        default=[],
        metavar="FLAGS",
        help="for accelerate launch, e.g. '--num_processes 4 --mixed_precision bf16', in one argument",
    )
    parser.add_argument("--plan", action="store_true", help="print what would be run, and run nothing")
    parser.add_argument(
        "--bootstrap",
        type=at_least(0),
        default=1000,
        metavar="N",
        help="resamples of the videos for paired differences to the first row; 0: none (default %(default)s)",
    )
    return parser


def _answered(run: Callable[[], int]) -> int:
    try:
        return run()
    except KeyboardInterrupt:
        print("interrupted: the same command goes on with what is missing", file=sys.stderr)
        return 130
    except (ValueError, OSError) as error:
        if type(error) is ValueError:  # not raised for a reader: a bug, which keeps its trace
            raise
        if os.environ.get("RANK", "0") == "0":
            print(f"error: {error}", file=sys.stderr)
        return 2


def _run(
    sweep: Sweep, arguments: argparse.Namespace, command: str, script: Path, launcher: Launcher | None
) -> int:
    if "ACCELERATE_MIXED_PRECISION" in os.environ:  # what the launcher was told would not reach the runs
        raise ConfigError(f"a sweep launches its runs itself: say {command}, and --launch FLAGS")
    out = arguments.out or Path("runs", "sweeps", sweep.name)
    cells, left_out = make_cells(sweep, out)
    jobs = make_jobs(cells, out / "cache")
    if left_out:
        _say(f"left out, as no data.root is said: {', '.join(left_out)}")
    if len(sweep.seeds) > 1 and all(cell.config.eval_only for cell in cells):
        _say("nothing is trained, so that all seeds are equal: seed=0 is enough")
    if arguments.plan:
        print("\n".join(_plan(jobs)))
        return 0
    finished = sum(len(job.cells) - len(job.unfinished()) for job in jobs)
    _say(f"{sweep.name}: {len(cells)} cells, {finished} finished before, in {out}")
    launcher = launcher or make_launcher(script, out / "logs", arguments.launch, arguments.jobs)
    failures = Children(launcher, _say).run(jobs)
    whole = _whole(jobs)
    failed = [f"Failed: {cell.label}: {failures[cell.run_dir]}" for cell in cells if cell.run_dir in failures]
    missing = [
        f"Not there, it was taken by another sweep or waits for one that failed: {cell.label}"
        for cell in cells
        if cell not in whole and cell.run_dir not in failures
    ]
    try:
        table = make_table(
            sweep,
            whole,
            [*failed, *missing],
            command,
            bootstrap=arguments.bootstrap,
            jobs=len(launcher.slots),
            progress=True,
        )
    except NothingScoredError as error:
        _say("\n".join([*failed, *missing, str(error)]))
    else:
        print(f"\n{table.to_markdown()}")
        _say(f"written to {', '.join(map(str, table.write(out)))}")
    for cell in whole:  # of splits whose annotations are hidden
        for path in sorted(cell.run_dir.glob("rows/*/*/submission.zip")):
            _say(f"{cell.label}: for the server, {path}")
    return 1 if failed else 0


def _whole(jobs: Sequence[Job]) -> list[Cell]:
    """The finished cells."""
    return [cell for job in jobs for cell in job.cells if job.finished(cell)]


def _plan(jobs: Sequence[Job]) -> list[str]:
    lines = []
    for job in jobs:
        trained = f", evaluated on the weights of {job.after.cells[0].row}" if job.after is not None else ""
        for cell in job.cells:
            state = "finished" if job.finished(cell) else "to do"
            lines.append(f"{cell.label}: {state}{', trains' if job.trains else trained}, {cell.run_dir}")
    return lines


def _say(sentence: str) -> None:
    print(sentence, file=sys.stderr, flush=True)

"""The ``vistk`` command.

Training and sweeps are scripts in ``experiments/``, because a launcher starts them; what needs no
launcher is a subcommand here. A subcommand imports its libraries only when it is called.
"""

from __future__ import annotations

import argparse
import os
import select
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Command:
    """A subcommand: its line in the help, how it declares its arguments, how it runs."""

    help: str
    add_arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]
    interleaved: bool = False  # files may stand before, between and after options


def _evaluate_arguments(parser: argparse.ArgumentParser) -> None:
    from vistk.evaluation import commands

    commands.add_arguments(parser)


def _evaluate(arguments: argparse.Namespace) -> int:
    from vistk.evaluation import commands

    return commands.run(arguments)


def _compare_arguments(parser: argparse.ArgumentParser) -> None:
    from vistk import compare_commands

    compare_commands.add_arguments(parser)


def _compare(arguments: argparse.Namespace) -> int:
    from vistk import compare_commands

    return compare_commands.run(arguments)


def _data_arguments(parser: argparse.ArgumentParser) -> None:
    from vistk.data import commands

    commands.add_arguments(parser)


def _data(arguments: argparse.Namespace) -> int:
    from vistk.data import commands

    return commands.run(arguments)


def _report_arguments(parser: argparse.ArgumentParser) -> None:
    from vistk.pages import commands

    commands.add_arguments(parser)


def _report(arguments: argparse.Namespace) -> int:
    from vistk.pages import commands

    return commands.run(arguments)


def _show_arguments(parser: argparse.ArgumentParser) -> None:
    from vistk.inspection import commands

    commands.add_arguments(parser)


def _show(arguments: argparse.Namespace) -> int:
    from vistk.inspection import commands

    return commands.run(arguments)


def _track_arguments(parser: argparse.ArgumentParser) -> None:
    from vistk.tracking import commands

    commands.add_arguments(parser)


def _track(arguments: argparse.Namespace) -> int:
    from vistk.tracking import commands

    return commands.run(arguments)


def _tune_arguments(parser: argparse.ArgumentParser) -> None:
    from vistk.tuning import commands

    commands.add_arguments(parser)


def _tune(arguments: argparse.Namespace) -> int:
    from vistk.tuning import commands

    return commands.run(arguments)


def _weights_arguments(parser: argparse.ArgumentParser) -> None:
    from vistk import weights_commands

    weights_commands.add_arguments(parser)


def _weights(arguments: argparse.Namespace) -> int:
    from vistk import weights_commands

    return weights_commands.run(arguments)


def _trackers_arguments(parser: argparse.ArgumentParser) -> None:
    from vistk.trackers import listing

    listing.add_arguments(parser)


def _trackers(arguments: argparse.Namespace) -> int:
    from vistk.trackers import listing

    return listing.run(arguments)


COMMANDS = {
    "compare": Command("put runs beside each other, with paired differences", _compare_arguments, _compare),
    "data": Command("check and convert data sets", _data_arguments, _data),
    "evaluate": Command(
        "score results files against the annotations", _evaluate_arguments, _evaluate, interleaved=True
    ),
    "report": Command(
        "runs as one HTML page, from the table to the frames behind it",
        _report_arguments,
        _report,
        interleaved=True,
    ),
    "show": Command(
        "draw a video of a run: strips, timelines, similarities",
        _show_arguments,
        _show,
        interleaved=True,
    ),
    "track": Command(
        "track a video file, a folder of frames or a camera", _track_arguments, _track, interleaved=True
    ),
    "trackers": Command(
        "list the trackers that tracker=<name> takes, with their knobs", _trackers_arguments, _trackers
    ),
    "tune": Command(
        "search a tracker's association knobs on cached queries", _tune_arguments, _tune, interleaved=True
    ),
    "weights": Command("inspect and convert files of weights", _weights_arguments, _weights),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a subcommand; returns the exit code.

    Bad input (``OSError``, or a ``ValueError`` subclass) is one sentence on stderr and exit code 2.
    A plain ``ValueError`` was not raised for a reader, so it is a bug and keeps its trace.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    parser = argparse.ArgumentParser(prog="vistk", description="Video instance segmentation research.")
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="command")
    called = next((word for word in words if not word.startswith("-")), None)
    arguments = None
    for name, command in COMMANDS.items():
        subparser = subparsers.add_parser(name, help=command.help, description=command.help)
        if name == called:  # the others would only import what they need for their arguments
            command.add_arguments(subparser)
            if command.interleaved and words[0] == name:
                given = argparse.Namespace(command=name)
                arguments = subparser.parse_intermixed_args(words[1:], given)
    if arguments is None:
        arguments = parser.parse_args(words)
    try:
        code = COMMANDS[arguments.command].run(arguments)
        sys.stdout.flush()
        return code
    except (OSError, ValueError) as error:
        if type(error) is ValueError:
            raise
        if isinstance(error, BrokenPipeError) and _lost_its_reader():
            return 1
        print(f"vistk {arguments.command}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"vistk {arguments.command}: interrupted", file=sys.stderr)
        return 130


def _lost_its_reader() -> bool:
    """Whether nobody reads what is printed any more, as "head" has seen enough; then the rest is dropped."""
    try:
        out = sys.stdout.fileno()
    except (AttributeError, OSError):  # output that is captured
        return False
    poll = select.poll()
    poll.register(out, 0)  # errors are told of in any case
    if not any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0)):
        return False
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), out)  # or Python would complain at exit
    return True


if __name__ == "__main__":
    raise SystemExit(main())

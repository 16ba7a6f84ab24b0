"""Train and evaluate: ``accelerate launch experiments/run.py tracker=visage data=synthetic``.

``--help`` shows every group and key, ``--cfg job`` the whole configuration of a command.
"""

from __future__ import annotations

import sys

from vistk.config import command_line


def main() -> int:
    """Exit code: 0 done, 2 bad input (one sentence on stderr), 130 interrupted (the same words resume)."""
    composed = command_line()
    from vistk.engine.train import Interrupted
    from vistk.experiment import run

    try:
        run(composed)
    except Interrupted as stopped:
        print(f"interrupted: {stopped}", file=sys.stderr)
        return 130
    except (ValueError, OSError, FloatingPointError) as error:
        if type(error) is ValueError:  # not raised for a reader: a bug, which keeps its trace
            raise
        # A loader's worker process sends its whole trace along; the sentence is the last line.
        sentence = str(error).strip().splitlines()[-1]
        print(
            f"error: {sentence.removeprefix(f'{type(error).__module__}.{type(error).__name__}: ')}",
            file=sys.stderr,
        )
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())

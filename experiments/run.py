"""Train and evaluate: ``accelerate launch experiments/run.py tracker=visage data=synthetic``.

``--help`` shows every group and key, ``--cfg job`` the whole configuration of a command.
"""

from __future__ import annotations

import os
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
        _say(f"interrupted: {stopped}")
        return 130
    except KeyboardInterrupt:
        _say("interrupted: the same command resumes from the last checkpoint")
        return 130
    except (ValueError, OSError, FloatingPointError) as error:
        if type(error) is ValueError:  # not raised for a reader: a bug, which keeps its trace
            raise
        # A loader's worker process sends its whole trace along; the sentence is the last line.
        sentence = (str(error).strip().splitlines() or [repr(error)])[-1]
        _say(f"error: {sentence.removeprefix(f'{type(error).__module__}.{type(error).__name__}: ')}")
        return 2
    return 0


def _say(sentence: str) -> None:
    if os.environ.get("RANK", "0") == "0":  # one sentence from many processes
        print(sentence, file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())

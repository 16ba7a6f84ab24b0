"""Train and evaluate: ``accelerate launch experiments/run.py tracker=visage data=synthetic``.

``--help`` shows every group and key, ``--cfg job`` the whole configuration of a command.
``python experiments/run.py -m tracker=minvis,visage seed=0,1,2`` runs every combination, each as a process of
its own, and prints one table. ``--runs FILE`` runs the words of each line, one after the other.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from vistk.config import command_line

SCRIPT = "experiments/run.py"


def main() -> int:
    """Exit code: 0 done, 2 bad input (one sentence on stderr), 130 interrupted (the same words resume)."""
    words = sys.argv[1:]
    if {"-m", "--multirun"} & set(words):
        from vistk.sweeps.commands import multirun_main

        return multirun_main(words, Path(__file__))
    if words[:1] == ["--runs"]:
        return _run_each(words[1:])
    return _run(words)


def _run_each(files: Sequence[str]) -> int:
    """The runs of a file, up to the first one that fails. They share a process, and nothing else."""
    import torch

    if len(files) != 1 or not Path(files[0]).is_file():
        _say(f"error: --runs: expected a file, the words of a run on each line, found {' '.join(files)}")
        return 2
    for line in Path(files[0]).read_text(encoding="utf-8").splitlines():
        words = shlex.split(line)
        sys.argv = [SCRIPT, *words]  # the command that a table's card tells
        if code := _run(words):
            return code
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
    return 0


def _run(words: Sequence[str]) -> int:
    composed = command_line(words)
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

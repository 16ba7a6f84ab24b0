"""Train and evaluate: ``accelerate launch experiments/run.py tracker=visage data=synthetic``.

``--help`` shows every group and key, ``--cfg job`` the whole configuration of a command.
"""

from __future__ import annotations

import os
import sys

from vistk.config import command_line


def main() -> int:
    composed = command_line()
    from vistk.engine.train import Interrupted
    from vistk.experiment import run

    try:
        run(composed)
    except Interrupted as stopped:
        print(f"interrupted: {stopped}", file=sys.stderr)
        return 130
    except (ValueError, OSError, FloatingPointError) as error:
        if os.environ.get("VISTK_TRACE") == "1":
            raise
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())

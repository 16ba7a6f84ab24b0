"""A table from many runs: ``python experiments/sweep.py experiments/sweeps/components.yaml``.

The file has rows, data sets and seeds; see docs/sweeps.md. ``--help`` has the options, ``--plan`` says what
would be run.
"""

from __future__ import annotations

import sys
from pathlib import Path

from vistk.sweeps.commands import sweep_main

if __name__ == "__main__":
    sys.exit(sweep_main(sys.argv[1:], Path(__file__).with_name("run.py")))

"""Progress bars that suit both a terminal and a log file."""

from __future__ import annotations

import sys
from typing import Any

from accelerate import Accelerator
from tqdm import tqdm


def progress_bar(accelerator: Accelerator, *args: Any, **kwargs: Any) -> tqdm:
    """A tqdm bar on the main process, with rate and time left; a log file gets a line every half minute."""
    terminal = sys.stderr.isatty()
    return tqdm(
        *args,
        **kwargs,
        disable=not accelerator.is_main_process,
        mininterval=0.1 if terminal else 30.0,
        ncols=None if terminal else 160,
    )

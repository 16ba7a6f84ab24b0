"""Progress bars that suit both a terminal and a log file."""

from __future__ import annotations

from typing import Any

from accelerate import Accelerator
from tqdm import tqdm

from vistk.data.progress import style


def progress_bar(accelerator: Accelerator, *args: Any, **kwargs: Any) -> tqdm:
    """A tqdm bar on the main process, with rate and time left."""
    return tqdm(*args, **kwargs, **style(), disable=not accelerator.is_main_process)

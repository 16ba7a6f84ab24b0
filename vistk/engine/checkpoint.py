"""Training checkpoints: complete or absent, the newest complete one resumed."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from accelerate import Accelerator

NAME = re.compile(r"step-(\d{7})")


class Checkpoints:
    """Numbered folders of Accelerate states; a folder gets its name when it is complete.

    Args:
        folder: where they lie; made when the first is written.
        keep: how many of the newest stay on disk.
    """

    def __init__(self, accelerator: Accelerator, folder: Path, keep: int = 2) -> None:
        self.accelerator = accelerator
        self.folder = folder
        self.keep = keep

    def _complete(self) -> list[tuple[int, Path]]:
        found = [(NAME.fullmatch(path.name), path) for path in self.folder.glob("step-*")]
        return sorted((int(match[1]), path) for match, path in found if match)

    def resume(self) -> int:
        """Load the newest checkpoint; returns its step, 0 where there is none."""
        complete = self._complete()
        if not complete:
            return 0
        step, path = complete[-1]
        self.accelerator.load_state(str(path))
        self.accelerator.print(f"resumed from {path}")
        return step

    def save(self, step: int) -> None:
        """Write a checkpoint under a temporary name, rename it, drop the oldest."""
        partial = self.folder / f"partial-{step:07d}"
        if self.accelerator.is_main_process:
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
        self.accelerator.wait_for_everyone()
        self.accelerator.save_state(str(partial))
        self.accelerator.wait_for_everyone()
        if self.accelerator.is_main_process:
            final = self.folder / f"step-{step:07d}"
            shutil.rmtree(final, ignore_errors=True)
            partial.rename(final)
            for _, path in self._complete()[: -self.keep]:
                shutil.rmtree(path)
        self.accelerator.wait_for_everyone()

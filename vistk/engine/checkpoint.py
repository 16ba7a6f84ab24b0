"""Training checkpoints: complete or absent, the newest complete one resumed."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

from accelerate import Accelerator
from safetensors import SafetensorError

from vistk.schema import ConfigError

NAME = re.compile(r"step-(\d{7})")
LAUNCH = "launch.json"


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

    @property
    def _launch(self) -> dict[str, object]:
        """What the launcher decides and the configuration does not hold."""
        return {
            "processes": self.accelerator.num_processes,
            "mixed_precision": self.accelerator.mixed_precision,
        }

    def _complete(self) -> list[tuple[int, Path]]:
        found = [(NAME.fullmatch(path.name), path) for path in self.folder.glob("step-*")]
        return sorted((int(match[1]), path) for match, path in found if match)

    def resume(self) -> int:
        """Load the newest checkpoint; returns its step, 0 where there is none.

        Raises:
            ConfigError: the run was launched otherwise, so its losses would not be continued.
            OSError: a file of the checkpoint cannot be read.
        """
        complete = self._complete()
        if not complete:
            return 0
        step, path = complete[-1]
        before = json.loads((path / LAUNCH).read_text())
        for name, now in self._launch.items():
            if before[name] != now:
                raise ConfigError(
                    f"{path} was written with {name}={before[name]}, this launch has {now}; "
                    "launch it as before, name another run_dir or say resume=false"
                )
        try:
            self.accelerator.load_state(str(path))
        except (SafetensorError, RuntimeError) as error:
            raise OSError(
                f"checkpoint {path} cannot be read; remove it to resume from an older one"
            ) from error
        self.accelerator.print(f"resumed from {path}")
        return step

    def save(self, step: int) -> None:
        """Write a checkpoint under a temporary name, rename it, drop the oldest.

        Raises:
            OSError: it cannot be written, e.g. on a full disk; the older ones are as they were.
        """
        partial = self.folder / f"partial-{step:07d}"
        if self.accelerator.is_main_process:
            for old in self.folder.glob("partial-*"):
                shutil.rmtree(old, ignore_errors=True)
            partial.mkdir(parents=True)
        self.accelerator.wait_for_everyone()
        try:
            self.accelerator.save_state(str(partial))
        except (SafetensorError, RuntimeError) as error:  # how these libraries report a failed write
            shutil.rmtree(partial, ignore_errors=True)
            raise OSError(f"checkpoint {partial} cannot be written: {error}") from error
        self.accelerator.wait_for_everyone()
        if self.accelerator.is_main_process:
            (partial / LAUNCH).write_text(json.dumps(self._launch))
            final = self.folder / f"step-{step:07d}"
            shutil.rmtree(final, ignore_errors=True)
            partial.rename(final)
            for _, path in self._complete()[: -self.keep]:
                shutil.rmtree(path)
        self.accelerator.wait_for_everyone()

"""Curves and pictures of a run in the logger of one's choice, through Accelerate's trackers.

``log.jsonl`` is written in any case; a logger shows the same numbers, and no number depends on it.

Of what Accelerate does itself, two things are left out: its ``store_init_configuration`` for TensorBoard
writes a second event file into a folder named by the clock, once more after every resume, and its
``end_training`` takes the process group down, which a process that has another run to do still needs.
"""

from __future__ import annotations

import importlib.util
import json
import math
import os
import re
import shutil
import sys
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from accelerate import Accelerator
from PIL import Image

from vistk.files import write_text
from vistk.schema import ConfigError, require_at_least

AUTO, NONE = "auto", "none"
PACKAGES = {
    "tensorboard": 'pip install -e ".[log]"',
    "wandb": "pip install wandb",
    "trackio": "pip install trackio",
}
"""Loggers that can be named, each a package of the same name, and how it is installed."""

STEPS_AT_ONCE = "tensorboard"
"""The logger that hides what an interrupted run wrote after its checkpoint; others are not told twice."""

LEFT_BEHIND = (
    *("tensorboard/events.out.tfevents.*", "samples/" + "[0-9]" * 7 + ".png", "wandb-id.txt"),
    *(
        "wandb/run-*",
        "wandb/offline-run-*",
        "wandb/latest-run",
        "wandb/debug.log",
        "wandb/debug-internal.log",
    ),
    *("trackio/*.db", "trackio/*.db-*", "trackio/*.lock", "trackio/*.parquet", "trackio/media"),
)
"""Patterns of what loggers and samples write into a run directory; all else there is somebody's own."""


@dataclass
class LoggerConfig:
    """What is looked at while a model learns; ``log.jsonl`` has the losses in any case."""

    # Steps from one sample of predictions to the next, and one after the last step; 0 = none at all.
    sample_every: int = 500
    sample_video: int | None = None  # id of a video of the first evaluation split; null = its first
    sample_frames: int = 36  # of that video, from its first on

    def __post_init__(self) -> None:
        require_at_least("logger", self, sample_every=0, sample_frames=1)


@dataclass
class ServiceLoggerConfig(LoggerConfig):
    """A logger that shows the runs of a project together."""

    project: str = "vistk"


class LoggerError(ConfigError):
    """A logger that cannot be used; the message says why."""


def choose(name: str) -> str | None:
    """The logger that a choice stands for: ``auto`` is TensorBoard where it is installed, or None.

    Raises:
        LoggerError: its package is not installed.
    """
    if name == NONE:
        return None
    if name == AUTO:
        return "tensorboard" if _installed("tensorboard") else None
    if not _installed(name):
        raise LoggerError(f"logger={name} needs the package {name}: {PACKAGES[name]}")
    return name


def _installed(package: str) -> bool:
    # Accelerate looks once, when it is imported, and then drops a missing logger without a word.
    return importlib.util.find_spec(package) is not None


def forget(run_dir: Path) -> None:
    """Remove what loggers wrote into a run directory, for a run that begins anew; other files stay."""
    for pattern in LEFT_BEHIND:
        for path in list(run_dir.glob(pattern)):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
        folder = (run_dir / pattern).parent
        if folder != run_dir and folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()


class RunLogger:
    """One run in one logger; without one, and in all processes but the main one, nothing happens.

    Nothing is imported or written before :meth:`begin`. Used as a context, it is closed at the end,
    after Ctrl-C and errors too.

    Args:
        name: of :data:`PACKAGES`; None = no logger. The accelerator was made with ``log_with=[name]`` and
            ``project_dir=run_dir``.
        title: what a service calls the run.
        settings: the configuration, flat; shown as hyper-parameters.
        results: names of the values that the run is judged by.
        project: for services that have projects.
    """

    def __init__(
        self,
        name: str | None,
        accelerator: Accelerator,
        run_dir: Path,
        *,
        title: str = "run",
        settings: Mapping[str, Any] | None = None,
        results: Sequence[str] = (),
        project: str = "vistk",
    ) -> None:
        self.name = name if accelerator.is_main_process else None
        self.began = False
        self._accelerator = accelerator
        self._run_dir = run_dir
        self._title = title
        self._settings = {key: _plain(value) for key, value in (settings or {}).items()}
        self._results = [tag(result) for result in results]
        self._project = project
        self._told = 0  # the last step that the service knows from an earlier process

    def begin(self, start: int, told: int = 0) -> None:
        """Open the logger, or the one that an interrupted run left, to go on after step ``start``.

        Args:
            told: last step that was logged before; steps up to it are not logged again.

        Raises:
            LoggerError: it cannot be opened.
        """
        if self.name is None or self.began:
            return
        try:
            self._accelerator.init_trackers(
                self.name if self.name == "tensorboard" else self._project,
                init_kwargs={self.name: self._arguments(start)},
            )
        except Exception as error:  # every service has errors of its own
            said = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise LoggerError(
                f"logger={self.name} cannot be opened: {said}; logger=none does without"
            ) from error
        self.began = True
        self._told = 0 if self.name == STEPS_AT_ONCE else told
        self._show_settings()

    def _arguments(self, start: int) -> dict[str, Any]:
        if self.name == "tensorboard":
            # What was logged after the checkpoint comes again: readers hide the first time.
            return {"purge_step": start + 1} if start or self._has_events() else {}
        if self.name == "wandb":
            # An id of its own per run directory, so that a resumed run continues the same curves.
            file = self._run_dir / "wandb-id.txt"
            if not file.exists():
                write_text(file, uuid.uuid4().hex)
            run_id = file.read_text(encoding="utf-8").strip()
            return {"dir": str(self._run_dir), "name": self._title, "id": run_id, "resume": "allow"}
        folder = self._run_dir / "trackio"
        if "trackio" in sys.modules:  # it looks at the variable once
            there = sys.modules["trackio"].TRACKIO_DIR
            if Path(there) != folder.resolve():
                self._accelerator.print(f"logger=trackio writes to {there}, where it began in this process")
        else:
            os.environ.setdefault("TRACKIO_DIR", str(folder.resolve()))
        return {"name": self._title, "resume": "allow", "embed": False}

    def _has_events(self) -> bool:
        return any((self._run_dir / "tensorboard").glob("events.*"))

    def _show_settings(self) -> None:
        tracker = self._accelerator.get_tracker(self.name)
        if self.name != "tensorboard":
            tracker.store_init_configuration(self._settings)
            return
        from torch.utils.tensorboard.summary import hparams

        for summary in hparams(self._settings, dict.fromkeys(self._results, 0.0)):
            tracker.tracker.file_writer.add_summary(summary)

    def log(self, values: Mapping[str, float | None], step: int, again: bool = False) -> None:
        """Numbers at a step; those that are None or not finite are left out.

        Args:
            again: the step may have been logged before, with other values.
        """
        if not self.began or (step <= self._told and not again):
            return
        numbers = {tag(k): v for k, v in values.items() if v is not None and math.isfinite(v)}
        if numbers:
            self._accelerator.get_tracker(self.name).log(numbers, step=step)

    def image(self, name: str, picture: Image.Image, step: int) -> None:
        """A picture at a step."""
        if not self.began or step <= self._told:
            return
        tracker = self._accelerator.get_tracker(self.name)
        if self.name == "tensorboard":
            import numpy as np

            tracker.tracker.add_image(name, np.asarray(picture.convert("RGB")), step, dataformats="HWC")
            tracker.tracker.flush()
        elif self.name == "wandb":
            tracker.log_images({name: [picture]}, step=step)
        else:
            import trackio

            tracker.log({name: trackio.Image(picture)}, step=step)

    def close(self) -> None:
        """Write what waits; the logger cannot be used afterwards."""
        if self.began:
            self.began = False
            if self.name == "trackio":
                import trackio

                trackio.finish()  # Accelerate's own leaves the run to be finished once more at exit
            else:
                self._accelerator.get_tracker(self.name).finish()

    def __enter__(self) -> RunLogger:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def tag(name: str) -> str:
    """A name as every logger takes it: split columns may have brackets and spaces."""
    return re.sub(r"[^\w./-]+", "_", name).strip("_")


def _plain(value: Any) -> bool | int | float | str:
    """What hyper-parameters may be: TensorBoard refuses lists and None."""
    return value if isinstance(value, (bool, int, float, str)) else json.dumps(value, default=str)

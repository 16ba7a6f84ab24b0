"""Runs as child processes: several at once, stopped in good order, one failure apart from the others.

This process holds no state of an accelerator, so that a crash in a run, or what it leaves behind on a GPU,
reaches no other one.
"""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

import psutil
import torch
from filelock import FileLock, Timeout

from vistk.config import slug
from vistk.evaluation.printing import plural
from vistk.files import write_text
from vistk.schema import ConfigError
from vistk.sweeps.cells import Cell
from vistk.sweeps.plan import Job

ACCELERATE = (sys.executable, "-m", "accelerate.commands.launch", "--quiet")
POLL = 0.1  # seconds
PROMPT = "$ "  # before a command in a log
ALONE = ("num_processes", "num_machines", "multi_gpu", "gpu_ids", "config_file")
"""Flags of ``accelerate launch`` with which a run takes the GPUs that they say, one run after the other. The
launcher reads them with hyphens and with underscores."""

ONE_PROCESS_FILE = "accelerate.yaml"
ONE_PROCESS = """\
compute_environment: LOCAL_MACHINE
distributed_type: 'NO'
num_machines: 1
num_processes: 1
gpu_ids: all
mixed_precision: 'no'
"""


@dataclass(frozen=True)
class Launcher:
    """How a run is started.

    Attributes:
        script: ``experiments/run.py``.
        logs: folder of what the runs print.
        slots: environment of each run that goes on at the same time.
        command: what starts the script.
    """

    script: Path
    logs: Path
    slots: Sequence[Mapping[str, str]]
    command: Sequence[str]


def make_launcher(script: Path, logs: Path, flags: Sequence[str] = (), jobs: int | None = None) -> Launcher:
    """Runs through ``accelerate launch``: one a GPU at once; without GPUs, or with ``flags`` that spread a
    run over several, one after the other. ``jobs`` says how many at once.

    CUDA is not initialised here: the devices are counted by the driver's library. What ``accelerate config``
    wrote holds for runs that are spread; it would send all others to the GPUs that it names.

    Raises:
        ConfigError: several at once, each of which is to be spread.
    """
    names = [flag.partition("=")[0] for flag in flags]
    spread = next((name for name in names if name.lstrip("-").replace("-", "_") in ALONE), None)
    if spread and (jobs or 1) > 1:
        raise ConfigError(f"--jobs {jobs}: runs with {spread} follow one another, leave out one of the two")
    alone = () if spread else ("--config_file", str(logs / ONE_PROCESS_FILE), "--num_processes", "1")
    command = (*ACCELERATE, *alone, *flags)
    gpus = [] if spread else _gpus()
    slots: list[dict[str, str]]
    if gpus:
        slots = [{"CUDA_VISIBLE_DEVICES": gpus[i % len(gpus)]} for i in range(jobs or len(gpus))]
    else:
        slots = [{} for _ in range(jobs or 1)]
    if not spread and "OMP_NUM_THREADS" not in os.environ:  # the launcher would give each run one thread
        threads = str(max(1, torch.get_num_threads() // len(slots)))
        slots = [slot | {"OMP_NUM_THREADS": threads} for slot in slots]
    return Launcher(script, logs, slots, command)


def _gpus() -> list[str]:
    """Names of the GPUs, as ``CUDA_VISIBLE_DEVICES`` takes them."""
    count = torch.cuda.device_count()
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = map(str, range(count)) if visible is None else map(str.strip, visible.split(","))
    return list(names)[:count]


@dataclass
class _Child:
    """A process at work on the unfinished cells of a job."""

    job: Job
    cells: list[Cell]
    slot: int
    log: Path
    process: subprocess.Popen[bytes]
    began: float  # of the cell that it is at
    reported: set[Path] = field(default_factory=set)


class Children:
    """Runs jobs to their end. :meth:`run` gives the failures."""

    def __init__(self, launcher: Launcher, say: Callable[[str], None]) -> None:
        self.launcher = launcher
        self.failures: dict[Path, str] = {}  # by run directory: the last line of the error
        self._say = say
        self._running: list[_Child] = []
        self._seconds: dict[bool, list[float]] = {True: [], False: []}  # of cells that train, or do not
        self._jobs: Sequence[Job] = ()
        self._stops = 0

    def run(self, jobs: Sequence[Job]) -> dict[Path, str]:
        """Starts every unfinished cell, as many at once as there are slots.

        A cell that fails ends its process; the other cells of its job go on in a new one.

        Returns:
            For each cell without result, by its run directory, the reason in one line.

        Raises:
            KeyboardInterrupt: SIGINT, SIGTERM or SIGHUP came; the runs have been told, and have ended.
        """
        self._jobs = jobs
        pending = [(job, cells) for job in jobs if (cells := job.unfinished())]
        waits_said = False
        with self._stopping():
            while pending or self._running:
                pending = [task for task in pending if not self._settled(*task)]
                for child in list(self._running):
                    self._report(child)
                    if child.process.poll() is not None:
                        self._running.remove(child)
                        pending += self._ended(child)
                if self._stops:
                    self._stop()
                if pending and not self._running and not waits_said and any(map(_busy, pending)):
                    self._say(f"waits: another process is at work in {pending[0][1][0].run_dir}")
                    waits_said = True
                time.sleep(POLL)
        return self.failures

    def _settled(self, job: Job, cells: list[Cell]) -> bool:
        """Whether nothing is left to start: it has been, or cannot be, or another sweep has done it."""
        if job.after is not None and (trainer := job.after.cells[0]).run_dir in self.failures:
            for cell in cells:
                self.failures[cell.run_dir] = f"needs the weights of {trainer.label}, which failed"
            return True
        cells = [cell for cell in cells if not job.finished(cell)]
        return not cells or self._start(job, cells)

    def _start(self, job: Job, cells: list[Cell]) -> bool:
        """Starts a process where there is a slot, and nothing that the job has to wait for."""
        free = set(range(len(self.launcher.slots))) - {child.slot for child in self._running}
        waits = job.after is not None and not job.after.finished(job.after.cells[0])
        if not free or waits or self._stops or _busy((job, cells)):
            return False
        slot = min(free)
        log = self.launcher.logs / f"{slug(f'{cells[0].row}-{cells[0].data}-seed{cells[0].seed}')}.log"
        write_text(self.launcher.logs / ONE_PROCESS_FILE, ONE_PROCESS)
        words = job.words(cells[0])
        if len(cells) > 1:
            lines = [f"{shlex.join(job.words(cell))}\n" for cell in cells]
            words = ["--runs", str(write_text(log.with_suffix(".runs"), "".join(lines)))]
        command = [*self.launcher.command, str(self.launcher.script), *words]
        with log.open("ab") as file:
            file.write(f"\n{PROMPT}{shlex.join(command)}\n".encode())
            file.flush()
            # In a process group of its own: Ctrl-C reaches this process alone, which passes it on.
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                env=os.environ | self.launcher.slots[slot],
                process_group=0,
            )
        self._running.append(_Child(job, cells, slot, log, process, time.monotonic()))
        what = "trains" if job.trains else f"evaluates {plural(len(cells), 'row')}"
        self._say(f"{cells[0].label}: {what}, log {log}")
        return True

    def _report(self, child: _Child) -> None:
        """Says which cells are finished since the last look."""
        for cell in child.cells:
            if cell.run_dir not in child.reported and child.job.finished(cell):
                child.reported.add(cell.run_dir)
                now = time.monotonic()
                seconds, child.began = now - child.began, now
                self._seconds[child.job.trains].append(seconds)
                self._say(f"{cell.label}: done in {_duration(seconds)}; {self._left()}")

    def _ended(self, child: _Child) -> list[tuple[Job, list[Cell]]]:
        """Books the failure, if there is one. Returns what is still to do of the job."""
        code = child.process.wait()
        self._report(child)
        left = [cell for cell in child.cells if not child.job.finished(cell)]
        if not left or self._stops:
            return []
        if _busy((child.job, left)):  # by another sweep, which was first
            return [(child.job, left)]
        failed, *rest = left
        self.failures[failed.run_dir] = f"{last_error(child.log)} (exit code {code}, log {child.log})"
        self._say(f"{failed.label}: failed, {self.failures[failed.run_dir]}")
        return [(child.job, rest)] if rest else []

    def _left(self) -> str:
        """What is left, and for how long."""
        left = [(job, cell) for job in self._jobs for cell in job.unfinished()]
        left = [(job, cell) for job, cell in left if cell.run_dir not in self.failures]
        total = sum(len(job.cells) for job in self._jobs)
        said = f"{total - len(left) - len(self.failures)} of {total}"
        if not left:
            return said
        try:
            seconds = sum(_mean(self._seconds[job.trains]) for job, _ in left)
        except ZeroDivisionError:  # none of a kind is done yet
            return said
        return f"{said}, about {_duration(seconds / len(self.launcher.slots))} left"

    @contextmanager
    def _stopping(self) -> Iterator[None]:
        """Signals to stop are counted meanwhile; with a handler, children start with the default one."""

        def count(number: int, frame: FrameType | None) -> None:
            self._stops += 1

        numbers = [signal.SIGINT, signal.SIGTERM]
        if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # as nohup has it
            numbers.append(signal.SIGHUP)
        previous = {number: signal.signal(number, count) for number in numbers}
        try:
            yield
        finally:
            for child in self._running:  # only after an error of ours
                _signal_all(child.process, signal.SIGKILL)
            for number, handler in previous.items():
                signal.signal(number, handler)

    def _stop(self) -> None:
        """Tells the runs once, waits for them; a second signal ends them at once."""
        self._say(f"stops; waits for {plural(len(self._running), 'run')} to write a checkpoint")
        for child in self._running:
            _signal_runs(child.process)
        heard = self._stops
        while self._running:
            if self._stops > heard:
                heard = self._stops
                for child in self._running:
                    _signal_all(child.process, signal.SIGKILL)
            self._running = [child for child in self._running if child.process.poll() is None]
            time.sleep(POLL)
        raise KeyboardInterrupt


def last_error(log: Path) -> str:
    """The sentence that a run ended with; where it has none, its last line."""
    *_, attempt = log.read_text(encoding="utf-8", errors="replace").split(f"\n{PROMPT}")
    lines = [line.strip() for line in attempt.splitlines()[1:] if line.strip()]
    said = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    return (said or lines or ["it said nothing"])[-1]


def _busy(task: tuple[Job, list[Cell]]) -> bool:
    """Whether another process holds the lock of the first of these cells."""
    run_dir = task[1][0].run_dir
    if not run_dir.is_dir():
        return False
    try:
        with FileLock(run_dir / ".lock", timeout=0):
            return False
    except Timeout:
        return True


def _signal_runs(process: subprocess.Popen[bytes]) -> None:
    """SIGINT to the runs alone: a launcher that hears it as well would leave them, or tell them twice."""
    try:
        launcher = psutil.Process(process.pid)
        for run in launcher.children() or [launcher]:
            run.send_signal(signal.SIGINT)
    except psutil.NoSuchProcess:  # over by now
        return


def _signal_all(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    try:
        os.killpg(process.pid, number)
    except ProcessLookupError:
        return


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"

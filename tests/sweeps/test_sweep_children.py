"""Child processes: a failing row, a kill and what goes on after it, slots and locks."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest
from filelock import FileLock

from vistk.schema import ConfigError
from vistk.sweeps import children
from vistk.sweeps.cells import Cell, make_cells
from vistk.sweeps.children import Children, Launcher, last_error, make_launcher
from vistk.sweeps.definition import Row, Sweep
from vistk.sweeps.plan import Job, make_jobs

STUB = Path(__file__).with_name("stub_run.py")
WAITS, FAILS, CRASHES = (f"tracker.hidden_dim={number}" for number in (99, 13, 7))
DRIVER = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from test_sweep_children import sweep_of, run
run(sweep_of(Path({folder!r}), {rows!r}), Path({folder!r}))
"""


def sweep_of(folder: Path, rows: dict[str, str], seeds: Sequence[int] = (0,)) -> list[Job]:
    sweep = Sweep({name: Row(words.split()) for name, words in rows.items()}, seeds=list(seeds))
    return make_jobs(make_cells(sweep, folder)[0], folder / "cache")


def launcher_of(folder: Path, slots: int = 1) -> Launcher:
    return Launcher(
        STUB, folder / "logs", [{"CUDA_VISIBLE_DEVICES": str(i)} for i in range(slots)], [sys.executable]
    )


def run(jobs: Sequence[Job], folder: Path, slots: int = 1) -> tuple[dict[str, str], list[str]]:
    """Failures by row, and what was said."""
    said: list[str] = []
    failures = Children(launcher_of(folder, slots), said.append).run(jobs)
    return {cell.row: failures[cell.run_dir] for cell in all_cells(jobs) if cell.run_dir in failures}, said


def all_cells(jobs: Sequence[Job]) -> list[Cell]:
    return [cell for job in jobs for cell in job.cells]


def starts(cell: Cell) -> list[dict[str, Any]]:
    """What each process that worked on a cell was told."""
    log = cell.run_dir / "started.log"
    return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []


def eventually(condition: Callable[[], bool], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "did not happen in time"
        time.sleep(0.05)


def test_a_failing_row_does_not_stop_the_rest(tmp_path: Path) -> None:
    rows = {
        "a": "",
        "b": "tracker.memory_frames=1",
        "bad": FAILS,
        "needs it": f"{FAILS} tracker.memory_frames=1",
    }
    rows |= {"crash": CRASHES, "c": "train.steps=3"}
    jobs = sweep_of(tmp_path, rows)
    failures, said = run(jobs, tmp_path)
    log = tmp_path / "logs" / "bad-synthetic-seed0.log"
    assert failures == {
        "bad": f"loss is not finite at step 7 (exit code 2, log {log})",
        "needs it": "needs the weights of bad, synthetic, seed 0, which failed",
        "crash": f"it said nothing (exit code -9, log {tmp_path / 'logs' / 'crash-synthetic-seed0.log'})",
    }
    assert {cell.row for job in jobs for cell in job.cells if job.finished(cell)} == {"a", "b", "c"}
    assert any(line.startswith("c, synthetic, seed 0: done in ") and "3 of 6" in line for line in said)
    assert "tracker.hidden_dim=13" in log.read_text()

    _, said = run(sweep_of(tmp_path, rows), tmp_path)
    counts = {cell.row: len(starts(cell)) for cell in all_cells(jobs)}
    assert counts == {"a": 1, "b": 1, "c": 1, "bad": 2, "crash": 2, "needs it": 0}


def test_one_of_several_rows_of_a_process_fails(tmp_path: Path) -> None:
    file = tmp_path / "released.pth"
    file.write_text("x")
    common = f"eval_only=true weights={file}"
    rows = {"a": common, "bad": f"{common} {FAILS}", "b": f"{common} tracker.memory_frames=1"}
    jobs = sweep_of(tmp_path / "out", rows)
    assert len(jobs) == 1
    failures, said = run(jobs, tmp_path / "out")
    assert list(failures) == ["bad"]
    assert [len(starts(cell)) for cell in all_cells(jobs)] == [1, 1, 1]
    assert [line.split(":")[1] for line in said if "evaluates" in line] == [
        f" evaluates 3 rows, log {tmp_path / 'out' / 'logs' / 'a-synthetic-seed0.log'}",
        f" evaluates 1 row, log {tmp_path / 'out' / 'logs' / 'b-synthetic-seed0.log'}",
    ]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL], ids=lambda n: n.name)
def test_after_a_kill_the_rest_is_run(tmp_path: Path, number: signal.Signals) -> None:
    rows = {"done": "", "alike": "tracker.memory_frames=1", "stopped": WAITS, "next": "train.steps=3"}
    code = DRIVER.format(tests=str(Path(__file__).parent), folder=str(tmp_path), rows=rows)
    jobs = sweep_of(tmp_path, rows)
    done, stopped, alike, later = (
        next(cell for cell in all_cells(jobs) if cell.row == row)
        for row in ("done", "stopped", "alike", "next")
    )
    with subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL) as parent:
        eventually(lambda: (stopped.run_dir / "checkpoints").exists())
        parent.send_signal(number)
        assert parent.wait(60) != 0
    # A killed process cannot tell its runs; one that was told to stop has.
    assert (stopped.run_dir / "stopped").exists() == (number != signal.SIGKILL)
    if number == signal.SIGKILL:
        assert children._busy((jobs[2], [stopped])), "the run goes on without its parent, and keeps its lock"
        for process in psutil.process_iter(["cmdline"]):
            if any(str(stopped.run_dir) in word for word in process.info["cmdline"] or ()):
                process.kill()
    assert done.metrics.exists()
    assert alike.metrics.exists()
    assert not later.run_dir.exists()
    jobs = sweep_of(tmp_path, rows)
    failures, _ = run(jobs, tmp_path)
    assert failures == {}
    assert [len(starts(cell)) for cell in (done, alike, stopped, later)] == [1, 1, 2, 1]


def test_a_trainer_that_is_run_again_has_its_rows_evaluated_again(tmp_path: Path) -> None:
    rows = {"a": "", "b": "tracker.memory_frames=1", "c": "train.steps=3"}
    jobs = sweep_of(tmp_path, rows)
    run(jobs, tmp_path)
    trainer, evaluated, other = all_cells(jobs)
    trainer.metrics.unlink()
    run(sweep_of(tmp_path, rows), tmp_path)
    assert [len(starts(cell)) for cell in (trainer, evaluated, other)] == [2, 2, 1]
    assert "resume=false" in starts(evaluated)[1]["words"]
    hashes = {json.loads(cell.metrics.read_text())["card"]["weights hash"] for cell in (trainer, evaluated)}
    assert len(hashes) == 1


def test_one_run_a_slot(tmp_path: Path) -> None:
    jobs = sweep_of(tmp_path, {"a": "", "b": "train.steps=3"}, seeds=[0, 1])
    failures, _ = run(jobs, tmp_path, slots=2)
    assert failures == {}
    assert {starts(cell)[0]["gpu"] for cell in all_cells(jobs)} == {"0", "1"}


def test_what_another_process_runs_is_waited_for(tmp_path: Path) -> None:
    jobs = sweep_of(tmp_path, {"a": "", "b": "train.steps=3"})
    first, second = all_cells(jobs)
    first.run_dir.mkdir(parents=True)
    said: list[str] = []

    def say(sentence: str) -> None:
        said.append(sentence)
        if sentence.startswith("waits"):  # the other process is done
            assert second.metrics.exists(), "the other cells were run first"
            first.metrics.write_text(json.dumps({"rows": {}, "card": {}}))
            first.weights.touch()
            lock.release()

    lock = FileLock(first.run_dir / ".lock")
    lock.acquire()
    assert Children(launcher_of(tmp_path), say).run(jobs) == {}
    assert f"waits: another process is at work in {first.run_dir}" in said
    assert starts(first) == []


def test_gpus_and_flags(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(children.torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3, 5")
    one = make_launcher(STUB, tmp_path)
    assert [slot["CUDA_VISIBLE_DEVICES"] for slot in one.slots] == ["3", "5"]
    assert list(one.command[-2:]) == ["--num_processes", "1"]
    assert [s["CUDA_VISIBLE_DEVICES"] for s in make_launcher(STUB, tmp_path, jobs=3).slots] == ["3", "5", "3"]
    precise = make_launcher(STUB, tmp_path, ["--mixed_precision", "bf16"])
    assert len(precise.slots) == 2
    assert list(precise.command[-4:]) == ["--num_processes", "1", "--mixed_precision", "bf16"]
    for flag in ("--num_processes=2", "--num-processes=2"):  # the launcher reads both
        both = make_launcher(STUB, tmp_path, [flag])
        assert list(both.slots) == [{}]
        assert both.command == (*children.ACCELERATE, flag)
        with pytest.raises(ConfigError, match=f"--jobs 2: runs with {flag[:-2]} follow one another"):
            make_launcher(STUB, tmp_path, [flag], jobs=2)

    monkeypatch.setattr(children.torch.cuda, "device_count", lambda: 0)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(children.torch, "get_num_threads", lambda: 7)
    for jobs, threads in {None: "7", 2: "3", 9: "1"}.items():
        slots = make_launcher(STUB, tmp_path, jobs=jobs).slots
        assert list(slots) == [{"OMP_NUM_THREADS": threads}] * (jobs or 1)
    assert list(make_launcher(STUB, tmp_path, ["--num_processes", "2"]).slots) == [{}]
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert list(make_launcher(STUB, tmp_path, jobs=2).slots) == [{}, {}]


def test_the_parent_leaves_cuda_alone() -> None:
    code = (
        "import torch, vistk.sweeps.commands as c; c.make_launcher(c.Path('x'), c.Path('y'));"
        "from accelerate.state import PartialState;"
        "print(torch.cuda.is_initialized(), PartialState._shared_state)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "{}"]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("\n$ old\nerror: old\n\n$ new\nerror: one\nerror: two\nlater\n", "two"),
        ("\n$ old\nerror: old\n\n$ new\nTraceback\n  x\nKeyError: 'a'\n\n", "KeyError: 'a'"),
        ("\n$ new\n", "it said nothing"),
        ("\n$ new\nbar 50%\rbar 90%\rerror: full\n", "full"),
    ],
)
def test_the_sentence_of_a_failure(tmp_path: Path, text: str, sentence: str) -> None:
    log = tmp_path / "x.log"
    log.write_text(text)
    assert last_error(log) == sentence

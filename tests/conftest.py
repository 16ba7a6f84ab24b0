"""What all tests share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

# Two test workers on two cores: more threads each only get in each other's way.
torch.set_num_threads(1)
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Kernels run in Triton's interpreter, which has to be on before anything imports triton.
os.environ["TRITON_INTERPRET"] = "1"


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def golden() -> Path:
    """Numbers of the published implementations."""
    return Path(__file__).parent / "golden"


@pytest.fixture(scope="session")
def tolerance() -> dict[torch.dtype, dict[str, float]]:
    """``assert_close`` tolerances by dtype, for everything that is compared with a reference."""
    return {
        torch.float64: {"rtol": 1e-10, "atol": 1e-12},
        torch.float32: {"rtol": 1e-5, "atol": 1e-5},
        torch.bfloat16: {"rtol": 1e-2, "atol": 1e-2},
        torch.float16: {"rtol": 1e-3, "atol": 1e-3},
    }


@pytest.fixture
def run_experiment(monkeypatch, capsys):
    """Calls ``experiments/run.py`` with words; gives the exit code and what it printed."""
    from experiment_script import experiment_main

    def call(*words):
        monkeypatch.setattr("sys.argv", ["experiments/run.py", *map(str, words)])
        try:
            code = experiment_main()
        except SystemExit as stop:
            code = stop.code
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return call

"""Small sweeps with real runs: trained, evaluated on shared weights and queries, compared; two at once."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from vistk.data.config import SyntheticConfig
from vistk.data.synthetic import ensure
from vistk.sweeps import children
from vistk.sweeps.commands import sweep_main
from vistk.sweeps.definition import METRICS

RUN = Path(__file__).parents[2] / "experiments" / "run.py"
DATA = {"num_val": 2, "num_train": 4, "num_stills": 4, "frames": 8}
TIMED = """
import json, os, runpy, sys, time
begun = time.time()
try:
    runpy.run_path({run!r}, run_name="__main__")
finally:
    told = [os.environ.get(name) for name in ("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "WORLD_SIZE")]
    with open({log!r}, "a") as file:
        file.write(json.dumps([*told, begun, time.time()]) + "\\n")
"""


def words_of(root: Path) -> str:
    ensure(SyntheticConfig(root=str(root), **DATA), ["swap", "train"], progress=False)
    words = [f"data.{k}={v}" for k, v in {"root": root, "eval_splits": "[swap]", **DATA}.items()]
    return f"{' '.join(words)} train.steps=2 train.batch_size=2"


@pytest.mark.timeout(900)  # three processes that each import PyTorch
def test_a_sweep(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(b"no weights")
    file = tmp_path / "tiny.yaml"
    file.write_text(
        f"words: {words_of(tmp_path / 'data')}\nseeds: [0]\nmetrics: [AP]\nrows:\n"
        "  oracle: tracker=oracle\n  both:\n  no memory: tracker.memory_frames=1\n"
        f"  broken: weights={broken}\n"
    )
    out = tmp_path / "out"
    command = [str(file), "--out", str(out), "--bootstrap", "20"]
    assert sweep_main(command, RUN) == 1
    printed = capsys.readouterr()
    assert "broken, synthetic, seed 0: failed, " in printed.err
    content = json.loads((out / "table.json").read_text())
    numbers = {n["results"]: n["value"] for n in content["numbers"] if n["metric"] == "AP"}
    assert set(numbers) == {"oracle", "both", "no memory"}
    assert numbers["oracle"] > 0.5
    assert {n["baseline"] for n in content["differences"]} == {"oracle"}
    assert {n["results"] for n in content["differences"]} == {"both", "no memory"}
    assert len({card["weights hash"] for card in content["cards"].values()}) == 1
    assert any("broken" in note and str(broken) in note for note in content["notes"])
    logs = {path.name: path.read_text() for path in (out / "logs").glob("*.log")}
    assert set(logs) == {f"{row}-synthetic-seed0.log" for row in ("both", "broken", "oracle")}
    both = "reading the queries of 2 of 2 videos of swap from cache"
    assert logs["oracle-synthetic-seed0.log"].count(both) == 1, "what the run that trained has stored"
    measured = json.loads(next(out.glob("synthetic/oracle/**/metrics.json")).read_text())["rows"]["oracle"]
    assert set(measured["swap"]) == set(METRICS), "what a sweep may name"
    assert "tracker=oracle" in json.dumps([card["command"] for card in content["cards"].values()])

    assert sweep_main([*command, "--plan"], RUN) == 0
    states = dict(line.split(", synthetic, seed 0: ") for line in capsys.readouterr().out.splitlines())
    assert {row: state.split(",")[0] for row, state in states.items()} == {
        **dict.fromkeys(("oracle", "both", "no memory"), "finished"),
        "broken": "to do",
    }


@pytest.mark.timeout(900)
def test_one_run_on_each_of_two_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two rows at once through the launcher, each told of its own device, into one cache. The devices are
    made up: the runs find none, and use the CPU.
    """
    monkeypatch.setattr(children.torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(children.torch, "get_num_threads", lambda: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    file, script, log, out = (tmp_path / name for name in ("two.yaml", "timed.py", "log", "out"))
    file.write_text(f"words: {words_of(tmp_path / 'data')}\nseeds: [0, 1]\nmetrics: [AP]\nrows:\n  both:\n")
    script.write_text(TIMED.format(run=str(RUN), log=str(log)))
    assert sweep_main([str(file), "--out", str(out)], script) == 0
    first, second = sorted(json.loads(line) for line in log.read_text().splitlines())
    assert [first[:3], second[:3]] == [["0", "1", None], ["1", "1", None]]
    assert max(first[3], second[3]) < min(first[4], second[4]), "one after the other"
    content = json.loads((out / "table.json").read_text())
    assert sorted(n["seed"] for n in content["numbers"] if n["metric"] == "AP") == [0, 1]
    assert len({card["weights hash"] for card in content["cards"].values()}) == 2
    stored = [path.name for path in out.glob("cache/*/masks/*")]
    assert sorted(stored) == ["000001.safetensors", "000002.safetensors"], "equal segmenters, one cache"

"""A small sweep with real runs: trained, evaluated on shared weights and queries, compared."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from vistk.data.config import SyntheticConfig
from vistk.data.synthetic import ensure
from vistk.sweeps.commands import sweep_main

RUN = Path(__file__).parents[2] / "experiments" / "run.py"


@pytest.mark.timeout(900)  # three processes that each import PyTorch
def test_a_sweep(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = {"num_val": 2, "num_train": 4, "num_stills": 4, "frames": 8}
    root = ensure(SyntheticConfig(root=str(tmp_path / "data"), **data), ["swap", "train"], progress=False)
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(b"no weights")
    words = [f"data.{key}={value}" for key, value in {"root": root, "eval_splits": "[swap]", **data}.items()]
    file = tmp_path / "tiny.yaml"
    file.write_text(
        f"words: {' '.join(words)} train.steps=2 train.batch_size=2\nseeds: [0]\nmetrics: [AP]\nrows:\n"
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
    assert "tracker=oracle" in json.dumps([card["command"] for card in content["cards"].values()])

    assert sweep_main([*command, "--plan"], RUN) == 0
    states = dict(line.split(", synthetic, seed 0: ") for line in capsys.readouterr().out.splitlines())
    assert {row: state.split(",")[0] for row, state in states.items()} == {
        **dict.fromkeys(("oracle", "both", "no memory"), "finished"),
        "broken": "to do",
    }

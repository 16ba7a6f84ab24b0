"""Stands in for ``experiments/run.py``: the same words and files, and no work. Imports nothing slow.

``tracker.hidden_dim`` says what happens: 13 fails, 99 waits to be stopped (once: it leaves a mark, and then
ends), 7 crashes without a word, 5 has data whose annotations are hidden.
"""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import signal
import sys
import time
from pathlib import Path

import yaml
from filelock import FileLock


def main() -> int:
    if sys.argv[1] == "--runs":
        lines = Path(sys.argv[2]).read_text().splitlines()
        return next((code for line in lines if (code := run(shlex.split(line)))), 0)
    return run(sys.argv[1:])


def run(words: list[str]) -> int:
    said = {key: yaml.safe_load(value) for key, _, value in (word.partition("=") for word in words)}
    run_dir = Path(said["run_dir"])
    run_dir.mkdir(parents=True, exist_ok=True)
    with (run_dir / "started.log").open("a") as log:
        log.write(json.dumps({"words": words, "gpu": os.environ.get("CUDA_VISIBLE_DEVICES")}) + "\n")
    with FileLock(run_dir / ".lock", timeout=0):
        return work(said, run_dir, words)


def work(said: dict[str, object], run_dir: Path, words: list[str]) -> int:
    tree: dict[str, object] = {"words": words, "choices": {"data": "synthetic", "tracker": "visage"}}
    for key, value in said.items():
        if key in ("tracker", "data", "cache"):
            tree["choices"][key] = value
            continue
        *parents, name = key.split(".")
        inner = tree
        for parent in parents:
            inner = inner.setdefault(parent, {})
        inner[name] = value
    (run_dir / "config.yaml").write_text(yaml.safe_dump(tree))
    kind = said.get("tracker.hidden_dim")
    if kind == 13:
        print("a line before\nerror: loss is not finite at step 7", file=sys.stderr)
        return 2
    if kind == 7:
        os.kill(os.getpid(), signal.SIGKILL)
    mark = run_dir / "checkpoints"
    if kind == 99 and not mark.exists():
        mark.mkdir()
        try:
            time.sleep(60)
        except KeyboardInterrupt:
            (run_dir / "stopped").touch()
            return 130
    weights = run_dir / "weights.safetensors"
    if said.get("eval_only"):
        digest = hashlib.sha256(Path(str(said["weights"])).read_bytes()).hexdigest()[:12]
    else:
        weights.write_text(f"{run_dir} {time.time_ns()}")
        digest = hashlib.sha256(weights.read_bytes()).hexdigest()[:12]
    row = tree["choices"]["tracker"]
    ap = 0.5 + said["seed"] / 10 + (said.get("tracker.memory_frames") or 0) / 100
    card = {"weights hash": digest, "commit": "abc", "frames/s": f"{10 + said['seed']} (all)"}
    metrics = dict.fromkeys(("AP", "AP50", "AP75", "AR1", "AR10", "HOTA", "AssA"), ap)
    rows = {row: {"swap": metrics | {"IDF1": None}}}
    if kind == 5:
        rows = {row: {}}
        (run_dir / "rows" / row / "valid").mkdir(parents=True)
        (run_dir / "rows" / row / "valid" / "submission.zip").touch()
    (run_dir / "metrics.json").write_text(json.dumps({"rows": rows, "card": card}))
    return 0


if __name__ == "__main__":
    sys.exit(main())

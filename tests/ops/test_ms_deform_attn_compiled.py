"""What the compiler makes of the kernels, for GPUs that need not be there.

The interpreter accepts what no GPU runs well: registers spilled to memory, loads of four bytes, fences around
every atomic. ``compile_only.py`` compiles the shipped configuration and counts instructions, each as often as
it runs, per query, head and point at 8 heads of 32 channels, 3 levels, 4 points.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("compile_only.py")
# Warp instructions for a (query, head, point), recorded with Triton 3.6 and 3.9 and rounded up; whoever
# makes a kernel better lowers its number. Bounds of the design: 22 forward, 48 backward, float32, sm_90.
BUDGET = {
    ("forward", "fp32"): 15,
    ("forward", "bf16"): 17,
    ("backward", "fp32"): 37,
    ("backward", "bf16"): 50,
    ("backward sample", "fp32"): 26,
    ("backward sample", "bf16"): 27,
    ("backward scatter", "fp32"): 48,
    ("backward scatter", "bf16"): 45,
}
BACKWARD = {80: ["backward sample", "backward scatter"], 90: ["backward"], 120: ["backward"]}
CASES = [
    (kind, f"sm_{capability}", dtype, fused)
    for capability, backward in BACKWARD.items()
    for kind in ("forward", *backward, "gather")
    for dtype in ("fp32", "bf16")
    for fused in ((True,) if kind == "gather" else (False, True))
]

if importlib.util.find_spec("triton") is None and not sys.platform.startswith("linux"):
    pytest.skip("triton has no wheel for this platform", allow_module_level=True)
pytestmark = pytest.mark.xdist_group("compile-only")


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str, str, bool], dict]:
    assert importlib.util.find_spec("triton"), "triton is missing; on Linux this package depends on it"
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment["TRITON_CACHE_DIR"] = str(tmp_path_factory.mktemp("triton"))
    root = str(SCRIPT.parents[2])
    environment["PYTHONPATH"] = os.pathsep.join([root, environment.get("PYTHONPATH", "")])
    done = subprocess.run([sys.executable, SCRIPT], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-4000:]
    found = [json.loads(line) for line in done.stdout.splitlines()]
    return {(r["kernel"], r["capability"], r["dtype"], r["fused"]): r for r in found}


def test_every_launch_is_compiled(reports) -> None:
    assert sorted(reports) == sorted(CASES)


@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(map(str, case)).replace(" ", "-"))
def test_kernels_stay_in_registers_without_fences(reports, case) -> None:
    found = reports[case]
    assert found["stack"] == 0
    assert found["spills"] == []
    assert found["fences"] == []
    assert found["registers"] <= 128


@pytest.mark.parametrize(
    "case",
    [c for c in CASES if c[0] != "gather"],
    ids=lambda case: "-".join(map(str, case)).replace(" ", "-"),
)
def test_memory_is_moved_in_sixteen_bytes_and_instructions_are_few(reports, case) -> None:
    kind, capability, dtype, _ = case
    found = reports[case]
    # Outside of all loops, levels, points, pixels around a point: otherwise the count below means nothing.
    assert found["depths"] == [0, 1, 2, 3]
    assert found["gathers"] == ([] if kind == "backward scatter" else ["LDG.E.128"])
    # There are no vector reductions before Hopper.
    vector = f"global.gpu.relaxed.add.{'f32' if capability == 'sm_80' else 'v4.f32'}"
    assert found["reductions"] == ([vector] if kind in ("backward", "backward scatter") else [])
    assert found["per_point"] <= BUDGET[kind, dtype]

"""Compiles the deformable op's kernels for GPUs that need not be there, and says what came out.

Run by ``test_ms_deform_attn_compiled.py`` in a process of its own: the interpreter, which other tests turn
on, cannot compile. Prints one JSON object a kernel. Needs the triton wheel and the tools inside it.
"""

from __future__ import annotations

import itertools
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from vistk.ops.ms_deform_attn import triton_backend, triton_kernels, triton_parts

HEADS, HEAD_DIM, LEVELS, POINTS = 8, 32, 3, 4
BLOCK_Q = 32 * triton_backend.WARPS
SHAPES = [(23, 40), (45, 80), (90, 160)]
NAMES = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}


def cases() -> Iterator[tuple[str, Any, triton_backend.Target, dict[str, Any]]]:
    """Every launch of the shipped configuration: name, kernel, target, constants beside the shared ones."""
    for major, dtype, fused in itertools.product((8, 9, 12), (torch.float32, torch.bfloat16), (False, True)):
        target = triton_backend.Target((major, 0), dtype, HEAD_DIM, fused)
        tile_w = triton_backend.TILE_W
        yield (
            "forward",
            triton_kernels.forward_kernel,
            target,
            {"PAIRS": target.pairs(SHAPES), "TILE_W": tile_w},
        )
        for part in target.backward_parts(tile_w, atomics=True):
            kind = "backward"
            if not (part["SCATTER"] and part["SAMPLE"]):
                kind += " scatter" if part["SCATTER"] else " sample"
            part["TILE_W"] = part.pop("tile_w")
            yield kind, triton_kernels.backward_kernel, target, part
        if fused:
            yield "gather", triton_kernels.gather_kernel, target, {}


def compiled(kernel: Any, target: triton_backend.Target, constants: dict[str, Any]) -> Any:
    storage, names = NAMES[target.dtype], kernel.arg_names
    points = storage if target.fused else "fp32"
    pointers = {
        "value": storage, "points": points, "weights": storage, "references": "fp32", "out": storage,
        "grad_out": storage, "grad_value": "fp32", "grad_points": points, "grad_weights": storage,
    }  # fmt: skip
    options = target.options()
    if kernel is triton_kernels.gather_kernel:
        pointers |= dict.fromkeys(("xs", "ys", "weights"), "fp32") | dict.fromkeys(("order", "firsts"), "i32")
        options = {"num_warps": 1, "enable_fp_fusion": True}
    shared = {
        "M": HEADS, "D": HEAD_DIM, "BLOCK_D": target.block_d, "L": LEVELS, "P": POINTS, "LP": LEVELS * POINTS,
        "BLOCK_LP": 16, "BLOCK_Q": BLOCK_Q, "BLOCK_S": triton_backend.BLOCK_S, "FUSED": target.fused,
    }  # fmt: skip
    constants = {name: value for name, value in (shared | constants).items() if name in names}
    signature = {
        name: "constexpr" if name in constants
        else f"*{pointers[name]}" if name in pointers
        else "i64" if name in triton_parts.LEVELS
        else "i32"
        for name in names
    }  # fmt: skip
    # What PyTorch's allocator and the strides of a dense projection give, and the launcher specialises on.
    aligned = [*pointers, "point_stride", "weight_stride"]
    attributes = {(names.index(name),): [["tt.divisibility", 16]] for name in aligned if name in names}
    source = ASTSource(fn=kernel, signature=signature, constexprs=constants, attrs=attributes)
    major, minor = target.capability
    return triton.compile(source, target=GPUTarget("cuda", 10 * major + minor, 32), options=options)


def disassembled(cubin: bytes) -> tuple[list[tuple[int, str]], dict[str, int]]:
    """Instructions with their addresses; registers and stack bytes."""
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    if not tool.exists():
        raise FileNotFoundError(f"{tool}: not there; the triton wheel for Linux brings it")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.cubin"
        path.write_bytes(cubin)
        text, usage = (
            subprocess.run([tool, option, path], capture_output=True, text=True, check=True).stdout
            for option in ("-sass", "--dump-resource-usage")
        )
    instructions = [
        (int(at, 16), code.strip()) for at, code in re.findall(r"/\*([0-9a-f]{4,5})\*/\s+(.*?);", text)
    ]
    resources = {name.lower(): int(number) for name, number in re.findall(r"\b(REG|STACK):(\d+)", usage)}
    return instructions, resources


def loops(instructions: list[tuple[int, str]]) -> list[tuple[int, int]]:
    """Address ranges of loops: branches backward, but for the empty one behind the last instruction."""
    found = []
    for at, code in instructions:
        target = re.search(r"\bBRA\b.*?0x([0-9a-f]+)", code)
        if target and int(target.group(1), 16) < at:
            found.append((int(target.group(1), 16), at))
    return found


def report(
    kind: str, kernel: Any, target: triton_backend.Target, constants: dict[str, Any]
) -> dict[str, Any]:
    binary = compiled(kernel, target, constants)
    instructions, resources = disassembled(binary.asm["cubin"])
    nest = loops(instructions)
    corners = 2 if constants.get("PAIRS") else 4
    depths, executed, innermost = set(), 0, []
    for at, code in instructions:
        if code.startswith("NOP"):
            continue
        depth = sum(first <= at <= last for first, last in nest)
        depths.add(depth)
        executed += [1, LEVELS, LEVELS * POINTS, LEVELS * POINTS * corners, 0][min(depth, 4)]
        if depth == 3:
            innermost.append(code)
    rows = BLOCK_Q * LEVELS * POINTS
    ptx = binary.asm["ptx"].splitlines()
    return {
        "kernel": kind,
        "capability": f"sm_{10 * target.capability[0]}",
        "dtype": NAMES[target.dtype],
        "fused": target.fused,
        "registers": resources["reg"],
        "stack": resources["stack"],
        "spills": [code for _, code in instructions if re.search(r"\b(STL|LDL)\b", code)],
        "fences": [
            code for _, code in instructions if re.search(r"\b(MEMBAR|CCTL|ERRBAR|ATOMG|ATOM)\b", code)
        ],
        "depths": sorted(depths),
        "gathers": sorted({m for code in innermost for m in re.findall(r"\bLDG\S*", code)}),
        "reductions": sorted({m for line in ptx for m in re.findall(r"\b(?:red|atom)\.(\S+)", line)}),
        "per_point": round(executed * target.options()["num_warps"] / rows, 2),
    }


if __name__ == "__main__":
    for case in cases():
        print(json.dumps(report(*case)))
        sys.stdout.flush()

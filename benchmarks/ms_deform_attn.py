"""Time of multi-scale deformable attention against what else there is, behind a correctness gate.

On a machine with an NVIDIA GPU: 360p, 480p and 720p, 1 and 8 images, float32 and bfloat16, forward and
backward, ours beside PyTorch's grid_sample, the CUDA op of Deformable DETR (2020) and ``deformops``, the last
two where they are installed. Everywhere, with ``--cpu``: the CPU path beside grid_sample. Nothing is timed
before outputs and gradients of that size agree with grid_sample in float64.

    python benchmarks/ms_deform_attn.py [--cpu] [--variants] [--out FILE.csv]
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rows import CARD, card, write_rows
from torch import Tensor

from vistk.ops import ms_deform_attn, ms_deform_attn_fused

HEADS, HEAD_DIM, POINTS = 8, 32, 4
# Levels of strides 32, 16 and 8; 720 rows are padded to 736.
SIZES = {
    "360p": ((12, 20), (24, 40), (48, 80)),
    "480p": ((15, 27), (30, 54), (60, 108)),
    "720p": ((23, 40), (46, 80), (92, 160)),
}
# Nominal rates of an H100 SXM, bytes a second: memory, first-level caches, second-level cache.
DRAM, L1, L2 = 3.0e12, 29.7e12, 5.5e12
ALLOWED = {torch.float32: 2e-5, torch.bfloat16: 6e-3}
COLUMNS = [
    *CARD,
    "size",
    "images",
    "dtype",
    "pass",
    "implementation",
    "us_per_image",
    "times_ours",
    "floor_share",
]


@dataclass
class Problem:
    """One encoder layer's call: queries are the pixels, offsets a ring plus a pixel of noise."""

    shapes: tuple[tuple[int, int], ...]
    value: Tensor
    references: Tensor
    offsets: Tensor
    logits: Tensor
    grad: Tensor

    @property
    def locations(self) -> Tensor:
        sizes = torch.tensor([(w, h) for h, w in self.shapes], device=self.value.device)
        return (
            self.references[None, :, None, None, None] + self.offsets.float() / sizes[:, None]
        ).contiguous()

    @property
    def weights(self) -> Tensor:
        return self.logits.float().flatten(3).softmax(-1).view(self.logits.shape).to(self.value.dtype)

    @property
    def samples(self) -> int:
        return self.logits.numel()


def problem(size: str, images: int, dtype: torch.dtype, device: str) -> Problem:
    shapes = SIZES[size]
    generator = torch.Generator().manual_seed(0)
    pixels = sum(h * w for h, w in shapes)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    angle = torch.arange(HEADS) * (2 * torch.pi / HEADS)
    ring = torch.stack([angle.cos(), angle.sin()], -1)
    ring = (ring / ring.abs().amax(-1, keepdim=True))[:, None, None] * torch.arange(1, POINTS + 1)[:, None]
    offsets = ring + normal(images, pixels, HEADS, len(shapes), POINTS, 2)
    centres = [
        torch.stack(
            torch.meshgrid((torch.arange(h) + 0.5) / h, (torch.arange(w) + 0.5) / w, indexing="ij")[::-1], -1
        )
        for h, w in shapes
    ]
    return Problem(
        shapes,
        normal(images, pixels, HEADS, HEAD_DIM).to(device, dtype),
        torch.cat([centre.flatten(0, 1) for centre in centres]).to(device),
        offsets.to(device, dtype),
        normal(images, pixels, HEADS, len(shapes), POINTS).to(device, dtype),
        normal(images, pixels, HEADS * HEAD_DIM).to(device, dtype),
    )


Call = tuple[Callable[..., Tensor], list[Tensor]]


def implementations(p: Problem, ours: str) -> dict[str, Call]:
    """Name -> function and the tensors whose gradients it gives. All but the fused one get equal inputs."""
    plain = [p.value, p.locations, p.weights]
    found: dict[str, Call] = {
        "ours": (lambda v, x, w: ms_deform_attn(v, p.shapes, x, w, ours), plain),
        "ours, fused": (
            lambda v, o, a: ms_deform_attn_fused(v, p.shapes, p.references, o, a, ours),
            [p.value, p.offsets, p.logits],
        ),
        "grid_sample": (lambda v, x, w: ms_deform_attn(v, p.shapes, x, w, "reference"), plain),
    }
    if p.value.device.type != "cuda":
        return found
    sizes = torch.tensor(p.shapes, device=p.value.device)
    starts = torch.cat([sizes.new_zeros(1), sizes.prod(1).cumsum(0)[:-1]])
    if importlib.util.find_spec("deformops"):
        from deformops.registry import msda

        found["deformops"] = (lambda v, x, w: msda(v, sizes, starts, x, w), plain)
    if importlib.util.find_spec("MultiScaleDeformableAttention") and p.value.dtype == torch.float32:
        found["CUDA op, 2020"] = (cuda_op(sizes, starts), plain)
    return found


def cuda_op(sizes: Tensor, starts: Tensor) -> Callable[..., Tensor]:
    """The compiled extension of Deformable DETR, under the name its setup.py gives it."""
    import MultiScaleDeformableAttention as extension

    class Op(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, v: Tensor, x: Tensor, w: Tensor) -> Tensor:
            ctx.save_for_backward(v, x, w)
            return extension.ms_deform_attn_forward(v, sizes, starts, x, w, v.shape[0])

        @staticmethod
        def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, ...]:
            v, x, w = ctx.saved_tensors
            return tuple(
                extension.ms_deform_attn_backward(v, sizes, starts, x, w, grad.contiguous(), v.shape[0])
            )

    return Op.apply


def gate(p: Problem, name: str, call: Call) -> list[str]:
    """What is wrong with outputs and gradients, by relative root mean square against float64."""
    function, tensors = call
    exact_inputs = [t.double() for t in tensors]
    if name == "ours, fused":

        def exact(v: Tensor, o: Tensor, a: Tensor) -> Tensor:
            return ms_deform_attn_fused(v, p.shapes, p.references.double(), o, a, "reference")
    else:

        def exact(v: Tensor, x: Tensor, w: Tensor) -> Tensor:
            return ms_deform_attn(v, p.shapes, x, w, "reference")

    mine, theirs = (run(f, t, p.grad) for f, t in ((function, tensors), (exact, exact_inputs)))
    # A derivative by a location jumps at pixel centres, where rounding takes either side.
    sizes = torch.tensor([(w, h) for h, w in p.shapes], device=p.value.device, dtype=torch.float64)
    pixels = p.locations.double() * sizes[:, None] - 0.5
    settled = ((pixels - pixels.round()).abs() > 1e-3).all(-1, keepdim=True)
    mine[2], theirs[2] = mine[2] * settled, theirs[2] * settled
    wrong = []
    for what, a, b in zip(("output", "by value", "by points", "by weights"), mine, theirs, strict=True):
        error = ((a.double() - b).square().mean() / b.square().mean()).sqrt().item()
        if not error <= ALLOWED[p.value.dtype]:
            wrong.append(f"{name}, {what}: relative error {error:.1e}")
    return wrong


def run(function: Callable[..., Tensor], tensors: list[Tensor], grad: Tensor) -> list[Tensor]:
    leaves = [t.detach().clone().requires_grad_() for t in tensors]
    out = function(*leaves)
    return [out.detach(), *torch.autograd.grad(out, leaves, grad.to(out.dtype))]


def microseconds(function: Callable[[], object], device: str) -> float:
    """Median of a call; on a GPU by events, the cache flushed before each."""
    if device == "cuda":
        from triton.testing import do_bench

        return 1e3 * do_bench(function, warmup=20, rep=60, return_mode="median")
    times = []
    function()
    while len(times) < 5 or (sum(times) < 1.0 and len(times) < 50):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return 1e6 * statistics.median(times)


@contextlib.contextmanager
def deterministic() -> Iterator[None]:
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


def timed(call: Call, grad: Tensor, device: str) -> tuple[float, float]:
    function, tensors = call
    with torch.no_grad():
        forward = microseconds(lambda: function(*tensors), device)
    leaves = [t.detach().clone().requires_grad_() for t in tensors]
    out = function(*leaves)
    grad = grad.to(out.dtype)
    return forward, microseconds(lambda: torch.autograd.grad(out, leaves, grad, retain_graph=True), device)


def floors(p: Problem) -> tuple[float, float]:
    """Microseconds of forward and backward that no kernel of an H100 goes below, at nominal rates."""
    row = 4 * HEAD_DIM
    moved = sum(t.nbytes for t in (p.value, p.grad, p.locations, p.weights))
    gathered = p.samples * row * p.value.element_size() / L1
    forward = max(moved / DRAM, gathered)
    return 1e6 * forward, 1e6 * max(2 * moved / DRAM, gathered, p.samples * row * 4 / L2)


def rows(size: str, images: int, dtype: torch.dtype, device: str) -> Iterator[dict[str, Any]]:
    p = problem(size, images, dtype, device)
    ours = "triton" if device == "cuda" else "cpu"
    found = implementations(p, ours)
    times = {}
    for name, call in found.items():
        try:
            times[name] = timed(call, p.grad, device)
        except torch.cuda.OutOfMemoryError:
            print(f"{name}: out of memory at {size} x {images}", file=sys.stderr)
    if device == "cuda":
        with deterministic():
            times["ours, deterministic"] = timed(found["ours"], p.grad, device)
    hopper = device == "cuda" and "H100" in torch.cuda.get_device_name()
    for index, (kind, floor) in enumerate(zip(("forward", "backward"), floors(p), strict=True)):
        for name, both in times.items():
            yield {
                **card(device),
                "size": size,
                "images": images,
                "dtype": str(dtype).removeprefix("torch."),
                "pass": kind,
                "implementation": name,
                "us_per_image": round(both[index] / images, 1),
                "times_ours": round(both[index] / times["ours"][index], 2),
                "floor_share": round(floor / both[index], 2) if hopper else "",
            }


def variants() -> Iterator[dict[str, Any]]:
    """Sizes of a program: warps and width of the tile of queries."""
    from vistk.ops.ms_deform_attn import triton_backend

    shipped = triton_backend.WARPS, triton_backend.TILE_W
    for warps, tile_w in ((1, 8), (1, 4), (1, 16), (2, 8), (4, 16), (4, 8)):
        triton_backend.WARPS, triton_backend.TILE_W = warps, tile_w
        for dtype in (torch.float32, torch.bfloat16):
            p = problem("720p", 8, dtype, "cuda")
            both = timed(implementations(p, "triton")["ours, fused"], p.grad, "cuda")
            for kind, microsecond in zip(("forward", "backward"), both, strict=True):
                yield dict.fromkeys(COLUMNS, "") | {
                    **card("cuda"),
                    "size": "720p",
                    "images": 8,
                    "dtype": str(dtype).removeprefix("torch."),
                    "pass": kind,
                    "implementation": f"ours, fused, {warps} warps, tiles {tile_w} wide",
                    "us_per_image": round(microsecond / 8, 1),
                }
    triton_backend.WARPS, triton_backend.TILE_W = shipped


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cpu", action="store_true", help="time the CPU path, too")
    parser.add_argument(
        "--variants", action="store_true", help="time other program sizes of the kernels, too"
    )
    parser.add_argument("--out", type=Path, help="write the rows as CSV")
    options = parser.parse_args()
    table: list[dict[str, Any]] = []
    cases = [(s, b, d, "cuda") for s in SIZES for b in (1, 8) for d in (torch.float32, torch.bfloat16)]
    if not torch.cuda.is_available():
        print(
            "No NVIDIA GPU here, so its rows are left out"
            + ("." if options.cpu else "; --cpu times the CPU path.")
        )
        cases = []
    if options.cpu:
        cases += [(size, 1, torch.float32, "cpu") for size in SIZES]
    for size, images, dtype, device in cases:
        if images == 1:
            small = problem(size, 1, dtype, device)
            ours = {
                n: c
                for n, c in implementations(small, "triton" if device == "cuda" else "cpu").items()
                if "ours" in n
            }
            wrong = [line for name, call in ours.items() for line in gate(small, name, call)]
            if device == "cuda":
                with deterministic():
                    wrong += [f"deterministic {line}" for line in gate(small, "ours", ours["ours"])]
            if wrong:
                print(f"{size}, {dtype}, {device}: not timed, results are wrong:", *wrong, sep="\n  ")
                return 1
        for row in rows(size, images, dtype, device):
            table.append(row)
            print("  ".join(f"{row[c]!s:>12}" for c in COLUMNS[len(CARD) :]), flush=True)
    if options.variants and torch.cuda.is_available():
        for row in variants():
            table.append(row)
            print("  ".join(f"{row[c]!s:>12}" for c in COLUMNS[len(CARD) :]), flush=True)
    if options.out:
        write_rows(options.out, COLUMNS, table)
    return 0


if __name__ == "__main__":
    sys.exit(main())

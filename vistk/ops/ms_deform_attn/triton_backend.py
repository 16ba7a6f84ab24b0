"""Launches the Triton kernels: which configuration, which strides, which backward."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import triton
from torch import Tensor

from vistk.ops.ms_deform_attn.checks import check_count
from vistk.ops.ms_deform_attn.points import Shapes, in_pixels, normalised
from vistk.ops.ms_deform_attn.triton_kernels import backward_kernel, forward_kernel, gather_kernel
from vistk.ops.ms_deform_attn.triton_parts import LEVELS, MAX_LEVELS

# 32 rows a warp: one row a lane in the arithmetic of coordinates. One warp a program needs no barriers.
# TILE_W x (32 * WARPS / TILE_W) rows make a program where the queries are the pixels of the pyramid.
WARPS = 1
TILE_W = 8
BLOCK_S = 32  # pixels of a program of the backward without atomics
INTERPRETED = not isinstance(forward_kernel, triton.runtime.JITFunction)


@dataclass(frozen=True)
class Target:
    """What the choice of a kernel depends on; ``capability`` is (9, 0) for an H100."""

    capability: tuple[int, int]
    dtype: torch.dtype
    head_dim: int
    fused: bool

    @property
    def block_d(self) -> int:
        return triton.next_power_of_2(self.head_dim)

    def options(self) -> dict[str, Any]:
        """Compiler options. 128 registers, where a tile of 32 channels fits them, leave 16 warps a core."""
        registers = {"maxnreg": 128} if self.block_d <= 32 else {}
        warps = self.block_d // 32 if self.block_d > 64 else WARPS
        return {"num_warps": warps, "enable_fp_fusion": True, **registers}

    def pairs(self, shapes: Shapes) -> bool:
        """Forward: gather two neighbours at once, where all have two and registers suffice."""
        if min(w for _, w in shapes) < 2:
            return False
        return self.block_d <= 32 and not (
            self.fused and self.dtype == torch.float32 and self.capability < (9, 0)
        )

    def backward_parts(self, tile_w: int, atomics: bool) -> list[dict[str, Any]]:
        """What differs between the backward launches, one after the other.

        Before Hopper there are no vector atomics: a lane holds four times the addresses, and scattering
        in a launch of its own keeps everything in registers. Atomics bypass the first cache, so that
        launch gains nothing from tiles.
        """
        if atomics and self.capability >= (9, 0):
            return [{"tile_w": tile_w, "SCATTER": True, "SAMPLE": True}]
        sample = {"tile_w": tile_w, "SCATTER": False, "SAMPLE": True}
        return [sample, {"tile_w": 0, "SCATTER": True, "SAMPLE": False}] if atomics else [sample]


def target_of(value: Tensor, fused: bool) -> Target:
    capability = torch.cuda.get_device_capability(value.device) if value.is_cuda else (9, 0)
    return Target(capability, value.dtype, value.shape[-1], fused)


def packed_levels(shapes: Shapes) -> dict[str, int]:
    """The kernels' ``level0`` to ``level7``."""
    padded = [*shapes, *[(1, 1)] * (MAX_LEVELS - len(shapes))]
    return {name: (h << 32) + w for name, (h, w) in zip(LEVELS, padded, strict=True)}


def row_stride(tensor: Tensor) -> int:
    """Elements from a query to the next; a dimension of one query may claim any stride."""
    return tensor.stride(1) if tensor.shape[1] > 1 else tensor.stride(0)


def dense_rows(tensor: Tensor) -> Tensor:
    """``tensor`` ``(B, Q, ...)`` such that one stride leads from query to query, also across images.

    The slice of a wider projection is such a tensor; everything else is copied.
    """
    b, q = tensor.shape[:2]
    inner = tensor[0, 0].is_contiguous()
    across = b == 1 or q == 1 or tensor.stride(0) == q * tensor.stride(1)
    aligned = row_stride(tensor) % 2 == 0 and tensor.data_ptr() % 16 == 0
    return tensor if inner and across and aligned else tensor.contiguous()


class Problem:
    """The arguments that forward and backward share, by the names the kernels give them."""

    def __init__(
        self, value: Tensor, shapes: Shapes, points: Tensor, weights: Tensor, references: Tensor | None
    ) -> None:
        b, self.queries, self.heads, levels, p, _ = points.shape
        _, self.pixels, _, d = value.shape
        self.images, self.shapes = b, shapes
        self.target = target_of(value, references is not None)
        points, weights = dense_rows(points), dense_rows(weights)
        if references is not None and references.stride(-1) != 1:
            references = references.contiguous()
        strides = (0, 0, 0) if references is None else references.stride()[:3]
        value = value.contiguous()
        # Queries that number as the pixels are taken to be the pixels: only the order of work depends on it.
        self.block_q = 32 * WARPS
        self.tile_w = TILE_W if self.queries == self.pixels else 0
        self.arguments: dict[str, Any] = {
            "value": value,
            **packed_levels(shapes),
            "points": points,
            "weights": weights,
            "references": value if references is None else references,
            "queries": self.queries,
            "pixels": self.pixels,
            "point_stride": row_stride(points)
            // 2,  # in points: even by construction, so x and y load as one
            "weight_stride": row_stride(weights),
            "image_stride": strides[0],
            "query_stride": strides[1],
            "level_stride": strides[2],
            "M": self.heads,
            "D": d,
            "BLOCK_D": self.target.block_d,
            "L": levels,
            "P": p,
            "BLOCK_LP": triton.next_power_of_2(levels * p),
            "BLOCK_Q": self.block_q,
            "FUSED": references is not None,
            **self.target.options(),
        }

    def launch(self, kernel: Any, tile_w: int, **arguments: Any) -> None:
        if tile_w == 0:
            tiles = triton.cdiv(self.queries, self.block_q)
        else:
            tile_h = self.block_q // tile_w
            tiles = sum(triton.cdiv(h, tile_h) * triton.cdiv(w, tile_w) for h, w in self.shapes)
        grid = (self.images * self.heads * tiles,)
        with torch.cuda.device_of(self.arguments["value"]):
            kernel[grid](**self.arguments, tiles=tiles, TILE_W=tile_w, **arguments)


def forward(
    value: Tensor, shapes: Shapes, points: Tensor, weights: Tensor, references: Tensor | None
) -> Tensor:
    """``(B, Q, M*D)`` in the dtype of ``value``; arguments as :func:`points.in_pixels` takes them."""
    b, q, m = points.shape[:3]
    out = torch.empty(b, q, m * value.shape[-1], dtype=value.dtype, device=value.device)
    if out.numel():
        problem = Problem(value, shapes, points, weights, references)
        problem.launch(forward_kernel, problem.tile_w, out=out, PAIRS=problem.target.pairs(shapes))
    return out


def backward(
    grad_out: Tensor,
    value: Tensor,
    shapes: Shapes,
    points: Tensor,
    weights: Tensor,
    references: Tensor | None,
    out: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients by ``value``, ``points`` and ``weights``, in their dtypes; ``out`` only with ``references``.

    The gradient by ``value`` is summed in float32: by atomics, in an order that varies, or, under
    ``torch.use_deterministic_algorithms``, by sorting the points first.
    """
    device = value.device
    grad_points = torch.empty(points.shape, dtype=points.dtype, device=device)
    grad_weights = torch.empty(weights.shape, dtype=weights.dtype, device=device)
    grad_value = torch.zeros(value.shape, dtype=torch.float32, device=device)
    if grad_out.numel():
        problem = Problem(value, shapes, points, weights, references)
        grad_out = grad_out.contiguous()
        deterministic = torch.are_deterministic_algorithms_enabled()
        for part in problem.target.backward_parts(problem.tile_w, atomics=not deterministic):
            problem.launch(
                backward_kernel,
                **part,
                out=problem.arguments["value"] if out is None else out.contiguous(),
                grad_out=grad_out,
                grad_value=grad_value,
                grad_points=grad_points,
                grad_weights=grad_weights,
            )
        if deterministic:
            _gather(grad_value, grad_out, problem, points, weights, references)
    return grad_value.to(value.dtype), grad_points, grad_weights


def _gather(
    grad_value: Tensor,
    grad_out: Tensor,
    problem: Problem,
    points: Tensor,
    weights: Tensor,
    references: Tensor | None,
) -> None:
    """Fills ``grad_value`` without atomics: points sorted by cell, then every pixel fetches its own."""
    shapes, m, p = problem.shapes, problem.heads, points.shape[4]
    x, y = in_pixels(points, references, shapes, torch.float32)
    cells = [(h + 1) * (w + 1) for h, w in shapes]
    starts = [sum(cells[:level]) for level in range(len(cells))]
    table = torch.tensor(
        [(h, w, start) for (h, w), start in zip(shapes, starts, strict=True)], device=x.device
    )
    height, width, start = table.repeat_interleave(p, 0).unbind(1)
    valid = (x >= -1) & (x < width) & (y >= -1) & (y < height)
    group = torch.arange(problem.images * m, device=x.device).view(-1, 1, m, 1) * sum(cells)
    cell = group + start + (y.floor().long() + 1) * (width + 1) + x.floor().long() + 1
    last = problem.images * m * sum(cells)
    check_count("cells", last)
    # Points that share in no pixel come last, behind every cell.
    keys, order = torch.where(valid, cell, last).int().flatten().sort(stable=True)
    firsts = torch.searchsorted(
        keys, torch.arange(last + 1, dtype=torch.int32, device=x.device), out_int32=True
    )
    names = ("M", "D", "BLOCK_D", "L", "pixels", *packed_levels(shapes))
    grid = (triton.cdiv(problem.pixels, BLOCK_S), problem.images * m)
    with torch.cuda.device_of(grad_value):
        gather_kernel[grid](
            **{name: problem.arguments[name] for name in names},
            order=order.int(),
            firsts=firsts,
            xs=x.contiguous(),
            ys=y.contiguous(),
            weights=normalised(weights, references, torch.float32).contiguous(),
            grad_out=grad_out,
            grad_value=grad_value,
            cells=sum(cells),
            LP=x.shape[-1],
            BLOCK_S=BLOCK_S,
            num_warps=max(1, problem.target.block_d // 32),
            enable_fp_fusion=True,
        )

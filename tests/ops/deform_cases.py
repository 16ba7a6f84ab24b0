"""Inputs of the deformable op for its tests, and the reference's answer in float64."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from vistk.ops import ms_deform_attn, ms_deform_attn_fused


@dataclass(frozen=True)
class Case:
    """Sizes by the letters of the op; ``q`` None means one query a pixel, as in an encoder."""

    shapes: Sequence[tuple[int, int]]
    b: int = 1
    q: int | None = 7
    m: int = 2
    d: int = 5
    p: int = 3
    far: bool = False

    def tensors(self, dtype: torch.dtype, fused: bool) -> list[Tensor]:
        """Arguments after ``spatial_shapes`` taken out, rounded to ``dtype`` where a model would have it."""
        generator = torch.Generator().manual_seed(len(self.shapes) + self.p)
        pixels = sum(h * w for h, w in self.shapes)
        rows = (self.b, pixels if self.q is None else self.q, self.m, len(self.shapes), self.p)

        def normal(*size: int) -> Tensor:
            return torch.randn(*size, generator=generator, dtype=torch.float64)

        exact = torch.float64 if dtype == torch.float64 else torch.float32
        value = normal(self.b, pixels, self.m, self.d).to(dtype)
        weights = normal(*rows)
        spread = 1e7 if self.far else 1.0
        if not fused:
            locations = torch.rand(*rows, 2, generator=generator, dtype=torch.float64) * 1.6 - 0.3
            locations[:, ::2] *= spread
            return [value, locations.to(exact), weights.flatten(3).softmax(-1).view(rows).to(dtype)]
        offsets = 3 * normal(*rows, 2)
        offsets[:, ::2] *= spread
        references = torch.rand(self.b, rows[1], rows[3], 2, generator=generator, dtype=torch.float64)
        return [value, references.to(exact), offsets.to(dtype), weights.to(dtype)]


def results(case: Case, tensors: Sequence[Tensor], backend: str, storage: torch.dtype) -> list[Tensor]:
    """Output and the gradients by all tensors, for one gradient of the output, rounded to ``storage``."""
    leaves = [t.detach().clone().requires_grad_() for t in tensors]
    op = ms_deform_attn if len(leaves) == 3 else ms_deform_attn_fused
    out = op(leaves[0], case.shapes, *leaves[1:], backend=backend)
    generator = torch.Generator().manual_seed(5)
    grad = torch.randn(out.shape, generator=generator, dtype=torch.float64)
    return [out, *torch.autograd.grad(out, leaves, grad.to(storage).to(out.dtype))]


def assert_equals_the_reference(
    case: Case, dtype: torch.dtype, fused: bool, backend: str, tolerance: dict[torch.dtype, dict[str, float]]
) -> None:
    """Values and all gradients, compared at the scale of each tensor: gradients by locations are large."""
    tensors = case.tensors(dtype, fused)
    expected = results(case, [t.double() for t in tensors], "reference", dtype)
    got = results(case, tensors, backend, dtype)
    names = ["output", "value", *(["references", "offsets", "logits"] if fused else ["locations", "weights"])]
    for name, mine, theirs in zip(names, got, expected, strict=True):
        scale = theirs.abs().max().clamp(min=1.0)
        torch.testing.assert_close(
            mine.double() / scale, theirs / scale, **tolerance[dtype], msg=lambda m, n=name: f"{n}: {m}"
        )

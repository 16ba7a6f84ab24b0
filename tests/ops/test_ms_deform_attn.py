"""The deformable op against published numbers, a definition written out, and its own gradients."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from deform_cases import Case, assert_equals_the_reference, results
from golden_weights import golden_state
from torch.library import opcheck

from vistk.models.layers import sine_position
from vistk.models.pixel_decoder import MSDeformAttn
from vistk.ops import choose_backend, ms_deform_attn, ms_deform_attn_fused

SHAPES = ((7, 5), (3, 4), (1, 1))


def inputs(dtype=torch.float64, b=2, q=23, m=2, d=3, p=2, shapes=SHAPES):
    generator = torch.Generator().manual_seed(1)
    pixels = sum(h * w for h, w in shapes)
    value = torch.randn(b, pixels, m, d, generator=generator, dtype=torch.float64).to(dtype)
    locations = torch.rand(b, q, m, len(shapes), p, 2, generator=generator, dtype=torch.float64) * 1.4 - 0.2
    weights = torch.rand(b, q, m, len(shapes), p, generator=generator, dtype=torch.float64)
    weights = weights / weights.sum((-2, -1), keepdim=True)
    return value, locations.to(dtype), weights.to(dtype)


def by_definition(value, shapes, locations, weights):
    """Sum over points of weight times the bilinear mean of the four neighbours, zero outside; plain loops."""
    b, _, m, d = value.shape
    q, p = locations.shape[1], locations.shape[4]
    out = torch.zeros(b, q, m, d, dtype=value.dtype)
    for bi, qi, mi in np.ndindex(b, q, m):
        start = 0
        for level, (h, w) in enumerate(shapes):
            for pi in range(p):
                x = locations[bi, qi, mi, level, pi, 0].item() * w - 0.5
                y = locations[bi, qi, mi, level, pi, 1].item() * h - 0.5
                x0, y0 = int(np.floor(x)), int(np.floor(y))
                for yy, xx in ((y0, x0), (y0, x0 + 1), (y0 + 1, x0), (y0 + 1, x0 + 1)):
                    if 0 <= yy < h and 0 <= xx < w:
                        share = (1 - abs(x - xx)) * (1 - abs(y - yy))
                        pixel = value[bi, start + yy * w + xx, mi]
                        out[bi, qi, mi] += share * weights[bi, qi, mi, level, pi] * pixel
            start += h * w
    return out.flatten(2)


@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_equals_the_published_op(golden, tolerance, backend):
    z = np.load(golden / "ops" / "ms_deform_attn.npz")
    tensors = [
        torch.from_numpy(z[name]).double().requires_grad_()
        for name in ("value", "sampling_locations", "attention_weights")
    ]
    out = ms_deform_attn(tensors[0], torch.from_numpy(z["spatial_shapes"]), *tensors[1:], backend=backend)
    torch.testing.assert_close(out, torch.from_numpy(z["output"]), **tolerance[torch.float64])
    out.backward(torch.from_numpy(z["grad_output"]).double())
    for tensor, name in zip(tensors, ("value", "sampling_locations", "attention_weights"), strict=True):
        torch.testing.assert_close(
            tensor.grad, torch.from_numpy(z["grad_" + name]), **tolerance[torch.float64]
        )


@pytest.mark.parametrize(("padded", "expected"), [(False, "output"), (True, "output_padded")])
def test_module_equals_the_published_module(golden, tolerance, padded, expected):
    z = np.load(golden / "ops" / "ms_deform_attn_module.npz")
    shapes = [tuple(s) for s in z["spatial_shapes"].tolist()]
    module = MSDeformAttn(64, levels=3, heads=8, points=4)
    module.load_state_dict(golden_state({k: tuple(v.shape) for k, v in module.state_dict().items()}, "msda."))
    query, pixels, reference = (torch.from_numpy(z[k]) for k in ("query", "input", "reference_points"))
    padding = torch.from_numpy(z["padding_mask"]) if padded else None
    out = module(query, reference, pixels, shapes, padding)
    torch.testing.assert_close(out, torch.from_numpy(z[expected]), **tolerance[torch.float32])


def test_position_code_equals_the_published_one(golden):
    z = np.load(golden / "ops" / "ms_deform_attn_module.npz")
    code = sine_position(5, 7, 64, torch.device("cpu"), torch.float32)
    np.testing.assert_allclose(code.numpy(), z["pos_embed_5x7_64"][0], atol=2e-6)


@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_equals_the_definition(tolerance, backend):
    value, locations, weights = inputs()
    torch.testing.assert_close(
        ms_deform_attn(value, SHAPES, locations, weights, backend=backend),
        by_definition(value, SHAPES, locations, weights),
        **tolerance[torch.float64],
    )


GRADIENT_CASES = [
    Case(((1, 1),), q=1, m=1, d=1, p=1),
    Case(((2, 9), (1, 3)), q=7, m=3, d=2, p=1),
    Case(((7, 2), (3, 4), (1, 1)), b=2, q=1, m=1, d=2, p=3),
]


@pytest.mark.parametrize("backend", ["reference", "cpu"])
@pytest.mark.parametrize("fused", [False, True], ids=["locations", "fused"])
@pytest.mark.parametrize("case", GRADIENT_CASES, ids=str)
def test_gradients(case, fused, backend):
    op = ms_deform_attn_fused if fused else ms_deform_attn
    tensors = [t.requires_grad_() for t in case.tensors(torch.float64, fused)]
    assert torch.autograd.gradcheck(lambda v, *rest: op(v, case.shapes, *rest, backend=backend), tensors)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("fused", [False, True], ids=["locations", "fused"])
@pytest.mark.parametrize(
    "case",
    [
        Case(((7, 23), (83, 1), (1, 1)), q=7, d=32, p=4),
        Case(((7, 23),), b=3, q=1, d=5, p=1),
        Case(((3, 4), (2, 2)), q=None, d=8),
        Case(((3, 4), (1, 1)), far=True),
    ],
    ids=str,
)
def test_cpu_backend_equals_the_reference(case, fused, dtype, tolerance):
    assert_equals_the_reference(case, dtype, fused, "cpu", tolerance)


def test_cpu_backend_without_mkl(monkeypatch, tolerance):
    monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: False)
    assert_equals_the_reference(Case(((7, 5), (3, 4))), torch.float64, True, "cpu", tolerance)


def test_cpu_backend_is_deterministic():
    case = Case(((4, 4), (2, 2)), q=83)
    tensors = case.tensors(torch.float32, fused=True)
    for first, second in zip(*(results(case, tensors, "cpu", torch.float32) for _ in range(2)), strict=True):
        assert torch.equal(first, second)


@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_points_on_pixel_centres_and_borders(backend, tolerance):
    # Where a derivative jumps it is the one of the cell to the right, also for the outermost cells.
    shapes = ((2, 3),)
    value = torch.tensor([1.0, 2.0, 4.0, 8.0, 16.0, 32.0], dtype=torch.float64).view(1, 6, 1, 1)
    x = torch.tensor([-1.0, 0.0, 1.0, 2.0, 2.5, 3.0], dtype=torch.float64)
    locations = torch.stack([(x + 0.5) / 3, torch.full_like(x, 0.25)], -1).view(1, 6, 1, 1, 1, 2)
    locations.requires_grad_()
    out = ms_deform_attn(value, shapes, locations, torch.ones(1, 6, 1, 1, 1).double(), backend=backend)
    assert out.flatten().tolist() == pytest.approx([0.0, 1.0, 2.0, 4.0, 2.0, 0.0], abs=1e-12)
    (by_location,) = torch.autograd.grad(out.sum(), locations)
    by_pixel = by_location[0, :, 0, 0, 0, 0] / 3
    assert by_pixel.tolist() == pytest.approx([1.0, 1.0, 2.0, -4.0, -4.0, 0.0], abs=1e-12)


@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_a_location_that_is_no_number_spoils_its_row_alone(backend):
    value, locations, weights = Case(((3, 4),), q=3).tensors(torch.float32, fused=False)
    locations[0, 1, 0, 0, 0, 0] = float("nan")
    out = ms_deform_attn(value, ((3, 4),), locations, weights, backend=backend)
    assert torch.equal(out.isnan().view(3, 2, 5).all(-1), torch.tensor([[0, 0], [1, 0], [0, 0]]).bool())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_sixteen_bit_values_are_computed_in_float32(dtype, tolerance):
    # a map of more than 2^15 elements: PyTorch's own 16-bit grid_sample reads out of bounds here
    shapes = ((200, 200),)
    value, locations, weights = inputs(torch.float32, b=1, q=83, m=1, d=2, shapes=shapes)
    out = ms_deform_attn(value.to(dtype), shapes, locations, weights)
    assert out.dtype == dtype
    expected = ms_deform_attn(value.to(dtype).float(), shapes, locations, weights)
    torch.testing.assert_close(out.float(), expected, **tolerance[dtype])


@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_no_queries_and_no_images(backend):
    value, locations, weights = inputs()
    for images, rows in ((2, 0), (0, 23)):
        leaf = value[:images].clone().requires_grad_()
        out = ms_deform_attn(leaf, SHAPES, locations[:images, :rows], weights[:images, :rows], backend)
        assert out.shape == (images, rows, 6)
        out.sum().backward()
        assert leaf.grad is not None
        assert not leaf.grad.any()


@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_fused_is_softmax_and_locations_written_out(backend, tolerance):
    case = Case(((7, 5), (3, 4)), b=2)
    value, references, offsets, logits = case.tensors(torch.float64, fused=True)
    sizes = torch.tensor([(w, h) for h, w in case.shapes], dtype=torch.float64)
    locations = references[:, :, None, :, None] + offsets / sizes[:, None]
    weights = logits.flatten(3).softmax(-1).view_as(logits)
    expected = ms_deform_attn(value, case.shapes, locations, weights, "reference")
    raw = (offsets.flatten(2), logits.flatten(2))
    for given in ((offsets, logits), raw):
        out = ms_deform_attn_fused(value, case.shapes, references, *given, backend=backend)
        torch.testing.assert_close(out, expected, **tolerance[torch.float64])


@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_references_of_every_form(backend, tolerance):
    case = Case(((7, 5), (3, 4)), b=2)
    value, references, offsets, logits = case.tensors(torch.float64, fused=True)
    constant = references[0, :, 0]
    whole = constant[None, :, None].expand(2, -1, 2, -1)
    expected = ms_deform_attn_fused(value, case.shapes, whole, offsets, logits, backend)
    for form in (constant, constant[None], constant[None, :, None]):
        out = ms_deform_attn_fused(value, case.shapes, form, offsets, logits, backend)
        torch.testing.assert_close(out, expected, **tolerance[torch.float64])
    # A box of size 2P / (W, H) moves its points by one pixel an offset of one.
    sizes = torch.tensor([(w, h) for h, w in case.shapes], dtype=torch.float64)
    boxes = torch.cat([whole, (2 * case.p / sizes).expand(2, 7, 2, 2)], -1)
    out = ms_deform_attn_fused(value, case.shapes, boxes, offsets, logits, backend)
    torch.testing.assert_close(out, expected, **tolerance[torch.float64])


def test_autocast_lowers_the_values_and_not_the_locations(tolerance):
    case = Case(((83, 97),), q=23, d=4)
    tensors = case.tensors(torch.float32, fused=False)
    with torch.autocast("cpu", torch.bfloat16):
        out = ms_deform_attn(tensors[0], case.shapes, *tensors[1:])
    assert out.dtype == torch.bfloat16
    expected = ms_deform_attn(tensors[0].bfloat16().float(), case.shapes, *tensors[1:])
    torch.testing.assert_close(out.float(), expected, **tolerance[torch.bfloat16])


@pytest.mark.parametrize("references", [False, True])
def test_registration(references):
    case = Case(((3, 4), (2, 2)), b=2)
    tensors = [t.requires_grad_() for t in case.tensors(torch.float32, fused=references)]
    value, points, weights = tensors[0], tensors[-2], tensors[-1]
    given = (value, [3, 4, 2, 2], points, weights, tensors[1] if references else None)
    assert set(opcheck(torch.ops.vistk.ms_deform_attn.default, (*given, "cpu")).values()) == {"SUCCESS"}
    grad = torch.randn(2, 7, 10)
    detached = [t.detach() if isinstance(t, torch.Tensor) else t for t in given]
    backward = torch.ops.vistk.ms_deform_attn_backward.default
    assert set(opcheck(backward, (grad, *detached, None, "cpu")).values()) == {"SUCCESS"}


def test_second_derivatives_are_refused():
    case = Case(((3, 4),))
    value, *rest = (t.requires_grad_() for t in case.tensors(torch.float64, fused=False))
    out = ms_deform_attn(value, case.shapes, *rest)
    (grad,) = torch.autograd.grad(out.square().sum(), value, create_graph=True)
    with pytest.raises(RuntimeError, match="second derivatives are not implemented"):
        grad.sum().backward()


@pytest.mark.parametrize("backend", [None, "reference"])
def test_compiles_into_one_graph(backend, tolerance):
    case = Case(((3, 4), (2, 2)), b=2)
    leaves = [t.requires_grad_() for t in case.tensors(torch.float32, fused=True)]

    def op(*t: torch.Tensor) -> torch.Tensor:
        return ms_deform_attn_fused(t[0], case.shapes, *t[1:], backend=backend)

    compiled = torch.compile(op, fullgraph=True, backend="aot_eager")
    expected = torch.autograd.grad(op(*leaves).square().sum(), leaves)
    got = torch.autograd.grad(compiled(*leaves).square().sum(), leaves)
    for mine, theirs in zip(got, expected, strict=True):
        torch.testing.assert_close(mine, theirs, **tolerance[torch.float32])


def test_exports_with_any_number_of_images(tolerance):
    case = Case(((3, 4), (2, 2)), b=2)

    class Op(torch.nn.Module):
        def forward(self, *t: torch.Tensor) -> torch.Tensor:
            return ms_deform_attn_fused(t[0], case.shapes, *t[1:])

    images = torch.export.Dim("images")
    exported = torch.export.export(
        Op(), tuple(case.tensors(torch.float32, fused=True)), dynamic_shapes=(({0: images},) * 4,)
    )
    other = Case(case.shapes, b=5).tensors(torch.float32, fused=True)
    torch.testing.assert_close(exported.module()(*other), Op()(*other), **tolerance[torch.float32])


def test_choice_of_a_backend(monkeypatch):
    monkeypatch.delenv("VISTK_OPS", raising=False)
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    value = torch.zeros(1, 1, 1, 1)
    assert choose_backend(value, 1) == ("cpu", "tensors are on a CPU")
    assert choose_backend(value.to("meta"), 1) == (
        "reference",
        "triton cannot run: the kernels are for NVIDIA GPUs",
    )
    monkeypatch.setenv("VISTK_OPS", "reference")
    assert choose_backend(value, 1) == ("reference", "asked for by VISTK_OPS=reference")
    assert choose_backend(value, 1, "cpu") == ("cpu", "asked for by backend=cpu")
    monkeypatch.setenv("VISTK_OPS", "triton")
    with pytest.raises(RuntimeError, match="VISTK_OPS=triton cannot run: "):
        choose_backend(value, 1)
    with pytest.raises(RuntimeError, match="backend=cpu cannot run: tensors are on meta"):
        choose_backend(value.to("meta"), 1, "cpu")
    monkeypatch.setenv("VISTK_OPS", "cuda")
    with pytest.raises(ValueError, match="unknown backend 'cuda' in VISTK_OPS; available: triton, cpu, ref"):
        choose_backend(value, 1)


def test_messages():
    value, locations, weights = inputs()
    with pytest.raises(ValueError, match=r"levels \(\(7, 5\), \(3, 4\)\) have 47 pixels, value has 48"):
        ms_deform_attn(value, SHAPES[:2], locations, weights)
    with pytest.raises(ValueError, match="expected \\(B, Q, M, L, P, 2\\)"):
        ms_deform_attn(value, SHAPES, locations[:, :, :1], weights)
    with pytest.raises(ValueError, match="unknown backend 'cuda' in backend; available: triton, cpu, ref"):
        ms_deform_attn(value, SHAPES, locations, weights, backend="cuda")
    big = torch.zeros(1, 1, 1, 1).expand(2**20, 1, 1, 2**11)
    rows = torch.zeros(1, 1, 1, 1, 1, 2).expand(2**20, 1, 1, 1, 1, 2)
    with pytest.raises(ValueError, match=r"value .* spans 2147483648 elements; expected fewer than 2\^31"):
        ms_deform_attn(big, ((1, 1),), rows, rows[..., 0])


def test_messages_of_the_fused_op():
    case = Case(((3, 4), (2, 2)), b=2)
    value, references, offsets, logits = case.tensors(torch.float32, fused=True)
    with pytest.raises(ValueError, match=r"sampling_offsets \(2, 7, 2, 2, 3, 1\) .* with B=2, M=2, L=2"):
        ms_deform_attn_fused(value, case.shapes, references, offsets[..., :1], logits)
    boxes = F.pad(references, (0, 1))
    with pytest.raises(ValueError, match=r"reference_points \(2, 7, 2, 3\); expected \(Q, 2\)"):
        ms_deform_attn_fused(value, case.shapes, boxes, offsets, logits)
    with pytest.raises(ValueError, match="reference_points is on meta, value on cpu"):
        ms_deform_attn_fused(value, case.shapes, references.to("meta"), offsets, logits)
    with pytest.raises(ValueError, match=r"value is torch\.int64; expected a floating point dtype"):
        ms_deform_attn_fused(value.long(), case.shapes, references, offsets, logits)

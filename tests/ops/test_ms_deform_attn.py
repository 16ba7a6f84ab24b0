"""The deformable op against published numbers, a definition written out, and its own gradients."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from golden_weights import golden_state

from vistk.models.layers import sine_position
from vistk.models.pixel_decoder import MSDeformAttn
from vistk.ops import ms_deform_attn

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


def test_equals_the_published_op(golden, tolerance):
    z = np.load(golden / "ops" / "ms_deform_attn.npz")
    tensors = [
        torch.from_numpy(z[name]).double().requires_grad_()
        for name in ("value", "sampling_locations", "attention_weights")
    ]
    out = ms_deform_attn(tensors[0], torch.from_numpy(z["spatial_shapes"]), tensors[1], tensors[2])
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


def test_equals_the_definition(tolerance):
    value, locations, weights = inputs()
    torch.testing.assert_close(
        ms_deform_attn(value, SHAPES, locations, weights),
        by_definition(value, SHAPES, locations, weights),
        **tolerance[torch.float64],
    )


@pytest.mark.parametrize(
    ("q", "m", "d", "p", "shapes"), [(1, 1, 1, 1, ((1, 1),)), (7, 3, 5, 1, ((2, 9), (1, 3)))]
)
def test_gradients(q, m, d, p, shapes):
    tensors = [t.requires_grad_() for t in inputs(b=1, q=q, m=m, d=d, p=p, shapes=shapes)]
    assert torch.autograd.gradcheck(lambda v, x, w: ms_deform_attn(v, shapes, x, w), tensors)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_sixteen_bit_values_are_computed_in_float32(dtype, tolerance):
    # a map of more than 2^15 elements: PyTorch's own 16-bit grid_sample reads out of bounds here
    shapes = ((200, 200),)
    value, locations, weights = inputs(torch.float32, b=1, q=83, m=1, d=2, shapes=shapes)
    out = ms_deform_attn(value.to(dtype), shapes, locations, weights)
    assert out.dtype == dtype
    expected = ms_deform_attn(value.to(dtype).float(), shapes, locations, weights)
    torch.testing.assert_close(out.float(), expected, **tolerance[dtype])


def test_no_queries_and_no_images():
    value, locations, weights = inputs()
    assert ms_deform_attn(value, SHAPES, locations[:, :0], weights[:, :0]).shape == (2, 0, 6)
    assert ms_deform_attn(value[:0], SHAPES, locations[:0], weights[:0]).shape == (0, 23, 6)


def test_messages():
    value, locations, weights = inputs()
    with pytest.raises(ValueError, match=r"levels \(\(7, 5\), \(3, 4\)\) have 47 pixels, value has 48"):
        ms_deform_attn(value, SHAPES[:2], locations, weights)
    with pytest.raises(ValueError, match="expected \\(B, Q, M, L, P, 2\\)"):
        ms_deform_attn(value, SHAPES, locations[:, :, :1], weights)
    with pytest.raises(ValueError, match="unknown backend 'cuda'; available: reference"):
        ms_deform_attn(value, SHAPES, locations, weights, backend="cuda")

"""The Triton kernels in Triton's interpreter, on CPU tensors: values and all gradients.

An interpreted program takes 0.1 to 0.2 s whatever its size, so there are few of them.
"""

from __future__ import annotations

import importlib.util
import sys

import pytest
import torch
from deform_cases import Case, assert_equals_the_reference, results

from vistk.ops import choose_backend, ms_deform_attn, ms_deform_attn_fused

if importlib.util.find_spec("triton") is None and not sys.platform.startswith("linux"):
    pytest.skip("triton has no wheel for this platform", allow_module_level=True)

THREE_LEVELS = Case(((7, 5), (3, 4), (1, 1)))
TALL = Case(((83, 1),), q=33, m=1, d=32, p=1)  # two programs, the second with one row
PYRAMID = Case(((4, 9), (2, 3)), q=None, m=1, d=8, p=4)  # queries are the pixels: tiles of 8 x 4
WIDE = Case(((7, 23), (2, 2)), b=2, q=1, m=1, d=32, p=4)  # pairs of neighbours, a batch
FAR = Case(((2, 3), (5, 5)), m=1, far=True)


@pytest.fixture(autouse=True)
def _interpreter() -> None:
    assert importlib.util.find_spec("triton"), "triton is missing; on Linux this package depends on it"
    from vistk.ops.ms_deform_attn import triton_backend

    assert triton_backend.INTERPRETED, "something imported triton before tests/conftest.py could set it up"


@pytest.mark.parametrize("fused", [False, True], ids=["locations", "fused"])
@pytest.mark.parametrize("case", [THREE_LEVELS, TALL, PYRAMID, WIDE, FAR], ids=str)
def test_equals_the_reference(case, fused, tolerance) -> None:
    assert_equals_the_reference(case, torch.float32, fused, "triton", tolerance)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("fused", [False, True], ids=["locations", "fused"])
def test_sixteen_bit_storage(dtype, fused, tolerance) -> None:
    assert_equals_the_reference(WIDE, dtype, fused, "triton", tolerance)


@pytest.mark.parametrize("case", [THREE_LEVELS, PYRAMID], ids=str)
def test_backward_without_atomics(case, tolerance) -> None:
    torch.use_deterministic_algorithms(True)
    try:
        assert_equals_the_reference(case, torch.float32, True, "triton", tolerance)
        tensors = case.tensors(torch.float32, fused=False)
        first, second = (results(case, tensors, "triton", torch.float32)[1] for _ in range(2))
    finally:
        torch.use_deterministic_algorithms(False)
    assert torch.equal(first, second)


@pytest.mark.parametrize("capability", [(8, 0), (9, 0)])
def test_launches_of_each_generation(monkeypatch, capability, tolerance) -> None:
    # Ampere scatters in a launch of its own and gathers one neighbour at a time.
    from vistk.ops.ms_deform_attn import triton_backend

    def target_of(value: torch.Tensor, fused: bool) -> triton_backend.Target:
        return triton_backend.Target(capability, value.dtype, value.shape[-1], fused)

    monkeypatch.setattr(triton_backend, "target_of", target_of)
    assert_equals_the_reference(WIDE, torch.float32, True, "triton", tolerance)


def test_gradient_of_a_16_bit_value_is_summed_in_float32() -> None:
    # 1024 points at one pixel: a bfloat16 sum of ones would stop at 256.
    shapes = ((1, 1),)
    value = torch.ones(1, 1, 1, 1, dtype=torch.bfloat16, requires_grad=True)
    locations, weights = torch.full((1, 64, 1, 1, 16, 2), 0.5), torch.full((1, 64, 1, 1, 16), 1.0)
    ms_deform_attn(value, shapes, locations, weights.bfloat16(), backend="triton").sum().backward()
    assert value.grad is not None
    assert value.grad.item() == 1024


def test_strided_inputs(tolerance) -> None:
    # Offsets and logits as slices of one projection, values as a transposed map, references as a constant.
    case = Case(((3, 4), (2, 2)), b=2, q=5, m=2, d=4, p=2)
    value, references, offsets, logits = case.tensors(torch.float32, fused=True)
    both = torch.cat([offsets.flatten(2), logits.flatten(2)], -1)
    args = (
        value.permute(2, 3, 0, 1).contiguous().permute(2, 3, 0, 1),
        case.shapes,
        references[:1, :, :1].expand(1, -1, 2, -1),
        both[..., :16],
        both[..., 16:],
    )
    triton, reference = (ms_deform_attn_fused(*args, backend=name) for name in ("triton", "reference"))
    torch.testing.assert_close(triton, reference, **tolerance[torch.float32])


def test_one_query_a_batch_whose_stride_means_nothing(tolerance) -> None:
    # (1, 2, ...) seen as (2, 1, ...) counts as contiguous, with two rows from query to query.
    case = Case(((3, 4), (2, 2)), b=2, q=1)
    value, references, offsets, logits = case.tensors(torch.float32, fused=True)
    odd = [t.view(1, 2, *t.shape[2:]).transpose(0, 1) for t in (references, offsets, logits)]
    assert odd[1].is_contiguous()
    assert odd[1].stride(1) == 2 * odd[1].stride(0)
    got = ms_deform_attn_fused(value, case.shapes, *odd, backend="triton")
    expected = ms_deform_attn_fused(value, case.shapes, references, offsets, logits, backend="reference")
    torch.testing.assert_close(got, expected, **tolerance[torch.float32])


def test_nothing_to_do() -> None:
    case = Case(((3, 4),))
    for rows, images in ((0, 1), (7, 0)):
        value, locations, weights = (t[:images] for t in case.tensors(torch.float32, fused=False))
        value.requires_grad_()
        out = ms_deform_attn(value, case.shapes, locations[:, :rows], weights[:, :rows], backend="triton")
        assert out.shape == (images, rows, 10)
        out.sum().backward()
        assert value.grad is not None
        assert not value.grad.any()


def test_a_location_that_is_no_number_spoils_its_row_alone() -> None:
    value, locations, weights = Case(((3, 4),), q=3).tensors(torch.float32, fused=False)
    locations[0, 1, 0, 0, 0, 0] = float("nan")
    out = ms_deform_attn(value, ((3, 4),), locations, weights, backend="triton")
    assert torch.equal(out.isnan().view(3, 2, 5).all(-1), torch.tensor([[0, 0], [1, 0], [0, 0]]).bool())


def test_compiles_into_one_graph(tolerance) -> None:
    case = Case(((3, 4),), m=1, p=1)
    tensors = case.tensors(torch.float32, fused=True)

    def op(*t: torch.Tensor) -> torch.Tensor:
        return ms_deform_attn_fused(t[0], case.shapes, *t[1:], backend="triton")

    leaves = [t.requires_grad_() for t in tensors]
    compiled = torch.compile(op, fullgraph=True, backend="aot_eager")(*leaves)
    torch.testing.assert_close(compiled, op(*leaves), **tolerance[torch.float32])
    compiled.sum().backward()
    assert all(t.grad is not None and t.grad.shape == t.shape for t in leaves)


def test_what_the_kernels_do_not_take() -> None:
    with pytest.raises(
        RuntimeError, match=r"backend=triton cannot run: the kernels compute in float32, value is"
    ):
        choose_backend(torch.zeros(1, 1, 1, 1, dtype=torch.float64), 1, "triton")
    with pytest.raises(RuntimeError, match="take at most 8 levels, got 9"):
        choose_backend(torch.zeros(1, 9, 1, 1), 9, "triton")
    assert choose_backend(torch.zeros(1, 1, 1, 1), 1, "triton") == ("triton", "asked for by backend=triton")

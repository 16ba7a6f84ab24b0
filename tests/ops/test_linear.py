"""Dense layers in oneDNN: the numbers of PyTorch's own, and stepping aside wherever those are needed."""

from __future__ import annotations

import platform
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from vistk.ops import choose_dense, conv2d, linear, onednn, products
from vistk.ops.linear import WORTH_A_CALL
from vistk.ops.onednn import missing_from_build

# Sums of up to a thousand products, in two orders, of values near one.
ATOL = {torch.float32: 1e-4, torch.float64: 1e-10}

pytestmark = pytest.mark.skipif(bool(missing_from_build()), reason=f"no oneDNN: {missing_from_build()}")


@pytest.fixture(autouse=True)
def _fastest(monkeypatch):
    monkeypatch.delenv("VISTK_OPS", raising=False)


@pytest.fixture
def calls(monkeypatch):
    """Names of the fused kernels that were called; they run nonetheless."""
    made = []

    def counted(kernel):
        def call(*args):
            made.append(kernel._schema.name.removeprefix("mkldnn::"))
            return kernel(*args)

        return call

    for name in ("_linear_pointwise", "_convolution_pointwise"):
        packet = getattr(torch.ops.mkldnn, name)
        overloads = {overload: counted(getattr(packet, overload)) for overload in ("default", "binary")}
        missing_from_build()  # looks at the operators themselves, once
        monkeypatch.setattr(torch.ops.mkldnn, name, SimpleNamespace(**overloads))
    return made


def strided(kind: str) -> torch.Tensor:
    """(7, 23, 300) of values near one, laid out in some way."""
    return {
        "contiguous": lambda: torch.randn(7, 23, 300),
        "transposed": lambda: torch.randn(23, 7, 300).transpose(0, 1),
        "every other column": lambda: torch.randn(7, 23, 600)[..., ::2],
        "part of wider rows": lambda: torch.randn(7, 23, 500)[..., 100:400],
        "columns first": lambda: torch.randn(300, 7, 23).movedim(0, -1),
        "one row expanded": lambda: torch.randn(300).expand(7, 23, 300),
        "one pixel expanded": lambda: torch.randn(7, 23, 1).expand(7, 23, 300),
    }[kind]()


LAYOUTS = [
    "contiguous",
    "transposed",
    "every other column",
    "part of wider rows",
    "columns first",
    "one row expanded",
    "one pixel expanded",
]


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_rows_of_any_layout(calls, layout, relu):
    x, weight, bias = strided(layout), torch.randn(83, 300) / 17, torch.randn(83)
    with torch.inference_mode():
        found = linear(x, weight, bias, relu)
        expected = x.double() @ weight.double().T + bias.double()
    assert calls == ["_linear_pointwise"]
    assert found.shape == (7, 23, 83)
    expected = expected.clamp(min=0) if relu else expected
    torch.testing.assert_close(found.double(), expected, atol=ATOL[torch.float32], rtol=0)


@pytest.mark.parametrize("bias", ["expanded", "strided", "none"])
@pytest.mark.parametrize("weight", ["expanded", "strided", "transposed"])
def test_weights_and_biases_of_any_layout(calls, weight, bias):
    """The kernel reads the memory of a bias and knows nothing of its strides."""
    x = torch.randn(200, 300)
    w = {
        "expanded": torch.randn(83, 1).expand(83, 300) / 17,
        "strided": torch.randn(166, 600)[::2, ::2] / 17,
        "transposed": torch.randn(300, 83).T / 17,
    }[weight]
    b = {"expanded": torch.randn(1).expand(83), "strided": torch.randn(249)[::3], "none": None}[bias]
    with torch.inference_mode():
        found = linear(x, w, b)
        expected = x.double() @ w.double().T + (0 if b is None else b.double())
    assert calls == ["_linear_pointwise"]
    torch.testing.assert_close(found.double(), expected, atol=ATOL[torch.float32], rtol=0)


@pytest.mark.parametrize("lead", [(), (1,), (0,), (0, 5), (5, 0), (1, 1), (2, 3, 1)], ids=str)
@pytest.mark.parametrize("width", [1, 2000])
def test_vectors_single_rows_and_none_at_all(lead, width):
    x, weight, bias = torch.randn(*lead, width), torch.randn(700, width) / 40, torch.randn(700)
    with torch.inference_mode():
        found, expected = linear(x, weight, bias, True), F.relu(F.linear(x, weight, bias))
    assert found.shape == (*lead, 700)
    torch.testing.assert_close(found, expected, atol=ATOL[torch.float32], rtol=0)


def test_what_is_too_small_is_not_worth_a_call(calls):
    x, weight = torch.randn(1024, 64), torch.randn(16, 64)
    assert x.numel() * weight.shape[0] == WORTH_A_CALL
    with torch.inference_mode():
        linear(x[1:], weight)
        assert calls == []
        linear(x, weight)
    assert calls == ["_linear_pointwise"]


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_dtypes_are_pytorchs(calls, dtype):
    x, weight = torch.randn(512, 64, dtype=dtype), torch.randn(64, 64, dtype=dtype)
    with torch.inference_mode():
        assert torch.equal(linear(x, weight, relu=True), F.relu(F.linear(x, weight)))
    assert calls == []
    assert str(dtype).removeprefix("torch.") in choose_dense(x, weight).reason


def big(requires_grad: bool = False):
    x, weight, bias = torch.randn(512, 64), torch.randn(64, 64), torch.randn(64)
    return [t.requires_grad_(requires_grad) for t in (x, weight, bias)]


@pytest.mark.parametrize("which", [0, 1, 2], ids=["x", "weight", "bias"])
def test_gradients_are_pytorchs(calls, which):
    """Asked for of one tensor alone, whichever it is."""
    tensors = big()
    tensors[which].requires_grad_()
    assert choose_dense(*tensors).reason == "a gradient is asked for"
    linear(*tensors, relu=True).square().sum().backward()
    found = tensors[which].grad
    tensors[which].grad = None
    F.relu(F.linear(*tensors)).square().sum().backward()
    assert torch.equal(found, tensors[which].grad)
    assert calls == []


def test_no_gradient_is_asked_for_in_inference_without_grad_and_of_frozen_weights(calls):
    for mode in (torch.no_grad(), torch.inference_mode()):
        with mode:
            linear(*big(requires_grad=True))
    linear(*big())
    assert len(calls) == 3


def test_transforms_and_modes_see_pytorchs_operators(calls):
    x, weight, bias = big()
    expected = F.linear(x, weight, bias)
    with torch.no_grad():
        mapped = torch.vmap(lambda row: linear(row.expand(512, 64), weight, bias)[0])(x)
        torch.testing.assert_close(mapped, expected, atol=ATOL[torch.float32], rtol=0)
        _, moved = torch.func.jvp(lambda t: linear(t, weight, bias), (x,), (torch.ones_like(x),))
        by_hand = weight.sum(1).expand(512, 64)
        torch.testing.assert_close(moved, by_hand, atol=ATOL[torch.float32], rtol=0)
        with torch.autograd.forward_ad.dual_level():
            dual = torch.autograd.forward_ad.make_dual(x, torch.ones_like(x))
            moved = torch.autograd.forward_ad.unpack_dual(linear(dual, weight, bias)).tangent
        torch.testing.assert_close(moved, by_hand, atol=ATOL[torch.float32], rtol=0)
        counter = FlopCounterMode(display=False)
        with counter:
            linear(x, weight, bias)
        assert counter.get_total_flops() == 2 * 512 * 64 * 64
        with torch.autocast("cpu"):
            assert linear(x, weight, bias).dtype == torch.bfloat16
    assert calls == []


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::torch.jit.TracerWarning")
def test_tracers_see_pytorchs_operators(calls):
    x, weight, bias = big()
    expected = F.linear(x, weight, bias)
    traced = torch.jit.trace(lambda t: linear(t, weight, bias), (x,), check_trace=False)
    assert "aten::linear" in str(traced.graph)
    graphs = []
    compiled = torch.compile(linear, fullgraph=True, backend=lambda g, _: graphs.append(g) or g.forward)
    with torch.no_grad():
        torch.testing.assert_close(compiled(x, weight, bias), expected, atol=ATOL[torch.float32], rtol=0)
    assert calls == []
    assert "pointwise" not in graphs[0].code


def test_tensors_of_other_kinds_are_pytorchs(calls):
    x, weight, bias = big()

    class Odd(torch.Tensor):
        pass

    with torch.inference_mode():
        assert choose_dense(x.as_subclass(Odd), weight).reason == "Odd is no plain tensor"
        linear(x.as_subclass(Odd), weight, bias)
        assert choose_dense(x.to_sparse(), weight).reason == "a tensor is torch.sparse_coo"
        assert choose_dense(x.to("meta"), weight).reason == "tensors are on meta"
        assert linear(x.to("meta"), weight.to("meta")).shape == (512, 64)
        assert choose_dense(x, nn.Parameter(weight), None).name == "onednn"
    assert calls == []


@pytest.mark.filterwarnings("ignore:TF32 acceleration on top of oneDNN")
def test_the_choice_can_be_forced(calls, monkeypatch):
    tensors = big()
    with torch.inference_mode():
        with torch.backends.mkldnn.flags(enabled=False, allow_tf32=False):
            assert choose_dense(*tensors).reason == "torch.backends.mkldnn.enabled is off"
        monkeypatch.setenv("VISTK_OPS", "cpu")
        assert choose_dense(*tensors).name == "onednn"
        monkeypatch.setenv("VISTK_OPS", "reference")
        assert choose_dense(*tensors).reason == "VISTK_OPS=reference"
        assert torch.equal(linear(*tensors), F.linear(*tensors))
        assert torch.equal(
            conv2d(torch.ones(1, 2, 3, 3), torch.ones(1, 2, 1, 1)), torch.full((1, 1, 3, 3), 2.0)
        )
    assert calls == []


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda m: m.setattr(platform, "machine", lambda: "aarch64"), "measured on x86, this is aarch64"),
        (lambda m: m.setattr(torch.backends.mkldnn, "is_available", lambda: False), "built without oneDNN"),
        (lambda m: m.setattr(onednn, "OPERATORS", {"_gone.default": "X"}), "has no mkldnn::_gone.default"),
        (
            lambda m: m.setitem(onednn.OPERATORS, "_linear_pointwise.default", "X W"),
            "takes X W B attr scalars algorithm",
        ),
    ],
)
def test_what_a_build_lacks_is_said(monkeypatch, change, reason):
    tensors = big()
    missing_from_build.cache_clear()
    change(monkeypatch)
    try:
        with torch.inference_mode():
            assert choose_dense(*tensors).name == "torch"
            assert reason in choose_dense(*tensors).reason
            assert torch.equal(linear(*tensors), F.linear(*tensors))
    finally:
        monkeypatch.undo()
        missing_from_build.cache_clear()


@pytest.mark.parametrize("layout", ["contiguous", "channels last", "sliced", "expanded"])
@pytest.mark.parametrize("batch", [1, 3])
def test_products_of_any_layout(calls, batch, layout):
    x = torch.randn(batch, 83, 256)
    y = {
        "contiguous": lambda: torch.randn(batch, 256, 161),
        "channels last": lambda: torch.randn(batch, 161, 256).mT,
        "sliced": lambda: torch.randn(batch, 300, 200)[:, 3:259, :161],
        "expanded": lambda: torch.randn(1, 256, 161).expand(batch, -1, -1),
    }[layout]()
    with torch.inference_mode():
        found, expected = products(x, y), x.double() @ y.double()
        assert torch.equal(products(x[-1:], y[-1:])[0], found[-1])  # whatever the others are
    assert calls == ["_linear_pointwise"] * (batch + 1)
    torch.testing.assert_close(found.double(), expected, atol=ATOL[torch.float32], rtol=0)


def test_products_are_pytorchs_where_gradients_or_other_numbers_are_asked_for(calls):
    x, y = torch.randn(2, 83, 256), torch.randn(2, 256, 161, requires_grad=True)
    products(x, y).square().sum().backward()
    assert torch.equal(y.grad, torch.autograd.grad((x @ y).square().sum(), y)[0])
    with torch.inference_mode():
        assert torch.equal(products(x.double(), y.double()), x.double() @ y.double())
        assert products(x[:0], y[:0]).shape == (0, 83, 161)
        assert products(x[:, :0], y).shape == (2, 0, 161)
        assert torch.equal(products(x[:, :1], y[..., :7]), x[:, :1] @ y[..., :7])
    assert calls == []


GEOMETRIES = {
    "1x1": ((1, 1), (1, 1), (0, 0), (1, 1), 1),
    "3x3": ((3, 3), (1, 1), (1, 1), (1, 1), 1),
    "strided": ((7, 7), (2, 2), (3, 3), (1, 1), 1),
    "1x1 strided": ((1, 1), (2, 2), (0, 0), (1, 1), 1),
    "oblong and dilated": ((3, 1), (1, 2), (2, 0), (2, 1), 1),
    "grouped": ((3, 3), (1, 1), (1, 1), (1, 1), 4),
    "depthwise": ((3, 3), (1, 1), (1, 1), (1, 1), 8),
}


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("added", [False, True])
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("name", GEOMETRIES)
def test_convolutions(calls, name, batch, added, relu):
    kernel, stride, padding, dilation, groups = GEOMETRIES[name]
    x, weight = torch.randn(batch, 8, 23, 11), torch.randn(16, 8 // groups, *kernel) / 8
    bias = torch.randn(32)[::2]
    with torch.inference_mode():
        exact = [t.double() for t in (x, weight, bias)]
        expected = F.conv2d(*exact, stride, padding, dilation, groups)
        add = torch.randn(expected.shape) if added else None
        expected = expected if add is None else expected + add
        expected = F.relu(expected) if relu else expected
        for form in (torch.contiguous_format, torch.channels_last):
            given = x.contiguous(memory_format=form)
            found = conv2d(given, weight, bias, stride, padding, dilation, groups, relu, add)
            torch.testing.assert_close(found.double(), expected, atol=ATOL[torch.float32], rtol=0)
            assert found.is_contiguous(memory_format=torch.channels_last)
    assert calls == ["_convolution_pointwise"] * 2


@pytest.mark.parametrize("shape", [(0, 8, 5, 7), (1, 8, 1, 1), (1, 1, 5, 7), (2, 8, 1, 7)], ids=str)
def test_convolutions_of_few_pixels_and_none(shape):
    x, weight = torch.randn(shape), torch.randn(4, shape[1], 3, 3)
    with torch.inference_mode():
        found = conv2d(x, weight, padding=(1, 1), relu=True)
        expected = F.relu(F.conv2d(x, weight, padding=1))
    assert found.shape == expected.shape
    torch.testing.assert_close(found, expected, atol=ATOL[torch.float32], rtol=0)


def test_gradients_of_a_convolution_are_pytorchs(calls):
    x, weight, add = torch.randn(1, 3, 5, 7), torch.randn(4, 3, 1, 1), torch.randn(1, 4, 5, 7)
    add.requires_grad_()
    conv2d(x, weight, add=add, relu=True).sum().backward()
    assert torch.equal(add.grad, (F.conv2d(x, weight) + add > 0).float())
    assert calls == []


@pytest.mark.parametrize("place", ["x", "weight", "add"])
def test_what_is_not_a_number_passes_the_relu(calls, place):
    given = {
        "x": torch.randn(2, 16, 23, 7),
        "weight": torch.randn(8, 16, 3, 3),
        "add": torch.randn(2, 8, 21, 5),
    }
    given[place].view(-1)[5] = float("nan")
    found = conv2d(given["x"], given["weight"], relu=True, add=given["add"])
    expected = F.relu(F.conv2d(given["x"], given["weight"]) + given["add"])
    assert len(calls) == 1
    assert torch.equal(found.isnan(), expected.isnan())
    assert found.isnan().any()


def test_what_is_not_a_number_passes_the_relu_of_a_linear_layer(calls):
    x, weight = torch.randn(WORTH_A_CALL // (64 * 64), 64), torch.randn(64, 64)
    x[3, 5] = float("nan")
    found = linear(x, weight, relu=True)
    assert len(calls) == 1
    assert torch.equal(found.isnan(), F.linear(x, weight).isnan())
    assert found[3].isnan().all()

"""Whether oneDNN's fused kernels may be called by name, and why not.

On CPUs by AMD, PyTorch's own float32 ``linear`` (Intel's MKL) runs at half the speed of oneDNN's, and for
one frame on one thread its 1x1 convolutions do not reach oneDNN at all. The ops asked for here are those
that PyTorch's compiler has put into its graphs since 2.0, ``mkldnn::_linear_pointwise`` and
``mkldnn::_convolution_pointwise``. They know no gradients, no forward-mode derivatives and no autocast.
"""

from __future__ import annotations

import functools
import os
import platform

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

from vistk.ops.ms_deform_attn.backends import ENVIRONMENT, Choice

# Private, so what is called is compared with what is there: an overload and its arguments.
OPERATORS = {
    "_linear_pointwise.default": "X W B attr scalars algorithm",
    "_convolution_pointwise.default": "X W B padding stride dilation groups attr scalars algorithm",
    "_convolution_pointwise.binary": "X other W B padding stride dilation groups "
    "binary_attr alpha unary_attr unary_scalars unary_algorithm",
}


def choose_dense(*tensors: Tensor | None) -> Choice:
    """``"onednn"`` or ``"torch"`` for a linear layer or a convolution of these tensors, and the reason.

    Args:
        tensors: input, weight, bias; ``None`` for what is left out.
    """
    obstacle = _obstacle(tensors)
    if obstacle:
        return Choice("torch", obstacle)
    return Choice("onednn", "float32 on an x86 CPU, and no gradient is asked for")


def _obstacle(tensors: tuple[Tensor | None, ...]) -> str:
    """Why the fused kernels cannot run, empty if they can."""
    # First, since a tracer folds it to a constant and then looks no further.
    if torch.compiler.is_compiling() or torch.jit.is_tracing():
        return "a graph is being traced"
    missing = missing_from_build()
    if missing:
        return missing
    if os.environ.get(ENVIRONMENT) == "reference":
        return f"{ENVIRONMENT}=reference"
    if not torch.backends.mkldnn.enabled:
        return "torch.backends.mkldnn.enabled is off"
    gradients = torch.is_grad_enabled()
    for tensor in tensors:
        if tensor is None:
            continue
        if type(tensor) is not Tensor and type(tensor) is not nn.Parameter:
            return f"{type(tensor).__name__} is no plain tensor"
        if tensor.device.type != "cpu":
            return f"tensors are on {tensor.device.type}"
        if tensor.dtype != torch.float32:
            return f"the kernels are used for float32, found {str(tensor.dtype).removeprefix('torch.')}"
        if tensor.layout != torch.strided:
            return f"a tensor is {tensor.layout}"
        if gradients and tensor.requires_grad:
            return "a gradient is asked for"
    if torch.is_autocast_enabled("cpu"):
        return "autocast is on"
    if _is_observed():
        return "a transform or mode of PyTorch is active"
    return ""


@functools.cache
def missing_from_build() -> str:
    """Why no tensor at all can take the kernels on this machine, empty if some can."""
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return f"the kernels were measured on x86, this is {platform.machine()}"
    if not torch.backends.mkldnn.is_available():
        return "this PyTorch is built without oneDNN"
    for name, expected in OPERATORS.items():
        packet, overload = name.split(".")
        kernel = getattr(getattr(torch.ops.mkldnn, packet, None), overload, None)
        if kernel is None:
            return f"PyTorch {torch.__version__} has no mkldnn::{name}"
        found = " ".join(argument.name for argument in kernel._schema.arguments)
        if found != expected:
            return f"mkldnn::{name} of PyTorch {torch.__version__} takes {found}"
    return ""


def _is_observed() -> bool:
    """vmap, jvp, forward-mode derivatives, FLOP counters: all that must see PyTorch's own operators."""
    return (
        torch._C._len_torch_dispatch_stack() > 0
        or torch._C._functorch.peek_interpreter_stack() is not None
        or forward_ad._current_level >= 0
    )

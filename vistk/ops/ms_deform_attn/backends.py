"""Which implementation runs, and why."""

from __future__ import annotations

import importlib.util
import os
from typing import NamedTuple

import torch
from torch import Tensor

BACKENDS = ("triton", "cpu", "reference")
ENVIRONMENT = "VISTK_OPS"
HAS_TRITON = importlib.util.find_spec("triton") is not None
# The kernels take this many levels as plain numbers (triton_parts.MAX_LEVELS).
TRITON_LEVELS = 8


class Choice(NamedTuple):
    """A backend and one sentence on why it was taken."""

    name: str
    reason: str


def choose_backend(value: Tensor, levels: int, backend: str | None = None) -> Choice:
    """The backend for ``value`` ``(B, S, M, D)`` with that many levels, and the reason.

    Args:
        value: only its device and dtype count.
        backend: a name, or ``None`` for the fastest that runs; the environment variable ``VISTK_OPS``
            stands in for ``None``.

    Raises:
        ValueError: an unknown name.
        RuntimeError: a backend asked for by name, here or in ``VISTK_OPS``, that cannot run; says why.
    """
    asked_by = "backend"
    if backend is None and os.environ.get(ENVIRONMENT):
        backend, asked_by = os.environ[ENVIRONMENT], ENVIRONMENT
    if backend is not None:
        if backend not in BACKENDS:
            known = ", ".join(BACKENDS)
            raise ValueError(f"ms_deform_attn: unknown backend {backend!r} in {asked_by}; available: {known}")
        obstacle = _obstacle(backend, value, levels)
        if obstacle:
            raise RuntimeError(f"ms_deform_attn: {asked_by}={backend} cannot run: {obstacle}")
        return Choice(backend, f"asked for by {asked_by}={backend}")
    if value.device.type == "cpu":
        return Choice("cpu", "tensors are on a CPU")
    obstacle = _obstacle("triton", value, levels)
    if obstacle:
        return Choice("reference", f"triton cannot run: {obstacle}")
    return Choice("triton", "tensors are on an NVIDIA GPU")


def _obstacle(backend: str, value: Tensor, levels: int) -> str:
    """Why a backend cannot run, empty if it can."""
    kind = value.device.type
    if backend == "reference":
        return ""
    if backend == "cpu":
        return "" if kind == "cpu" else f"tensors are on {kind}"
    if not HAS_TRITON:
        return "triton is not installed"
    if value.dtype not in (torch.float32, torch.float16, torch.bfloat16):
        return f"the kernels compute in float32, value is {str(value.dtype).removeprefix('torch.')}"
    if levels > TRITON_LEVELS:
        return f"the kernels take at most {TRITON_LEVELS} levels, got {levels}"
    if kind == "cpu":
        if os.environ.get("TRITON_INTERPRET") == "1":
            return ""
        return "tensors are on a CPU, and the interpreter is off (TRITON_INTERPRET=1 before the first use)"
    if kind != "cuda" or torch.version.hip is not None:
        return "the kernels are for NVIDIA GPUs"
    capability = torch.cuda.get_device_capability(value.device)
    if capability < (8, 0):
        return f"the kernels need compute capability 8.0, this GPU has {capability[0]}.{capability[1]}"
    return ""

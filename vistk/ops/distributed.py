"""The one collective that losses need."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor


def mean_over_processes(count: float | Tensor, device: torch.device) -> Tensor:
    """A normaliser, averaged over the processes of a run; itself where there is one process.

    Gradients are averaged over processes. A loss that divides by the local count would therefore
    differ from the same batch on one process; divided by the mean count it does not.

    Returns:
        Scalar float32 tensor, at least 1e-6, without gradient.
    """
    value = torch.as_tensor(count, dtype=torch.float32, device=device).detach().clone()
    if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
        dist.all_reduce(value)
        value = value / dist.get_world_size()
    return value.clamp(min=1e-6)

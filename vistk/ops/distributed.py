"""The one collective that losses need."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor


def mean_over_processes(count: float | Tensor, device: torch.device, at_least: float = 1e-6) -> Tensor:
    """A normaliser, averaged over the processes of a run; itself where there is one process.

    Gradients are averaged over processes. A loss that divides by the local count would therefore
    differ from the same batch on one process; divided by the mean count it does not.

    Args:
        count: of this process.
        at_least: lower bound of the sum over processes, as it would be on one.

    Returns:
        Scalar float32 tensor without gradient.
    """
    value = torch.as_tensor(count, dtype=torch.float32, device=device).detach().clone()
    world = 1
    if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
        world = dist.get_world_size()
        dist.all_reduce(value)
    return value.clamp(min=at_least) / world

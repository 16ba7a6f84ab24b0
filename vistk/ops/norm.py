"""Group norm, without memory of its own on CPUs at inference."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from vistk.ops.onednn import choose_dense


def group_norm_(x: Tensor, groups: int, weight: Tensor, bias: Tensor, eps: float = 1e-5) -> Tensor:
    """``F.group_norm`` of a map that nobody else needs: the result may lie where it was.

    That is done for float32 with channels last on an x86 CPU where no gradient is asked for
    (:func:`vistk.ops.onednn.choose_dense`). A map of 720p takes 60 MB, and writing so much fresh memory takes
    seven times as long as the arithmetic: the system hands it out page by page, every time.

    Args:
        x: ``(B, C, H, W)``.
        weight, bias: ``(C,)``.
    """
    # The choice comes first: a tracer folds it to a constant and looks no further.
    if choose_dense(x, weight, bias).name != "onednn" or not _channels_last(x):
        return F.group_norm(x, groups, weight, bias, eps)
    for frame in x.split(1):
        # Of batch norm, the statistics alone: those of a frame's channels, which those of groups follow from.
        mean, var = (
            stats.view(groups, -1) for stats in torch.batch_norm_update_stats(frame, None, None, 0.0)
        )
        centre = mean.mean(1, keepdim=True)
        spread = (var + (mean - centre).square()).mean(1, keepdim=True)
        scale = (spread + eps).rsqrt() * weight.view(groups, -1)
        shift = bias.view(groups, -1) - centre * scale
        torch.addcmul(shift.view(1, -1, 1, 1), frame, scale.view(1, -1, 1, 1), out=frame)
    return x


def _channels_last(x: Tensor) -> bool:
    return x.numel() > 0 and x.is_contiguous(memory_format=torch.channels_last)

"""Optimal one-to-one assignment."""

from __future__ import annotations

import math

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor


def best_assignment(similarity: Tensor) -> tuple[Tensor, Tensor]:
    """One-to-one pairs of rows and columns with the greatest total similarity (Hungarian algorithm).

    Solved in float64 on the CPU, whatever the dtype and device of ``similarity``.

    Args:
        similarity: ``(R, C)``; greater is closer.

    Returns:
        Row and column indices of the ``min(R, C)`` pairs, int64 on the device of ``similarity``, rows
        ascending.

    Raises:
        ValueError: a similarity is NaN or infinite, or the tensor is not a matrix.
    """
    if similarity.ndim != 2:
        raise ValueError(f"similarity has shape {tuple(similarity.shape)}, expected (rows, columns)")
    values = similarity.detach().double().cpu()
    # One sum is faster than looking at every number, and finite unless one of them is not (or it overflows).
    if not math.isfinite(values.sum().item()) and not (finite := values.isfinite()).all():
        row, column = (~finite).nonzero()[0].tolist()
        raise ValueError(
            f"similarity of row {row} and column {column} is {values[row, column].item()}, "
            "expected a finite number"
        )
    rows, columns = linear_sum_assignment(values.numpy(), maximize=True)
    return (
        torch.from_numpy(rows).long().to(similarity.device),
        torch.from_numpy(columns).long().to(similarity.device),
    )

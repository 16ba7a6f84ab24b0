"""Matching of queries to annotated instances, frame by frame (DETR, arXiv 2005.12872, section 3.1)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from vistk.ops.points import sample_points
from vistk.structures import ClipTargets, LayerOutput, Matches


@dataclass(frozen=True)
class FrameLabels:
    """Ground truth of every frame of a batch, flattened to ``F = B*T`` frames and padded to ``N`` instances.

    Which instances take part in a frame, and under which label, depends on ``absent_labels``:
    ``kept``: an instance takes part where it is visible, with its class. ``released``: what the
    published VISAGE code does: every instance takes part in every frame, and one that is invisible
    in any frame of its clip has the label "no object" in all of them.
    """

    labels: Tensor  # (F, N) int64, 0..K; K is "no object"
    taking_part: Tensor  # (F, N) bool, on the CPU
    masks: Tensor  # (F, N, H, W) bool
    frames_per_clip: int
    instances: tuple[int, ...]  # N of every clip

    @classmethod
    def of(cls, targets: Sequence[ClipTargets], num_classes: int, absent_labels: str) -> FrameLabels:
        """Flatten and pad the targets of B clips of equal length T."""
        frames = targets[0].visible.shape[1]
        most = max(len(t.labels) for t in targets)
        labels, taking_part, masks = [], [], []
        for target in targets:
            n = len(target.labels)
            clip_labels = target.labels
            clip_part = target.visible
            if absent_labels == "released":
                clip_labels = torch.where(target.visible.all(1), clip_labels, num_classes)
                clip_part = torch.ones_like(target.visible)
            labels.append(F.pad(clip_labels, (0, most - n))[None].expand(frames, -1))
            taking_part.append(F.pad(clip_part.T, (0, most - n)))
            masks.append(F.pad(target.masks.transpose(0, 1), (0, 0, 0, 0, 0, most - n)))
        return cls(
            torch.cat(labels),
            torch.cat(taking_part).cpu(),
            torch.cat(masks),
            frames,
            tuple(len(t.labels) for t in targets),
        )


@dataclass(frozen=True)
class Pairs:
    """Matched (frame, query, instance) triples of one decoder layer."""

    frame: Tensor  # (n,) int64, 0..F-1
    query: Tensor  # (n,) int64
    instance: Tensor  # (n,) int64, position in the padded instance axis
    per_clip: tuple[int, ...]  # how many of the n pairs belong to each clip; pairs are ordered by frame


class Matcher:
    """Optimal one-to-one matching under a weighted sum of class, mask and dice costs.

    All layers and frames are matched from one block of costs: one transfer to the CPU a call.
    Costs are computed in float32 whatever autocast says.
    """

    def __init__(self, class_weight: float, mask_weight: float, dice_weight: float, num_points: int) -> None:
        self.class_weight = class_weight
        self.mask_weight = mask_weight
        self.dice_weight = dice_weight
        self.num_points = num_points

    @torch.no_grad()
    def __call__(
        self, layers: Sequence[LayerOutput], truth: FrameLabels, points: Sequence[Tensor]
    ) -> list[Pairs]:
        """Match every layer.

        Args:
            layers: predictions with leading dim F: logits ``(F, Q, K+1)``, mask logits ``(F, Q, h, w)``.
            truth: ground truth of the F frames.
            points: a ``(F, P, 2)`` set of points for every layer.

        Returns:
            The pairs of every layer, on the device of the predictions.

        Raises:
            FloatingPointError: a cost is not finite; names layer and frame.
        """
        costs = torch.stack(
            [self._cost(layer, truth, p) for layer, p in zip(layers, points, strict=True)]
        )  # (layers, F, Q, N)
        block = costs.cpu().numpy()
        if not np.isfinite(block).all():
            layer, frame = np.argwhere(~np.isfinite(block))[0][:2]
            clip, t = divmod(int(frame), truth.frames_per_clip)
            raise FloatingPointError(
                f"matching cost is not finite at decoder layer {layer}, clip {clip} of the batch, frame {t}: "
                "the predictions hold NaN or infinity; lower the learning rate or check the images"
            )
        device = costs.device
        return [self._assign(layer_block, truth, device) for layer_block in block]

    def _cost(self, layer: LayerOutput, truth: FrameLabels, points: Tensor) -> Tensor:
        """``(F, Q, N)`` cost of every query for every instance."""
        with torch.autocast(layer.logits.device.type, enabled=False):
            q = layer.logits.shape[1]
            scores = layer.logits.float().softmax(-1)
            class_cost = -scores.gather(2, truth.labels[:, None, :].expand(-1, q, -1))
            logits = sample_points(layer.mask_logits.float(), points)  # (F, Q, P)
            target = sample_points(truth.masks, points)  # (F, N, P)
            # Cross-entropy against 0 is softplus(x), against 1 softplus(x) - x; targets may lie between.
            negative = F.softplus(logits)
            mask_cost = (
                torch.einsum("fqp,fnp->fqn", negative - logits, target)
                + torch.einsum("fqp,fnp->fqn", negative, 1 - target)
            ) / logits.shape[-1]
            probability = logits.sigmoid()
            shared = 2 * torch.einsum("fqp,fnp->fqn", probability, target)
            total = probability.sum(-1)[:, :, None] + target.sum(-1)[:, None, :]
            dice_cost = 1 - (shared + 1) / (total + 1)
            return (
                self.class_weight * class_cost + self.mask_weight * mask_cost + self.dice_weight * dice_cost
            )

    @staticmethod
    def _assign(block: np.ndarray, truth: FrameLabels, device: torch.device) -> Pairs:
        triples = []
        for frame, (cost, part) in enumerate(zip(block, truth.taking_part.numpy(), strict=True)):
            present = np.flatnonzero(part)
            rows, columns = linear_sum_assignment(cost[:, present])
            triples.append(np.stack([np.full_like(rows, frame), rows, present[columns]]))
        table = np.concatenate(triples, axis=1).astype(np.int64)
        per_clip = np.bincount(table[0] // truth.frames_per_clip, minlength=len(truth.instances))
        frame, query, instance = torch.from_numpy(table).to(device)
        return Pairs(frame, query, instance, tuple(per_clip.tolist()))


def to_matches(pairs: Pairs, truth: FrameLabels) -> Matches:
    """The pairs of one layer as one ``(N, T)`` table of query indices a clip, -1 where unmatched."""
    frames, most = truth.taking_part.shape
    table = torch.full((frames, most), -1, dtype=torch.int64, device=pairs.query.device)
    table[pairs.frame, pairs.instance] = pairs.query
    clips = table.unflatten(0, (-1, truth.frames_per_clip))  # (B, T, N)
    return Matches(tuple(clip[:, :n].T for clip, n in zip(clips, truth.instances, strict=True)))

"""Matching of queries to annotated instances, frame by frame (DETR, arXiv 2005.12872, section 3.1)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from vistk.ops import linear
from vistk.ops.points import full_precision, sample_points, sample_vectors
from vistk.structures import ClipTargets, FrameOutput, Matches


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
    per_frame: tuple[int, ...]  # how many of the n pairs belong to each frame; pairs are ordered by frame
    per_clip: tuple[int, ...]  # and to each clip


@dataclass(frozen=True)
class FramePredictions:
    """Predictions of all decoder layers, the last layer first, for ``F = B*T`` frames.

    Of the earlier layers no masks but those of matched queries are ever made: 24 MB a layer and frame of
    720p stay unspent, forward and backward. Elsewhere masks are linear in the mask features, and points
    are shared by all queries of a frame: sampled features times embeddings are sampled masks.
    """

    logits: tuple[Tensor, ...]  # L x (F, Q, K+1)
    mask_logits: Tensor  # (F, Q, h, w), of the last layer
    mask_embeds: tuple[Tensor, ...]  # (L-1) x (F, Q, C), of the earlier layers
    mask_features: tuple[Tensor, ...]  # F x (C, h, w); empty where L = 1

    @classmethod
    def of(cls, out: FrameOutput) -> FramePredictions:
        """Flatten predictions with leading dims ``(B, T)``."""
        return cls(
            (out.logits.flatten(0, 1), *(layer.logits.flatten(0, 1) for layer in out.aux)),
            out.mask_logits.flatten(0, 1),
            tuple(layer.mask_embeds.flatten(0, 1) for layer in out.aux),
            tuple(out.mask_features.flatten(0, 1)) if out.aux else (),
        )

    def masks_at(self, frame: int, points: Sequence[Tensor]) -> Iterator[Tensor]:
        """Layer by layer, the ``(Q, P)`` mask logits of a frame at its points, in float32 or float64.

        Args:
            frame: 0 to F-1.
            points: a ``(P, 2)`` set for every layer wanted, the last layer first.
        """
        yield sample_points(self.mask_logits[frame, None], points[0][None])[0]
        if len(points) > 1:
            vectors = full_precision(self.mask_features[frame].permute(1, 2, 0)).contiguous()  # (h, w, C)
            for embeds, there in zip(self.mask_embeds, points[1:], strict=True):
                yield linear(full_precision(embeds[frame]), sample_vectors(vectors, there))

    def masks_of(self, pairs: Sequence[Pairs]) -> list[Tensor]:
        """For every layer the ``(n, h, w)`` mask logits of its matched queries, in float32 or float64.

        Args:
            pairs: of every layer; they differ in queries and instances, not in how many a frame has.
        """
        first, *rest = pairs
        masks = [self.mask_logits[first.frame, first.query]]
        if rest:
            # All layers at once: the features are read once a frame, and so is their gradient written.
            chosen = [e[p.frame, p.query] for e, p in zip(self.mask_embeds, rest, strict=True)]
            by_frame = torch.stack(chosen, dim=1).split(first.per_frame)  # F x (n_f, L-1, C)
            made = [
                embeds.flatten(0, 1).to(features.dtype) @ features.flatten(1)
                for embeds, features in zip(by_frame, self.mask_features, strict=True)
            ]
            size = self.mask_logits.shape[-2:]
            masks += torch.cat(made).view(-1, len(rest), *size).unbind(1)
        return [full_precision(mask) for mask in masks]


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
        self, predictions: FramePredictions, truth: FrameLabels, points: Sequence[Tensor]
    ) -> list[Pairs]:
        """Match layers.

        Args:
            predictions: of all layers.
            truth: ground truth of the F frames.
            points: a ``(F, P, 2)`` set of points for every layer to match, the last layer first.

        Returns:
            The pairs of every such layer, on the device of the predictions.

        Raises:
            FloatingPointError: a cost is not finite; names layer and frame.
        """
        return self.assign(self.costs(predictions, truth, points), truth)

    @torch.no_grad()
    def costs(self, predictions: FramePredictions, truth: FrameLabels, points: Sequence[Tensor]) -> Tensor:
        """``(layers, F, Q, N)`` costs in float32 or float64; arguments as in a call."""
        with torch.autocast(predictions.mask_logits.device.type, enabled=False):
            costs = [
                self._frame_costs(predictions, truth, frame, frame_points)
                for frame, frame_points in enumerate(torch.stack(list(points), dim=1))
            ]
        return torch.stack(costs, dim=1)

    def _frame_costs(
        self, predictions: FramePredictions, truth: FrameLabels, frame: int, points: Tensor
    ) -> Tensor:
        """``(layers, Q, N)`` costs of one frame; ``points`` (layers, P, 2)."""
        at_points = sample_points(truth.masks[frame, None], points.flatten(0, 1)[None])[0]  # (N, layers*P)
        targets = at_points.unflatten(1, points.shape[:2]).unbind(1)
        masks = predictions.masks_at(frame, points.unbind())
        logits = [layer[frame] for layer in predictions.logits[: len(points)]]
        return torch.stack(
            [
                self.pair_cost(layer_logits, layer_masks, truth.labels[frame], target)
                for layer_logits, layer_masks, target in zip(logits, masks, targets, strict=True)
            ]
        )

    def pair_cost(self, logits: Tensor, mask_logits: Tensor, labels: Tensor, target: Tensor) -> Tensor:
        """Cost of every query and instance from the masks' values at P points, of a frame or of a clip.

        Args:
            logits: ``(Q, K+1)``.
            mask_logits: ``(Q, P)``, float32 or float64.
            labels: ``(N,)``.
            target: ``(N, P)``, 0 to 1.

        Returns:
            ``(Q, N)``.
        """
        class_cost = -full_precision(logits).softmax(-1)[:, labels]
        against = target.to(mask_logits.dtype).T  # (P, N)
        # Cross-entropy against 0 is softplus(x), against 1 softplus(x) - x; targets may lie between.
        negative = F.softplus(mask_logits)
        mask_cost = ((negative - mask_logits) @ against + negative @ (1 - against)) / len(against)
        probability = mask_logits.sigmoid()
        total = probability.sum(1)[:, None] + against.sum(0)
        dice_cost = 1 - (2 * (probability @ against) + 1) / (total + 1)
        return self.class_weight * class_cost + self.mask_weight * mask_cost + self.dice_weight * dice_cost

    def assign(self, costs: Tensor, truth: FrameLabels) -> list[Pairs]:
        """The cheapest pairs of every layer from ``(layers, F, Q, N)`` costs; errors as in a call."""
        block = costs.cpu().numpy()
        if not np.isfinite(block).all():
            layer, frame = np.argwhere(~np.isfinite(block))[0][:2]
            clip, t = divmod(int(frame), truth.frames_per_clip)
            raise FloatingPointError(
                f"matching cost is not finite at decoder layer {layer}, clip {clip} of the batch, frame {t}: "
                "the predictions hold NaN or infinity; lower the learning rate or check the images"
            )
        return [self._layer_pairs(layer_block, truth, costs.device) for layer_block in block]

    @staticmethod
    def _layer_pairs(block: np.ndarray, truth: FrameLabels, device: torch.device) -> Pairs:
        triples = []
        for frame, (cost, part) in enumerate(zip(block, truth.taking_part.numpy(), strict=True)):
            present = np.flatnonzero(part)
            rows, columns = linear_sum_assignment(cost[:, present])
            triples.append(np.stack([np.full_like(rows, frame), rows, present[columns]]))
        table = np.concatenate(triples, axis=1).astype(np.int64)
        per_frame = np.bincount(table[0], minlength=len(block))
        per_clip = per_frame.reshape(-1, truth.frames_per_clip).sum(1)
        frame, query, instance = torch.from_numpy(table).to(device)
        return Pairs(frame, query, instance, tuple(per_frame.tolist()), tuple(per_clip.tolist()))


def to_matches(pairs: Pairs, truth: FrameLabels) -> Matches:
    """The pairs of one layer as one ``(N, T)`` table of query indices a clip, -1 where unmatched."""
    frames, most = truth.taking_part.shape
    table = torch.full((frames, most), -1, dtype=torch.int64, device=pairs.query.device)
    table[pairs.frame, pairs.instance] = pairs.query
    clips = table.unflatten(0, (-1, truth.frames_per_clip))  # (B, T, N)
    return Matches(tuple(clip[:, :n].T for clip, n in zip(clips, truth.instances, strict=True)))


def first_appearances(costs: Tensor, truth: FrameLabels) -> list[Tensor]:
    """One query for every instance of a clip, by the cost in the frame in which the instance first appears.

    Args:
        costs: ``(F, Q, N)`` of :meth:`Matcher.costs`; query q is one track in all frames of a clip.

    Returns:
        For each clip ``(N,)`` int64 on the CPU; -1 for an instance that never appears, or has no query left.

    Raises:
        FloatingPointError: a cost is not finite; names clip and instance.
    """
    part = truth.taking_part.unflatten(0, (-1, truth.frames_per_clip))  # (B, T, N)
    by_clip = costs.unflatten(0, (-1, truth.frames_per_clip))  # (B, T, Q, N)
    first = part.int().argmax(1).to(costs.device)  # (B, N)
    index = first[:, None, None].expand(-1, 1, costs.shape[1], -1)
    return match_clips(by_clip.gather(1, index).squeeze(1), part.any(1), truth.instances)


def match_clips(costs: Tensor, present: Tensor, instances: Sequence[int]) -> list[Tensor]:
    """The cheapest one-to-one pairs of a clip's queries and instances.

    Args:
        costs: ``(B, Q, N)``.
        present: ``(B, N)`` bool; who is to have a query.
        instances: how many of the N belong to each clip; the others are padding.

    Returns:
        For each clip ``(N,)`` int64 on the CPU, the query of every instance or -1.

    Raises:
        FloatingPointError: a cost is not finite; names clip and instance.
    """
    found = []
    for b, (block, part, n) in enumerate(
        zip(costs.detach().cpu().numpy(), present.cpu().numpy(), instances, strict=True)
    ):
        wanted = np.flatnonzero(part[:n])
        cost = block[:, wanted]
        if not np.isfinite(cost).all():
            column = wanted[np.argwhere(~np.isfinite(cost))[0][1]]
            raise FloatingPointError(
                f"matching cost is not finite at clip {b} of the batch, instance {column}: the predictions "
                "hold NaN or infinity; lower the learning rate or check the images"
            )
        query, column = linear_sum_assignment(cost)
        row = torch.full((n,), -1, dtype=torch.int64)
        row[torch.from_numpy(wanted[column])] = torch.from_numpy(query.astype(np.int64))
        found.append(row)
    return found


def pairs_of_tracks(tracks: Sequence[Tensor], truth: FrameLabels, device: torch.device) -> Pairs:
    """Pairs frame by frame of instances that keep one query throughout their clip.

    Args:
        tracks: for each clip ``(N,)`` int64 on the CPU, the query of every instance or -1.
    """
    most = truth.taking_part.shape[1]
    rows = [F.pad(track, (0, most - len(track)), value=-1) for track in tracks]
    query = torch.stack(rows).repeat_interleave(truth.frames_per_clip, 0)  # (F, N)
    taken = truth.taking_part & (query >= 0)
    frame, instance = taken.nonzero(as_tuple=True)
    per_frame = taken.sum(1)
    per_clip = per_frame.unflatten(0, (-1, truth.frames_per_clip)).sum(1)
    return Pairs(
        frame.to(device),
        query[frame, instance].to(device),
        instance.to(device),
        tuple(per_frame.tolist()),
        tuple(per_clip.tolist()),
    )

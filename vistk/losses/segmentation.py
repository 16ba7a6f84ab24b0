"""Set criterion of Mask2Former: classes, masks and dice at every decoder layer."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from vistk.losses.matching import FrameLabels, FramePredictions, Matcher, Pairs, to_matches
from vistk.ops.distributed import mean_over_processes
from vistk.ops.points import ClipPointSampler, PointSampler, full_precision, sample_points, uncertain_points
from vistk.schema import ConfigError, require_at_least
from vistk.structures import ClipTargets, FrameOutput, Matches

ABSENT_LABELS = ("kept", "released")


@dataclass
class SetLossConfig:
    """Weights and sampling of matching and losses; the defaults are the published ones.

    Mask2Former (arXiv 2112.01527, sections 3.2 and 4.1): classes 2, mask cross-entropy 5, dice 5,
    "no object" weighs 0.1, 12544 points, three candidates a point, 75 % of the points by uncertainty.
    """

    class_weight: float = 2.0
    mask_weight: float = 5.0
    dice_weight: float = 5.0
    no_object_weight: float = 0.1
    num_points: int = 12544
    oversample: float = 3.0
    importance: float = 0.75


@dataclass
class SegmentationLossConfig(SetLossConfig):
    """The losses of a segmenter: those of sets, and what its layers and frames ask for."""

    match_every_layer: bool = True  # false: the last layer's matching serves all layers
    absent_labels: str = "kept"  # kept | released, see FrameLabels
    dense_weight: float = 0.0  # per-pixel class loss, for segmenters with a dense head

    def __post_init__(self) -> None:
        weights = ("class_weight", "mask_weight", "dice_weight", "no_object_weight", "dense_weight")
        least = {"num_points": 1, "oversample": 1, "importance": 0, **dict.fromkeys(weights, 0)}
        require_at_least("train.loss", self, **least)


class SetLoss:
    """Weighted class, mask and dice losses of predictions whose matching is known.

    Args:
        config: weights and sampling.
        num_classes: K, without "no object".
    """

    def __init__(self, config: SetLossConfig, num_classes: int) -> None:
        if config.num_points < 1 or config.oversample < 1 or not 0 <= config.importance <= 1:
            raise ValueError(
                f"num_points is {config.num_points}, oversample {config.oversample} and importance "
                f"{config.importance}; expected 1 or more, 1 or more, and 0 to 1"
            )
        self.config = config
        self.num_classes = num_classes

    def frame_losses(
        self, predictions: FramePredictions, pairs: Sequence[Pairs], truth: FrameLabels, sampler: PointSampler
    ) -> dict[str, Tensor]:
        """``{"class", "mask", "dice"}`` of the last layer and ``{"class_0", ..}`` of the earlier ones.

        Args:
            predictions: of all layers, frame by frame.
            pairs: of every layer, the last one first.
            sampler: source of the random points.
        """
        count = mean_over_processes(len(pairs[0].query), predictions.logits[0].device, at_least=1.0)
        losses: dict[str, Tensor] = {}
        masks = predictions.masks_of(pairs)
        for i, (logits, predicted, pair) in enumerate(zip(predictions.logits, masks, pairs, strict=True)):
            suffix = "" if i == 0 else f"_{i - 1}"
            labels = truth.labels[pair.frame, pair.instance]
            losses[f"class{suffix}"] = self.class_loss(logits, pair.frame, pair.query, labels)
            masks_there = truth.masks[pair.frame, pair.instance]
            losses[f"mask{suffix}"], losses[f"dice{suffix}"] = self.mask_losses(
                predicted[:, None], masks_there[:, None], pair.per_clip, count, sampler
            )
        return losses

    def class_loss(self, logits: Tensor, row: Tensor, query: Tensor, labels: Tensor) -> Tensor:
        """Weighted cross-entropy of all queries; those without a pair are "no object".

        Args:
            logits: ``(R, Q, K+1)``, a row a frame or a clip.
            row, query, labels: ``(n,)`` int64, of the n pairs.
        """
        logits = full_precision(logits)
        classes = torch.full(logits.shape[:2], self.num_classes, dtype=torch.int64, device=logits.device)
        classes[row, query] = labels
        class_weights = logits.new_ones(self.num_classes + 1)
        class_weights[-1] = self.config.no_object_weight
        total_weight = mean_over_processes(class_weights[classes].sum(), logits.device)
        loss = F.cross_entropy(logits.transpose(1, 2), classes, class_weights, reduction="sum") / total_weight
        return self.config.class_weight * loss

    def mask_losses(
        self,
        mask_logits: Tensor,
        masks: Tensor,
        per_clip: Sequence[int],
        count: Tensor,
        sampler: PointSampler,
    ) -> tuple[Tensor, Tensor]:
        """Weighted cross-entropy and dice of n masks at sampled points, divided by ``count``.

        Args:
            mask_logits: ``(n, T, h, w)``; the dice of a mask is that of its T frames together.
            masks: ``(n, T, H, W)`` bool.
            per_clip: how many of the n belong to each clip.
        """
        config = self.config
        frames = mask_logits.shape[1]
        flat = full_precision(mask_logits).flatten(0, 1)  # (n*T, h, w)
        rows = [n * frames for n in per_clip]
        points = uncertain_points(
            flat, rows, config.num_points, sampler, config.oversample, config.importance
        )
        target = sample_points(masks.flatten(0, 1)[:, None], points).squeeze(1)  # (n*T, P)
        sampled = sample_points(flat[:, None], points).squeeze(1)
        target, sampled = (
            x.unflatten(0, (-1, frames)).flatten(1) for x in (target.to(sampled.dtype), sampled)
        )
        mask_loss = (
            F.binary_cross_entropy_with_logits(sampled, target, reduction="none").mean(1).sum() / count
        )
        probability = sampled.sigmoid()
        dice = 1 - (2 * (probability * target).sum(1) + 1) / (probability.sum(1) + target.sum(1) + 1)
        return config.mask_weight * mask_loss, config.dice_weight * dice.sum() / count


class SegmentationLoss:
    """Matches queries to ground truth and sums the weighted losses of all decoder layers.

    Args:
        config: weights and sampling.
        num_classes: K, without "no object".
    """

    def __init__(self, config: SegmentationLossConfig, num_classes: int) -> None:
        if config.absent_labels not in ABSENT_LABELS:
            near = difflib.get_close_matches(config.absent_labels, ABSENT_LABELS, 1, 0.0)[0]
            raise ConfigError(
                f"train.loss.absent_labels={config.absent_labels!r}; "
                f"expected one of {', '.join(ABSENT_LABELS)} "
                f"(nearest: {near})"
            )
        self.config = config
        self.num_classes = num_classes
        self.pair_losses = SetLoss(config, num_classes)
        self.matcher = Matcher(config.class_weight, config.mask_weight, config.dice_weight, config.num_points)

    def __call__(
        self, out: FrameOutput, targets: Sequence[ClipTargets], sampler: PointSampler
    ) -> tuple[dict[str, Tensor], Matches]:
        """Losses of a batch.

        Args:
            out: predictions with leading dims ``(B, T)``.
            targets: B clips.
            sampler: source of the random points.

        Returns:
            Weighted losses ``{"class", "mask", "dice"}`` of the last layer and ``{"class_0", ..}`` of the
            earlier ones (``dense`` where the segmenter has that head), and the last layer's matches.
        """
        predictions = FramePredictions.of(out)
        layers = len(predictions.logits)
        truth = FrameLabels.of(targets, self.num_classes, self.config.absent_labels)
        pairs = self._match(predictions, layers if self.config.match_every_layer else 1, truth, sampler)
        if not self.config.match_every_layer:
            pairs = pairs * layers
        losses = self.pair_losses.frame_losses(predictions, pairs, truth, sampler)
        if out.dense_logits is not None:  # at weight 0 too: data-parallel training wants every parameter used
            losses["dense"] = self.config.dense_weight * self._dense_loss(
                out.dense_logits.flatten(0, 1), truth
            )
        return losses, to_matches(pairs[0], truth)

    def match(self, out: FrameOutput, targets: Sequence[ClipTargets], sampler: PointSampler) -> Matches:
        """The last layer's matches alone, for training trackers on a frozen segmenter."""
        truth = FrameLabels.of(targets, self.num_classes, self.config.absent_labels)
        return to_matches(self._match(FramePredictions.of(out), 1, truth, sampler)[0], truth)

    def _match(
        self, predictions: FramePredictions, layers: int, truth: FrameLabels, sampler: PointSampler
    ) -> list[Pairs]:
        """Pairs of the first ``layers`` layers, which draw their points in that order."""
        rows = [truth.frames_per_clip] * len(truth.instances)
        device = predictions.mask_logits.device
        points = [sampler.draw(rows, self.config.num_points, device) for _ in range(layers)]
        return self.matcher(predictions, truth, points)

    def _dense_loss(self, dense_logits: Tensor, truth: FrameLabels) -> Tensor:
        """Per-pixel cross-entropy; ``dense_logits`` (F, K+1, h, w). Pixels of no instance are "no object"."""
        part = truth.taking_part.to(dense_logits.device)[:, :, None, None]
        masks = F.interpolate((truth.masks & part).float(), size=dense_logits.shape[-2:], mode="area")
        background = masks.new_full((len(masks), 1, *masks.shape[-2:]), 0.5)
        winner = torch.cat([background, masks], dim=1).argmax(1)  # 0 = none, else instance + 1
        labels = F.pad(truth.labels, (1, 0), value=self.num_classes)  # (F, N+1)
        classes = labels.gather(1, winner.flatten(1)).view_as(winner)
        return F.cross_entropy(dense_logits.float(), classes)


def annotation_sampler(targets: Sequence[ClipTargets], device: torch.device) -> ClipPointSampler:
    """Random points for losses that are handed no sampler: a clip's follow from its annotation.

    So they are the same for a clip whatever batch and process it is in, and in a resumed run. Padding of the
    masks makes no difference.
    """
    seeds = []
    for target in targets:
        area = target.masks.flatten(2).sum(2).flatten()  # (N*T,)
        place = torch.arange(1, len(area) + 1, device=area.device)
        seeds.append(int((area * place).sum()))
    return ClipPointSampler(seeds, device)

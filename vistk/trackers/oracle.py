"""Association by ground truth: what remains wrong is segmentation and classification, not tracking.

Per frame, queries are assigned to the annotated instances by mask IoU. The cheap form of the association
oracle of "Mind the Gap" (arXiv 2606.07394), which solves one integer program a video.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch

from vistk.ops.assignment import best_assignment
from vistk.ops.masks import frame_iou
from vistk.structures import RLE, FrameQueries, TrackedFrame
from vistk.trackers.association import frame_masks
from vistk.trackers.base import Tracker


@dataclass
class OracleConfig:
    """How much the class counts beside the mask."""

    class_weight: float = 0.1  # times the probability of the instance's class, added to the IoU


class Oracle(Tracker[None]):
    """Tracks are the annotated instances of the video, track ids their ids.

    In each frame the assignment maximises the sum of ``IoU + class_weight * p(class of the instance)``. A
    query is only assigned to an instance whose mask it overlaps. Queries without instance are left out, and
    so are instances without query.
    """

    Config: ClassVar[type] = OracleConfig
    association_fields = ("class_weight",)
    config: OracleConfig
    uses_targets: ClassVar[bool] = True

    def start(self) -> None:
        return None

    def step(self, state: None, frame: FrameQueries) -> TrackedFrame:
        if frame.targets is None:
            raise ValueError(
                "Oracle: the frame has no targets, expected the annotated instances of the frame"
            )
        device = frame.logits.device
        masks = frame_masks(frame, "Oracle")
        _check_sizes(masks, frame.targets.masks)
        iou = torch.from_numpy(frame_iou(masks, frame.targets.masks)).to(device)  # (Q, N)
        class_score = frame.logits.double().softmax(-1)[:, frame.targets.labels]  # (Q, N)
        similarity = torch.where(iou > 0, iou + self.config.class_weight * class_score, 0.0)
        query, instance = best_assignment(similarity)
        overlapping = iou[query, instance] > 0
        query, instance = query[overlapping], instance[overlapping]
        return TrackedFrame(frame.targets.instance_ids[instance], query, frame.logits[query])


def _check_sizes(masks: Sequence[RLE | None], targets: Sequence[RLE]) -> None:
    found = {tuple(rle["size"]) for rle in masks if rle is not None}
    wanted = {tuple(rle["size"]) for rle in targets}
    if found and wanted and found != wanted:
        raise ValueError(
            f"Oracle: the masks of the queries have size {min(found)}, those of the targets {min(wanted)}; "
            "finish the masks at output size first"
        )

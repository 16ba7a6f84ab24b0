"""Motion alone: every track keeps its velocity, and takes the query that lies where it should be.

A Kalman filter a track, as in SORT (arXiv 1602.00763), for a fixed number of tracks. It looks at boxes of the
masks and at whether a query is an object, never at query vectors: what it reaches, position reaches.

With SORT: the constant-velocity filter, one Hungarian assignment a frame between predicted and seen boxes,
and a least similarity below which a box is not that track's. Other than in SORT:

- The state is (centre x, centre y, root of the area, log aspect), the aspect at rest; SORT has area and
  aspect as they are. Here all noise is a share of the object's size, so that one number serves objects of
  all sizes.
- Boxes come from masks: :func:`vistk.trackers.motion.mask_boxes`.
- Tracks are the Q slots, as in MinVIS, so that all rows of a table have equally many. A slot begins with the
  first confident query that it is given, and does not die: without one it coasts.
- Similarity is DIoU, which tells near from far where boxes do not overlap; ``similarity="iou"`` is SORT.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar

import torch
from torch import Tensor

from vistk.structures import FrameOutput, FrameQueries, TrackedFrame
from vistk.trackers.association import assign_slots, class_scores, frame_vector, slots_frame
from vistk.trackers.base import Range, Tracker, check_choice, check_least
from vistk.trackers.motion import BOX_SIMILARITIES, BoxFilter, Noise, mask_boxes

LITTLE = 1e-3  # weight of overlaps that decide only where nothing else does


@dataclass
class KalmanConfig:
    """Noise is a share of the size of the object, the root of its area."""

    similarity: str = "diou"  # diou | giou | iou
    # Below it, a box is not that track's: DIoU of two equal squares whose centres are 2.7 sides apart.
    least_similarity: float = -0.5
    presence: float = 0.3  # least class score of a query that is an object, 0..1
    measured_noise: float = 0.05  # standard deviation of a box around the truth
    position_noise: float = 0.05  # standard deviation that a frame adds to the position
    velocity_noise: float = 0.02  # standard deviation that a frame adds to the velocity
    start_noise: float = 0.5  # standard deviation of the velocity of a new track, a frame
    coast_frames: int = 5  # frames that a track without query moves on; then it waits where it is


@dataclass(frozen=True)
class Slots:
    """The Q tracks after a frame."""

    filter: BoxFilter
    begun: Tensor  # (Q,) bool: was an object at some time
    unseen: Tensor  # (Q,) int64, frames since the last query that was one


@dataclass
class KalmanState:
    """The tracks after the last frame."""

    slots: Slots | None = None


class Kalman(Tracker[KalmanState]):
    """Hungarian assignment on the similarity of boxes with those that constant velocity predicts.

    Raises:
        ValueError: a field of ``config`` is outside its range or names no choice.
    """

    Config: ClassVar[type] = KalmanConfig
    association_fields = tuple(field.name for field in fields(KalmanConfig))
    search_space: ClassVar[Mapping[str, Range | Sequence[Any]]] = {
        "similarity": tuple(BOX_SIMILARITIES),
        "least_similarity": Range(-1, 0.6),
        "presence": Range(0, 0.9),
        "measured_noise": Range(0.005, 0.5, log=True),
        "position_noise": Range(0.005, 0.5, log=True),
        "velocity_noise": Range(0.002, 0.2, log=True),
        "start_noise": Range(0.02, 2, log=True),
        "coast_frames": Range(0, 20),
    }
    config: KalmanConfig

    def __init__(
        self, config: KalmanConfig, *, embed_dim: int, feature_channels: Mapping[str, int], num_classes: int
    ) -> None:
        super().__init__(
            config, embed_dim=embed_dim, feature_channels=feature_channels, num_classes=num_classes
        )
        check_choice("Kalman", "similarity", config.similarity, BOX_SIMILARITIES)
        if not 0 <= config.presence <= 1:
            raise ValueError(f"Kalman: presence is {config.presence}, expected 0 to 1")
        check_least("Kalman", config, position_noise=0, velocity_noise=0, start_noise=0, coast_frames=0)
        if config.measured_noise <= 0:
            raise ValueError(f"Kalman: measured_noise is {config.measured_noise}, expected more than 0")
        self.noise = Noise(
            config.measured_noise, config.position_noise, config.velocity_noise, config.start_noise
        )

    def describe(self, out: FrameOutput) -> FrameQueries:
        """``vectors = {"box": (.., Q, 4)}``, all that association needs of the masks."""
        return FrameQueries(out.logits, {"box": mask_boxes(out.mask_logits)}, mask_logits=out.mask_logits)

    def start(self) -> KalmanState:
        return KalmanState()

    def similarities(self, state: KalmanState, frame: FrameQueries) -> dict[str, Tensor]:
        """Of predicted and seen boxes: "box"; "mixed", where free slots and no objects come last."""
        if state.slots is None:
            return {}
        boxes = frame_vector(frame, "box", "Kalman").float()
        overlap, similarity = self._compare(
            state.slots, self._predicted(state.slots), boxes, self._present(frame, boxes)
        )
        return {"box": overlap, "mixed": similarity}

    def _present(self, frame: FrameQueries, boxes: Tensor) -> Tensor:
        """``(Q,)`` bool: which queries are objects."""
        return (boxes[:, 2] > 0) & (class_scores(frame.logits) >= self.config.presence)

    def _predicted(self, slots: Slots) -> BoxFilter:
        return slots.filter.predicted(self.noise, slots.begun & (slots.unseen <= self.config.coast_frames))

    def _compare(
        self, slots: Slots, predicted: BoxFilter, boxes: Tensor, present: Tensor
    ) -> tuple[Tensor, Tensor]:
        """``(R, Q)`` similarity of boxes, and what is assigned by; ``boxes`` (Q, 4), ``present`` (Q,)."""
        overlap = BOX_SIMILARITIES[self.config.similarity](predicted.boxes, boxes)
        free = self.config.least_similarity + LITTLE * overlap
        similarity = torch.where(slots.begun[:, None], overlap, free)
        # Queries that are no object take what objects leave over.
        return overlap, torch.where(present, similarity, LITTLE * overlap)

    def step(self, state: KalmanState, frame: FrameQueries) -> TrackedFrame:
        boxes = frame_vector(frame, "box", "Kalman").float()
        filled = boxes[:, 2] > 0
        present = self._present(frame, boxes)
        if state.slots is None:
            unseen = torch.zeros(len(boxes), dtype=torch.int64, device=boxes.device)
            state.slots = Slots(BoxFilter.at(boxes, self.noise), present, unseen)
            return slots_frame(frame)
        begun, unseen = state.slots.begun, state.slots.unseen
        predicted = self._predicted(state.slots)
        overlap, similarity = self._compare(state.slots, predicted, boxes, present)
        query_index = assign_slots(similarity)

        boxes, filled, seen = (x.index_select(0, query_index) for x in (boxes, filled, present))
        near = overlap.gather(1, query_index[:, None])[:, 0] >= self.config.least_similarity
        # An object that lies elsewhere begins anew; a slot that has yet to begin lies where its query is.
        restart = (seen & ~(begun & near)) | (~begun & filled)
        followed = predicted.updated(boxes, self.noise).where(seen, predicted)
        state.slots = Slots(
            BoxFilter.at(boxes, self.noise).where(restart, followed),
            begun | seen,
            torch.where(seen, 0, unseen + 1),
        )
        return slots_frame(frame, query_index)

"""Automatic links from frame to frame: who is who without an annotator (pseudo-labels).

A track is a box that moves at constant velocity. Components of the foreground mask are assigned to
the predicted boxes; a track without a component of its own but whose prediction lies on a component
that another track took is *merged* with it (two people in one blob): it coasts on its own velocity
until the blob parts again. Who comes out of a crossing as whom is thus a guess by momentum, which is
good enough to train on and not good enough to measure identity with.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from foreground import Box
from scipy.optimize import linear_sum_assignment


@dataclass(frozen=True)
class LinkConfig:
    """Limits of the linker; lengths in source pixels or box heights, ages in source frames."""

    min_height: float = 18.0  # flatter components are no person (tape in the wind)
    max_aspect: float = 1.3  # width / height; a standing person is about 0.4, a pair side by side 1
    max_shift: float = 0.6  # of the box height, between prediction and component
    size_cost: float = 0.5  # weight of the log height ratio beside the shift
    covered: float = 0.5  # part of the predicted box inside a taken component that counts as merged
    velocity_rate: float = 0.25  # share of the newest displacement in the running velocity
    max_missed: int = 6  # frames without any component before a track ends
    max_merged: int = 40  # frames inside someone else's blob before a track ends
    min_hits: int = 6  # components of its own that make a track worth a label


@dataclass
class Track:
    """One linked person: its box in every source frame in which it was seen or believed merged."""

    id: int
    box: Box
    velocity: tuple[float, float] = (0.0, 0.0)  # pixels a frame
    hits: int = 1
    missed: int = 0
    merged: int = 0
    boxes: dict[int, Box] = field(default_factory=dict)  # source frame -> box


class Linker:
    """Links the components of successive frames; call :meth:`update` once for every frame, in order."""

    def __init__(self, config: LinkConfig) -> None:
        self.config = config
        self.tracks: list[Track] = []  # all tracks ever started, also those that ended
        self._active: list[Track] = []

    def confirmed(self) -> list[Track]:
        """Tracks that were seen on their own often enough to be believed."""
        return [track for track in self.tracks if track.hits >= self.config.min_hits]

    def update(self, frame_index: int, boxes: list[Box]) -> None:
        """Assigns the component boxes of one frame to tracks, starts and ends tracks."""
        config = self.config
        boxes = [box for box in boxes if self._could_be_person(box)]
        predicted = [_shift(track.box, track.velocity) for track in self._active]
        cost = np.array([[self._cost(p, box) for box in boxes] for p in predicted])
        taken: set[int] = set()
        own: dict[int, int] = {}
        if cost.size:
            # A finite stand-in for "impossible" keeps the assignment solvable; it is undone below.
            rows, columns = linear_sum_assignment(np.where(np.isfinite(cost), cost, 1e6))
            own = {int(r): int(c) for r, c in zip(rows, columns, strict=True) if np.isfinite(cost[r, c])}
            taken = set(own.values())

        riders = self._riders(predicted, boxes, own)
        hosts = {own[row] for row in own} & set(riders.values())
        for row, track in enumerate(self._active):
            if row in own and own[row] not in hosts:
                self._observe(track, boxes[own[row]])
            elif row in own or row in riders:
                # Inside a shared blob the component says nothing of the single person's box.
                component = boxes[own[row] if row in own else riders[row]]
                track.box = _pulled_inside(predicted[row], component)
                track.merged += 1
                track.missed = 0
            else:
                track.missed += 1
                track.box = predicted[row]
            if track.missed == 0:
                track.boxes[frame_index] = track.box
        self._active = [
            t for t in self._active if t.missed <= config.max_missed and t.merged <= config.max_merged
        ]
        for column, box in enumerate(boxes):
            if column not in taken:
                track = Track(len(self.tracks) + 1, box, boxes={frame_index: box})
                self.tracks.append(track)
                self._active.append(track)

    def _could_be_person(self, box: Box) -> bool:
        width, height = box[2] - box[0], box[3] - box[1]
        return height >= self.config.min_height and width <= self.config.max_aspect * height

    def _cost(self, predicted: Box, box: Box) -> float:
        height = predicted[3] - predicted[1]
        shift = np.hypot(*np.subtract(_centre(predicted), _centre(box))) / height
        if shift > self.config.max_shift:
            return float("inf")
        return float(shift + self.config.size_cost * abs(np.log((box[3] - box[1]) / height)))

    def _riders(self, predicted: list[Box], boxes: list[Box], own: dict[int, int]) -> dict[int, int]:
        """Tracks without a component of their own -> the taken component that they lie on.

        A track that only just began does not ride along: it is a fragment that joined its body.
        """
        riders: dict[int, int] = {}
        for row, box in enumerate(predicted):
            if row in own or self._active[row].hits < self.config.min_hits:
                continue
            covered = [
                _covered(box, boxes[column]) if column in own.values() else 0.0
                for column in range(len(boxes))
            ]
            if covered and max(covered) >= self.config.covered:
                riders[row] = int(np.argmax(covered))
        return riders

    def _observe(self, track: Track, box: Box) -> None:
        moved = np.subtract(_centre(box), _centre(track.box))
        rate = max(self.config.velocity_rate, 1.0 / (track.hits + 1))
        vx, vy = (1 - rate) * np.array(track.velocity) + rate * moved
        track.box, track.velocity = box, (float(vx), float(vy))
        track.hits += 1
        track.missed = track.merged = 0


def _centre(box: Box) -> tuple[float, float]:
    return (box[0] + box[2]) / 2, (box[1] + box[3]) / 2


def _shift(box: Box, velocity: tuple[float, float]) -> Box:
    vx, vy = velocity
    return box[0] + vx, box[1] + vy, box[2] + vx, box[3] + vy


def _covered(box: Box, other: Box) -> float:
    width = min(box[2], other[2]) - max(box[0], other[0])
    height = min(box[3], other[3]) - max(box[1], other[1])
    return max(width, 0.0) * max(height, 0.0) / ((box[2] - box[0]) * (box[3] - box[1]))


def _pulled_inside(box: Box, component: Box) -> Box:
    """The box moved by the least that puts it inside the component (or centres it, if it is larger)."""
    out = list(box)
    for low, high in ((0, 2), (1, 3)):
        size = box[high] - box[low]
        if size >= component[high] - component[low]:
            start = (component[low] + component[high] - size) / 2
        else:
            start = min(max(box[low], component[low]), component[high] - size)
        out[low], out[high] = start, start + size
    return out[0], out[1], out[2], out[3]

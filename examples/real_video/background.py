"""Background subtraction as a segmenter without weights: online, and of one class.

What stands out from the background of the frames *before* is cut into connected components, and these
are handed on as :class:`vistk.structures.FrameQueries`, as a network's queries would be. So trackers run
on it as they are. ``foreground.py`` has the arithmetic of one frame; the data set's pseudo-masks use it
with a median over the whole video, which a live camera does not have.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from foreground import Background, ForegroundConfig, components, foreground
from vectors import Component, appearance, location

from vistk.ops.masks import encode
from vistk.structures import FinishedMasks, FrameQueries
from vistk.trackers.motion import mask_boxes

NO_OBJECT = -4.6  # class logit of a query without component: a score of 0.01


@dataclass(frozen=True)
class BackgroundConfig:
    """Grey levels are 0..255."""

    queries: int = 16  # Q; of more components, the smallest are left out
    rate: float = 0.2  # grey levels that the background follows the scene in a frame
    haste: float = 60.0  # grey levels, divided by the frames so far: at first it follows faster
    foreground: ForegroundConfig = field(default_factory=ForegroundConfig)


class RunningBackground:
    """Median and spread of all frames so far, per pixel and channel, in the memory of three frames.

    Both estimates move by a fixed step toward what a frame shows, whose size does not matter; so they
    come to rest where as many frames lie above as below, at the median (Robbins and Monro, 1951). The
    step is ``haste / frames so far`` and at least ``rate``. A person who stands still for longer than
    ``threshold / rate`` frames becomes part of the scene.
    """

    def __init__(self, rate: float, haste: float) -> None:
        if rate <= 0 or haste < 0:
            raise ValueError(f"rate is {rate} and haste {haste}, expected more than 0 and at least 0")
        self.rate, self.haste = rate, haste
        self.frames = 0
        self._colour = self._deviation = np.zeros((0, 0, 3), np.float32)

    def add(self, frame: np.ndarray) -> None:
        """Learn from a ``(H, W, 3)`` uint8 frame.

        Raises:
            ValueError: it has another size than those before.
        """
        image = frame.astype(np.float32)
        if self.frames == 0:
            self._colour, self._deviation = image, np.full_like(image, 2.0)
        elif image.shape != self._colour.shape:
            raise ValueError(
                f"a frame of {image.shape[1]} x {image.shape[0]} pixels after frames of "
                f"{self._colour.shape[1]} x {self._colour.shape[0]}; a background is of one size"
            )
        self.frames += 1
        step = np.float32(max(self.rate, self.haste / self.frames))
        # No step beyond the frame itself: where nothing changes, nothing moves.
        difference = image - self._colour
        self._colour += difference.clip(-step, step)
        np.abs(difference, out=difference)
        difference -= self._deviation
        self._deviation += difference.clip(-step / 4, step / 4)

    @property
    def background(self) -> Background:
        """The model so far, as :func:`foreground.foreground` wants it."""
        return Background(self._colour, 1.4826 * self._deviation)


class BackgroundSegmenter:
    """Frames in, in order, and out the queries of each. Keeps the background and the frame before."""

    num_classes = 1

    def __init__(self, config: BackgroundConfig | None = None) -> None:
        self.config = config or BackgroundConfig()
        if self.config.queries < 1:
            raise ValueError(f"queries is {self.config.queries}, expected 1 or more")
        self.left_out = 0  # components so far for which there was no query
        self._scene = RunningBackground(self.config.rate, self.config.haste)
        self._previous: np.ndarray | None = None

    @property
    def background(self) -> Background:
        """The empty scene as far as it is known."""
        return self._scene.background

    def learn(self, frame: np.ndarray) -> None:
        """A frame that is looked at for the background alone."""
        self._scene.add(frame)
        self._previous = frame

    def segment(self, frame: np.ndarray) -> FrameQueries:
        """Queries of a ``(H, W, 3)`` uint8 frame, then :meth:`learn` from it.

        Returns:
            Q queries, the largest component first, then queries that are no object, with empty masks and
            zero vectors. ``logits`` (Q, 2): a component of n pixels scores n / (n + ``min_area``).
            ``masks``: finished, at the size of the frame. ``vectors``: "query" (Q, 256), where it is and
            how it moves; "appearance" (Q, 648), its colours (:mod:`vectors`); "box" (Q, 4) as of
            :func:`vistk.trackers.motion.mask_boxes`, in pixels; "overlap" (Q, Q), as components have none.
        """
        found = self._components(frame)
        queries = _queries(found, frame, self._previous, self.config)
        self.learn(frame)
        return queries

    def _components(self, frame: np.ndarray) -> list[Component]:
        if not self._scene.frames:
            return []
        labels, boxes = components(foreground(frame, self.background, self.config.foreground))
        found = []
        for label, (x0, y0, x1, y1) in enumerate(boxes, start=1):
            left, top, right, bottom = int(x0), int(y0), int(x1), int(y1)
            found.append(Component(left, top, labels[top:bottom, left:right] == label))
        found.sort(key=lambda component: -component.area)  # stable: of equals, the upper one
        self.left_out += max(len(found) - self.config.queries, 0)
        return found[: self.config.queries]


def _queries(
    found: list[Component], frame: np.ndarray, previous: np.ndarray | None, config: BackgroundConfig
) -> FrameQueries:
    size, count = config.queries, len(found)
    area = torch.zeros(size, dtype=torch.float64)
    area[:count] = torch.tensor([component.area for component in found], dtype=torch.float64)
    objects = torch.full((size,), NO_OBJECT)
    objects[:count] = (area[:count] / config.foreground.min_area).log().float()
    boxes, overlap = torch.zeros(size, 4), torch.zeros(size, size)
    overlap[range(count), range(count)] = 1.0
    for row, component in enumerate(found):
        boxes[row] = mask_boxes(torch.from_numpy(component.mask).float())
        boxes[row, :2] += torch.tensor([component.left, component.top])
    masks = torch.zeros(count, *frame.shape[:2], dtype=torch.bool)
    for row, component in enumerate(found):
        masks[(row, *component.place)] = torch.from_numpy(component.mask)
    return FrameQueries(
        torch.stack([objects, torch.zeros(size)], -1),
        {
            "query": _padded(location(found, frame, previous), size),
            "appearance": _padded(appearance(found, frame), size),
            "box": boxes,
            "overlap": overlap,
        },
        masks=FinishedMasks((*encode(masks), *[None] * (size - count)), area, area),
    )


def _padded(vectors: np.ndarray, size: int) -> torch.Tensor:
    out = torch.zeros(size, vectors.shape[1])
    out[: len(vectors)] = torch.from_numpy(vectors)
    return out

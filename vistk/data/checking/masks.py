"""Checks of the masks of a data set, in chunks: one by one they would take longer than reading the file."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from vistk.data.checking.report import Findings
from vistk.ops.masks import FARTHEST, to_rle
from vistk.ops.masks import areas as mask_areas
from vistk.ops.runs import covered_pixels
from vistk.structures import RLE

CHUNK = 128
"""Masks that are checked at once: a few megabytes, about 100 bytes a character."""


@dataclass(frozen=True)
class _Mask:
    rle: RLE
    where: str
    frame: int | None
    area: float | None  # as stored
    box: list[float] | None  # as stored
    slack: float  # pixels by which a stored area may differ

    def __str__(self) -> str:
        return _place(self.where, self.frame)


def _place(where: str, frame: int | None) -> str:
    return where if frame is None else f"{where}, frame {frame}"


class MaskChecks:
    """Takes segmentations one at a time, checks them in chunks; call :meth:`flush` at the end."""

    def __init__(self, findings: Findings) -> None:
        self.findings = findings
        self.count = 0  # segmentations that are not null
        self.nulls = 0
        self._waiting: list[_Mask] = []
        self._largest_difference = 0.0

    def add(
        self,
        segmentation: Any,
        size: tuple[int, int],
        where: str,
        frame: int | None,
        area: float | None,
        box: list[float] | None,
    ) -> None:
        """A segmentation of a frame of ``size`` (height, width), with its stored ``area`` and ``box``."""
        if segmentation is None:
            self.nulls += 1
            return
        self.count += 1
        slack = 0.5  # of rounding
        try:
            if isinstance(segmentation, list):
                far = [value for polygon in segmentation for value in polygon if not abs(value) <= FARTHEST]
                if far:
                    raise ValueError(f"a polygon has the coordinate {far[0]}")
                slack = max(1.0, sum(map(_perimeter, segmentation)) / 2)
            rle = to_rle(segmentation, *size)
        except (ValueError, TypeError, OverflowError) as error:
            kind = _kind_of_fault(segmentation, size)
            self.findings.add(kind, "{}: {}", _place(where, frame), error)
            return
        if isinstance(segmentation, list):
            self._check_inside(segmentation, size, _place(where, frame))
        self._waiting.append(_Mask(rle, where, frame, area, box, slack))
        if len(self._waiting) == CHUNK:
            self.flush()

    def _check_inside(self, polygons: list[list[float]], size: tuple[int, int], place: str) -> None:
        height, width = size
        xs = [x for polygon in polygons for x in polygon[::2]]
        ys = [y for polygon in polygons for y in polygon[1::2]]
        # Some tools count from pixel centres, so a coordinate may be off by one.
        if min(xs) < -1 or min(ys) < -1 or max(xs) > width + 1 or max(ys) > height + 1:
            self.findings.add(
                "polygon-outside",
                "{}: x {:g} to {:g}, y {:g} to {:g} in a frame of {}x{} pixels",
                place,
                *(min(xs), max(xs), min(ys), max(ys), width, height),
            )

    def flush(self) -> None:
        """Check what waits."""
        waiting, self._waiting = self._waiting, []
        if not waiting:
            return
        expected = np.array([mask.rle["size"][0] * mask.rle["size"][1] for mask in waiting])
        covered = covered_pixels([mask.rle for mask in waiting])
        for i in np.flatnonzero(covered != expected):
            found = "are not a compressed RLE" if covered[i] < 0 else f"cover {covered[i]} pixels"
            text = "{}: the counts {}, expected {} pixels"
            self.findings.add("rle-coverage", text, waiting[i], found, expected[i])
        sound = [waiting[i] for i in np.flatnonzero(covered == expected)]
        if not sound:
            return
        areas = mask_areas([mask.rle for mask in sound]).tolist()
        boxes = coco_mask.toBbox([mask.rle for mask in sound]).tolist()
        for mask, area, box in zip(sound, areas, boxes, strict=True):
            if not area:
                self.findings.add("empty-mask", "{}", mask)
                continue
            if mask.area is not None and abs(mask.area - area) > mask.slack:
                self._differs(mask, area)
            if mask.box is not None and not _encloses(mask.box, box):
                self.findings.add("box-differs", "{}: box {}, the mask's is {}", mask, mask.box, box)

    def _differs(self, mask: _Mask, area: float) -> None:
        assert mask.area is not None
        difference = abs(mask.area - area) / area
        self.findings.add("area-differs", "{}: {:g} stored, {:g} in the mask", mask, mask.area, area)
        if difference > self._largest_difference:
            self._largest_difference = difference
            self.findings.notes["area-differs"] = f"at most by {100 * difference:.3g} %"


def _encloses(outer: list[float], inner: list[float]) -> bool:
    """Boxes x, y, width, height; one pixel is left to rounding."""
    return (
        outer[0] <= inner[0] + 1
        and outer[1] <= inner[1] + 1
        and outer[0] + outer[2] >= inner[0] + inner[2] - 1
        and outer[1] + outer[3] >= inner[1] + inner[3] - 1
    )


def _perimeter(polygon: list[float]) -> float:
    """Length in pixels: drawing a polygon gives or takes up to half a pixel along its outline."""
    points = list(zip(polygon[::2], polygon[1::2], strict=False))
    return sum(map(math.dist, points, points[1:] + points[:1]))


def _kind_of_fault(segmentation: Any, size: tuple[int, int]) -> str:
    """Which kind of problem it is that ``to_rle`` refuses a segmentation."""
    if isinstance(segmentation, list):
        return "polygon"
    if isinstance(segmentation, dict) and "counts" in segmentation:
        stored = segmentation.get("size")
        if isinstance(stored, list) and stored != list(size):
            return "rle-size"
        if isinstance(stored, list) and isinstance(segmentation["counts"], list):
            return "rle-coverage"
    return "segmentation"

"""Annotations of many stills, as flat arrays.

``instances_train2017.json`` (118,000 images, 860,000 annotations) would be gigabytes as Python objects, and
their reference counts would make every loader worker copy them. So a :class:`VideoRecord` with masks is
made when a still is asked for, from arrays that the workers share.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import overload

import numpy as np

from vistk.data.ytvis import YTVIS, DataError
from vistk.ops.masks import areas as mask_areas
from vistk.ops.masks import to_rle
from vistk.structures import RLE, InstanceAnnotation, VideoRecord


@dataclass(frozen=True, eq=False)
class Polygons:
    """The polygons of all annotations, end to end."""

    coordinates: np.ndarray  # float64: x, y, x, y, ..
    ends: np.ndarray  # int64, one a polygon: where it ends in coordinates
    last: np.ndarray  # int64, one an annotation: where its polygons end in ends

    def of(self, row: int) -> list[list[float]]:
        """Those of one annotation."""
        first, last = (int(self.last[row - 1]) if row else 0), int(self.last[row])
        bounds = [int(self.ends[first - 1]) if first else 0, *self.ends[first:last].tolist()]
        return [self.coordinates[a:b].tolist() for a, b in itertools.pairwise(bounds)]

    def of_rows(self, kept: np.ndarray) -> Polygons:
        """The same without the polygons of annotations that are not ``kept``, ``(n,)`` bool."""
        if kept.all():
            return self
        counts = np.diff(self.last, prepend=0)
        lengths = np.diff(self.ends, prepend=0)
        stay = np.repeat(kept, counts)
        return Polygons(
            self.coordinates[np.repeat(stay, lengths)],
            lengths[stay].cumsum(),
            np.where(kept, counts, 0).cumsum(),
        )


@dataclass(frozen=True, eq=False)
class StillAnnotations:
    """All annotations of a file; one entry each in the arrays, in the file's order."""

    ids: np.ndarray  # int64
    categories: np.ndarray  # int64, ids of the classes to learn; -1 = dropped
    crowds: np.ndarray  # bool
    areas: np.ndarray  # float64, nan where the file has none
    polygons: Polygons
    rles: Mapping[int, RLE]  # of those that are no polygons, crowds for the most part

    def make(self, row: int, height: int, width: int) -> InstanceAnnotation:
        rle = self.rles.get(row) or to_rle(self.polygons.of(row), height, width)
        area = float(self.areas[row])
        return InstanceAnnotation(
            id=int(self.ids[row]),
            category_id=int(self.categories[row]),
            iscrowd=bool(self.crowds[row]),
            segmentations=(rle,),
            areas=(float(mask_areas([rle])[0]) if math.isnan(area) else area,),
        )


@dataclass(frozen=True, eq=False)
class StillRecords(Sequence[VideoRecord]):
    """The stills of a file as one-frame videos, made when asked for. A slice shares all arrays."""

    ids: np.ndarray  # (n,) int64
    sizes: np.ndarray  # (n, 2) int32, height and width
    names: Sequence[str]  # n file names
    rows: np.ndarray  # annotations by still
    first: np.ndarray  # (n + 1,) where the entries of each still begin in rows
    annotations: StillAnnotations
    chosen: np.ndarray = field(repr=False)  # positions in ids, in the order of the sequence

    def __len__(self) -> int:
        return len(self.chosen)

    @overload
    def __getitem__(self, index: int) -> VideoRecord: ...

    @overload
    def __getitem__(self, index: slice) -> StillRecords: ...

    def __getitem__(self, index: int | slice) -> VideoRecord | StillRecords:
        if isinstance(index, slice):
            return replace(self, chosen=self.chosen[index])
        position = int(self.chosen[index])
        height, width = self.sizes[position].tolist()
        rows = self.rows[self.first[position] : self.first[position + 1]].tolist()
        made = tuple(self.annotations.make(row, height, width) for row in rows)
        return VideoRecord(int(self.ids[position]), (self.names[position],), height, width, made)

    def __iter__(self) -> Iterator[VideoRecord]:
        return (self[i] for i in range(len(self)))

    def with_targets(self) -> StillRecords:
        """Those with an annotation that is not a crowd."""
        still_of = np.repeat(np.arange(len(self.ids)), np.diff(self.first))
        counts = np.bincount(still_of[~self.annotations.crowds[self.rows]], minlength=len(self.ids))
        return replace(self, chosen=self.chosen[counts[self.chosen] > 0])


def with_targets(source: YTVIS) -> Sequence[VideoRecord]:
    """The videos that have a frame and an annotated instance that is not a crowd.

    Raises:
        DataError: there is none.
    """
    videos: Sequence[VideoRecord] = source.videos
    if isinstance(videos, StillRecords):
        found: Sequence[VideoRecord] = videos.with_targets()
    else:
        found = [v for v in videos if len(v) and not all(a.iscrowd for a in v.annotations)]
    if not found:
        raise DataError(f"{source.json_path} has no video with an annotated instance, expected at least one")
    return found

"""What the files of an evaluation hold: annotated videos, and predictions."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from vistk.data.ytvis import OCCLUSION_WORDS
from vistk.evaluation.keys import ALL
from vistk.ops.masks import Tube
from vistk.structures import RLE

OCCLUSION_LEVELS = dict(zip(OCCLUSION_WORDS, (0.0, 0.25, 0.75), strict=True))


@dataclass(frozen=True)
class Instance:
    """One annotated instance of a video."""

    category_id: int
    masks: tuple[RLE | None, ...]  # T entries; a vistk.ops.masks.Tube where it comes from a file
    area: float  # pixels, mean over the frames with a non-zero area
    iscrowd: bool
    occlusion: float | None  # 0..1, OVIS score of the instance; None where the file does not say
    areas: tuple[float | None, ...] = ()  # T, pixels: of the file, or of the masks where it has none
    occlusions: tuple[str | None, ...] | None = None  # T words of OVIS; None where the file has none
    # Where it stands in its file, in words, as long as nobody looked at the runs of its masks.
    unchecked: str = field(default="", compare=False, repr=False)

    def check(self, masks: Tube) -> None:
        """Its masks were looked at, and are fit to be compared as they come here."""
        object.__setattr__(self, "masks", masks)
        object.__setattr__(self, "unchecked", "")


@dataclass(frozen=True)
class Video:
    """One video of the ground truth with its instances in the order of the file."""

    id: int
    height: int
    width: int
    num_frames: int
    instances: tuple[Instance, ...]


@dataclass(frozen=True)
class GroundTruth:
    """A checked ground truth file. Videos and categories are sorted by id, as the official code does."""

    source: str
    videos: tuple[Video, ...]
    categories: Mapping[int, str]  # id -> name

    @property
    def has_occlusion(self) -> bool:
        """Whether any instance carries the per-frame occlusion of OVIS."""
        return any(i.occlusion is not None for video in self.videos for i in video.instances)


@dataclass(frozen=True, eq=False)
class Shared:
    """Pixels of a prediction that are of instances, too, counted when its file was read."""

    instances: tuple[Instance, ...]  # G, those of the video
    counted: np.ndarray  # (G,) bool, with which of them
    pixels: np.ndarray  # (G, T) integers


@dataclass(frozen=True)
class Prediction:
    """One entry of a results file."""

    category_id: int
    score: float
    masks: tuple[RLE | None, ...]  # T entries; a vistk.ops.masks.Tube where it comes from a file
    shared: Shared | None = field(default=None, compare=False, repr=False)  # None: not counted yet


@dataclass(frozen=True)
class Results:
    """A checked results file: the predictions of each video, in the order of the file."""

    source: str
    videos: Mapping[int, tuple[Prediction, ...]]  # by video id; videos without predictions are absent
    skipped: Mapping[str, int] = field(default_factory=dict)  # entries left out, by what is wrong with them

    def __len__(self) -> int:
        return sum(len(predictions) for predictions in self.videos.values())


def mean_area(areas: Sequence[float | None]) -> float:
    """Mean over the frames with a non-zero area, in pixels; 0 without any."""
    present = [float(area) for area in areas if area]
    # As the official code has it, to the last digit: ``sum`` adds in another order, and one of its own
    # from Python 3.12 on, so that an instance on the border of a range might be in another one.
    return float(np.mean(present)) if present else 0.0


def mean_occlusion(levels: Sequence[str | None]) -> float | None:
    """OVIS: the mean of the more occluded half of the frames in which the instance is annotated."""
    values = [OCCLUSION_LEVELS[level] for level in levels if level is not None]
    if not values:
        return None
    half = sorted(values, reverse=True)[: math.ceil(len(values) / 2)]
    return sum(half) / len(half)


def distinct(names: Mapping[int, str]) -> dict[int, str]:
    """Category names by id, told apart by the id where need be: reports are keyed by name.

    So are two of one name, and one that is called as all classes together are.
    """
    taken = {ALL, *(name for name, count in Counter(names.values()).items() if count > 1)}
    out = dict(names)
    while clashes := [key for key, name in out.items() if name in taken]:
        for key in clashes:
            out[key] = f"{out[key]} ({key})"
        taken |= {name for name, count in Counter(out.values()).items() if count > 1}
    return out

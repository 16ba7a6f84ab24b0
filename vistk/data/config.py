"""What a data set is called, where it lies and how its clips are made."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from vistk.data.categories import TABLES
from vistk.schema import ConfigError, join


def _expect(config: Any, name: str, fits: bool, expected: str, owner: str = "data") -> None:
    if not fits:
        key = join(owner, name)
        raise ConfigError(f"{key} is {getattr(config, name)}, expected {expected}", key)


@dataclass
class StillsConfig:
    """COCO stills as pseudo clips (as in VITA, arXiv 2206.04403): the same image, moving a little.

    With ``root`` given, they are trained on beside the videos of another data set, each stream in
    batches of its own.
    """

    root: str | None = None  # a COCO folder; null = videos alone
    split: str = "train2017"
    ratio: list[float] = field(default_factory=lambda: [1.0, 0.75])  # batches of stills : of videos
    rotation: float = 15.0  # degrees; an angle within +- this for each frame, in rising order
    copy_paste: float = 0.0  # probability that the instances of another still are pasted in

    def __post_init__(self) -> None:
        positive = len(self.ratio) == 2 and all(0 < part < math.inf for part in self.ratio)
        _expect(self, "ratio", positive, "two positive numbers, of stills and of videos", "data.stills")
        _expect(self, "rotation", 0 <= self.rotation <= 180, "0 to 180 degrees", "data.stills")
        _expect(self, "copy_paste", 0 <= self.copy_paste <= 1, "a number from 0 to 1", "data.stills")


@dataclass
class DataConfig:
    """A data set in the YouTube-VIS format (YouTube-VIS 2019/2021/2022, OVIS, or your own).

    Sizes are in pixels; unless told otherwise, frames keep the size they have on disk. Whatever is
    random is drawn once per clip, so all its frames change alike.
    """

    name: str = "ytvis"
    root: str | None = None
    # Published table (vistk.data.categories) that the files must have; null = whatever they say.
    categories: str | None = None
    train_split: str = "train"
    eval_splits: list[str] = field(default_factory=lambda: ["valid"])

    train_short_sides: list[int] = field(default_factory=list)  # one is drawn a clip; empty = as on disk
    train_max_side: int | None = None  # null = no limit
    test_short_side: int | None = None  # null = as on disk
    test_max_side: int | None = None  # null = no limit

    # Sampled frames lie within +-frame_range of a centre frame; null = anywhere in the video.
    frame_range: int | None = 10
    repeat_frames: bool = False  # draw the others with replacement, as published; false = distinct frames

    hflip: float = 0.5  # probability
    colour_jitter: float = 0.1  # brightness, contrast and saturation are scaled by 1 +- this
    # With this probability a clip is first resized to one of crop_short_sides and a window with
    # sides in crop_range is cut from it (the DETR scheme), then resized as every other clip.
    crop: float = 0.0
    crop_short_sides: list[int] = field(default_factory=lambda: [400, 500, 600])
    crop_range: list[int] = field(default_factory=lambda: [384, 600])
    crop_drift: bool = False  # the window moves in a straight line from the first frame to the last

    # Share of the training videos that is held out and scored, for data whose other ground truth is
    # hidden: the same videos on every machine (vistk.data.holdout). null = none.
    local_split: float | None = None
    stills: StillsConfig = field(default_factory=lambda: StillsConfig())

    num_workers: int = 2

    def __post_init__(self) -> None:
        for name in ("train_max_side", "test_short_side", "test_max_side"):
            side = getattr(self, name)
            _expect(self, name, side is None or side >= 1, "1 or more pixels, or null")
        for name in ("train_short_sides", "crop_short_sides"):
            _expect(self, name, all(side >= 1 for side in getattr(self, name)), "sides of 1 or more pixels")
        for name in ("hflip", "colour_jitter", "crop"):
            _expect(self, name, 0 <= getattr(self, name) <= 1, "a number from 0 to 1")
        _expect(self, "eval_splits", len(self.eval_splits) > 0, "at least one split")
        _expect(self, "frame_range", self.frame_range is None or self.frame_range >= 0, "0 or more, or null")
        _expect(self, "num_workers", self.num_workers >= 0, "0 or more")
        ordered = len(self.crop_range) == 2 and 1 <= self.crop_range[0] <= self.crop_range[1]
        _expect(self, "crop_range", ordered, "a lowest and a highest side, 1 <= lowest <= highest")
        enough = self.crop == 0 or len(self.crop_short_sides) > 0
        _expect(self, "crop_short_sides", enough, "at least one side where data.crop is above 0")
        known = self.categories is None or self.categories in TABLES
        _expect(self, "categories", known, f"one of {', '.join(TABLES)}, or null")
        inside = self.local_split is None or 0 < self.local_split < 1
        _expect(self, "local_split", inside, "a number between 0 and 1, or null")


@dataclass
class _PublishedConfig(DataConfig):
    """Sizes and augmentation of the published training on YouTube-VIS and OVIS (VISAGE, arXiv 2312.04885)."""

    train_short_sides: list[int] = field(
        default_factory=lambda: [320, 352, 392, 416, 448, 480, 512, 544, 576, 608, 640]
    )
    train_max_side: int | None = 768
    test_short_side: int | None = 480
    test_max_side: int | None = 1333
    colour_jitter: float = 0.0
    crop: float = 0.5
    crop_drift: bool = True


@dataclass
class YTVIS2019Config(_PublishedConfig):
    """YouTube-VIS 2019: 40 classes, 2,238 training videos; the ground truth of the others is hidden."""

    name: str = "ytvis2019"
    categories: str | None = "ytvis2019"
    stills: StillsConfig = field(default_factory=lambda: StillsConfig(copy_paste=1.0))


@dataclass
class YTVIS2021Config(_PublishedConfig):
    """YouTube-VIS 2021: 40 classes, others than in 2019, 2,985 training videos."""

    name: str = "ytvis2021"
    categories: str | None = "ytvis2021"


@dataclass
class YTVIS2022Config(_PublishedConfig):
    """YouTube-VIS 2022: that of 2021 and 71 long validation videos, scored apart (vistk.evaluation.parts)."""

    name: str = "ytvis2022"
    categories: str | None = "ytvis2022"


@dataclass
class OVISConfig(_PublishedConfig):
    """OVIS: 25 classes, 607 training videos of crowded scenes, occlusion said frame by frame."""

    name: str = "ovis"
    categories: str | None = "ovis"


@dataclass
class CocoConfig(_PublishedConfig):
    """COCO stills alone, as pseudo clips; of ``stills``, ``rotation`` and ``copy_paste`` count."""

    name: str = "coco"
    train_split: str = "train2017"
    eval_splits: list[str] = field(default_factory=lambda: ["val2017"])
    # Classes to learn: COCO's own, or those of a data set that COCO's are mapped onto.
    classes: str = "coco"

    def __post_init__(self) -> None:
        super().__post_init__()
        _expect(self, "classes", self.classes in TABLES, f"one of {', '.join(TABLES)}")


@dataclass
class SyntheticConfig(DataConfig):
    """The generated benchmark (:mod:`vistk.data.synthetic`). ``root = None``: ``datasets/synthetic/<hash>``.

    A change of any field of the second block makes another data set, with another hash.
    """

    name: str = "synthetic"
    eval_splits: list[str] = field(default_factory=lambda: ["static", "track", "swap", "reenter"])
    frame_range: int | None = None
    colour_jitter: float = 0.0
    num_workers: int = 0  # a small frame is read in half a millisecond

    seed: int = 0
    height: int = 64
    width: int = 96
    frames: int = 12  # a video
    num_stills: int = 12000
    num_train: int = 240
    num_val: int = 32  # clips of each validation split
    min_objects: int = 3
    max_objects: int = 5
    min_size: int = 16  # pixels across
    max_size: int = 27
    same_class: float = 0.9  # probability that an object has the main class of its video
    twins: float = 0.5  # fraction of the stills whose objects all share one interior texture
    speed: float = 2.5  # of crossing objects, pixels a frame from start to end, at most
    min_visible: int = 12  # pixels; with fewer an object counts as absent
    jpeg_quality: int = 95

"""What a data set is called, where it lies and how its clips are made."""

from __future__ import annotations

from dataclasses import dataclass, field

from vistk.schema import ConfigError, join


@dataclass
class DataConfig:
    """A data set in the YouTube-VIS format (YouTube-VIS 2019/2021/2022, OVIS, or your own).

    Sizes are in pixels; unless told otherwise, frames keep the size they have on disk. Whatever is
    random is drawn once per clip, so all its frames change alike.
    """

    name: str = "ytvis"
    root: str | None = None
    train_split: str = "train"
    eval_splits: list[str] = field(default_factory=lambda: ["valid"])

    train_short_sides: list[int] = field(default_factory=list)  # one is drawn a clip; empty = as on disk
    train_max_side: int | None = None  # null = no limit
    test_short_side: int | None = None  # null = as on disk
    test_max_side: int | None = None  # null = no limit

    # Sampled frames lie within +-frame_range of a centre frame; null = anywhere in the video.
    frame_range: int | None = 10

    hflip: float = 0.5  # probability
    colour_jitter: float = 0.1  # brightness, contrast and saturation are scaled by 1 +- this
    # With this probability a clip is first resized to one of crop_short_sides and a window with
    # sides in crop_range is cut from it (the DETR scheme), then resized as every other clip.
    crop: float = 0.0
    crop_short_sides: list[int] = field(default_factory=lambda: [400, 500, 600])
    crop_range: list[int] = field(default_factory=lambda: [384, 600])

    num_workers: int = 2

    def __post_init__(self) -> None:
        for name in ("train_max_side", "test_short_side", "test_max_side"):
            side = getattr(self, name)
            self._expect(name, side is None or side >= 1, "1 or more pixels, or null")
        for name in ("train_short_sides", "crop_short_sides"):
            self._expect(name, all(side >= 1 for side in getattr(self, name)), "sides of 1 or more pixels")
        for name in ("hflip", "colour_jitter", "crop"):
            self._expect(name, 0 <= getattr(self, name) <= 1, "a number from 0 to 1")
        self._expect("eval_splits", len(self.eval_splits) > 0, "at least one split")
        self._expect("frame_range", self.frame_range is None or self.frame_range >= 0, "0 or more, or null")
        self._expect("num_workers", self.num_workers >= 0, "0 or more")
        ordered = len(self.crop_range) == 2 and 1 <= self.crop_range[0] <= self.crop_range[1]
        self._expect("crop_range", ordered, "a lowest and a highest side, 1 <= lowest <= highest")
        enough = self.crop == 0 or len(self.crop_short_sides) > 0
        self._expect("crop_short_sides", enough, "at least one side where data.crop is above 0")

    def _expect(self, name: str, fits: bool, expected: str) -> None:
        if not fits:
            key = join("data", name)
            raise ConfigError(f"{key} is {getattr(self, name)}, expected {expected}", key)


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

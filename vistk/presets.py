"""Published models by name: network, classes, tracker, scoring and, where it is published, training.

What a release does that its paper does not say is part of its preset, each under an option of its own:
``memory_weighting=released`` (the tracker ``visage-released``), ``train.loss.absent_labels=released``,
``data.repeat_frames=true``, ``evaluation.keep_top`` and ``evaluation.rescore``.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vistk.data.categories import TABLES
from vistk.models.segmenter import (
    SegmenterConfig,
    SwinBaseConfig,
    SwinLargeConfig,
    SwinSmallConfig,
    SwinTinyConfig,
)
from vistk.schema import ConfigError
from vistk.structures import ScoringProtocol
from vistk.trackers.registry import get_tracker

SEGMENTERS: Mapping[str, type[SegmenterConfig]] = {
    "r50": SegmenterConfig,
    "swint": SwinTinyConfig,
    "swins": SwinSmallConfig,
    "swinb": SwinBaseConfig,
    "swinl": SwinLargeConfig,
}
"""Segmenters of published models by the name that ``segmenter=`` has for them."""


@dataclass(frozen=True)
class Preset:
    """A published model and how it was tested.

    Attributes:
        name: as ``preset=`` takes it.
        segmenter: key of :data:`SEGMENTERS`.
        data: data set whose classes it knows, a key of :data:`vistk.data.categories.TABLES`.
        tracker: name in the registry of trackers.
        keep_top: predictions kept a video.
        rescore: whether scores are multiplied by the mean mask probability inside the mask.
        test_short_side: shorter side of the frames in testing, pixels.
        training: words of its published training; none where this project does not know it.
    """

    name: str
    segmenter: str
    data: str
    tracker: str
    keep_top: int
    rescore: bool
    test_short_side: int
    training: tuple[str, ...] = ()

    @property
    def categories(self) -> Mapping[int, str]:
        """Name of every category by its id in the data set."""
        return TABLES[self.data]

    @property
    def num_classes(self) -> int:
        return len(self.categories)

    def segmenter_config(self) -> SegmenterConfig:
        """A fresh configuration of the segmenter."""
        return SEGMENTERS[self.segmenter]()

    def tracker_config(self) -> Any:
        """A fresh configuration of the tracker."""
        return get_tracker(self.tracker)[1]

    def protocol(self) -> ScoringProtocol:
        """How its tracks become predictions."""
        return ScoringProtocol(self.keep_top, self.rescore, tuple(sorted(self.categories)))

    def words(self) -> tuple[str, ...]:
        """The words of a configuration that trains and tests this model.

        Where its published training is not known they say ``eval_only=true``, because the defaults of
        ``train`` are those of a small model.

        Not among them, because they depend on the machine: ``weights``, ``data.root``,
        ``data.stills.root`` and ``train.batch_size`` (clips a process; published: 16 over all).
        """
        return (
            f"tracker={self.tracker}",
            f"segmenter={self.segmenter}",
            f"data={self.data}",
            f"data.test_short_side={self.test_short_side}",
            f"evaluation.rows=[{self.tracker}]",
            f"evaluation.keep_top={self.keep_top}",
            f"evaluation.rescore={str(self.rescore).lower()}",
            *(self.training or ("eval_only=true",)),
        )


def _visage(segmenter: str, data: str) -> Preset:
    steps = 20000 if data == "ytvis2019" else 60000
    training = (
        "train=joint",
        f"train.steps={steps}",
        "train.loss.absent_labels=released",
        "data.repeat_frames=true",
    )
    name = f"visage-{segmenter}-{data}"
    return Preset(name, segmenter, data, "visage-released", len(TABLES[data]), True, 480, training)


def _minvis(segmenter: str, data: str) -> Preset:
    side = 360 if segmenter == "r50" else 480
    return Preset(f"minvis-{segmenter}-{data}", segmenter, data, "minvis", 10, False, side)


def _mask2former(segmenter: str) -> Preset:
    return Preset(f"mask2former-{segmenter}-coco", segmenter, "coco", "minvis", 100, True, 800)


_VIDEO_DATA = ("ytvis2019", "ytvis2021", "ytvis2022", "ovis")

PRESETS: Mapping[str, Preset] = {
    preset.name: preset
    for preset in (
        *(_visage(segmenter, data) for segmenter in ("r50", "swinl") for data in _VIDEO_DATA),
        *(_minvis(segmenter, data) for segmenter in ("r50", "swinl") for data in _VIDEO_DATA),
        *(_mask2former(segmenter) for segmenter in SEGMENTERS),
    )
}
"""``{visage,minvis}-{r50,swinl}-{ytvis2019,ytvis2021,ytvis2022,ovis}`` and
``mask2former-{r50,swint,swins,swinb,swinl}-coco``; the models of YouTube-VIS 2022 are those of 2021."""


def get_preset(name: str) -> Preset:
    """A published model by name.

    Raises:
        ConfigError: there is none of that name; names the nearest one.
    """
    if name not in PRESETS:
        near = difflib.get_close_matches(name, PRESETS, n=1, cutoff=0.0)[0]
        raise ConfigError(
            f"no published model is called {name!r}; nearest is {near!r}; known are {', '.join(PRESETS)}"
        )
    return PRESETS[name]

"""Numbers in a tracker's config with which it would run, and be wrong."""

import math
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar

import pytest

from vistk.trackers.base import Range
from vistk.trackers.contract import check_tracker
from vistk.trackers.contract_runs import Subject
from vistk.trackers.identity import Identity
from vistk.trackers.registry import BUILT_IN, get_tracker
from vistk.trackers.tracklet_linking import TrackletLinking

FLOATS = [
    (name, field.name)
    for name in BUILT_IN
    for field in fields(BUILT_IN[name].Config)
    if isinstance(getattr(get_tracker(name)[1], field.name), float)
]
WIDTHS = [name for name in BUILT_IN if hasattr(get_tracker(name)[1], "hidden_dim")]
OF_LOSSES = ("contrast_weight", "auxiliary_weight", "prototype_weight", "similarity_weight")


def build(name: str, **values: object) -> None:
    subject = Subject.of(name)
    replace(subject, config=replace(subject.config, **values)).build()


@pytest.mark.parametrize(("name", "field"), FLOATS)
def test_nan_is_no_number(name: str, field: str) -> None:
    with pytest.raises(ValueError, match=f"{field} is nan, expected"):
        build(name, **{field: math.nan})


@pytest.mark.parametrize("width", [0, -1])
@pytest.mark.parametrize("name", WIDTHS)
def test_a_head_has_a_width(name: str, width: int) -> None:
    with pytest.raises(ValueError, match=f": hidden_dim is {width}, expected 1 or more"):
        build(name, hidden_dim=width)


@pytest.mark.parametrize(("name", "field"), [case for case in FLOATS if case[1] in OF_LOSSES])
def test_losses_are_not_weighed_below_zero_or_without_end(name: str, field: str) -> None:
    for value, expected in ((-0.5, "0 or more"), (math.inf, "a finite number")):
        with pytest.raises(ValueError, match=f": {field} is {value}, expected {expected}"):
            build(name, **{field: value})
    build(name, **{field: 0.0})


def test_a_tracker_of_another_package_need_not_ask_for_nan() -> None:
    @dataclass
    class MineConfig(TrackletLinking.Config):  # type: ignore[name-defined, misc]
        mine: float = math.nan

    class Mine(TrackletLinking):
        Config = MineConfig

    with pytest.raises(ValueError, match="Mine: mine is nan, expected a number"):
        Subject.of(Mine).build()


@dataclass
class MaybeConfig:
    frames: int | None = None


class MaybeFrames(Identity):
    """A whole number or none, searched between two floats, as ``vistk tune`` takes them."""

    Config = MaybeConfig
    association_fields = ("frames",)
    search_space: ClassVar[Any] = {"frames": Range(1.0, 30.0)}

    def __init__(self, config: MaybeConfig, **sizes: Any) -> None:
        super().__init__(config, **sizes)
        self.remembered = list(range(config.frames or 0))


def test_whole_numbers_are_tried_as_whole_numbers() -> None:
    check_tracker(MaybeFrames)

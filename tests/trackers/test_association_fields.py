"""Fields that are said to be of association alone: weights, vectors and losses do not depend on them."""

from __future__ import annotations

import re
from dataclasses import fields, replace
from typing import Any, get_type_hints

import pytest
import torch

from vistk.trackers.contract_runs import Subject, losses_of
from vistk.trackers.contract_videos import make_videos
from vistk.trackers.registry import BUILT_IN, get_tracker, tracker_names

NAMED = [name for name in tracker_names() if get_tracker(name)[0].association_fields]
CASES = [(name, field) for name in NAMED for field in get_tracker(name)[0].association_fields]


def others(subject: Subject, field: str) -> list[Any]:
    """Other values of a field: all choices, or one number."""
    value = getattr(subject.config, field)
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, str):
        with pytest.raises(ValueError, match="expected one of") as raised:
            replace_in(subject, field, "?").build()
        choices = re.search(r"expected one of (.*?);", str(raised.value))
        assert choices is not None
        return [choice for choice in choices[1].split(", ") if choice != value]
    if value is None:
        return [2 if "int" in str(get_type_hints(type(subject.config))[field]) else 0.2]
    if isinstance(value, int):
        return [value + 1]
    return [value / 2 if value else 0.2]


def replace_in(subject: Subject, field: str, value: Any) -> Subject:
    return replace(subject, config=replace(subject.config, **{field: value}))


def test_those_that_matter_are_named() -> None:
    assert {"visage", "oracle"} <= set(NAMED)
    assert set(BUILT_IN["visage"].association_fields) >= {"appearance_weight", "memory_frames"}


@pytest.mark.parametrize("name", NAMED)
def test_they_are_fields(name: str) -> None:
    cls, config = get_tracker(name)
    assert set(cls.association_fields) <= {field.name for field in fields(config)}


@pytest.mark.parametrize(("name", "field"), CASES)
def test_they_change_no_training(name: str, field: str) -> None:
    subject = Subject.of(name)
    videos = make_videos(seed=1)
    here = subject.build().train()
    for value in others(subject, field):
        changed = replace_in(subject, field, value)
        there = changed.build().train()
        assert list(there.state_dict()) == list(here.state_dict())
        for key, tensor in there.state_dict().items():
            assert torch.equal(tensor, here.state_dict()[key]), f"{key} differs with {field}={value}"
        own, again = (tracker.describe(videos.out).vectors for tracker in (here, there))
        assert own.keys() == again.keys()
        assert all(torch.equal(own[vector], again[vector]) for vector in own)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            expected = losses_of(subject, here, videos)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            found = losses_of(changed, there, videos)
        assert expected.keys() == found.keys()
        for loss in expected:
            assert torch.equal(expected[loss], found[loss]), f"{loss} differs with {field}={value}"

"""Fields said to be of association alone: rows that differ in them share one training."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, replace
from typing import Any, get_args, get_type_hints

import torch
from torch import Tensor

from vistk.schema import cast
from vistk.trackers.base import Range, Tracker
from vistk.trackers.contract_runs import Subject, copies, losses_of, require_equal
from vistk.trackers.contract_videos import ContractVideos


def require_known_fields(subject: Subject) -> None:
    """``association_fields`` names fields, and ``search_space`` some of those."""
    of_config = {field.name for field in fields(subject.cls.Config)}
    for what, names, known, of in (
        ("association_fields", subject.cls.association_fields, of_config, "fields of the config"),
        ("search_space", subject.cls.search_space, subject.cls.association_fields, "association_fields"),
    ):
        wrong = sorted(set(names) - set(known))
        subject.require(
            not wrong,
            f"{what} has {', '.join(wrong)}, expected some of the {of}: {', '.join(known) or 'none'}",
        )


def require_same_training(subject: Subject, videos: ContractVideos) -> None:
    """Whatever the values of ``association_fields``: the same weights, vectors and losses."""
    expected = _training(subject, subject.build(), videos)
    for name, value in _other_values(subject.cls, subject.config):
        other = replace(subject, config=replace(subject.config, **{name: value}))
        try:
            tracker = other.build()
        except ValueError:  # a value that does not go with those of the other fields
            continue
        found = _training(other, tracker, videos)
        require_equal(
            subject,
            expected,
            found,
            f"association_fields has {name}, but {name}={value!r} changes the training",
        )


def _training(subject: Subject, tracker: Tracker[Any], videos: ContractVideos) -> dict[str, Tensor]:
    """Weights, what describe() says of clips, and losses."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        with torch.no_grad():
            queries = tracker.describe(videos.out)
            losses = losses_of(subject, tracker.train(), videos)
    return copies({"weight": dict(tracker.state_dict()), "described": queries, "loss": losses})


def _other_values(cls: type[Tracker[Any]], config: Any) -> Iterator[tuple[str, Any]]:
    """Fields and values: both ends of a range, all of a choice, true and false."""
    hints = get_type_hints(type(config))
    for name in cls.association_fields:
        value, space = getattr(config, name), cls.search_space.get(name)
        if isinstance(space, Range):
            whole = float not in {hints[name], *get_args(hints[name])}
            others: list[Any] = [int(x) if whole else x for x in (space.low, space.high)]
        elif space is not None:
            others = [cast(hints[name], x, name) for x in space]
        else:
            others = [False, True] if isinstance(value, bool) else []
        yield from ((name, other) for other in others if other != value)

"""Which trackers describe alike: those of one class with equal weights, whatever their association knobs."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import torch
from torch import nn

from vistk.trackers.base import Tracker

Describers = Mapping[str, Tracker[Any]]
"""Trackers whose ``describe`` is run, by any name."""

DEFAULT_PART = "query"


def shared_describers(trackers: Describers) -> dict[str, str]:
    """For each tracker the name of the first one whose ``describe`` says the same."""
    shared: dict[str, str] = {}
    for name, tracker in trackers.items():
        alike = (shared[other] for other in shared if _describe_alike(trackers[other], tracker))
        shared[name] = next(alike, name)
    return shared


def describer_part(tracker: Tracker[Any]) -> str:
    """A name for what a tracker's ``describe`` says, the same wherever its weights lie and are loaded.

    ``query`` for the ``describe`` that all trackers have, else the class and a hash of its code, settings
    and weights. The code is that of the class: what it calls elsewhere is not looked at.
    """
    cls = type(tracker)
    if cls.describe is Tracker.describe:
        return DEFAULT_PART
    settings = json.dumps(_settings(tracker), sort_keys=True, default=str)
    told = (cls.__module__, cls.__qualname__, _code(cls), settings)
    return f"{cls.__name__.lower()}-{state_hash(tracker, *told)}"


def _code(cls: type[Tracker[Any]]) -> str:
    """The text of a class and of those it derives from; nothing where there is none."""
    return "".join(_text(base) for base in cls.__mro__ if issubclass(base, Tracker) and base is not Tracker)


def _text(cls: type) -> str:
    """The text of a class; of one in a notebook that of its functions, which alone is in reach there."""
    try:
        return inspect.getsource(cls)
    except (OSError, TypeError):
        own = [function for function in vars(cls).values() if inspect.isfunction(function)]
    try:
        return "".join(map(inspect.getsource, own))
    except (OSError, TypeError):
        return ""


def state_hash(module: nn.Module, *texts: str) -> str:
    """Twelve hexadecimal digits of the sha256 of a module's weights, wherever they lie, and of ``texts``."""
    digest = hashlib.sha256(json.dumps(texts).encode())
    for name, value in sorted(module.state_dict().items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()[:12]


def _describe_alike(a: Tracker[Any], b: Tracker[Any]) -> bool:
    if type(a) is not type(b) or _settings(a) != _settings(b):
        return False
    left, right = a.state_dict(), b.state_dict()
    return left.keys() == right.keys() and all(
        left[k].shape == right[k].shape and torch.equal(left[k], right[k]) for k in left
    )


def _settings(tracker: Tracker[Any]) -> dict[str, Any]:
    """The fields of the configuration that ``describe`` may read."""
    config: Any = tracker.config
    names = [f.name for f in fields(config) if f.name not in tracker.association_fields]
    return {name: getattr(config, name) for name in names}

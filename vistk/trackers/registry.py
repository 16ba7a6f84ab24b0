"""Trackers by name: built in, ablations, plug-ins of other packages, and ``module:Class``."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Mapping
from dataclasses import is_dataclass, replace
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from vistk.schema import leaves, to_tree
from vistk.trackers.ablations import ABLATIONS
from vistk.trackers.base import Tracker
from vistk.trackers.cavis import CAVIS
from vistk.trackers.dvis import DVIS
from vistk.trackers.gated_memory import GatedMemory
from vistk.trackers.identity import Identity
from vistk.trackers.idol import IDOL
from vistk.trackers.kalman import Kalman
from vistk.trackers.mask_iou import MaskIoU
from vistk.trackers.minvis import MinVIS
from vistk.trackers.oracle import Oracle
from vistk.trackers.propagation import Propagation
from vistk.trackers.tracklet_linking import TrackletLinking
from vistk.trackers.visage import VISAGE
from vistk.trackers.vita import VITA

GROUP = "vistk.trackers"
"""Entry-point group where other packages name their trackers: ``my-tracker = "my_pkg.tracker:MyTracker"``."""

BUILT_IN: Mapping[str, type[Tracker[Any]]] = {
    "dvis": DVIS,
    "cavis": CAVIS,
    "gated-memory": GatedMemory,
    "identity": Identity,
    "idol": IDOL,
    "kalman": Kalman,
    "mask-iou": MaskIoU,
    "minvis": MinVIS,
    "oracle": Oracle,
    "propagation": Propagation,
    "tracklet-linking": TrackletLinking,
    "visage": VISAGE,
    "vita": VITA,
}


class TrackerNameError(ValueError):
    """A name stands for no tracker, or for more than one."""


def tracker_names() -> tuple[str, ...]:
    """All names that :func:`get_tracker` knows, sorted. Plug-ins are listed without being imported.

    Raises:
        TrackerNameError: two trackers have the same name.
    """
    return tuple(sorted({*BUILT_IN, *ABLATIONS, *_plugins()}))


def get_tracker(name: str) -> tuple[type[Tracker[Any]], Any]:
    """A tracker class and a fresh config.

    Args:
        name: one of :func:`tracker_names`, or ``module:Class`` for a class that is registered nowhere.

    Returns:
        The class, and an instance of its ``Config`` with the field values of the name.

    Raises:
        TrackerNameError: there is no such tracker (names the nearest one), or two have the same name.
    """
    if ":" in name:
        return _load(EntryPoint(name=name, value=name, group=GROUP))
    plugins = _plugins()
    if name in plugins:
        return _load(plugins[name])
    if name in ABLATIONS:
        base, values = ABLATIONS[name]
        return BUILT_IN[base], replace(BUILT_IN[base].Config(), **values)
    if name in BUILT_IN:
        return BUILT_IN[name], BUILT_IN[name].Config()
    names = tracker_names()
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.0)[0]
    raise TrackerNameError(
        f"no tracker is called {name!r}; nearest is {near!r}; known are {', '.join(names)}, or module:Class"
    )


def origin(name: str) -> str:
    """Where a name of :func:`tracker_names` comes from: ``vistk``, ``ablation of visage``, ``my-pkg 0.1``."""
    if name in ABLATIONS:
        return f"ablation of {ABLATIONS[name][0]}"
    point = _plugins().get(name)
    if point is None:
        return "vistk"
    return f"{point.dist.name} {point.dist.version}" if point.dist is not None else point.value


def _plugins() -> dict[str, EntryPoint]:
    """Entry points of the group by name; an installation seen twice on the path counts once."""
    plugins: dict[str, EntryPoint] = {}
    for point in entry_points(group=GROUP):
        if point.name in BUILT_IN or point.name in ABLATIONS:
            raise TrackerNameError(
                f"{_owner(point)} names a tracker {point.name!r}, which is a name of vistk itself; "
                "expected another name"
            )
        other = plugins.setdefault(point.name, point)
        if other.value != point.value:
            raise TrackerNameError(
                f"{_owner(other)} and {_owner(point)} both name a tracker {point.name!r}; "
                "uninstall one of them"
            )
    return plugins


def _owner(point: EntryPoint) -> str:
    return (
        f"the package {point.dist.name!r}" if point.dist is not None else f"the entry point {point.value!r}"
    )


def _load(point: EntryPoint) -> tuple[type[Tracker[Any]], Any]:
    """The class an entry point names, and its config as published.

    An error inside the module itself is passed on as it is.
    """
    module_name, _, class_name = point.value.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise
        raise TrackerNameError(f"tracker {point.name!r}: there is no module {error.name!r}") from error
    cls = getattr(module, class_name.strip(), None)
    if not (isinstance(cls, type) and issubclass(cls, Tracker)):
        raise TrackerNameError(
            f"tracker {point.name!r}: {class_name!r} of {module_name!r} is {cls!r}, "
            "expected a subclass of Tracker"
        )
    config = getattr(cls, "Config", None)
    if not (isinstance(config, type) and is_dataclass(config)):
        raise TrackerNameError(
            f"tracker {point.name!r}: {class_name!r} of {module_name!r} has no dataclass 'Config', "
            "expected one with its settings"
        )
    if missing := sorted(getattr(cls, "__abstractmethods__", ())):
        raise TrackerNameError(
            f"tracker {point.name!r}: {class_name!r} of {module_name!r} does not define {', '.join(missing)}"
        )
    try:
        published = config()
    except TypeError as error:
        raise TrackerNameError(
            f"tracker {point.name!r}: the 'Config' of {class_name!r} cannot be made without arguments "
            f"({error}); expected a default for every field"
        ) from error
    for key, value in leaves(published):
        if not _is_plain(to_tree(value)):
            raise TrackerNameError(
                f"tracker {point.name!r}: {key} in the 'Config' of {class_name!r} is {value!r}, expected "
                "numbers, texts, lists and dicts of these, or null"
            )
    return cls, published


def _is_plain(tree: Any) -> bool:
    """Whether it can be written as yaml and read again."""
    if isinstance(tree, dict):
        return all(map(_is_plain, tree.values()))
    if isinstance(tree, list):
        return all(map(_is_plain, tree))
    return tree is None or isinstance(tree, bool | int | float | str)

"""What every tracker is. :func:`vistk.trackers.contract.check_tracker` tests whether a class keeps to it."""

from __future__ import annotations

import difflib
import math
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Generic, TypeVar

from torch import Tensor, nn

from vistk.structures import (
    ClipTargets,
    FrameOutput,
    FrameQueries,
    Matches,
    ScoringProtocol,
    TrackedFrame,
)

State = TypeVar("State")


@dataclass(frozen=True)
class Range:
    """Numbers that a field is worth trying at, both ends included; whole ones where the field is an int."""

    low: float
    high: float
    log: bool = False  # as many trials from 0.01 to 0.1 as from 0.1 to 1

    def __post_init__(self) -> None:
        if not self.low < self.high or (self.log and self.low <= 0):
            least = "0 < " if self.log else ""
            raise ValueError(f"range {self.low:g}..{self.high:g}, expected {least}low < high")


class TrackerError(ValueError):
    """A tracker cannot use what it was given, or gave what cannot be used; the message says which one."""


class Tracker(nn.Module, ABC, Generic[State]):
    """Links the queries of frames over time.

    :meth:`describe` is learned, needs feature maps, and is batched over frames. :meth:`step` is
    association: sequential, light, and content with what :class:`FrameQueries` holds, so that it can run on
    cached queries. What a tracker remembers of a video lives in the state that :meth:`start` makes,
    never in the module: two streams cannot mix, and ``state_dict()`` holds weights only.

    A subclass names its dataclass in ``Config`` and keeps this constructor, so that whoever knows a name
    can build any tracker.

    Args:
        config: an instance of ``Config``.
        embed_dim: width C of the segmenter's embeddings.
        feature_channels: width of every map of the segmenter, ``{"res2": 256, ..}``.
        num_classes: K, without "no object".

    Raises:
        TypeError: ``config`` is of another class.
        ValueError: a field is NaN, with which all comparisons would be false.
    """

    Config: ClassVar[type]
    """Dataclass of this tracker; every knob of its paper's tables is a field, with the published default."""

    association_fields: ClassVar[Collection[str]] = ()
    """Fields of ``Config`` that :meth:`step` and :meth:`finish` alone read. Whatever their values, weights,
    :meth:`describe` and :meth:`losses` are the same, so that one training serves them all."""

    search_space: ClassVar[Mapping[str, Range | Sequence[Any]]] = {}
    """What is worth trying for ``association_fields``, which ``vistk tune`` does: a :class:`Range`, or the
    values themselves. Beside other entries, fields that are true or false need none."""

    uses_targets: ClassVar[bool] = False
    """Whether :meth:`step` reads ``FrameQueries.targets`` (ground truth)."""

    query_order_matters: ClassVar[bool] = False
    """Whether the order of a frame's queries carries meaning; true of no tracker that looks at content."""

    protocol: ScoringProtocol | None = None
    """How published weights of this tracker are scored; set where they are loaded, None elsewhere."""

    def __init__(
        self, config: Any, *, embed_dim: int, feature_channels: Mapping[str, int], num_classes: int
    ) -> None:
        super().__init__()
        if not isinstance(config, self.Config):
            raise TypeError(
                f"{type(self).__name__}: config is a {type(config).__name__}, expected {self.Config.__name__}"
            )
        _require_numbers(type(self).__name__, config)
        self.config = config
        self.embed_dim = embed_dim
        self.feature_channels = dict(feature_channels)
        self.num_classes = num_classes

    def describe(self, out: FrameOutput) -> FrameQueries:
        """Vectors of every query, frame by frame; a frame's result does not depend on its neighbours.

        Args:
            out: leading dims ``(B, T)``, or none.

        Returns:
            Queries with the leading dims of ``out``; by default ``vectors = {"query": embeddings}``.
        """
        return FrameQueries(out.logits, {"query": out.embeds}, mask_logits=out.mask_logits)

    def propagate(self, previous: FrameQueries) -> Tensor | None:
        """What is added to the segmenter's learned queries at the start of a frame (query propagation).

        A tracker that says something here has its videos segmented for itself alone, frame after frame.
        In training, gradients of its losses come back through the segmenter's transformer decoder.

        Args:
            previous: the frame before, leading dims ``(B,)``, with the segmenter's embeddings as "query".

        Returns:
            ``(B, Q, C)``. By default ``None``: every frame is segmented on its own.
        """
        return None

    @property
    def propagates(self) -> bool:
        """Whether this tracker has a say in the segmenter's queries."""
        return type(self).propagate is not Tracker.propagate

    def losses(
        self, queries: FrameQueries, targets: Sequence[ClipTargets], matches: Matches
    ) -> dict[str, Tensor]:
        """Weighted, named scalars for training; the caller sums them.

        Args:
            queries: from :meth:`describe`, leading dims ``(B, T)``.
            targets: B clips.
            matches: queries of the annotated instances.

        Returns:
            Every trainable parameter must be in the graph of their sum, even where nothing is matched.
        """
        return {}

    @abstractmethod
    def start(self) -> State:
        """The state before the first frame of a new video."""

    @abstractmethod
    def step(self, state: State, frame: FrameQueries) -> TrackedFrame:
        """Link one frame (no leading dims) to the tracks; updates ``state``, never ``frame``."""

    def similarities(self, state: State, frame: FrameQueries) -> dict[str, Tensor]:
        """What :meth:`step` would go by in this frame, to be looked at; changes neither state nor frame.

        One formula: :meth:`step` gets its numbers here, or both get them in one place.

        Returns:
            ``{name: (R, Q)}``, tracks so far by queries, greater is closer; a tracker with costs gives their
            negative. "mixed" is what decides; others are its parts, by the vector they compare ("query",
            "appearance", ..). NaN where a query is not compared at all. Empty before there are tracks, and by
            default, of trackers that do not link by similarity.

        Where rows are slots (:meth:`tracks` is ``None``), :meth:`step` makes the assignment of all slots with
        the greatest sum of "mixed". Who decides otherwise, by thresholds or one after the other, names its
        tracks in :meth:`tracks`.
        """
        return {}

    def tracks(self, state: State) -> Tensor | None:
        """``(R,)`` int64 ids of the rows of :meth:`similarities`; ``None`` where row r is track r."""
        return None

    def finish(self, state: State) -> list[TrackedFrame] | None:
        """After the last frame: ``None``, or all frames anew from a tracker that rewrites the video."""
        return None


def track_video(tracker: Tracker[Any], frames: Iterable[FrameQueries]) -> list[TrackedFrame]:
    """One video from its first frame to its last."""
    state = tracker.start()
    tracked = [tracker.step(state, frame) for frame in frames]
    rewritten = tracker.finish(state)
    return tracked if rewritten is None else rewritten


def check_least(owner: str, config: Any, **least: float) -> None:
    """Raise a ValueError that names the first field below its least value, or infinite; None is fine."""
    for name, low in least.items():
        value = getattr(config, name)
        if value is not None and not low <= value < math.inf:
            expected = "a finite number" if value == math.inf else f"{low} or more"
            raise ValueError(f"{owner}: {name} is {value}, expected {expected}")


def _require_numbers(owner: str, config: Any) -> None:
    for field in fields(config):
        value = getattr(config, field.name)
        if isinstance(value, float) and math.isnan(value):
            raise ValueError(f"{owner}: {field.name} is nan, expected a number")


def check_choice(owner: str, name: str, value: str, choices: Collection[str]) -> None:
    """Raise a ValueError that names the choices, and the nearest one, if ``value`` is none of them."""
    if value not in choices:
        near = difflib.get_close_matches(str(value), choices, n=1, cutoff=0.0)[0]
        raise ValueError(
            f"{owner}: {name} is {value!r}, expected one of {', '.join(choices)}; nearest is {near!r}"
        )

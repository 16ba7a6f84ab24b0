"""How :mod:`vistk.trackers.contract` builds a tracker, runs it and compares what comes out."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch import Tensor

from vistk.ops.assignment import best_assignment
from vistk.ops.masks import areas, encode
from vistk.structures import FinishedMasks, FrameOutput, FrameQueries, TensorStruct, TrackedFrame
from vistk.trackers.base import Tracker, track_video
from vistk.trackers.contract_videos import CLASSES, EMBED_DIM, FEATURE_CHANNELS, ContractVideos
from vistk.trackers.registry import get_tracker

ATOL = 1e-5  # float32; the same sums in another order


class ContractError(AssertionError):
    """A tracker breaks the contract; the message says who, where and how."""


@dataclass(frozen=True)
class Subject:
    """The tracker under test."""

    name: str
    cls: type[Tracker[Any]]
    config: Any

    @classmethod
    def of(cls, tracker: type[Tracker[Any]] | str, config: Any = None) -> Subject:
        """A class, or a name that :func:`vistk.trackers.registry.get_tracker` knows.

        Raises:
            ContractError: the class has no dataclass ``Config``, or one with a field without default.
        """
        if isinstance(tracker, str):
            found, defaults = get_tracker(tracker)
            return cls(tracker, found, defaults if config is None else config)
        published = getattr(tracker, "Config", None)
        if not (isinstance(published, type) and is_dataclass(published)):
            raise ContractError(f"{tracker.__name__}: Config is {published!r}, expected a dataclass")
        if config is None:
            try:
                config = published()
            except TypeError as error:
                raise ContractError(
                    f"{tracker.__name__}: Config() fails: {error}; expected a default for every field"
                ) from error
        return cls(tracker.__name__, tracker, config)

    def build(self, seed: int = 0) -> Tracker[Any]:
        """A tracker in evaluation mode; equal seeds give equal weights. Leaves the global generator alone."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            tracker = self.cls(
                self.config, embed_dim=EMBED_DIM, feature_channels=FEATURE_CHANNELS, num_classes=CLASSES
            )
        return tracker.eval()

    def require(self, holds: bool, message: str) -> None:
        if not holds:
            raise ContractError(f"{self.name}: {message}")


@torch.no_grad()
def described(subject: Subject, tracker: Tracker[Any], out: FrameOutput) -> FrameQueries:
    """What describe() says of clips, looked at; with their masks, which the engine adds where it has none."""
    queries = tracker.describe(out)
    subject.require(
        isinstance(queries, FrameQueries),
        f"describe() returned {type(queries).__name__}, expected FrameQueries",
    )
    wanted = out.logits.shape
    for name, value in (("logits", queries.logits), *queries.vectors.items()):
        fits = isinstance(value, Tensor) and value.ndim == len(wanted) and value.shape[:-1] == wanted[:-1]
        subject.require(
            fits and (name != "logits" or (value.shape == wanted and value.is_floating_point())),
            f"describe() gave {name!r} as {_kind(value)}, expected {'floats of ' * (name == 'logits')}shape "
            f"{_shape(wanted if name == 'logits' else (*wanted[:-1], None))}",
        )
    return replace(queries, mask_logits=out.mask_logits) if queries.mask_logits is None else queries


def frames_of(subject: Subject, tracker: Tracker[Any], videos: ContractVideos) -> list[list[FrameQueries]]:
    return videos.with_targets(described(subject, tracker, videos.out))


def run(subject: Subject, tracker: Tracker[Any], videos: ContractVideos) -> list[list[TrackedFrame]]:
    return [track(subject, tracker, clip) for clip in frames_of(subject, tracker, videos)]


@torch.no_grad()
def track(subject: Subject, tracker: Tracker[Any], frames: Sequence[FrameQueries]) -> list[TrackedFrame]:
    """Track a video and look at every frame of the answer."""
    tracked = track_video(tracker, frames)
    subject.require(
        isinstance(tracked, list), f"finish() returned {type(tracked).__name__}, expected None or a list"
    )
    subject.require(len(tracked) == len(frames), f"{len(frames)} frames came in, {len(tracked)} went out")
    for t, (frame, queries) in enumerate(zip(tracked, frames, strict=True)):
        where = f"in frame {t},"
        subject.require(
            isinstance(frame, TrackedFrame),
            f"{where} step() or finish() gave {type(frame).__name__}, expected TrackedFrame",
        )
        ids, index = frame.track_ids, frame.query_index
        for name, value in (("track_ids", ids), ("query_index", index)):
            subject.require(
                isinstance(value, Tensor) and value.dtype == torch.int64 and value.ndim == 1,
                f"{where} {name} is {_kind(value)}, expected int64 of shape (M,)",
            )
        subject.require(len(ids.unique()) == len(ids), f"{where} track ids are not unique: {ids.tolist()}")
        subject.require(
            bool((ids >= 0).all()), f"{where} track ids are {ids.tolist()}, expected 0 or more: -1 is nobody"
        )
        used = index[index >= 0]
        subject.require(
            bool((index >= -1).all() and (used < queries.num_queries).all()),
            f"{where} query_index is {index.tolist()}, expected -1 to {queries.num_queries - 1}",
        )
        subject.require(
            len(used.unique()) == len(used), f"{where} a query is in two tracks: {index.tolist()}"
        )
        require_logits(subject, frame.logits, (len(ids), CLASSES + 1), f"{where} logits")
        subject.require(
            frame.mask_logits is not None or len(used) == len(index),
            f"{where} a query_index is -1, expected mask_logits for the masks that were made up",
        )
        if frame.mask_logits is not None:
            require_logits(subject, frame.mask_logits, (len(ids), None, None), f"{where} mask_logits")
    return tracked


def require_logits(subject: Subject, value: Tensor, shape: tuple[int | None, ...], where: str) -> None:
    """Finite floats of that shape, in which ``None`` is any number."""
    fits = isinstance(value, Tensor) and value.is_floating_point() and value.ndim == len(shape)
    subject.require(
        fits and all(wanted in (None, n) for n, wanted in zip(value.shape, shape, strict=True)),
        f"{where} are {_kind(value)}, expected floats of shape {_shape(shape)}",
    )
    wrong = int((~value.isfinite()).sum())
    subject.require(not wrong, f"{where} have {wrong} of {value.numel()} values that are not finite")


def _kind(value: Any) -> str:
    """Type and shape, for messages."""
    return f"{value.dtype} {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__


def _shape(shape: Sequence[int | None]) -> str:
    return f"({', '.join('any' if n is None else str(n) for n in shape)})"


def losses_of(subject: Subject, tracker: Tracker[Any], videos: ContractVideos) -> dict[str, Tensor]:
    losses = tracker.losses(tracker.describe(videos.out), videos.targets, videos.matches)
    subject.require(
        isinstance(losses, dict), f"losses() returned {type(losses).__name__}, expected a dict by name"
    )
    for name, loss in losses.items():
        subject.require(
            isinstance(loss, Tensor) and loss.ndim == 0,
            f"loss {name!r} is {_kind(loss)}, expected a tensor without dims",
        )
        subject.require(bool(loss.isfinite()), f"loss {name!r} is {loss.item()}, expected a finite number")
    return losses


def histories(tracked: Sequence[TrackedFrame], objects: Tensor) -> list[list[tuple[int, int]]]:
    """The (frame, object) pairs of every track, without the tracks' names, sorted."""
    tracks: dict[int, list[tuple[int, int]]] = {}
    for t, frame in enumerate(tracked):
        for track, query in zip(frame.track_ids.tolist(), frame.query_index.tolist(), strict=True):
            if query >= 0:
                tracks.setdefault(track, []).append((t, int(objects[t, query])))
    return sorted(tracks.values())


def made_up(tracked: Sequence[TrackedFrame]) -> list[Tensor]:
    """What is said of every track with masks of its own, all frames together, without the tracks' names."""
    tracks: dict[int, list[Tensor]] = {}
    for frame in tracked:
        if frame.mask_logits is None:
            continue
        for i, (track, query) in enumerate(
            zip(frame.track_ids.tolist(), frame.query_index.tolist(), strict=True)
        ):
            if query < 0:
                said = torch.cat([frame.logits[i], frame.mask_logits[i].flatten()])
                tracks.setdefault(track, []).append(said)
    return [torch.cat(said) for said in tracks.values()]


def near(a: Tensor, b: Tensor) -> bool:
    """Whether two tracks say the same, but for rounding in another order of summing."""
    return a.shape == b.shape and torch.allclose(a, b, rtol=1e-3, atol=1e-3)


def written_and_read(frame: FrameQueries) -> FrameQueries:
    """The frame as a cache gives it back: tensors through bytes, masks as run lengths."""
    assert frame.mask_logits is not None
    tensors = {"logits": frame.logits, **{f"vectors.{k}": v for k, v in frame.vectors.items()}}
    read = safetensors.torch.load(
        safetensors.torch.save({key: value.contiguous().clone() for key, value in tensors.items()})
    )
    masks = frame.mask_logits > 0
    rles = encode(masks)
    probability = (frame.mask_logits.double().sigmoid() * masks).sum((1, 2))
    finished = FinishedMasks(
        tuple(rle if area else None for rle, area in zip(rles, areas(rles), strict=True)),
        probability,
        masks.sum((1, 2)).double(),
    )
    vectors = {name: read[f"vectors.{name}"] for name in frame.vectors}
    return replace(frame, logits=read["logits"], vectors=vectors, mask_logits=None, masks=finished)


def copies(value: Any, name: str = "") -> dict[str, Tensor]:
    """Copies of all tensors in a nest of structures, by the way to them: ``vectors.query``."""
    if isinstance(value, Tensor):
        return {name: value.detach().clone()}
    items: Iterable[tuple[Any, Any]] = ()
    if isinstance(value, TensorStruct) and is_dataclass(value):
        items = ((f.name, getattr(value, f.name)) for f in fields(value))
    elif isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list | tuple):
        items = enumerate(value)
    found: dict[str, Tensor] = {}
    for key, item in items:
        found |= copies(item, f"{name}.{key}" if name else str(key))
    return found


def require_equal(
    subject: Subject, before: Mapping[str, Tensor], after: Mapping[str, Tensor], message: str
) -> None:
    """The same tensors with the same values."""
    other = sorted(before.keys() ^ after.keys())
    subject.require(not other, f"{message}: {', '.join(other)} came or went")
    for name, value in before.items():
        subject.require(
            torch.equal(value, after[name]), f"{message}: {name}, {difference(value, after[name])}"
        )


def difference(a: Tensor, b: Tensor) -> str:
    """How far apart two tensors are, for messages."""
    if a.shape != b.shape:
        return f"{tuple(a.shape)} became {tuple(b.shape)}"
    apart = (a.detach().double() - b.detach().double()).abs()
    most = apart.max().item() if apart.numel() else 0.0
    return f"{int((apart != 0).sum())} of {a.numel()} values, by up to {most:.3g}"


def require_same(
    subject: Subject, expected: Sequence[TrackedFrame], found: Sequence[TrackedFrame], message: str
) -> None:
    """Equal ids and queries, close logits and masks."""
    for t, (a, b) in enumerate(zip(expected, found, strict=True)):
        subject.require(
            torch.equal(a.track_ids, b.track_ids) and torch.equal(a.query_index, b.query_index),
            f"{message} (frame {t}: tracks {a.track_ids.tolist()} of queries {a.query_index.tolist()}, then "
            f"{b.track_ids.tolist()} of {b.query_index.tolist()})",
        )
        subject.require(
            torch.allclose(a.logits, b.logits, atol=ATOL),
            f"{message} (frame {t}: other class logits, {difference(a.logits, b.logits)})",
        )
        if a.mask_logits is not None and b.mask_logits is not None:
            subject.require(
                a.mask_logits.shape == b.mask_logits.shape
                and torch.allclose(a.mask_logits, b.mask_logits, atol=ATOL),
                f"{message} (frame {t}: other masks, {difference(a.mask_logits, b.mask_logits)})",
            )


def mutable_parts(value: Any) -> dict[int, str]:
    """Whatever can be written into, all the way down: types of lists, dicts, sets and objects, by identity.

    Tensors and arrays are left out, which may be constants, and so are modules.
    """
    found: dict[int, str] = {}
    waiting, seen = [value], set[int]()
    while waiting:
        value = waiting.pop()
        if id(value) in seen or callable(value) or isinstance(value, torch.Tensor | np.ndarray):
            continue
        seen.add(id(value))
        if isinstance(value, Mapping):
            waiting.extend(value.values())
        elif isinstance(value, Collection) and not isinstance(value, str | bytes):
            waiting.extend(value)
        elif hasattr(value, "__dict__"):
            waiting.extend(vars(value).values())
        else:
            continue
        settings = getattr(value, "__dataclass_params__", None)
        if not (settings and settings.frozen) and not isinstance(value, tuple | frozenset):
            found[id(value)] = type(value).__name__
    return found


def require_similarities(
    subject: Subject, found: Mapping[str, Tensor], ids: Tensor | None, frame: FrameQueries, where: str
) -> None:
    """Names and shapes of what ``Tracker.similarities`` and ``Tracker.tracks`` said."""
    tracks = len(ids) if ids is not None else max((m.shape[0] for m in found.values() if m.ndim), default=0)
    for name, matrix in found.items():
        subject.require(isinstance(name, str), f"{where} similarities() has the key {name!r}, expected a str")
        subject.require(
            matrix.is_floating_point() and tuple(matrix.shape) == (tracks, frame.num_queries),
            f"{where} similarities()[{name!r}] is {matrix.dtype} {tuple(matrix.shape)}, "
            f"expected floats of tracks by queries, {(tracks, frame.num_queries)}",
        )
    subject.require(
        ids is None or (ids.dtype == torch.int64 and ids.ndim == 1 and len(ids.unique()) == len(ids)),
        f"{where} tracks() is {ids}, expected unique int64 ids, or None",
    )


def require_optimal(subject: Subject, mixed: Tensor, tracked: TrackedFrame, where: str) -> None:
    """No other assignment of all slots has a greater sum; nothing can be said of masks that are made up."""
    slots, queries = tracked.track_ids.cpu(), tracked.query_index.cpu()
    if (queries < 0).any():
        return
    mixed = mixed.double().cpu()
    subject.require(
        slots.sort().values.tolist() == list(range(len(mixed))),
        f"{where} step() reports the tracks {slots.tolist()}, expected all of {len(mixed)} slots, "
        "or ids from tracks()",
    )
    found, best = mixed[slots, queries].sum(), mixed[best_assignment(mixed)].sum()
    subject.require(
        bool(found >= best - ATOL * len(mixed)),
        f"{where} the tracks of step() have 'mixed' similarities of {found:.6f} in sum, the best assignment "
        f"{best:.6f}; expected the best, or ids from tracks()",
    )

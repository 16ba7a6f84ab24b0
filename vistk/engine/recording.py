"""The queries of a video as named tensors, and back: what a shard of the cache holds."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from vistk.engine.finishing import FrameMasks, FrameSize, finish_chosen
from vistk.engine.shards import CacheError
from vistk.engine.stored_masks import PackedMasks, join_packed, pack_masks
from vistk.engine.windows import MOST_FRAMES, Window
from vistk.structures import FrameQueries

DTYPES = {"float32": torch.float32, "float16": torch.float16}
MASK_FORMS = ("rle", "logits")
_VECTORS = "vectors."


class NotStoredError(CacheError):
    """Queries that the cache does not take: they are too many, or of a kind that it was not told to take."""


@dataclass(frozen=True)
class Form:
    """How queries are written down."""

    dtype: str  # of DTYPES, for vectors and logits
    masks: str  # of MASK_FORMS
    mask_features: bool  # whether they are taken


@dataclass(frozen=True)
class Recording:
    """A video's queries in tensors, without what was not asked for."""

    size: FrameSize
    masks: dict[str, Tensor]  # finished ones as of pack_masks, or "mask_logits" (T, Q, h, w)
    queries: dict[str, dict[str, Tensor]]  # by describer: "logits" (T, Q, K+1), "vectors.NAME" (T, Q, C), ..


def record(
    windows: Iterable[Window], describers: Iterable[str], form: Form, with_masks: bool = True
) -> Recording:
    """Write down a video, from live windows.

    Args:
        describers: names of those whose queries are wanted.
        with_masks: without, the recording has none, and none are finished.

    Raises:
        NotStoredError: the queries hold mask features, or a number that ``form`` has no place for.
        CacheError: the frames are not of one size, or there are none.
    """
    sizes = set()
    masks: list[dict[str, Tensor]] = []
    queries: dict[str, list[dict[str, Tensor]]] = {name: [] for name in describers}
    for window in windows:
        sizes.add(window.size)
        if with_masks:
            masks.append(_masks_of(window, form))
        for name, parts in queries.items():
            frames = [_tensors(frame[name], name, form) for frame in window.frames]
            parts.append({key: torch.stack([frame[key] for frame in frames]) for key in frames[0]})
        del window  # not to be kept while the next one is segmented
    if len(sizes) != 1:
        raise CacheError(f"a video has frames of {len(sizes)} sizes, expected one")
    joined = {}
    if masks:
        joined = join_packed(masks) if form.masks == "rle" else _joined(masks)
    return Recording(sizes.pop(), joined, {name: _joined(parts) for name, parts in queries.items()})


def replay(recording: Recording) -> Iterator[Window]:
    """The windows of a recorded video; tensors are float32 again, masks are as they were recorded."""
    masks = recording.masks
    packed = None if "mask_logits" in masks else PackedMasks(masks, recording.size)
    count = len(masks["mask_logits"]) if packed is None else len(packed)
    for start in range(0, count, MOST_FRAMES):
        part = slice(start, min(start + MOST_FRAMES, count))
        if packed is None:
            frame_masks = tuple(FrameMasks(logits, recording.size) for logits in masks["mask_logits"][part])
        else:
            frame_masks = packed[part]
        described = {name: _queries(tensors, part) for name, tensors in recording.queries.items()}
        frames = tuple(
            {name: replace(queries[t], masks=mask) for name, queries in described.items()}
            for t, mask in enumerate(frame_masks)
        )
        # They lie in a file: nothing is held that the system could not drop.
        yield Window(start, frames, frame_masks, num_bytes=0)


def _masks_of(window: Window, form: Form) -> dict[str, Tensor]:
    live = [masks for masks in window.masks if isinstance(masks, FrameMasks)]
    if form.masks == "logits":
        logits = torch.stack([masks.mask_logits for masks in live])
        return {"mask_logits": _narrowed(logits, "mask logits", form)}
    finish_chosen((masks, range(len(masks))) for masks in live)
    return pack_masks(window.masks)


def _tensors(queries: FrameQueries, describer: str, form: Form) -> dict[str, Tensor]:
    """Of one frame."""
    tensors = {"logits": _narrowed(queries.logits, "logits", form)}
    for name, vectors in queries.vectors.items():
        tensors[_VECTORS + name] = _narrowed(vectors, f"{name} vectors", form)
    if queries.mask_features is not None:
        if not form.mask_features:
            megabytes = queries.mask_features.nbytes / 1e6
            raise NotStoredError(
                f"row {describer} predicts masks anew from mask features, {megabytes:.1f} MB a frame, which "
                "are stored only with cache.mask_features=true"
            )
        tensors["mask_features"] = _narrowed(queries.mask_features, "mask features", form)
    return tensors


def _narrowed(values: Tensor, what: str, form: Form) -> Tensor:
    values = values.detach().cpu()
    narrow = values.to(DTYPES[form.dtype])
    if not torch.equal(narrow.isfinite(), values.isfinite()):
        raise NotStoredError(
            f"{what} of up to {values.abs().max():.3g} do not fit into {form.dtype}; say cache.dtype=float32"
        )
    return narrow


def _joined(parts: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    return {key: torch.cat([part[key] for part in parts]) for key in parts[0]} if parts else {}


def _queries(tensors: Mapping[str, Tensor], frames: slice) -> list[FrameQueries]:
    """Of every frame, without its masks."""
    wide = {key: value[frames].float().unbind() for key, value in tensors.items()}
    vectors = {key.removeprefix(_VECTORS): value for key, value in wide.items() if key.startswith(_VECTORS)}
    features = wide.get("mask_features")
    return [
        FrameQueries(
            logits,
            {name: value[t] for name, value in vectors.items()},
            mask_features=None if features is None else features[t],
        )
        for t, logits in enumerate(wide["logits"])
    ]

"""The types that flow through the toolkit, from a data set's record to a results file.

Shape letters, used in every field comment and docstring:
``B`` clips, ``T`` frames, ``Q`` queries, ``N`` annotated instances, ``K`` classes, ``C`` channels,
``H W`` image size, ``h w`` size of the mask logits (stride 4 unless the segmenter says otherwise),
``M`` tracks reported in a frame.

All types are frozen. Tensors that arrive in them are read, never written: whoever wants another
value builds another object with :func:`dataclasses.replace`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor

RLE = dict[str, Any]
"""A COCO run-length encoding: ``{"size": [H, W], "counts": str}`` (compressed, counts as ``str``)."""


@dataclass(frozen=True)
class InstanceAnnotation:
    """One annotated instance of a video, as a YouTube-VIS json holds it.

    The per-frame sequences have one entry a frame, ``None`` where the instance is absent.
    ``segmentations`` are compressed RLE whatever the file's encoding: the reader converts and checks.
    """

    id: int
    category_id: int  # id in the data set, not a contiguous label
    iscrowd: bool
    segmentations: tuple[RLE | None, ...]
    areas: tuple[float | None, ...]  # pixels
    occlusion: tuple[str | None, ...] | None = None  # OVIS: no_, slight_, severe_occlusion


@dataclass(frozen=True)
class VideoRecord:
    """One video of a data set. Holds names and encodings, never decoded pixels."""

    video_id: int
    file_names: tuple[str, ...]  # T names, relative to the image folder of the data set
    height: int
    width: int
    annotations: tuple[InstanceAnnotation, ...] = ()

    def __len__(self) -> int:
        return len(self.file_names)


Movable = TypeVar("Movable", bound="TensorStruct")


def _map_tensors(value: Any, fn: Any) -> Any:
    if isinstance(value, Tensor):
        return fn(value)
    if isinstance(value, TensorStruct):
        return value.map(fn)
    if isinstance(value, Mapping):
        return {key: _map_tensors(item, fn) for key, item in value.items()}
    if isinstance(value, tuple):
        return tuple(_map_tensors(item, fn) for item in value)
    return value


class TensorStruct:
    """Moves all tensors of a frozen dataclass at once."""

    def map(self: Movable, fn: Any) -> Movable:
        """A copy with ``fn`` applied to every tensor, nested ones included."""
        values = {f.name: _map_tensors(getattr(self, f.name), fn) for f in fields(self)}  # type: ignore[arg-type]
        return replace(self, **values)  # type: ignore[type-var]

    def to(self: Movable, device: torch.device | str, non_blocking: bool = False) -> Movable:
        return self.map(lambda x: x.to(device, non_blocking=non_blocking))

    def pin_memory(self: Movable) -> Movable:
        return self.map(lambda x: x.pin_memory())

    def detach(self: Movable) -> Movable:
        return self.map(lambda x: x.detach())


@dataclass(frozen=True)
class ClipTargets(TensorStruct):
    """Ground truth of one training clip. Labels are never "no object": absence is ``visible``."""

    labels: Tensor  # (N,) int64, contiguous classes 0..K-1
    visible: Tensor  # (N, T) bool
    masks: Tensor  # (N, T, H, W) bool

    def __post_init__(self) -> None:
        n = len(self.labels)
        if self.visible.shape[0] != n or self.masks.shape[:2] != self.visible.shape:
            raise ValueError(
                f"ClipTargets: labels {tuple(self.labels.shape)}, visible {tuple(self.visible.shape)} and "
                f"masks {tuple(self.masks.shape)} disagree; expected (N,), (N, T) and (N, T, H, W)"
            )


@dataclass(frozen=True)
class ClipBatch(TensorStruct):
    """A batch of clips, padded at the bottom and right to one size."""

    images: Tensor  # (B, T, 3, H, W) uint8, RGB
    valid_size: Tensor  # (B, 2) int64, height and width before padding
    targets: tuple[ClipTargets, ...]  # B entries, masks padded as the images

    def __post_init__(self) -> None:
        if self.images.ndim != 5 or self.images.shape[0] != len(self.valid_size):
            raise ValueError(
                f"ClipBatch: images {tuple(self.images.shape)} and valid_size "
                f"{tuple(self.valid_size.shape)}; expected (B, T, 3, H, W) and (B, 2)"
            )


@dataclass(frozen=True)
class Matches(TensorStruct):
    """Matching of queries to ground truth (training), frame by frame."""

    query_index: tuple[Tensor, ...]  # B entries of (N, T) int64; -1 where an instance is not matched


@dataclass(frozen=True)
class LayerOutput(TensorStruct):
    """Predictions after one decoder layer; leading dims as in :class:`FrameOutput`.

    Masks are linear in the mask features, and are not made until somebody asks for them: the losses
    need those of matched queries, and those of the others at some points only.
    """

    logits: Tensor  # (.., Q, K+1), last class = no object
    mask_embeds: Tensor  # (.., Q, C)

    def mask_logits(self, mask_features: Tensor) -> Tensor:
        """``(.., Q, h, w)`` masks of all queries, from a frame's ``mask_features`` (.., C, h, w)."""
        return torch.einsum("...qc,...chw->...qhw", self.mask_embeds, mask_features)


@dataclass(frozen=True)
class FrameOutput(TensorStruct):
    """What the segmenter says of frames. Leading dims are ``(B, T)``, or none in a stream."""

    logits: Tensor  # (.., Q, K+1), last class = no object
    mask_logits: Tensor  # (.., Q, h, w)
    embeds: Tensor  # (.., Q, C), decoder_norm of the last layer's queries
    mask_features: Tensor  # (.., C, h, w)
    # Maps {name: (.., C_l, H_l, W_l)}: the backbone's res2 .. res5, the pixel decoder's pixel3 .. pixel5.
    features: Mapping[str, Tensor]
    aux: tuple[LayerOutput, ...] = ()  # training only: initial queries, then every layer but the last
    dense_logits: Tensor | None = None  # (.., K+1, h, w) per-pixel classes, where the segmenter has that head

    def __getitem__(self, index: Any) -> FrameOutput:
        """Index the leading dims, e.g. ``out[0, 3]`` for frame 3 of clip 0."""
        return self.map(lambda x: x[index])


class FinishedMask(NamedTuple):
    """The mask of one query, and what rescoring needs of its probabilities."""

    rle: RLE | None  # None = empty mask, or not kept
    probability_sum: float  # sum of sigmoid(mask_logits) over the mask's pixels
    area: float  # number of those pixels, at the resolution of probability_sum


class Masks(Protocol):
    """Masks of a frame's Q queries at output size, finished by now or when asked for.

    The final pixels of a mask do not depend on the track that the mask joins. So up-sampling,
    cropping and thresholding can be done once per query and frame, and a video-level mean of the
    mask probability inside the mask needs only two sums.
    """

    @property
    def rles(self) -> tuple[RLE | None, ...]: ...  # Q entries

    @property
    def probability_sum(self) -> Tensor: ...  # (Q,) float64

    @property
    def area(self) -> Tensor: ...  # (Q,) float64

    def __len__(self) -> int: ...

    def __getitem__(self, query: int) -> FinishedMask: ...


@dataclass(frozen=True)
class FinishedMasks:
    """:class:`Masks` that are finished, all of them; fields as in :class:`FinishedMask`."""

    rles: tuple[RLE | None, ...]  # Q entries
    probability_sum: Tensor  # (Q,) float64
    area: Tensor  # (Q,) float64

    def __len__(self) -> int:
        return len(self.rles)

    def __getitem__(self, query: int) -> FinishedMask:
        return FinishedMask(self.rles[query], float(self.probability_sum[query]), float(self.area[query]))


@dataclass(frozen=True)
class FrameTargets(TensorStruct):
    """Ground truth of one frame, for trackers that are given it (the oracle)."""

    instance_ids: Tensor  # (N,) int64, ids of the instances visible in this frame
    labels: Tensor  # (N,) int64
    masks: tuple[RLE, ...]  # N masks at output size


@dataclass(frozen=True)
class FrameQueries(TensorStruct):
    """What lies between ``describe`` and ``step``: small enough to cache on disk.

    Masks are live (``mask_logits``), at output size (``masks``: finished, or when asked for), or both.
    ``Tracker.describe`` works on leading dims ``(B, T)``; ``Tracker.step`` is given one frame without
    leading dims.
    """

    logits: Tensor  # (.., Q, K+1)
    vectors: Mapping[str, Tensor]  # {name: (.., Q, C)}
    mask_logits: Tensor | None = None  # (.., Q, h, w)
    masks: Masks | None = None  # one frame only
    mask_features: Tensor | None = None  # (.., C, h, w), for trackers that predict masks anew
    targets: FrameTargets | None = None  # for trackers with uses_targets = True

    def __getitem__(self, index: Any) -> FrameQueries:
        """Index the leading dims, e.g. ``queries[0, 3]`` for frame 3 of clip 0."""
        return self.map(lambda x: x[index])

    @property
    def num_queries(self) -> int:
        return self.logits.shape[-2]


@dataclass(frozen=True)
class TrackedFrame:
    """A tracker's answer for one frame: which track each reported query belongs to."""

    track_ids: Tensor  # (M,) int64, 0 or more, unique in the frame
    query_index: Tensor  # (M,) int64, query of this frame; -1 where the tracker made up the masks
    logits: Tensor  # (M, K+1), class logits of the track in this frame
    mask_logits: Tensor | None = None  # (M, h, w); None = the masks of the queries, as they came in

    def __post_init__(self) -> None:
        m = len(self.track_ids)
        if len(self.query_index) != m or len(self.logits) != m:
            raise ValueError(
                f"TrackedFrame: {m} track_ids, {len(self.query_index)} query indices and "
                f"{len(self.logits)} logits; expected one of each per track"
            )


@dataclass(frozen=True)
class Tracklet:
    """One track with a class, a video-level score and its masks at the size of the video."""

    track_id: int
    label: int  # contiguous class 0..K-1
    score: float  # 0..1
    segmentations: tuple[RLE | None, ...]  # T entries


@dataclass(frozen=True)
class ScoringProtocol:
    """How tracks of a video become scored predictions."""

    keep_top: int = 10  # predictions kept a video
    rescore: bool = True  # multiply scores by the mean mask probability inside the mask
    category_ids: tuple[int, ...] = ()  # data-set id of each label; empty = label + 1


@dataclass(frozen=True)
class VideoPrediction:
    """The tracklets of one video."""

    video_id: int
    tracklets: tuple[Tracklet, ...]
    category_ids: Sequence[int] = field(default=())  # data-set id of each label; empty = label + 1

    def to_ytvis(self) -> list[dict[str, Any]]:
        """Entries of a YouTube-VIS results file, with the category ids of the data set."""
        return [
            {
                "video_id": self.video_id,
                "score": tracklet.score,
                "category_id": self.category_ids[tracklet.label] if self.category_ids else tracklet.label + 1,
                "segmentations": [rle and dict(rle) for rle in tracklet.segmentations],
            }
            for tracklet in self.tracklets
        ]

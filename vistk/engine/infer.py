"""Inference: windows of frames through the segmenter, frames one by one through the trackers."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from vistk.models.segmenter import Segmenter
from vistk.ops.masks import encode
from vistk.schema import require_at_least
from vistk.structures import (
    RLE,
    FinishedMasks,
    FrameQueries,
    FrameTargets,
    ScoringProtocol,
    TrackedFrame,
    Tracklet,
    VideoPrediction,
)
from vistk.trackers.base import Tracker


@dataclass
class EvalConfig:
    """Inference and scoring. The table's card repeats what changes its numbers."""

    rows: list[str] = field(
        default_factory=lambda: [
            "identity",
            "mask-iou",
            "minvis",
            "visage",
            "visage-no-memory",
            "visage-no-appearance",
            "visage-appearance-only",
            "oracle",
        ]
    )
    window: int = 30  # frames through the segmenter at once
    # Predictions kept a video; published: MinVIS 10, VISAGE the number of classes.
    keep_top: int = ScoringProtocol.keep_top
    # Multiply scores by the mean mask probability inside the mask; published: VISAGE, not MinVIS.
    rescore: bool = ScoringProtocol.rescore
    track_score: float = 0.1  # tracks below this video score are left out of AssA and IDF1

    def __post_init__(self) -> None:
        require_at_least("evaluation", self, window=1, keep_top=1, track_score=0)


@dataclass(frozen=True)
class FrameSize:
    """Sizes of a frame on its way through the network, ``(height, width)`` in pixels."""

    network: tuple[int, int]  # resized and padded
    resized: tuple[int, int]  # resized, before padding
    output: tuple[int, int]  # of the masks asked for


def finish_masks(mask_logits: Tensor, size: FrameSize) -> FinishedMasks:
    """Masks of one frame at output size, and the sums that rescoring needs.

    As published: bilinear to the network's size, crop the padding, bilinear to the output size, > 0.
    The mask probability is summed at the resized size, before the last step.

    Args:
        mask_logits: ``(Q, h, w)``.
    """
    logits = F.interpolate(mask_logits[None].float(), size=size.network, mode="bilinear", align_corners=False)
    logits = logits[..., : size.resized[0], : size.resized[1]]
    inside = logits[0] > 0
    probability_sum = (logits[0].sigmoid() * inside).flatten(1).sum(1, dtype=torch.float64)
    area = inside.flatten(1).sum(1, dtype=torch.float64)
    if size.output != size.resized:
        logits = F.interpolate(logits, size=size.output, mode="bilinear", align_corners=False)
    masks = logits[0] > 0
    filled = masks.flatten(1).any(1).tolist()
    rles = tuple(rle if some else None for rle, some in zip(encode(masks), filled, strict=True))
    return FinishedMasks(rles, probability_sum.cpu(), area.cpu())


def segment_video(
    segmenter: Segmenter,
    describers: Mapping[str, Tracker],
    frames: Sequence[Callable[[], Tensor]],
    output_size: tuple[int, int],
    window: int,
    device: torch.device,
) -> Iterator[tuple[dict[str, FrameQueries], FrameSize]]:
    """The queries of every frame of a video, in order, masks finished, and the sizes of the frame.

    Args:
        describers: trackers whose ``describe`` is run, by any name; the yielded dicts have these keys.
        frames: T functions that give a frame ``(3, H, W)`` uint8 at test size; called one window at a time.
        output_size: height and width of the finished masks.
        window: frames a pass.
    """
    for first in range(0, len(frames), window):
        images = torch.stack([read() for read in frames[first : first + window]]).to(device)
        yield from _segment_window(segmenter, describers, images, output_size)


@torch.inference_mode()
def _segment_window(
    segmenter: Segmenter, describers: Mapping[str, Tracker], images: Tensor, output_size: tuple[int, int]
) -> list[tuple[dict[str, FrameQueries], FrameSize]]:
    """Finished queries of the frames of one window ``(T, 3, H, W)``; not a generator, see the decorator."""
    out = segmenter(images[None])
    described = {
        name: replace(tracker.describe(out), mask_logits=None).to("cpu")
        for name, tracker in describers.items()
    }
    h, w = out.mask_logits.shape[-2:]
    stride = segmenter.backbone.strides["res2"]
    size = FrameSize((h * stride, w * stride), (images.shape[-2], images.shape[-1]), output_size)
    frames = []
    for t in range(len(images)):
        masks = finish_masks(out.mask_logits[0, t], size)
        frames.append(
            ({name: replace(queries[0, t], masks=masks) for name, queries in described.items()}, size)
        )
    return frames


class VideoScores:
    """Gathers a tracker's answers over a video and turns them into scored tracklets.

    Holds, for each track, the sum of its logits, two sums for rescoring and its RLEs: what the result
    needs and nothing that grows with the image size.
    """

    def __init__(self, num_frames: int) -> None:
        self.num_frames = num_frames
        self.logits: dict[int, Tensor] = {}
        self.counts: dict[int, int] = {}
        self.probability: dict[int, float] = {}
        self.area: dict[int, float] = {}
        self.rles: dict[int, dict[int, RLE]] = {}

    def add(self, t: int, frame: TrackedFrame, masks: FinishedMasks, size: FrameSize) -> None:
        """Record frame ``t``; ``masks`` are those that ``frame.query_index`` points into.

        A tracker that predicts masks anew gives its own ``mask_logits``, which are finished here.
        """
        logits = frame.logits.double().cpu()
        indices: Sequence[int] = frame.query_index.tolist()
        if frame.mask_logits is None and min(indices, default=0) < 0:
            raise ValueError("a tracked frame has query_index -1, but no mask_logits of its own")
        if frame.mask_logits is not None:
            masks, indices = finish_masks(frame.mask_logits, size), range(len(indices))
        for row, (track, query) in enumerate(zip(frame.track_ids.tolist(), indices, strict=True)):
            if track not in self.logits:
                self.logits[track] = torch.zeros_like(logits[row])
                self.counts[track], self.probability[track], self.area[track] = 0, 0.0, 0.0
                self.rles[track] = {}
            self.logits[track] = self.logits[track] + logits[row]
            self.counts[track] += 1
            self.probability[track] += float(masks.probability_sum[query])
            self.area[track] += float(masks.area[query])
            if (rle := masks.rles[query]) is not None:
                self.rles[track][t] = rle

    def tracklets(self, keep_top: int, rescore: bool) -> tuple[Tracklet, ...]:
        """The ``keep_top`` best (track, class) pairs by the softmax of the mean logits.

        A track may be kept under several classes, as published. Rescoring multiplies by the mean mask
        probability inside the mask, over all frames of the video.
        """
        if not self.logits:
            return ()
        tracks = sorted(self.logits)
        mean = torch.stack([self.logits[track] / self.counts[track] for track in tracks])
        scores = mean.softmax(-1)[:, :-1]  # (M, K)
        best, index = scores.flatten().topk(min(keep_top, scores.numel()))
        kept = []
        for score, i in zip(best.tolist(), index.tolist(), strict=True):
            row, label = divmod(i, scores.shape[1])
            track = tracks[row]
            if rescore:
                score *= self.probability[track] / max(self.area[track], 1.0)
            rles = tuple(self.rles[track].get(t) for t in range(self.num_frames))
            if any(rle is not None for rle in rles):
                kept.append(Tracklet(track, label, float(score), rles))
        return tuple(sorted(kept, key=lambda tracklet: -tracklet.score))


class VideoTracker:
    """One tracker at work on one video: its state and its growing result."""

    def __init__(self, tracker: Tracker, num_frames: int, config: EvalConfig) -> None:
        self.tracker = tracker
        self.config = config
        self.state = tracker.start()
        self.scores = VideoScores(num_frames)
        self.t = 0
        # Only a tracker that may rewrite the video needs the masks of all its queries until the end.
        self.rewrites = type(tracker).finish is not Tracker.finish
        self.masks: list[tuple[FinishedMasks, FrameSize]] = []
        self.seconds = 0.0
        self.identical = 0  # frames in which every track kept the query slot of its number

    @torch.inference_mode()
    def step(self, queries: FrameQueries, size: FrameSize, targets: FrameTargets | None) -> None:
        """Feed the next frame, masks finished; ground truth reaches only trackers that ask for it."""
        masks = queries.masks
        if masks is None:
            raise ValueError("VideoTracker.step wants finished masks (FrameQueries.masks)")
        started = time.perf_counter()
        if self.tracker.uses_targets:
            queries = replace(queries, targets=targets)
        tracked = self.tracker.step(self.state, queries)
        self.identical += int(torch.equal(tracked.track_ids, tracked.query_index))
        self.scores.add(self.t, tracked, masks, size)
        self.t += 1
        if self.rewrites:
            self.masks.append((masks, size))
        self.seconds += time.perf_counter() - started

    @torch.inference_mode()
    def finish(self) -> tuple[Tracklet, ...]:
        """Scored tracklets of the video; an offline tracker may first rewrite all frames."""
        started = time.perf_counter()
        rewritten = self.tracker.finish(self.state)
        if rewritten is not None:
            self.scores = VideoScores(self.scores.num_frames)
            for t, (frame, (masks, size)) in enumerate(zip(rewritten, self.masks, strict=True)):
                self.scores.add(t, frame, masks, size)
        kept = self.scores.tracklets(self.config.keep_top, self.config.rescore)
        self.seconds += time.perf_counter() - started
        return kept


@dataclass(frozen=True)
class TrackedVideo:
    """What one tracker made of one video."""

    prediction: VideoPrediction
    num_frames: int
    identical: int  # frames in which every track kept the query slot of its number
    segment_seconds: float  # reading, segmenting, describing; shared by all trackers of the pass
    track_seconds: float  # this tracker's association


def track_video(
    segmenter: Segmenter,
    trackers: Mapping[str, Tracker],
    frames: Sequence[Callable[[], Tensor]],
    output_size: tuple[int, int],
    config: EvalConfig,
    device: torch.device,
    video_id: int = 1,
    category_ids: Sequence[int] = (),
    targets: Sequence[FrameTargets] | None = None,
) -> dict[str, TrackedVideo]:
    """Segment a video once and link it with every tracker.

    Trackers of one class with equal weights share ``describe``: association knobs do not change it.

    Args:
        frames, output_size: see :func:`segment_video`.
        video_id, category_ids: carried into the predictions.
        targets: ground truth of the T frames, for trackers that ask for it.

    Returns:
        A result for each name in ``trackers``.
    """
    describer_of = _shared_describers(trackers)
    describers = {name: trackers[name] for name in sorted(set(describer_of.values()))}
    workers = {name: VideoTracker(tracker, len(frames), config) for name, tracker in trackers.items()}
    started = time.perf_counter()
    for t, (queries, size) in enumerate(
        segment_video(segmenter, describers, frames, output_size, config.window, device)
    ):
        for name, worker in workers.items():
            worker.step(queries[describer_of[name]], size, targets[t] if targets else None)
    predictions = {
        name: VideoPrediction(video_id, worker.finish(), category_ids) for name, worker in workers.items()
    }
    association = sum(worker.seconds for worker in workers.values())
    segmentation = time.perf_counter() - started - association
    return {
        name: TrackedVideo(
            prediction, len(frames), workers[name].identical, segmentation, workers[name].seconds
        )
        for name, prediction in predictions.items()
    }


def _shared_describers(trackers: Mapping[str, Tracker]) -> dict[str, str]:
    """For each tracker the name of the first one of its class with the same weights."""
    shared: dict[str, str] = {}
    for name, tracker in trackers.items():
        shared[name] = name
        for other in list(shared):
            if (
                other != name
                and type(trackers[other]) is type(tracker)
                and _same_weights(trackers[other], tracker)
            ):
                shared[name] = shared[other]
                break
    return shared


def _same_weights(a: Tracker, b: Tracker) -> bool:
    state_a, state_b = a.state_dict(), b.state_dict()
    return state_a.keys() == state_b.keys() and all(
        state_a[k].shape == state_b[k].shape and torch.equal(state_a[k], state_b[k]) for k in state_a
    )

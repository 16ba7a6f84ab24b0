"""Only the masks of kept tracks are finished, and nothing else stays: the result is that of finishing all."""

from __future__ import annotations

import gc
import time
import tracemalloc
from dataclasses import dataclass, replace
from functools import partial

import pytest
import torch
from stub_segmenter import StubSegmenter, random_stub

from vistk.engine import finishing, infer, video_tracker
from vistk.engine.infer import track_video
from vistk.engine.scores import VideoScores
from vistk.engine.video_tracker import EvalConfig
from vistk.engine.windows import segment_windows
from vistk.structures import FinishedMasks, FrameTargets, TrackedFrame
from vistk.trackers.base import Tracker
from vistk.trackers.identity import Identity
from vistk.trackers.mask_iou import MaskIoU
from vistk.trackers.minvis import MinVIS
from vistk.trackers.oracle import Oracle

CPU = torch.device("cpu")
OUTPUT = (23, 31)


@dataclass
class Config:
    pass


class Births(Tracker[list]):
    """Every frame, the queries take new tracks but for those of even number, which go on."""

    Config = Config

    def start(self):
        return [100]

    def step(self, state, frame):
        ids = [q if q % 2 == 0 else state[0] + q for q in range(frame.num_queries)]
        state[0] += frame.num_queries
        return TrackedFrame(torch.tensor(ids), torch.arange(frame.num_queries), frame.logits)


class Anew(Identity):
    """Says the masks of every other frame anew."""

    def step(self, state, frame):
        tracked = super().step(state, frame)
        if frame.logits.sum() > 0:
            return tracked
        masks = torch.linspace(-1, 1, 35).view(1, 5, 7) * torch.ones(frame.num_queries, 1, 1)
        nowhere = torch.full_like(tracked.query_index, -1)
        return TrackedFrame(tracked.track_ids, nowhere, frame.logits, masks)


class Backwards(Tracker[list]):
    """Offline: in the end, the order of the queries is turned round in every frame."""

    Config = Config

    def start(self):
        return []

    def step(self, state, frame):
        assert isinstance(frame.masks, FinishedMasks)  # it keeps the frame, so no logits may hang on it
        state.append(frame)
        ids = torch.arange(frame.num_queries)
        return TrackedFrame(ids, ids, frame.logits)

    def finish(self, state):
        ids = torch.arange(state[0].num_queries)
        return [TrackedFrame(ids, ids.flip(0), frame.logits.flip(0)) for frame in state]


def tracker_of(cls):
    return cls(cls.Config(), embed_dim=8, feature_channels={"res2": 3}, num_classes=3).eval()


TRACKERS = {
    cls.__name__: tracker_of(cls) for cls in (Identity, MinVIS, MaskIoU, Oracle, Births, Anew, Backwards)
}


def frames_of(segmenter, tracker):
    """Queries and size of every frame, which passes alone."""
    for window in segment_windows(segmenter, {"x": tracker}, segmenter.frames(), OUTPUT, 1, CPU):
        yield window.frames[0]["x"], window.size


def targets_of(segmenter):
    """The first two queries of every frame are annotated."""
    return [
        FrameTargets(torch.tensor([3, 8]), torch.tensor([0, 1]), queries.masks.rles[:2])
        for queries, _ in frames_of(segmenter, TRACKERS["MinVIS"])
    ]


def track(segmenter, names, window=None, keep_top=4, targets=None):
    config = EvalConfig(window=window, keep_top=keep_top)
    trackers = {name: TRACKERS[name] for name in names}
    frames = segmenter.frames()
    return track_video(segmenter, trackers, frames, OUTPUT, config, CPU, targets=targets)


def all_finished(segmenter, name, keep_top, targets):
    """Tracklets with the masks of all queries finished frame by frame, and taken for every track."""
    tracker = TRACKERS[name]
    state, tracked, masks = tracker.start(), [], []
    for (queries, size), truth in zip(frames_of(segmenter, tracker), targets, strict=True):
        finished = queries.masks.finished()
        tracked.append(tracker.step(state, replace(queries, masks=finished, targets=truth)))
        masks.append((finished, size))
    tracked = tracker.finish(state) or tracked
    scores = VideoScores(len(tracked))
    for t, (frame, (finished, size)) in enumerate(zip(tracked, masks, strict=True)):
        own = None if frame.mask_logits is None else finishing.finish_masks(frame.mask_logits, size)
        scores.add(t, frame, own)
        scores.take(t, frame.track_ids.tolist(), finished)
    return scores.tracklets(keep_top, rescore=True)


@pytest.mark.parametrize(("spare", "spare_bytes"), [(1, 0), (4, 0), (4, 200)])
@pytest.mark.parametrize("held", [0, 3000, 2**28])
@pytest.mark.parametrize("window", [1, 3, None])
def test_the_result_is_that_of_finishing_all_masks(held, window, spare, spare_bytes, monkeypatch):
    monkeypatch.setattr(infer, "HELD_BYTES", held)
    monkeypatch.setattr(video_tracker, "SPARE", spare)
    monkeypatch.setattr(video_tracker, "SPARE_BYTES", spare_bytes)
    segmenter = random_stub(10)
    targets = targets_of(segmenter)
    together = track(segmenter, TRACKERS, window, targets=targets)
    for name in TRACKERS:
        expected = all_finished(segmenter, name, 4, targets)
        assert expected
        assert together[name].prediction.tracklets == expected
        alone = track(segmenter, [name], window, targets=targets)[name]
        assert alone.prediction.tracklets == expected
        assert (alone.segmented_again > 0) <= (held < 2**28)


def late_star(frames=12):
    """Track 0 is the best for long; track 1 is nothing until its scores rise in the last frames."""
    segmenter = random_stub(frames, queries=8)
    segmenter.logits = torch.zeros(frames, 8, 4)
    segmenter.logits[..., -1] = 3
    segmenter.logits[:, 0, 1] = 5
    segmenter.logits[:, 1, 2] = -4
    segmenter.logits[-3:, 1, 2] = 60
    return segmenter


@pytest.mark.parametrize("window", [1, 5])
def test_windows_of_a_track_that_is_kept_only_later_are_segmented_again_as_they_were(window, monkeypatch):
    segmenter = late_star()
    expected = all_finished(segmenter, "Identity", 1, [None] * 12)
    assert [tracklet.track_id for tracklet in expected] == [1]
    segmenter.passes.clear()
    held = track(segmenter, ["Identity"], window, keep_top=1)["Identity"]
    assert held.segmented_again == 0
    once = list(segmenter.passes)
    assert [t for frames in once for t in frames] == list(range(12))
    monkeypatch.setattr(infer, "HELD_BYTES", 0)
    monkeypatch.setattr(video_tracker, "SPARE", 1)
    segmenter.passes.clear()
    late = track(segmenter, ["Identity"], window, keep_top=1)["Identity"]
    assert late.prediction.tracklets == held.prediction.tracklets == expected
    first, again = segmenter.passes[: len(once)], segmenter.passes[len(once) :]
    assert first == once
    assert again == [frames for frames in once if frames[-1] < 10]  # from frame 9 on, the track is known
    assert late.segmented_again == sum(map(len, again)) > 0


def fallen_and_risen(frames=20):
    """Track 0 is the best at first and in the end, track 1 between; tracks 2 to 7 take turns behind them."""
    segmenter = random_stub(frames, queries=8)
    segmenter.logits = torch.zeros(frames, 8, 4)
    segmenter.logits[..., -1] = 3
    segmenter.logits[:4, 0, 1] = 5
    segmenter.logits[4:12, 1, 2] = 20
    segmenter.logits[-4:, 0, 1] = 90
    for t in range(frames):
        segmenter.logits[t, 2 + t % 6, 0] = 4
    return segmenter


@pytest.mark.parametrize("spare_bytes", [0, 60, 2**27])
def test_masks_that_were_dropped_are_made_again_when_their_track_returns(spare_bytes, monkeypatch):
    monkeypatch.setattr(infer, "HELD_BYTES", 2 * 8 * 5 * 7 * 4)
    monkeypatch.setattr(video_tracker, "SPARE_BYTES", spare_bytes)
    held = []  # bytes for tracks that are not among the best, whenever a window goes
    candidates = infer.VideoTracker.candidates

    def watched(worker):
        found = candidates(worker)
        spare = set(worker.scores.known()) - set(worker.kept())
        held.append(sum(map(worker.scores.num_bytes, spare)))
        return found

    monkeypatch.setattr(infer.VideoTracker, "candidates", watched)
    segmenter = fallen_and_risen()
    expected = all_finished(segmenter, "Identity", 1, [None] * 20)
    assert [tracklet.track_id for tracklet in expected] == [0]
    result = track(segmenter, ["Identity"], 1, keep_top=1)["Identity"]
    assert result.prediction.tracklets == expected
    assert len(held) > 5
    assert max(held) <= spare_bytes
    if spare_bytes < 100:
        assert result.segmented_again >= 4
    else:
        assert max(held) > 200
        assert result.segmented_again == 0


def test_of_dropped_masks_those_that_the_tracker_made_up_stay():
    logits = torch.zeros(2, 3)
    rle = {"size": [1, 1], "counts": "01"}
    masks = FinishedMasks((rle, rle), torch.ones(2, dtype=torch.float64), torch.ones(2, dtype=torch.float64))
    scores = VideoScores(2)
    scores.add(0, TrackedFrame(torch.tensor([4, 7]), torch.tensor([1, 0]), logits))
    scores.add(1, TrackedFrame(torch.tensor([4, 7]), torch.tensor([-1, -1]), logits), own=masks)
    scores.take(0, [4, 7], masks)
    assert [scores.num_bytes(track) for track in (4, 7, 9)] == [4, 4, 0]
    scores.drop_others([7])
    assert [scores.num_bytes(track) for track in (4, 7)] == [2, 4]
    assert scores.missing(0, [4, 7]) == [1]
    assert scores.missing(1, [4, 7]) == []
    scores.take(0, [4, 7], masks)
    assert scores.missing(0, [4, 7]) == []


def test_trackers_share_the_masks_that_they_both_keep(monkeypatch):
    monkeypatch.setattr(infer, "HELD_BYTES", 0)
    found = track(random_stub(6), ["Identity", "MinVIS"], window=1, keep_top=18)
    kept = [
        {id(rle) for tracklet in result.prediction.tracklets for rle in tracklet.segmentations if rle}
        for result in found.values()
    ]
    assert kept[0] == kept[1]
    assert len(kept[0]) > 20


def test_no_more_masks_are_finished_than_are_kept(monkeypatch):
    finished = []

    def finish(logits, size):
        finished.append(len(logits))
        return finish_masks(logits, size)

    finish_masks = finishing.finish_masks
    monkeypatch.setattr(finishing, "finish_masks", finish)
    segmenter = random_stub(10, queries=20)
    prediction = track(segmenter, ["MinVIS"], window=2, keep_top=3)["MinVIS"].prediction
    tracks = {tracklet.track_id for tracklet in prediction.tracklets}
    assert sum(finished) == 10 * len(tracks) <= 30
    finished.clear()
    track(segmenter, ["MinVIS", "Births"], window=2, keep_top=3)
    assert sum(finished) <= 2 * 30
    finished.clear()
    track(segmenter, ["MinVIS", "MaskIoU"], window=2, keep_top=3)
    assert sum(finished) == 10 * 20  # MaskIoU looks at all of them; each is finished once


class Watched(StubSegmenter):
    """Notes how many bytes of tensors live whenever a pass begins, its own answers to come left out."""

    def __init__(self, frames: int) -> None:
        stub = random_stub(frames)
        embeds = torch.zeros(frames, 6, 500)  # vectors larger than masks
        super().__init__(stub.logits, stub.mask_logits, embeds)
        self.bytes: list[int] = []
        self.every = max(1, frames // 20)

    def forward(self, images):
        if len(self.passes) % self.every == 0:
            gc.collect()
            storages = [x.untyped_storage() for x in gc.get_objects() if type(x) is torch.Tensor]
            sizes = {storage.data_ptr(): storage.nbytes() for storage in storages}
            for own in (self.logits, self.mask_logits, self.embeds, images):
                sizes.pop(own.untyped_storage().data_ptr(), None)
            self.bytes.append(sum(sizes.values()))
        return super().forward(images)


FRAME_BYTES = 6 * 5 * 7 * 4  # of mask logits


@pytest.fixture
def _few_objects():
    """The collector looks at new objects only: at all those of a test run it would look for long."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.mark.usefixtures("_few_objects")
@pytest.mark.parametrize("held", [0, 2])
@pytest.mark.parametrize("window", [1, 3])
def test_of_a_window_nothing_stays_but_masks_that_are_held(held, window, monkeypatch):
    monkeypatch.setattr(infer, "HELD_BYTES", held * FRAME_BYTES * window)
    segmenter = Watched(18)
    track(segmenter, ["Births"], window)
    start, *later = segmenter.bytes
    assert max(later) <= start + held * FRAME_BYTES * window
    assert (max(later) > start) == (held > 0)


@pytest.mark.usefixtures("_few_objects")
@pytest.mark.parametrize("name", ["MinVIS", "Births", "Anew"])
def test_no_tensor_more_is_held_of_a_longer_video(name, monkeypatch):
    monkeypatch.setattr(infer, "HELD_BYTES", 2 * FRAME_BYTES)
    segmenters = [Watched(20), Watched(200)]
    for segmenter in segmenters:
        track(segmenter, [name], window=1)
    short, long = (max(segmenter.bytes) - segmenter.bytes[0] for segmenter in segmenters)
    assert 0 < long <= short


def test_finishing_inside_of_step_counts_as_segmenting(monkeypatch):
    finish_masks = finishing.finish_masks

    def slow(logits, size):
        time.sleep(0.05)
        return finish_masks(logits, size)

    monkeypatch.setattr(finishing, "finish_masks", slow)
    tracked = track(random_stub(4), ["MaskIoU"], window=2)["MaskIoU"]
    assert tracked.segment_seconds > 4 * 0.05
    assert 0 < tracked.track_seconds < 0.1


def test_a_720p_frame_leaves_less_than_300_kb_behind(monkeypatch):
    """100 queries that are objects of all sizes, 40 predictions kept; tensors are counted elsewhere."""
    queries, h, w = 100, 184, 320
    monkeypatch.setattr(infer, "HELD_BYTES", 3 * queries * h * w * 4)
    random = torch.Generator().manual_seed(5)
    y, x = torch.arange(h)[:, None], torch.arange(w)
    numbers = torch.rand(queries, 4, generator=random)
    centre_y, centre_x = numbers[:, 0] * h, numbers[:, 1] * w
    radius_y, radius_x = 4 + numbers[:, 2] * h / 3, 4 + numbers[:, 3] * w / 4
    distance = [
        ((y - a) / c) ** 2 + ((x - b) / d) ** 2
        for a, b, c, d in zip(centre_y, centre_x, radius_y, radius_x, strict=True)
    ]
    masks = (1 - torch.stack(distance))[None].expand(24, -1, -1, -1)
    logits = torch.randn(1, queries, 41, generator=random).expand(24, -1, -1)
    stub = StubSegmenter(logits, masks, torch.randn(24, queries, 8, generator=random))
    frames = stub.frames()
    held = []

    def counted(t):
        held.append(tracemalloc.get_traced_memory()[0])
        return frames[t]()

    readers = [partial(counted, t) for t in range(24)]
    config = EvalConfig(window=1, keep_top=40)
    tracemalloc.start()
    try:
        result = track_video(stub, {"identity": tracker_of(Identity)}, readers, (720, 1280), config, CPU)
    finally:
        tracemalloc.stop()
    assert len(result["identity"].prediction.tracklets) > 30
    growth = (max(held[20:24]) - max(held[8:12])) / 12
    assert 5_000 < growth < 300_000

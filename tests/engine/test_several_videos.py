"""Several videos through the segmenter at once: the results of one at a time."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
import torch

from vistk.engine import infer
from vistk.engine.infer import Video, track_video, track_videos
from vistk.engine.video_tracker import EvalConfig
from vistk.models.segmenter import Segmenter, TinySegmenterConfig
from vistk.ops.masks import decode
from vistk.schema import ConfigError
from vistk.structures import FrameTargets
from vistk.trackers.identity import Identity
from vistk.trackers.minvis import MinVIS
from vistk.trackers.oracle import Oracle
from vistk.trackers.visage import VISAGE

CPU = torch.device("cpu")
SHAPES = [(5, 40, 70), (1, 40, 70), (7, 40, 70), (2, 64, 33), (0, 40, 70), (4, 40, 70), (3, 64, 33)]
"""Frames, height and width of the videos."""


@pytest.fixture(scope="module")
def segmenter():
    torch.manual_seed(4)
    return Segmenter(TinySegmenterConfig(), 4).eval()


@pytest.fixture(scope="module")
def trackers(segmenter):
    torch.manual_seed(5)
    sizes = {"embed_dim": segmenter.embed_dim, "feature_channels": segmenter.feature_channels}
    return {
        cls.__name__: cls(cls.Config(), **sizes, num_classes=4).eval() for cls in (Identity, MinVIS, VISAGE)
    }


@pytest.fixture(scope="module")
def videos():
    random = torch.Generator().manual_seed(6)
    found = []
    for i, (count, height, width) in enumerate(SHAPES):
        frames = torch.randint(0, 256, (count, 3, height, width), dtype=torch.uint8, generator=random)
        readers = [partial(frames.__getitem__, t) for t in range(count)]
        found.append(Video(readers, (height, width + i), video_id=10 + i, category_ids=(9, 8, 7, 6)))
    return found


def one_at_a_time(segmenter, trackers, videos, config):
    return [
        track_video(
            segmenter, trackers, v.frames, v.output_size, config, CPU, v.video_id, v.category_ids, v.targets
        )
        for v in videos
    ]


def same(found, expected):
    """Tracks, labels and frames are equal; scores and masks but for rounding."""
    assert found.keys() == expected.keys()
    for name in found:
        ours, theirs = found[name], expected[name]
        assert (ours.num_frames, ours.identical) == (theirs.num_frames, theirs.identical)
        assert ours.prediction.category_ids == theirs.prediction.category_ids
        a, b = ours.prediction.tracklets, theirs.prediction.tracklets
        assert [(x.track_id, x.label) for x in a] == [(x.track_id, x.label) for x in b]
        for x, y in zip(a, b, strict=True):
            assert x.score == pytest.approx(y.score, rel=1e-4)
            assert len(x.segmentations) == len(y.segmentations) == ours.num_frames
            for rle, other in zip(x.segmentations, y.segmentations, strict=True):
                if rle is None or other is None:
                    assert rle is other
                else:
                    assert (decode(rle) != decode(other)).mean() < 1e-2


@pytest.mark.parametrize("window", [None, 1, 2])
@pytest.mark.parametrize("at_once", [1, 2, 3, 30])
def test_the_results_are_those_of_one_at_a_time(at_once, window, segmenter, trackers, videos):
    config = EvalConfig(window=window, videos=at_once)
    expected = one_at_a_time(segmenter, trackers, videos, EvalConfig(window=window))
    assert sum(len(result["VISAGE"].prediction.tracklets) for result in expected) > 10
    found = {
        result["VISAGE"].prediction.video_id: result
        for result in track_videos(segmenter, trackers, iter(videos), config, CPU)
    }
    assert sorted(found) == [10, 11, 12, 13, 14, 15, 16]
    for video, result in zip(videos, expected, strict=True):
        same(found[video.video_id], result)
    for result in found.values():
        assert all(tracked.segment_seconds >= 0 for tracked in result.values())


def test_frames_of_one_size_share_a_pass_and_a_video_that_ends_is_replaced(segmenter, trackers, videos):
    passes, taken, ended = [], [], []
    hook = segmenter.register_forward_pre_hook(lambda module, args: passes.append(tuple(args[0].shape[1:])))

    def waiting():
        for video in videos:
            taken.append(video.video_id)
            yield video

    try:
        chosen = {"MinVIS": trackers["MinVIS"]}
        for result in track_videos(segmenter, chosen, waiting(), EvalConfig(window=2, videos=2), CPU):
            ended.append(result["MinVIS"].prediction.video_id)
            if len(ended) == 1:
                assert taken == [10, 11]  # no more are asked for than there is place
    finally:
        hook.remove()
    small, tall = (3, 40, 70), (3, 64, 33)
    assert [(frames, tuple(size)) for frames, *size in passes] == [
        (3, small),  # 10 and 11, which ends
        (4, small),  # 10 and 12
        (3, small),  # 10, which ends, and 12
        (2, small), (2, tall),  # 12, and 13, which ends
        (1, small),  # 12 ends, and so does 14, which has no frames
        (2, small), (2, tall),  # 15 and 16
        (2, small), (1, tall),
    ]  # fmt: skip
    assert ended == [11, 10, 13, 12, 14, 15, 16]


def test_each_video_has_its_own_truth(segmenter, trackers, videos):
    oracle = {"x": Oracle(Oracle.Config(), embed_dim=64, feature_channels={}, num_classes=4).eval()}
    told = []
    for number, i in enumerate((0, 2)):  # the best track of each video is annotated, under another number
        video = replace(videos[i], frames=videos[i].frames[:2])
        (result,) = one_at_a_time(segmenter, {"x": trackers["Identity"]}, [video], EvalConfig())
        masks = result["x"].prediction.tracklets[0].segmentations
        ids = torch.tensor([number])
        told.append(replace(video, targets=[FrameTargets(ids, ids, (rle,)) for rle in masks]))
    expected = one_at_a_time(segmenter, oracle, told, EvalConfig())
    found = list(track_videos(segmenter, oracle, told, EvalConfig(videos=2), CPU))
    assert [{t.track_id for t in result["x"].prediction.tracklets} for result in expected] == [{0}, {1}]
    for ours, theirs in zip(found, expected, strict=True):
        same(ours, theirs)


@pytest.mark.parametrize("at_once", [1, 3])
def test_videos_share_what_may_be_held(at_once, segmenter, trackers, videos, monkeypatch):
    frame_bytes = 10 * 32 * 48 * 4  # 64 x 96 with padding, stride 2, 10 queries
    monkeypatch.setattr(infer, "HELD_BYTES", 3 * frame_bytes)
    held = []
    take = infer._Run.take

    def watched(run, window):
        take(run, window)
        held.append((run, sum(w.num_bytes for w in run._held)))

    monkeypatch.setattr(infer._Run, "take", watched)
    chosen = {"MinVIS": trackers["MinVIS"]}
    config = EvalConfig(window=1, videos=at_once)
    expected = one_at_a_time(segmenter, chosen, [videos[0], videos[2]], EvalConfig(window=1))
    held.clear()
    found = list(track_videos(segmenter, chosen, [videos[0], videos[2]], config, CPU))
    for result, other in zip(found, expected, strict=True):
        same(result, other)
    assert max(num_bytes for _, num_bytes in held) == (3 if at_once == 1 else 1) * frame_bytes


@pytest.mark.parametrize("videos", [0, -1])
def test_no_videos_at_once_are_refused(videos):
    with pytest.raises(ConfigError, match=r"evaluation\.videos is -?\d, expected 1 or more"):
        EvalConfig(videos=videos)

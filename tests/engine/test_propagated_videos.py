"""Trackers that propagate queries: frames pass in turn, whatever the windows and whoever else is at work."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from vistk.engine import infer
from vistk.engine.infer import Video, track_video, track_videos
from vistk.engine.video_tracker import EvalConfig
from vistk.models.segmenter import Segmenter, TinySegmenterConfig
from vistk.structures import FrameQueries
from vistk.trackers.minvis import MinVIS
from vistk.trackers.propagation import Propagation

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def segmenter():
    torch.manual_seed(4)
    return Segmenter(TinySegmenterConfig(), 4).eval()


@pytest.fixture(scope="module")
def trackers(segmenter):
    sizes = {"embed_dim": segmenter.embed_dim, "feature_channels": segmenter.feature_channels}
    found = {cls.__name__: cls(cls.Config(), **sizes, num_classes=4).eval() for cls in (Propagation, MinVIS)}
    torch.manual_seed(5)
    torch.nn.init.normal_(found["Propagation"].update.weight, std=0.1)
    return found


def video(frames: int, height: int = 40, width: int = 70, seed: int = 6) -> Video:
    random = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (frames, 3, height, width), dtype=torch.uint8, generator=random)
    return Video([partial(images.__getitem__, t) for t in range(frames)], (height, width), video_id=seed)


def track(segmenter, trackers, video, **config):
    config = EvalConfig(rows=[], **config)
    found = track_video(segmenter, trackers, video.frames, video.output_size, config, CPU, video.video_id)
    return {name: result.prediction for name, result in found.items()}


def scores(prediction):
    return [
        (t.track_id, t.label, round(t.score, 4), [s is None for s in t.segmentations])
        for t in prediction.tracklets
    ]


def test_a_video_is_what_the_segmenter_says_of_it_in_turn(segmenter, trackers):
    clip = video(5)
    tracker = trackers["Propagation"]
    with torch.inference_mode():
        images = torch.stack([read() for read in clip.frames])[None]
        logits = segmenter(images, None, tracker.propagate).logits[0].double()
        apart = segmenter(images).logits[0].double()
    prediction = track(segmenter, {"mine": tracker}, clip, window=2, rescore=False)["mine"]
    best = logits.mean(0).softmax(-1)[:, :-1].flatten().topk(10)
    assert [t.score for t in prediction.tracklets] == pytest.approx(best.values.tolist(), abs=1e-5)
    assert [t.track_id * 4 + t.label for t in prediction.tracklets] == best.indices.tolist()
    alone = apart.mean(0).softmax(-1)[:, :-1].flatten().topk(10).values
    assert (alone - best.values).abs().max() > 1e-3


@pytest.mark.parametrize("window", [1, 2, 3, 30])
def test_any_window(segmenter, trackers, window):
    whole, parts = (track(segmenter, trackers, video(5), window=w) for w in (5, window))
    assert list(parts) == ["Propagation", "MinVIS"]
    for name in trackers:
        assert scores(parts[name]) == scores(whole[name])


def test_trackers_beside_it_see_frames_as_ever(segmenter, trackers):
    together = track(segmenter, trackers, video(4))
    for name, tracker in trackers.items():
        assert together[name] == track(segmenter, {name: tracker}, video(4))[name]


def test_several_videos_at_once(segmenter, trackers):
    videos = [video(4), video(1, seed=7), video(0, seed=8), video(6, seed=9), video(3, 64, 33, seed=10)]
    config = EvalConfig(rows=[], videos=3)
    found = [
        {name: result.prediction for name, result in results.items()}
        for results in track_videos(segmenter, trackers, videos, config, CPU)
    ]
    assert sorted(results["MinVIS"].video_id for results in found) == [6, 7, 8, 9, 10]
    for results in found:
        (one,) = [v for v in videos if v.video_id == results["MinVIS"].video_id]
        for name, prediction in track(segmenter, trackers, one).items():
            assert scores(results[name]) == scores(prediction)


def test_a_frame_that_is_segmented_again_is_as_it_was(segmenter, trackers, monkeypatch):
    tracker = {"mine": trackers["Propagation"]}
    expected = track(segmenter, tracker, video(6), window=1)
    monkeypatch.setattr(infer, "HELD_BYTES", 1)
    monkeypatch.setattr(infer.VideoTracker, "candidates", lambda self: [])  # nothing is finished early
    clip = video(6)
    config = EvalConfig(rows=[], window=1)
    found = track_video(segmenter, tracker, clip.frames, clip.output_size, config, CPU, clip.video_id)
    assert found["mine"].segmented_again > 3
    assert found["mine"].prediction == expected["mine"]


def test_previous_is_small(segmenter, trackers):
    """What a window hands on does not grow with the frame."""
    clip = video(2)
    (window,) = infer.segment_windows(
        segmenter, {"mine": trackers["Propagation"]}, clip.frames, clip.output_size, 2, CPU
    )
    assert isinstance(window.last, FrameQueries)
    assert window.last.mask_logits is None
    assert window.last.logits.shape == (1, 10, 5)

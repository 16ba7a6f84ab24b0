"""Inference: published results from pixels to RLE, hand-made videos, windows, rewriting trackers."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
import pytest
import torch

from vistk.engine.finishing import FrameSize, finish_masks
from vistk.engine.infer import track_video
from vistk.engine.scores import VideoScores
from vistk.engine.video_tracker import EvalConfig, VideoTracker
from vistk.models.segmenter import Segmenter, TinySegmenterConfig
from vistk.ops.masks import decode
from vistk.structures import FrameQueries, TrackedFrame
from vistk.trackers.base import Tracker
from vistk.trackers.identity import Identity
from vistk.trackers.minvis import MinVIS
from vistk.trackers.visage import VISAGE

CPU = torch.device("cpu")


def fresh(cls, config=None, segmenter=None, num_classes=2):
    channels = segmenter.feature_channels if segmenter else {"res3": 8, "res4": 8, "res5": 8}
    dim = segmenter.embed_dim if segmenter else 8
    return cls(
        config or cls.Config(), embed_dim=dim, feature_channels=channels, num_classes=num_classes
    ).eval()


def test_finished_masks_by_hand():
    logits = torch.full((2, 2, 2), -10.0)
    logits[0, 0, 0] = 10.0  # one of four quadrants
    finished = finish_masks(logits, FrameSize((2, 2), (2, 2), (2, 2)))
    assert finished.rles[1] is None
    assert decode(finished.rles[0]).tolist() == [[True, False], [False, False]]
    assert finished.area.tolist() == [1, 0]
    assert finished.probability_sum[0].item() == pytest.approx(torch.sigmoid(torch.tensor(10.0)).item())


def test_padding_is_cut_before_the_output_size():
    logits = torch.ones(1, 4, 4)
    logits[:, :, 2:] = -1.0
    finished = finish_masks(logits, FrameSize(network=(8, 8), resized=(8, 4), output=(16, 8)))
    mask = decode(finished.rles[0])
    assert mask.shape == (16, 8)
    assert mask.all()  # the padded right half is gone
    assert finished.area.item() == 32  # at resized size


def answer(track_ids, query_index, logits):
    return TrackedFrame(torch.tensor(track_ids), torch.tensor(query_index), torch.tensor(logits))


def test_scores_by_hand():
    size = FrameSize((2, 2), (2, 2), (2, 2))
    logits = torch.full((2, 2, 2), 2.0)
    logits[1] = -2.0  # the mask of query 1 is empty
    masks = finish_masks(logits, size)
    scores = VideoScores(num_frames=3)
    scores.add(0, answer([5, 9], [0, 1], [[2.0, 0.0, 0.0], [0.0, 0.0, 9.0]]))
    scores.add(2, answer([5], [0], [[4.0, 0.0, 0.0]]))
    for t in (0, 2):
        scores.take(t, {5, 9}, masks)
    best, second, *rest = scores.tracklets(keep_top=3, rescore=True)
    # mean logits (3, 0, 0) over the two frames in which track 5 exists
    probability = torch.tensor([3.0, 0.0, 0.0]).softmax(0)[0].item()
    inside = torch.sigmoid(torch.tensor(2.0)).item()
    assert (best.track_id, best.label) == (5, 0)
    assert best.score == pytest.approx(probability * inside)
    assert [rle is not None for rle in best.segmentations] == [True, False, True]
    assert (second.track_id, second.label) == (5, 1)  # kept again, under another class
    assert rest == []  # track 9 never has a pixel
    assert scores.tracklets(keep_top=1, rescore=False)[0].score == pytest.approx(probability)


def test_a_video_without_tracks_has_no_tracklets():
    assert VideoScores(num_frames=3).tracklets(keep_top=10, rescore=True) == ()


@dataclass
class Config:
    pass


class Rewriter(Tracker[list]):
    """Says nothing frame by frame; in the end gives every query of every frame to track 7, masks anew."""

    Config = Config

    def start(self):
        return []

    def step(self, state, frame):
        state.append(frame)
        return answer([0], [0], [[0.0, 0.0, 0.0]])

    def finish(self, state):
        ones = torch.ones(1, 2, 2)
        logits = torch.tensor([[5.0, 0.0, 0.0]])
        return [TrackedFrame(torch.tensor([7]), torch.tensor([-1]), logits, ones) for _ in state]


def test_an_offline_tracker_rewrites_the_video_with_masks_of_its_own():
    size = FrameSize((2, 2), (2, 2), (4, 4))
    masks = finish_masks(torch.full((1, 2, 2), -1.0), size)
    worker = VideoTracker(fresh(Rewriter), 2, EvalConfig())
    for _ in range(2):
        worker.step(FrameQueries(torch.zeros(1, 3), {}, masks=masks), size, None)
    worker.finish()
    (first, *_) = worker.tracklets()
    assert first.track_id == 7
    assert all(decode(rle).all() and rle["size"] == [4, 4] for rle in first.segmentations)


def test_windows_and_company_change_nothing():
    segmenter = Segmenter(TinySegmenterConfig(), 4).eval()
    trackers = {
        "minvis": fresh(MinVIS, None, segmenter, 4),
        "visage": fresh(VISAGE, None, segmenter, 4),
        "identity": fresh(Identity, None, segmenter, 4),
    }
    frames = torch.randint(0, 256, (5, 3, 40, 70), dtype=torch.uint8)
    readers = [partial(frames.__getitem__, t) for t in range(5)]

    def run(names, window):
        chosen = {name: trackers[name] for name in names}
        return track_video(segmenter, chosen, readers, (40, 70), EvalConfig(window=window), CPU)

    together = run(trackers, 30)
    for window in (1, 2):
        for name in trackers:
            ours, theirs = run([name], window)[name], together[name]
            assert [t.label for t in ours.prediction.tracklets] == [
                t.label for t in theirs.prediction.tracklets
            ]
            np.testing.assert_allclose(
                [t.score for t in ours.prediction.tracklets],
                [t.score for t in theirs.prediction.tracklets],
                rtol=1e-4,
            )
    assert together["identity"].identical == 5


def test_results_entries_use_the_category_ids_of_the_data_set():
    segmenter = Segmenter(TinySegmenterConfig(), 2).eval()
    frame = torch.randint(0, 256, (3, 64, 96), dtype=torch.uint8)
    tracked = track_video(
        segmenter,
        {"identity": fresh(Identity, None, segmenter)},
        [lambda: frame],
        (64, 96),
        EvalConfig(),
        CPU,
        video_id=0,
        category_ids=[7, 3],
    )
    entries = tracked["identity"].prediction.to_ytvis()
    assert {e["video_id"] for e in entries} == {0}
    assert {e["category_id"] for e in entries} <= {7, 3}
    assert all(len(e["segmentations"]) == 1 for e in entries)

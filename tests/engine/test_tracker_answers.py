"""Answers of trackers that break the contract: one sentence, wherever they are tracked."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from stub_segmenter import random_stub

import vistk
from vistk.engine.infer import track_video
from vistk.engine.tracker_answers import TrackerError, checked_frame, checked_video
from vistk.engine.video_tracker import EvalConfig
from vistk.models.segmenter import Segmenter, TinySegmenterConfig
from vistk.structures import TrackedFrame
from vistk.trackers.identity import Identity

QUERIES = 6


@dataclass
class OddConfig:
    """What to answer in place of the sound answer."""

    step: str = "sound"
    finish: str = "sound"


def answers(kind: str, ids: torch.Tensor, logits: torch.Tensor):
    """A frame of all queries, but for what is odd about it."""
    odd = {
        "none": lambda: None,
        "tuple": lambda: (ids, ids, logits),
        "twice": lambda: TrackedFrame(torch.zeros_like(ids), ids, logits),
        "negative": lambda: TrackedFrame(ids - 1, ids, logits),
        "floats": lambda: TrackedFrame(ids.float(), ids, logits),
        "matrix": lambda: TrackedFrame(ids[:, None], ids, logits),
        "beyond": lambda: TrackedFrame(ids, ids + 1, logits),
        "nobody": lambda: TrackedFrame(ids, torch.full_like(ids, -1), logits),
        "sound": lambda: TrackedFrame(ids, ids, logits),
        "few masks": lambda: TrackedFrame(ids, ids, logits, torch.zeros(len(ids) - 1, 5, 7)),
        "flat masks": lambda: TrackedFrame(ids, ids, logits, torch.zeros(len(ids), 35)),
        "int32": lambda: TrackedFrame(ids.int(), ids, logits),
    }
    return odd[kind]()


class Odd(Identity):
    """Sound until frame 1, then odd."""

    Config = OddConfig

    def start(self):
        return []

    def step(self, state, frame):
        ids = torch.arange(len(frame.logits))
        state.append(answers("sound", ids, frame.logits))
        return answers(self.config.step if len(state) == 2 else "sound", ids, frame.logits)

    def finish(self, state):
        odd = {"sound": lambda: None, "one": lambda: state[0], "short": lambda: state[1:]}
        if self.config.finish in odd:
            return odd[self.config.finish]()
        first = state[0]
        return [first, answers(self.config.finish, first.track_ids, first.logits), *state[2:]]


def build(channels=None, dim=8, classes=3, **config) -> Odd:
    sizes = {"embed_dim": dim, "feature_channels": channels or {"res5": 8}, "num_classes": classes}
    return Odd(OddConfig(**config), **sizes).eval()


ODD_FRAMES = {
    "none": "Odd, frame 1: the tracker gave NoneType, expected a TrackedFrame",
    "tuple": "Odd, frame 1: the tracker gave tuple, expected a TrackedFrame",
    "twice": r"Odd, frame 1: track_ids are \[0, 0, 0, 0, 0, 0\], expected different ones, 0 or more",
    "negative": r"Odd, frame 1: track_ids are \[-1, 0, 1, 2, 3, 4\], expected different ones, 0 or more",
    "floats": r"Odd, frame 1: track_ids is torch.float32 \(6,\), expected int64",
    "matrix": r"Odd, frame 1: track_ids is torch.int64 \(6, 1\), expected int64",
    "int32": r"Odd, frame 1: track_ids is torch.int32 \(6,\), expected int64",
    "few masks": r"Odd, frame 1: mask_logits of \(5, 5, 7\), expected those of 6 tracks",
    "flat masks": r"Odd, frame 1: mask_logits of \(6, 35\), expected those of 6 tracks",
    "beyond": "Odd, frame 1: query_index has 6, expected one of 6 queries",
    "nobody": "Odd, frame 1: query_index has -1, expected a query, or mask_logits for what has none",
}
ODD_VIDEOS = ODD_FRAMES | {
    "one": "Odd: finish() gave a TrackedFrame, expected None or a list of 3 TrackedFrames".replace(
        "()", r"\(\)"
    ),
    "short": r"Odd: finish\(\) gave a list of 2, expected None or a list of 3 TrackedFrames",
}


def tracked(**config):
    stub = random_stub(3, queries=QUERIES)
    trackers = {"odd": build(**config)}
    return track_video(stub, trackers, stub.frames(), (23, 31), EvalConfig(), torch.device("cpu"))["odd"]


def test_sound_answers_pass():
    assert len(tracked().prediction.tracklets)
    empty = TrackedFrame(
        torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.int64), torch.zeros(0, 3)
    )
    assert checked_frame(build(), empty, 0, 0) is empty
    assert checked_video(build(), [], []) == []


@pytest.mark.parametrize("kind", ODD_FRAMES)
def test_of_step_in_a_video(kind):
    with pytest.raises(TrackerError, match=f"^{ODD_FRAMES[kind]}"):
        tracked(step=kind)


@pytest.mark.parametrize("kind", ODD_VIDEOS)
def test_of_finish_in_a_video(kind):
    with pytest.raises(TrackerError, match=f"^{ODD_VIDEOS[kind]}"):
        tracked(finish=kind)


@pytest.mark.parametrize(
    ("config", "expected"), [({"step": "twice"}, "track_ids"), ({"finish": "beyond"}, "query_index")]
)
def test_in_a_stream(config, expected):
    segmenter = Segmenter(TinySegmenterConfig(), 3).eval()
    odd = build(segmenter.feature_channels, segmenter.embed_dim, **config)

    def push_three():
        with vistk.Stream(segmenter, odd) as stream:
            for _ in range(3):
                stream.push(np.zeros((32, 48, 3), dtype=np.uint8))
            stream.close()

    with pytest.raises(TrackerError, match=f"Odd, frame 1: {expected}"):
        push_three()

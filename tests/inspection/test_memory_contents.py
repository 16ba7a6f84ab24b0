"""What is said to be remembered is what trackers go by: shares of frames make up their vectors."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from vistk.inspection.memory import MemoryReader
from vistk.structures import FrameQueries
from vistk.trackers.gated_memory import GatedMemory, GatedMemoryConfig
from vistk.trackers.idol import IDOL, IDOLConfig
from vistk.trackers.mask_iou import MaskIoU, MaskIoUConfig
from vistk.trackers.minvis import MinVIS, MinVISConfig
from vistk.trackers.visage import VISAGE, VISAGEConfig

SIZES = {"embed_dim": 4, "feature_channels": {"res3": 4, "res4": 4, "res5": 4}, "num_classes": 2}
QUERIES, FRAMES = 5, 12


def frames() -> list[FrameQueries]:
    """Random vectors, which every tracker links somehow; scores from none to sure."""
    generator = torch.Generator().manual_seed(1)

    def noise(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    return [
        FrameQueries(
            2 * noise(QUERIES, 3),
            {"query": noise(QUERIES, 4), "appearance": noise(QUERIES, 4), "overlap": torch.eye(QUERIES)},
        )
        for _ in range(FRAMES)
    ]


def idol(**fields):
    return IDOL(IDOLConfig(similarity="cosine", match_score=0.2, **fields), **SIZES)


def visage(**fields):
    return VISAGE(VISAGEConfig(**fields), **SIZES)


def gated(**fields):
    return GatedMemory(GatedMemoryConfig(**fields), **SIZES)


@pytest.mark.parametrize(
    ("tracker", "read", "most"),
    [
        (visage(), lambda t, s: s.memory.read()["query"], 5),
        (visage(memory_frames=2, score_weighting=False), lambda t, s: s.memory.read()["query"], 2),
        (visage(memory_weighting="released"), lambda t, s: s.memory.read()["query"], 5),
        (visage(memory_weighting="uniform"), lambda t, s: s.memory.read()["query"], 5),
        (gated(), lambda t, s: t._read(s.memory)["query"], 5),
        (gated(memory_frames=3, presence=0.6), lambda t, s: t._read(s.memory)["query"], 3),
        (idol(), lambda t, s: torch.from_numpy(s.bank.read()), 3),
        (idol(memory_frames=6, max_missing=2), lambda t, s: torch.from_numpy(s.bank.read()), 6),
        (idol(memory="last"), lambda t, s: torch.from_numpy(s.bank.read()), 1),
        (MinVIS(MinVISConfig(), **SIZES), lambda t, s: s.previous, 1),
    ],
)
def test_the_shares_of_frames_make_up_what_is_compared(tracker, read, most, tolerance):
    tracker.eval()
    state, reader = tracker.start(), MemoryReader()
    took: list[dict[int, torch.Tensor]] = []
    width = 0
    with torch.no_grad():
        for t, frame in enumerate(frames()):
            tracked = tracker.step(state, frame)
            ids, queries = tracked.track_ids.tolist(), tracked.query_index
            took.append(dict(zip(ids, frame.vectors["query"][queries], strict=True)))
            memory = reader.read(t, state, tracked)
            width = max(width, memory.frames.shape[1])
            found = []
            for track, of_track, weights in zip(
                memory.track_ids.tolist(), memory.frames.tolist(), memory.weights.tolist(), strict=True
            ):
                there = [(f, w) for f, w in zip(of_track, weights, strict=True) if f >= 0]
                assert [f for f, _ in there] == sorted({f for f, _ in there}, reverse=True)  # newest first
                assert sum(w for _, w in there) == pytest.approx(1)
                found.append(sum(w * took[f][track] for f, w in there))
            expected = read(tracker, state)
            assert len(memory.track_ids) == len(expected)
            if found:
                torch.testing.assert_close(torch.stack(found), expected, **tolerance[torch.float32])
    assert width == most


def test_slots_that_are_no_object_remember_their_newest_query_alone():
    tracker = gated(presence=0.9)
    state, reader = tracker.start(), MemoryReader()
    low = FrameQueries(torch.zeros(2, 3), {name: torch.eye(2, 4) for name in ("query", "appearance")})
    for t in range(3):
        memory = reader.read(t, state, tracker.step(state, low))
        assert memory.frames[:, 0].tolist() == [t, t]
        assert memory.weights[:, 0].tolist() == [1.0, 1.0]
        assert np.abs(memory.weights[:, 1:]).sum() == 0


def test_of_trackers_without_memory_nothing_is_said():
    tracker = MaskIoU(MaskIoUConfig(), **SIZES)
    frame = FrameQueries(torch.zeros(2, 3), {}, mask_logits=torch.ones(2, 3, 4))
    state = tracker.start()
    assert MemoryReader().read(0, state, tracker.step(state, frame)) is None
    assert MemoryReader().read(0, None, tracker.step(state, frame)) is None

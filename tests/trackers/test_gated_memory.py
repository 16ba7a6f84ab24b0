"""What enters a memory, what it weighs, and who may take a remembered identity: worked out by hand."""

import math

import pytest
import torch
from torch import Tensor

from vistk.structures import FrameQueries
from vistk.trackers.base import track_video
from vistk.trackers.contract_runs import Subject
from vistk.trackers.contract_videos import make_videos
from vistk.trackers.gated_memory import GatedMemory, GatedMemoryConfig
from vistk.trackers.visage import VISAGE, VISAGEConfig

SIZES = {"embed_dim": 2, "feature_channels": {"res3": 4, "res4": 4, "res5": 4}, "num_classes": 1}
ATOL = {torch.float32: 1e-6}
X, Y = [1.0, 0.0], [0.0, 1.0]


def gated(**fields: object) -> GatedMemory:
    """By query vectors alone, unless said otherwise."""
    return GatedMemory(GatedMemoryConfig(**{"appearance_weight": 0.0, **fields}), **SIZES)  # type: ignore[arg-type]


def frame(*queries: tuple[list[float], float]) -> FrameQueries:
    """Vectors and the probability of the only class."""
    logits = torch.tensor([[math.log(p), math.log(1 - p)] for _, p in queries])
    return FrameQueries(logits, {"query": torch.tensor([vector for vector, _ in queries])})


def remembered(tracker: GatedMemory, *frames: FrameQueries) -> Tensor:
    """``(Q, C)`` after the last frame."""
    state = tracker.start()
    for queries in frames:
        tracker.step(state, queries)
    assert state.memory is not None
    return tracker._read(state.memory)["query"]


def close(found: Tensor, expected: object) -> None:
    torch.testing.assert_close(
        found, torch.as_tensor(expected, dtype=found.dtype), atol=ATOL[torch.float32], rtol=0
    )


def test_a_window_holds_confident_queries_alone() -> None:
    frames = [frame(([v, 0.0], p)) for v, p in ((1.0, 0.5), (7.0, 0.2), (2.0, 0.5), (9.0, 0.1), (4.0, 0.8))]
    # Of 4, 2, 1 with scores 0.8, 0.5, 0.5 and ages 1, 2, 3; frames in which the slot is absent have no age.
    weights = [0.8, 0.5 / 2, 0.5 / 3]
    mean = (4 * weights[0] + 2 * weights[1] + 1 * weights[2]) / sum(weights)
    close(remembered(gated(presence=0.3), *frames), [[mean, 0.0]])
    # Two frames: 4 and 2. One frame: 4.
    close(remembered(gated(presence=0.3, memory_frames=2), *frames), [[(3.2 + 0.5) / 1.05, 0.0]])
    close(remembered(gated(presence=0.3, memory_frames=1), *frames), [[4.0, 0.0]])
    # All count alike but for their age: 4 + 2 / 2 + 1 / 3 over 1 + 1 / 2 + 1 / 3.
    close(remembered(gated(presence=0.3, score_power=0.0), *frames), [[(16 / 3) / (11 / 6), 0.0]])
    # Without gate the last three frames are 4, 9 and 2.
    weights = [0.8, 0.1 / 2, 0.5 / 3]
    mean = (4 * weights[0] + 9 * weights[1] + 2 * weights[2]) / sum(weights)
    close(remembered(gated(presence=0.0, memory_frames=3), *frames), [[mean, 0.0]])


def test_a_long_absence_leaves_the_memory_as_it_was() -> None:
    frames = [frame((X, 0.9)), *[frame((Y, 0.1))] * 23]
    for memory in ("window", "average"):
        close(remembered(gated(memory=memory), *frames), [X])


def test_an_average_moves_by_rate_times_score() -> None:
    frames = [frame(([1.0, 0.0], 0.5)), frame(([2.0, 0.0], 0.6)), frame(([9.0, 0.0], 0.2))]
    # 1 + 0.5 * 0.6 * (2 - 1); the third is not remembered. With gamma 2: 0.5 * 0.36.
    close(remembered(gated(memory="average", rate=0.5), *frames), [[1.3, 0.0]])
    close(remembered(gated(memory="average", rate=0.5, score_power=2.0), *frames), [[1.18, 0.0]])
    # Soft alone: then another 0.5 * 0.2 of the way from 1.3 to 9.
    close(remembered(gated(memory="average", rate=0.5, presence=0.0), *frames), [[1.3 + 0.1 * 7.7, 0.0]])


def test_a_slot_that_has_yet_to_begin_holds_its_newest_query() -> None:
    for memory in ("window", "average"):
        tracker = gated(memory=memory, presence=0.5)
        unsure = [frame(([v, 0.0], 0.2)) for v in (1.0, 2.0, 3.0)]
        close(remembered(tracker, *unsure), [[3.0, 0.0]])
        close(remembered(tracker, *unsure, frame(([5.0, 0.0], 0.9))), [[5.0, 0.0]])


def test_an_object_is_found_again_after_its_query_was_something_else() -> None:
    # Track 0 shows x, then nothing for six frames, in which its query is z. Track 1 shows y throughout.
    x, y, z = torch.eye(3).tolist()
    hidden = [frame((z, 0.05), (y, 0.9))] * 6
    frames = [frame((x, 0.9), (y, 0.9)), *hidden, frame(([0.0, 0.6, 0.8], 0.9), ([0.6, 0.8, 0.0], 0.9))]
    # By x and y: 0 + 0.8 as they stand, 0.6 + 0.6 the other way round.
    assert track_video(gated(), frames)[-1].query_index.tolist() == [1, 0]
    # A memory of the last five frames has z in place of x: 0.8 + 0.8 against 0 + 0.6.
    ungated = gated(presence=0.0, query_power=0.0, new_similarity=None)
    assert track_video(ungated, frames)[-1].query_index.tolist() == [0, 1]


def test_a_query_that_is_no_object_does_not_grab_an_identity() -> None:
    # The ghost is x itself; the object is 0.8 x and 0.6 y.
    frames = [frame((X, 0.9), (Y, 0.9)), frame((X, 0.01), ([0.8, 0.6], 0.9))]
    # 1 + 0.6 against 0.8 + 0; scaled by the scores 0.01 + 0.54 against 0.72 + 0.
    assert track_video(gated(query_power=0.0), frames)[-1].query_index.tolist() == [0, 1]
    assert track_video(gated(query_power=1.0), frames)[-1].query_index.tolist() == [1, 0]


@pytest.mark.parametrize(("theta", "expected"), [(0.5, [1, 0]), (0.7, [0, 1]), (None, [0, 1])])
def test_an_identity_has_to_exceed_theta(theta: float | None, expected: list[int]) -> None:
    # Slot 1 never was an object; its last query was y. A new object is 0.6 x and 0.8 y. Its similarity with
    # the remembered x is 0.6; with the free slot it is theta, or the 0.8 of its last query.
    frames = [frame((X, 0.9), (Y, 0.01)), frame((X, 0.01), ([0.6, 0.8], 0.9))]
    assert track_video(gated(new_similarity=theta), frames)[-1].query_index.tolist() == expected


@pytest.mark.parametrize("seed", range(20))
def test_ladder_without_its_gates_it_is_visage(seed: int) -> None:
    rng = torch.Generator().manual_seed(seed)
    queries, length, width = [(1, 7, 5), (7, 23, 4), (23, 11, 9), (10, 3, 2)][seed % 4]
    video = [
        FrameQueries(
            torch.randn((queries, 2), generator=rng),
            {name: torch.randn((queries, width), generator=rng) for name in ("query", "appearance")},
        )
        for _ in range(length)
    ]
    plain = gated(presence=0.0, query_power=0.0, new_similarity=None, appearance_weight=0.75)
    expected = track_video(VISAGE(VISAGEConfig(), **SIZES), video)  # type: ignore[arg-type]
    for a, b in zip(expected, track_video(plain, video), strict=True):
        assert torch.equal(a.query_index, b.query_index)
        assert torch.equal(a.logits, b.logits)


@pytest.mark.parametrize("name", ["gated-memory", "tracklet-linking"])
def test_weights_vectors_and_losses_are_those_of_visage(name: str) -> None:
    visage, other = Subject.of("visage").build(seed=0), Subject.of(name).build(seed=1)
    other.load_state_dict(visage.state_dict())
    videos = make_videos(0, clips=2)
    queries, others = visage.describe(videos.out), other.describe(videos.out)
    assert queries.vectors.keys() == others.vectors.keys()
    assert all(torch.equal(queries.vectors[key], others.vectors[key]) for key in queries.vectors)
    losses = visage.losses(queries, videos.targets, videos.matches)
    assert losses == other.losses(others, videos.targets, videos.matches)
    assert all(loss > 0 for loss in losses.values())


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"memory": "windw"}, "'windw', expected one of average, window; nearest is 'window'"),
        ({"presence": -0.1}, "presence is -0.1, expected 0 to 1"),
        ({"rate": 1.1}, "rate is 1.1, expected 0 to 1"),
        ({"memory_frames": 0}, "memory_frames is 0, expected 1 or more"),
        ({"score_power": -1.0}, "score_power is -1.0, expected 0 or more"),
        ({"query_power": -1.0}, "query_power is -1.0, expected 0 or more"),
        ({"appearance_weight": 2.0}, "GatedMemory: appearance_weight is 2.0, expected 0 to 1"),
        ({"appearance_weight": 0.5, "levels": []}, "GatedMemory: levels is empty"),
    ],
)
def test_fields_out_of_range(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        gated(**fields)

"""Each tracker on videos small enough to do in the head."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from vistk.ops.masks import encode
from vistk.structures import RLE, FinishedMasks, FrameQueries, FrameTargets, TrackedFrame
from vistk.trackers import mask_iou
from vistk.trackers.association import frame_masks
from vistk.trackers.base import Tracker, track_video
from vistk.trackers.identity import Identity, IdentityConfig
from vistk.trackers.mask_iou import MaskIoU, MaskIoUConfig
from vistk.trackers.minvis import MinVIS, MinVISConfig
from vistk.trackers.oracle import Oracle, OracleConfig
from vistk.trackers.visage import VISAGE, VISAGEConfig

SIZES = {"embed_dim": 2, "feature_channels": {"res3": 4, "res4": 4, "res5": 4}, "num_classes": 2}
X, Y = [1.0, 0.0], [0.0, 1.0]


def frame(query: list[list[float]], appearance: list[list[float]] | None = None) -> FrameQueries:
    vectors = {"query": torch.tensor(query)}
    if appearance is not None:
        vectors["appearance"] = torch.tensor(appearance)
    logits = torch.arange(len(query), dtype=torch.float32)[:, None] * torch.tensor([1.0, 0.0, 0.0])
    return FrameQueries(logits, vectors)


def masks_frame(*masks: list[list[int]]) -> FrameQueries:
    """Queries that have masks and nothing else."""
    mask_logits = 2.0 * torch.tensor(masks) - 1
    return FrameQueries(torch.zeros(len(masks), 3), {}, mask_logits=mask_logits)


def finished(frame: FrameQueries) -> FrameQueries:
    assert frame.mask_logits is not None
    masks = frame.mask_logits > 0
    area = masks.sum((1, 2)).double()
    return replace(frame, mask_logits=None, masks=FinishedMasks(tuple(encode(masks)), area, area))


def queries_of(tracked: list[TrackedFrame]) -> list[list[int]]:
    return [frame.query_index.tolist() for frame in tracked]


def visage(**fields: object) -> VISAGE:
    return VISAGE(VISAGEConfig(**fields), **SIZES)  # type: ignore[arg-type]


def test_identity() -> None:
    frames = [frame([X, Y]), frame([Y, X])]
    tracked = track_video(Identity(IdentityConfig(), **SIZES), frames)
    assert queries_of(tracked) == [[0, 1], [0, 1]]
    assert torch.equal(tracked[1].logits, frames[1].logits)


def test_minvis_compares_with_the_previous_frame_in_the_order_of_the_tracks() -> None:
    tracked = track_video(
        MinVIS(MinVISConfig(), **SIZES),
        [frame([X, Y]), frame([Y, X]), frame([[0.1, 5.0], [3.0, 0.1]]), frame([X, [0.1, 1.0]])],
    )
    assert queries_of(tracked) == [[0, 1], [1, 0], [1, 0], [0, 1]]
    assert all(t.track_ids.tolist() == [0, 1] for t in tracked)
    assert tracked[1].logits.tolist() == [[1.0, 0.0, 0.0], [0.0, 0.0, 0.0]]


def test_minvis_forgets_beyond_one_frame() -> None:
    # Track 0 turns from x to y and back while track 1 does the opposite: small steps, each well matched.
    steps = torch.linspace(0, np.pi / 2, 7)
    frames = [frame([[float(a.cos()), float(a.sin())], [float(-a.sin()), float(a.cos())]]) for a in steps]
    tracked = track_video(MinVIS(MinVISConfig(), **SIZES), [*frames, frame([Y, X])])
    # At the end track 0 points to y; a tracker that remembered its beginning would give it query 1.
    assert queries_of(tracked)[-1] == [0, 1]


def test_mask_iou_follows_the_overlap() -> None:
    left, right = [[1, 1, 0, 0]], [[0, 0, 1, 1]]
    frames = [masks_frame(left, right), masks_frame([[0, 0, 0, 1]], left), masks_frame(left, [[0, 0, 0, 1]])]
    for video in (frames, [finished(f) for f in frames]):
        assert queries_of(track_video(MaskIoU(MaskIoUConfig(), **SIZES), video)) == [[0, 1], [1, 0], [0, 1]]


def test_mask_iou_finds_a_track_again_where_it_vanished() -> None:
    left, right, nothing = [[1, 1, 0, 0]], [[0, 0, 1, 1]], [[0, 0, 0, 0]]
    frames = [masks_frame(left, right), masks_frame(nothing, right), masks_frame(right, left)]
    for video in (frames, [finished(f) for f in frames]):
        assert queries_of(track_video(MaskIoU(MaskIoUConfig(), **SIZES), video))[2] == [1, 0]


def test_mask_iou_prefers_overlap_to_size() -> None:
    small, large = [[1, 1, 0, 0, 0, 0]], [[1, 1, 1, 1, 1, 1]]
    tracker = MaskIoU(MaskIoUConfig(), **SIZES)
    tracked = track_video(tracker, [masks_frame(small, large), masks_frame(large, [[1, 1, 1, 0, 0, 0]])])
    assert queries_of(tracked)[1] == [1, 0]


def test_mask_iou_reads_the_masks_of_a_frame_once(monkeypatch: pytest.MonkeyPatch) -> None:
    read = []

    def counted(frame: FrameQueries, owner: str) -> list[RLE | None]:
        read.append(frame)
        return frame_masks(frame, owner)

    monkeypatch.setattr(mask_iou, "frame_masks", counted)
    left, right = [[1, 1, 0, 0]], [[0, 0, 1, 1]]
    track_video(MaskIoU(MaskIoUConfig(), **SIZES), [masks_frame(left, right)] * 3)
    assert len(read) == 3


def test_mask_iou_needs_masks() -> None:
    with pytest.raises(ValueError, match="neither finished masks nor mask_logits"):
        track_video(MaskIoU(MaskIoUConfig(), **SIZES), [frame([X, Y])])


def test_visage_weighs_appearance_against_query() -> None:
    # By query vector the two objects stay, by appearance they change places.
    frames = [frame([X, Y], [X, Y]), frame([X, Y], [Y, X])]
    for weight, expected in ((0.0, [0, 1]), (0.49, [0, 1]), (0.51, [1, 0]), (1.0, [1, 0])):
        assert queries_of(track_video(visage(appearance_weight=weight), frames))[1] == expected


@pytest.mark.parametrize(
    ("weighting", "score_weighting", "frames", "expected"),
    [
        # Track 0 remembers x twice, then 1.4 y; track 1 the mirror image. x against 1.4 y:
        ("recent", False, 3, [1, 0]),  # 1/3 + 1/2 against 1.4
        ("recent", True, 3, [0, 1]),  # 1/3 + 1/2 against 0.5 * 1.4
        ("released", False, 3, [0, 1]),  # 1 + 2/3 against 1/3 * 1.4
        ("uniform", False, 3, [0, 1]),  # 1 + 1 against 1.4
        ("uniform", False, 2, [1, 0]),  # 1 against 1.4
        ("released", False, 1, [1, 0]),  # 0 against 1.4
    ],
)
def test_visage_memory(weighting: str, score_weighting: bool, frames: int, expected: list[int]) -> None:
    tracker = visage(
        memory_weighting=weighting,
        memory_frames=frames,
        score_weighting=score_weighting,
        appearance_weight=0.0,
    )
    state = tracker.start()
    for vectors, score in (([X, Y], 1.0), ([X, Y], 1.0), ([[0.0, 1.4], [1.4, 0.0]], 0.5)):
        state.memory.add({"query": torch.tensor(vectors)}, torch.full((2,), score))
    assert tracker.step(state, frame([X, Y])).query_index.tolist() == expected


def test_visage_remembers_in_the_order_of_the_tracks() -> None:
    tracker = visage()
    state = tracker.start()
    for vectors in ([X, Y], [Y, X]):
        tracker.step(state, frame(vectors, vectors))
    for name in ("query", "appearance"):
        assert [entry[name].tolist() for entry in state.memory.vectors] == [[X, Y], [X, Y]]
    # Logits (0, 0, 0) and (1, 0, 0): the greatest class probability, "no object" left aside.
    one, e = 1 / 3, float(np.exp(1.0))
    assert state.memory.scores[0].tolist() == pytest.approx([one, e / (e + 2)])
    assert state.memory.scores[1].tolist() == pytest.approx([e / (e + 2), one])


def test_visage_without_appearance_needs_no_appearance_vectors() -> None:
    assert queries_of(track_video(visage(appearance_weight=0.0), [frame([X, Y]), frame([Y, X])]))[1] == [1, 0]
    with pytest.raises(ValueError, match="vectors query, expected 'appearance'"):
        track_video(visage(), [frame([X, Y])])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"memory_weighting": "recnt"},
            "'recnt', expected one of recent, released, uniform; nearest is 'recent'",
        ),
        ({"appearance_weight": 1.5}, "appearance_weight is 1.5, expected 0 to 1"),
        ({"memory_frames": 0}, "memory_frames is 0, expected 1 or more"),
        ({"levels": []}, "levels is empty and appearance_weight is 0.75"),
        ({"levels": ["res9"]}, "no level 'res9'"),
    ],
)
def test_visage_refuses_fields_out_of_range(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        visage(**fields)


def test_a_config_of_another_tracker_is_refused() -> None:
    with pytest.raises(TypeError, match="VISAGE: config is a MinVISConfig, expected VISAGEConfig"):
        VISAGE(MinVISConfig(), **SIZES)  # type: ignore[arg-type]


@pytest.mark.parametrize("tracker", [MinVIS(MinVISConfig(), **SIZES), visage(appearance_weight=0.0)])
def test_number_of_queries_must_not_change(tracker: Tracker) -> None:
    with pytest.raises(ValueError, match="the frame has 3 queries and the video began with 2"):
        track_video(tracker, [frame([X, Y]), frame([X, Y, X])])


LEFT, RIGHT = [[1, 1, 0, 0]], [[0, 0, 1, 1]]


def annotated(frame: FrameQueries, instances: dict[int, tuple[int, list[list[int]]]]) -> FrameQueries:
    """``{id: (label, mask)}``"""
    masks = torch.tensor([mask for _, mask in instances.values()]).reshape(len(instances), 1, 4) > 0
    targets = FrameTargets(
        torch.tensor(list(instances), dtype=torch.int64),
        torch.tensor([label for label, _ in instances.values()], dtype=torch.int64),
        tuple(encode(masks)),
    )
    return replace(frame, targets=targets)


def test_oracle_names_queries_by_instance() -> None:
    tracker = Oracle(OracleConfig(), **SIZES)
    instances = {9: (0, LEFT), 4: (1, RIGHT)}
    frames = [
        annotated(masks_frame([[0, 0, 1, 0]], [[0, 1, 0, 0]], [[1, 1, 0, 0]]), instances),
        annotated(masks_frame([[0, 0, 0, 0]], [[1, 0, 0, 0]], [[0, 1, 1, 1]]), instances),
        annotated(masks_frame([[0, 0, 0, 1]], LEFT, LEFT), {}),
    ]
    for video in (frames, [finished(f) for f in frames]):
        found = [
            dict(zip(t.track_ids.tolist(), t.query_index.tolist(), strict=True))
            for t in track_video(tracker, video)
        ]
        assert found == [{9: 2, 4: 0}, {9: 1, 4: 2}, {}]


@pytest.mark.parametrize(("weight", "query"), [(0.0, 0), (0.1, 0), (1.0, 1)])
def test_oracle_weighs_the_class(weight: float, query: int) -> None:
    # Query 0 overlaps better (1 against 1/2), query 1 has the class (about 1 against 0).
    frame = masks_frame(LEFT, [[1, 0, 0, 0]])
    frame = replace(frame, logits=torch.tensor([[0.0, 20.0, 0.0], [20.0, 0.0, 0.0]]))
    tracker = Oracle(OracleConfig(class_weight=weight), **SIZES)
    assert tracker.step(None, annotated(frame, {3: (0, LEFT)})).query_index.tolist() == [query]


def test_oracle_class_does_not_stand_in_for_overlap() -> None:
    frame = replace(masks_frame(RIGHT), logits=torch.tensor([[20.0, 0.0, 0.0]]))
    tracked = Oracle(OracleConfig(), **SIZES).step(None, annotated(frame, {3: (0, LEFT)}))
    assert tracked.track_ids.tolist() == []
    assert tracked.logits.shape == (0, 3)


def test_oracle_wants_targets_of_the_same_size() -> None:
    tracker = Oracle(OracleConfig(), **SIZES)
    with pytest.raises(ValueError, match="no targets"):
        tracker.step(None, masks_frame(LEFT))
    small = replace(masks_frame(LEFT), mask_logits=torch.ones(1, 1, 2))
    with pytest.raises(ValueError, match=r"size \(1, 2\), those of the targets \(1, 4\)"):
        tracker.step(None, annotated(small, {3: (0, LEFT)}))


def random_video(seed: int) -> list[FrameQueries]:
    rng = torch.Generator().manual_seed(seed)
    queries, frames, width = [(1, 7, 5), (7, 23, 4), (23, 11, 9), (10, 3, 2)][seed % 4]

    def randn(*shape: int) -> Tensor:
        return torch.randn(shape, generator=rng)

    return [FrameQueries(randn(queries, 4), {"query": randn(queries, width)}) for _ in range(frames)]


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("weighting", ["recent", "released", "uniform"])
def test_ladder_visage_without_its_extras_is_minvis(seed: int, weighting: str) -> None:
    plain = visage(
        query_head=False, appearance_weight=0.0, memory_frames=1, levels=[], memory_weighting=weighting
    )
    video = random_video(seed)
    expected = track_video(MinVIS(MinVISConfig(), **SIZES), video)
    for a, b in zip(expected, track_video(plain, video), strict=True):
        assert torch.equal(a.track_ids, b.track_ids)
        assert torch.equal(a.query_index, b.query_index)
        assert torch.equal(a.logits, b.logits)

"""Motion alone, on numbers small enough to work out by hand."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from vistk.structures import FrameOutput, FrameQueries
from vistk.trackers.base import track_video
from vistk.trackers.kalman import Kalman, KalmanConfig
from vistk.trackers.motion import BoxFilter, Noise, box_diou, box_giou, box_iou, mask_boxes

SIZES = {"embed_dim": 2, "feature_channels": {}, "num_classes": 2}
ATOL = {torch.float32: 1e-5}
OBJECT, NOTHING = [9.0, 0.0, 0.0], [0.0, 0.0, 9.0]


def kalman(**fields: object) -> Kalman:
    return Kalman(KalmanConfig(**fields), **SIZES)  # type: ignore[arg-type]


def frame(*boxes: tuple[float, float], absent: tuple[int, ...] = (), side: float = 10.0) -> FrameQueries:
    """Squares around the given centres."""
    vectors = torch.tensor([[x, y, side, side] for x, y in boxes])
    logits = torch.tensor([NOTHING if q in absent else OBJECT for q in range(len(boxes))])
    return FrameQueries(logits, {"box": vectors})


def queries_of(tracker: Kalman, *frames: FrameQueries) -> list[list[int]]:
    return [tracked.query_index.tolist() for tracked in track_video(tracker, frames)]


def close(found: Tensor, expected: object) -> None:
    torch.testing.assert_close(
        found, torch.as_tensor(expected, dtype=found.dtype), atol=ATOL[torch.float32], rtol=0
    )


def test_the_box_of_a_rectangle_is_the_rectangle() -> None:
    masks = torch.full((2, 3, 7, 23), -1.0)
    masks[0, 0, 2:5, 4:14] = 1.0  # rows 2 to 4, columns 4 to 13
    masks[1, 2, 6, 22] = 1.0  # one cell
    boxes = mask_boxes(masks)
    assert boxes.shape == (2, 3, 4)
    close(boxes[0, 0], [9.0, 3.5, 10.0, 3.0])
    close(boxes[1, 2], [22.5, 6.5, 1.0, 1.0])
    close(boxes[0, 1], [0.0, 0.0, 0.0, 0.0])


def test_a_stray_cell_hardly_moves_the_box() -> None:
    masks = torch.full((20, 100), -1.0)
    masks[:, :10] = 1.0
    masks[0, 99] = 1.0
    x, _, width, _ = mask_boxes(masks).tolist()
    # 200 cells around 5 and one at 99.5: the mean is (200 * 5 + 99.5) / 201.
    assert x == pytest.approx(1099.5 / 201, abs=1e-4)
    assert width < 30  # the enclosing box is 100 wide


def test_overlaps_of_boxes() -> None:
    a = torch.tensor([[2.0, 2.0, 4.0, 4.0]])  # 0..4 by 0..4
    b = torch.tensor(
        [[4.0, 2.0, 4.0, 4.0], [12.0, 2.0, 4.0, 4.0], [2.0, 2.0, 4.0, 4.0], [0.0, 0.0, 0.0, 0.0]]
    )
    # 2..6: shares 8 of 24. 10..14: shares nothing, hull 14 x 4 = 56 of which 32 are filled, 10 apart.
    close(box_iou(a, b)[0, :3], [1 / 3, 0.0, 1.0])
    close(box_giou(a, b)[0, :3], [1 / 3, -24 / 56, 1.0])
    close(box_diou(a, b)[0, :3], [1 / 3 - 4 / 52, -100 / 212, 1.0])
    for similarity in (box_iou, box_giou, box_diou):
        assert similarity(b, b).isfinite().all()


def full_filter(boxes: list[list[float] | None], noise: Noise) -> np.ndarray:
    """The textbook filter with an 8x8 covariance and a matrix inverse; mean after the last box."""

    def state(box: list[float]) -> np.ndarray:
        x, y, w, h = box
        return np.array([x, y, math.sqrt(w * h), math.log(w / h)])

    def units(mean: np.ndarray) -> np.ndarray:
        return np.array([mean[2], mean[2], mean[2], 1.0])

    assert boxes[0] is not None
    mean = np.concatenate([state(boxes[0]), np.zeros(4)])
    unit = units(mean)
    cov = np.diag(np.concatenate([(noise.measured * unit) ** 2, (noise.start * unit) ** 2]))
    step, look = np.eye(8) + np.eye(8, k=4), np.eye(4, 8)
    step[3, 7] = 0  # the aspect is at rest
    for box in boxes[1:]:
        unit = units(mean)
        added = np.diag(np.concatenate([(noise.position * unit) ** 2, (noise.velocity * unit) ** 2]))
        mean, cov = step @ mean, step @ cov @ step.T + added
        if box is not None:
            seen = look @ cov @ look.T + np.diag((noise.measured * units(mean)) ** 2)
            gain = cov @ look.T @ np.linalg.inv(seen)
            mean, cov = mean + gain @ (state(box) - look @ mean), (np.eye(8) - gain @ look) @ cov
    return mean


def test_the_filter_is_the_one_with_the_full_covariance() -> None:
    noise = Noise(0.05, 0.04, 0.02, 0.5)
    boxes: list[list[float] | None] = [
        [10.0, 20.0, 8.0, 4.0],
        [13.0, 19.0, 9.0, 4.0],
        None,
        [18.0, 18.0, 9.0, 5.0],
    ]
    filters = BoxFilter.at(torch.tensor([boxes[0]]), noise)
    moving = torch.tensor([True])
    for box in boxes[1:]:
        filters = filters.predicted(noise, moving)
        if box is not None:
            filters = filters.updated(torch.tensor([box]), noise)
    expected = full_filter(boxes, noise)
    close(filters.values[0, 0], expected[:4])
    close(filters.values[1, 0], expected[4:])


def test_first_steps_of_the_filter() -> None:
    # A square of side 10 at x = 0, then seen at x = 6. In units of its size: measured 0.1, start 0.2.
    noise = Noise(measured=0.1, position=0.0, velocity=0.0, start=0.2)
    filters = BoxFilter.at(torch.tensor([[0.0, 0.0, 10.0, 10.0]]), noise)
    filters = filters.predicted(noise, torch.tensor([True]))
    # pp = 1 + 4, pv = vv = 4; the gains are 5 / (5 + 1) and 4 / 6.
    close(filters.values[2:, 0, 0], [5.0, 4.0, 4.0])
    filters = filters.updated(torch.tensor([[6.0, 0.0, 10.0, 10.0]]), noise)
    close(filters.values[:, 0, 0], [5.0, 4.0, 5 / 6, 4 / 6, 4 - 16 / 6])
    close(filters.boxes, [[5.0, 0.0, 10.0, 10.0]])
    resting = filters.predicted(noise, torch.tensor([False]))
    assert torch.equal(resting.values, filters.values)


def test_tracks_pass_through_each_other_by_their_motion() -> None:
    frames = [frame((8.0 * t, 0.0), (40.0 - 8.0 * t, 0.0)) for t in range(6)]
    assert queries_of(kalman(), *frames) == [[0, 1]] * 6
    # At rest, the filters lag behind at 12 and 28 when the squares have met and are at 24 and 16.
    rest = queries_of(kalman(start_noise=0.0, velocity_noise=0.0), *frames)
    assert rest[:4] == [[0, 1], [0, 1], [0, 1], [1, 0]]


@pytest.mark.parametrize(("coast_frames", "expected"), [(5, [2, 1, 0]), (0, [0, 1, 2])])
def test_a_hidden_track_moves_on(coast_frames: int, expected: list[int]) -> None:
    still, aside = (50.0, 100.0), (200.0, 200.0)
    shown = [frame((8.0 * t, 0.0), still, aside, absent=(2,)) for t in range(4)]
    hidden = [frame((24.0, 0.0), still, aside, absent=(0, 2))] * 2
    # It should be at 48 by now. One that waits at 32 takes the square at 24, where the first one vanished.
    back = frame((24.0, 0.0), still, (48.0, 0.0))
    assert queries_of(kalman(coast_frames=coast_frames), *shown, *hidden, back)[-1] == expected


def test_queries_that_are_no_object_take_what_is_left() -> None:
    # The ghost lies where the object was, the object has moved by 4.
    frames = [frame((10.0, 0.0), (60.0, 0.0), absent=(1,)), frame((10.0, 0.0), (14.0, 0.0), absent=(0,))]
    assert queries_of(kalman(), *frames)[1] == [1, 0]
    # Without the difference, overlap alone decides: 10 of 10 and not 6 of 14.
    assert queries_of(kalman(presence=0.0), *frames)[1] == [0, 1]


def test_an_empty_mask_is_no_object_however_confident() -> None:
    first = frame((10.0, 0.0), (60.0, 0.0))
    empty = frame((0.0, 0.0), (60.0, 0.0))
    empty = replace(empty, vectors={"box": empty.vectors["box"] * torch.tensor([[0.0], [1.0]])})
    tracker = kalman()
    state = tracker.start()
    tracker.step(state, first)
    tracker.step(state, empty)
    assert state.slots is not None
    assert state.slots.unseen.tolist() == [1, 0]
    close(state.slots.filter.boxes[0], [10.0, 0.0, 10.0, 10.0])


@pytest.mark.parametrize(("least_similarity", "expected"), [(-0.5, [0, 1]), (-1.0, [1, 0])])
def test_an_object_far_from_all_tracks_begins_another_one(
    least_similarity: float, expected: list[int]
) -> None:
    # DIoU of squares 50 apart: -2500 / (60^2 + 10^2) = -0.68.
    frames = [frame((10.0, 0.0), (90.0, 0.0), absent=(1,)), frame((10.0, 0.0), (60.0, 0.0), absent=(0,))]
    assert queries_of(kalman(least_similarity=least_similarity), *frames)[1] == expected


def test_a_track_that_is_given_a_far_object_begins_anew_there() -> None:
    tracker = kalman()
    state = tracker.start()
    for x in (10.0, 14.0, 90.0):
        tracker.step(state, frame((x, 0.0)))
    assert state.slots is not None
    mean, velocity, *_ = state.slots.filter.values[:, 0]
    close(mean[:2], [90.0, 0.0])
    close(velocity, [0.0] * 4)


def test_query_vectors_are_not_looked_at() -> None:
    masks = torch.full((1, 2, 4, 6), -1.0)
    masks[0, 0, :2, :2] = masks[0, 1, 2:, 3:] = 1.0
    logits = torch.tensor([OBJECT, OBJECT])
    out = FrameOutput(logits[None], masks, torch.randn(1, 2, 2), torch.zeros(1, 2, 4, 6), {})
    described = kalman().describe(out)
    assert list(described.vectors) == ["box"]
    close(described.vectors["box"][0], [[1.0, 1.0, 2.0, 2.0], [4.5, 3.0, 3.0, 2.0]])
    with pytest.raises(ValueError, match="Kalman: the frame has the vectors query, expected 'box'"):
        track_video(kalman(), [FrameQueries(logits, {"query": torch.ones(2, 2)})])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"similarity": "ciou"}, "'ciou', expected one of diou, giou, iou"),
        ({"presence": 1.5}, "presence is 1.5, expected 0 to 1"),
        ({"measured_noise": 0.0}, "measured_noise is 0.0, expected more than 0"),
        ({"velocity_noise": -0.1}, "velocity_noise is -0.1, expected 0 or more"),
        ({"coast_frames": -1}, "coast_frames is -1, expected 0 or more"),
    ],
)
def test_fields_out_of_range(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        kalman(**fields)


def test_a_track_that_turned_before_it_went_out_of_sight_keeps_its_shape() -> None:
    # From 8x30 to 30x8, then unseen: the aspect does not go on turning. It did once, to 18,100 x 0.01.
    noise = Noise(0.05, 0.05, 0.02, 0.5)
    filters = BoxFilter.at(torch.tensor([[40.0, 40.0, 8.0, 30.0]]), noise)
    for aspect in (0.3, 0.6, 1.0, 1.7, 30 / 8):
        seen = torch.tensor([[40.0, 40.0, (240 * aspect) ** 0.5, (240 / aspect) ** 0.5]])
        filters = filters.predicted(noise, torch.tensor([True])).updated(seen, noise)
    last = filters.boxes
    for _ in range(20):
        filters = filters.predicted(noise, torch.tensor([True]))
    close(filters.boxes[0, 2] / filters.boxes[0, 3], last[0, 2] / last[0, 3])
    assert filters.boxes[0, 2:].max() < 60

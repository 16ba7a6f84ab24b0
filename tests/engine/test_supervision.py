from __future__ import annotations

import sys

import numpy as np
import pytest
import torch

from vistk.engine.streamed_frame import MaskRows, StreamedFrame
from vistk.engine.supervision import (
    DetectionsError,
    from_supervision,
    link_detections,
    prediction_from_supervision,
    to_supervision,
)
from vistk.ops.masks import decode, encode
from vistk.structures import FinishedMasks, Tracklet, VideoPrediction
from vistk.trackers.association import class_scores
from vistk.trackers.kalman import Kalman
from vistk.trackers.mask_iou import MaskIoU
from vistk.trackers.minvis import MinVIS

sv = pytest.importorskip("supervision", reason="supervision is not installed")

SIZE = (23, 83)


def rectangle(x0, y0, x1, y1):
    mask = np.zeros(SIZE, dtype=bool)
    mask[y0:y1, x0:x1] = True
    return mask


def rle(*box):
    return encode(torch.from_numpy(rectangle(*box))[None])[0]


def detections(*boxes, masks=True, **fields):
    xyxy = np.array(boxes, dtype=np.float64).reshape(-1, 4)
    stack = np.array([rectangle(*box) for box in boxes], dtype=bool).reshape(-1, *SIZE)
    fields = {name: np.array(values) for name, values in fields.items()}
    return sv.Detections(xyxy=xyxy, mask=stack if masks else None, **fields)


def streamed(rles, ids, labels, scores, frame_scores):
    zeros = torch.zeros(len(rles), dtype=torch.float64)
    return StreamedFrame(
        4,
        SIZE,
        torch.tensor(ids, dtype=torch.int64),
        torch.tensor(labels, dtype=torch.int64),
        torch.tensor(scores, dtype=torch.float64),
        torch.tensor(frame_scores, dtype=torch.float64),
        MaskRows(FinishedMasks(tuple(rles), zeros, zeros), range(len(rles))),
    )


def test_a_streamed_frame():
    frame = streamed(
        [rle(3, 2, 10, 7), None, rle(0, 0, 1, 1)], [9, 4, 2], [1, 0, 0], [0.9, 0.8, 0.5], [0.7, 0.6, 0.4]
    )
    found = to_supervision(frame, names=["cat", "dog"])
    assert isinstance(found, sv.Detections)
    assert found.xyxy.tolist() == [[3, 2, 10, 7], [0, 0, 1, 1]]
    assert np.array_equal(found.mask, [rectangle(3, 2, 10, 7), rectangle(0, 0, 1, 1)])
    assert found.mask.dtype == bool
    assert found.tracker_id.tolist() == [9, 2]  # what has no pixel is left out
    assert found.class_id.tolist() == [1, 0]
    assert found.confidence.tolist() == [0.9, 0.5]
    assert found.data["frame_score"].tolist() == [0.7, 0.4]
    assert found.data["class_name"].tolist() == ["dog", "cat"]
    assert np.array_equal(sv.mask_to_xyxy(found.mask, "exclusive"), found.xyxy)
    assert found[found.confidence > 0.6].tracker_id.tolist() == [9]


def test_a_streamed_frame_without_tracks():
    found = to_supervision(streamed([], [], [], [], []))
    assert found.is_empty()
    assert found.mask.shape == (0, *SIZE)
    assert found.tracker_id.tolist() == []


def test_a_frame_of_a_prediction():
    tracklets = (
        Tracklet(5, 0, 0.4, (rle(0, 0, 4, 4), rle(1, 0, 5, 4))),
        Tracklet(5, 1, 0.6, (rle(0, 0, 4, 4), rle(1, 0, 5, 4))),  # the same track as another class
        Tracklet(2, 0, 0.9, (rle(50, 3, 60, 9), None)),
    )
    prediction = VideoPrediction(1, tracklets, (7, 30))
    first, second = (to_supervision(prediction, t) for t in (0, 1))
    assert first.tracker_id.tolist() == [2, 5]
    assert first.class_id.tolist() == [0, 1]
    assert first.data["category_id"].tolist() == [7, 30]
    assert first.confidence.tolist() == [0.9, 0.6]
    assert second.xyxy.tolist() == [[1, 0, 5, 4]]
    assert "class_name" not in second.data
    assert to_supervision(VideoPrediction(1, ()), 3).is_empty()


@pytest.mark.parametrize("number", [None, -1, 2])
def test_a_prediction_is_asked_for_one_of_its_frames(number):
    prediction = VideoPrediction(1, (Tracklet(5, 0, 0.4, (None, rle(1, 0, 5, 4))),))
    with pytest.raises(DetectionsError, match=f"number is {number}, expected a frame of the video, 0 to 1"):
        to_supervision(prediction, number)


def test_what_else_to_supervision_refuses(monkeypatch):
    frame = streamed([rle(3, 2, 10, 7)], [9], [1], [0.9], [0.7])
    with pytest.raises(DetectionsError, match="tracks is a str, expected a StreamedFrame or a VideoPred"):
        to_supervision("x")
    with pytest.raises(DetectionsError, match="number is 4, but a streamed frame is one frame"):
        to_supervision(frame, 4)
    with pytest.raises(DetectionsError, match="names has 1 entries, but there is a class 1"):
        to_supervision(frame, names=["cat"])
    monkeypatch.setitem(sys.modules, "supervision", None)
    with pytest.raises(
        ImportError, match=r'^to_supervision needs supervision .*: pip install -e "\.\[supervision\]"$'
    ):
        to_supervision(frame)


def test_queries_of_detections():
    given = detections((3, 2, 10, 7), (0, 0, 1, 1), confidence=[0.75, 1.0], class_id=[2, 0])
    queries = from_supervision(given, SIZE, num_classes=3, num_queries=5)
    assert queries.logits.shape == (5, 4)
    probabilities = queries.logits.softmax(-1)
    assert torch.allclose(probabilities[0], torch.tensor([0, 0, 0.75, 0.25]), atol=3e-4)
    assert torch.allclose(probabilities[1], torch.tensor([1.0, 0, 0, 0]), atol=5e-4)
    assert (class_scores(queries.logits)[2:] < 1e-3).all()
    assert queries.masks.rles == (rle(3, 2, 10, 7), rle(0, 0, 1, 1), None, None, None)
    assert queries.masks.area.tolist() == [35, 1, 0, 0, 0]
    boxes = torch.tensor([[6.5, 4.5, 7, 5], [0.5, 0.5, 1, 1]])
    assert torch.allclose(queries.vectors["box"][:2], boxes, rtol=1e-5)
    assert not queries.vectors["box"][2:].any()


def test_queries_of_boxes_without_masks_confidence_and_class():
    boxes = sv.Detections(xyxy=np.array([[3.4, 2.5, 10.5, 7.49], [-5, -5, 2, 500], [6.6, 1.0, 7.4, 9.0]]))
    queries = from_supervision(boxes, SIZE, num_classes=2, num_queries=3)
    # pixels whose centres lie inside: 3.5 .. 9.5 and 2.5 .. 6.5; 10.5 is one past
    assert queries.masks.rles == (rle(3, 2, 10, 7), rle(0, 0, 2, 23), None)
    assert torch.allclose(queries.logits.softmax(-1)[:, 0], torch.ones(3), atol=5e-4)


def test_no_detections():
    for empty in (sv.Detections.empty(), detections()):
        queries = from_supervision(empty, SIZE, num_classes=2, num_queries=4)
        assert queries.masks.rles == (None,) * 4
        assert (class_scores(queries.logits) < 1e-3).all()


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (detections((0, 0, 1, 1), (1, 1, 2, 2)), "2 detections in a frame, expected at most num_queries=1"),
        (detections((0, 0, 1, 1), class_id=[3]), "class_id is 3, expected 0 to 2"),
        (detections((0, 0, 1, 1), class_id=[-1]), "class_id is -1, expected 0 to 2"),
        (detections((0, 0, 1, 1), class_id=[0.5]), r"class_id is 0\.5, expected whole numbers"),
        (detections((0, 0, 1, 1), confidence=[1.5]), "confidence is 1.5, expected 0 to 1"),
        (detections((0, 0, 1, 1), confidence=[float("nan")]), "confidence is nan, expected 0 to 1"),
        (
            sv.Detections(xyxy=np.zeros((1, 4)), mask=np.zeros((1, 7, 9), dtype=bool)),
            r"mask is of 7x9 pixels, the frame of 23x83 \(height, width\)",
        ),
    ],
    ids=["too many", "class", "no class", "half a class", "confidence", "nan", "size"],
)
def test_detections_that_do_not_fit(given, sentence):
    with pytest.raises(DetectionsError, match=sentence):
        from_supervision(given, SIZE, num_classes=3, num_queries=1)
    if "num_queries" not in sentence:
        with pytest.raises(DetectionsError, match=f"frame 1: {sentence}"):
            link_detections(tracker(MaskIoU, 3), [detections(), given], SIZE, num_classes=3)


@pytest.mark.parametrize("num_classes", [0, -1])
def test_classes_there_must_be(num_classes):
    for given in (detections((0, 0, 1, 1)), detections()):
        with pytest.raises(DetectionsError, match=f"^num_classes is {num_classes}, expected 1 or more$"):
            from_supervision(given, SIZE, num_classes)


def test_whole_numbers_may_be_of_any_type():
    given = detections((0, 0, 2, 2), tracker_id=[3.0], class_id=np.array([1], dtype=np.uint8))
    (found,) = prediction_from_supervision([given], SIZE).tracklets
    assert (found.track_id, found.label) == (3, 1)


def tracker(cls, num_classes=1):
    return cls(cls.Config(), embed_dim=1, feature_channels={}, num_classes=num_classes)


@pytest.mark.parametrize("cls", [MaskIoU, Kalman])
@pytest.mark.parametrize("masks", [True, False], ids=["masks", "boxes"])
def test_hand_made_trackers_link_the_detections_of_others(cls, masks):
    """Two objects pass each other's columns in two rows; one is missed once; their order changes."""
    frames = []
    for t in range(6):
        boxes = [(4 + 3 * t, 1, 16 + 3 * t, 9), (40 - 3 * t, 12, 52 - 3 * t, 20)]
        marks = ["upper", "lower"]
        if t == 3:
            boxes, marks = boxes[1:], marks[1:]
        order = slice(None, None, -1 if t % 2 else 1)
        frame = detections(*boxes[order], masks=masks, confidence=[0.9] * len(boxes))
        frame.data["mark"] = np.array(marks[order])
        frames.append(frame)
    linked = link_detections(tracker(cls), frames, SIZE, num_queries=7)
    ids = {
        mark: {f.tracker_id[i] for f in linked for i, m in enumerate(f.data["mark"]) if m == mark}
        for mark in ("upper", "lower")
    }
    assert len(ids["upper"]) == len(ids["lower"]) == 1
    assert ids["upper"] != ids["lower"]
    assert all(frame.tracker_id is None for frame in frames)
    assert [len(frame) for frame in linked] == [2, 2, 2, 1, 2, 2]

    prediction = prediction_from_supervision(linked, SIZE)
    assert [t.score for t in prediction.tracklets] == pytest.approx([0.9, 0.9])
    upper = next(t for t in prediction.tracklets if t.track_id in ids["upper"])
    assert upper.segmentations[3] is None
    assert np.array_equal(decode(upper.segmentations[5]), rectangle(19, 1, 31, 9))


def test_trackers_that_look_at_more_refuse_detections():
    with pytest.raises(ValueError, match="the frame has the vectors box, expected 'query'"):
        link_detections(tracker(MinVIS), [detections((0, 0, 4, 4))], SIZE)


def test_a_prediction_of_linked_detections():
    frames = [
        detections((0, 0, 4, 4), (9, 9, 12, 12), tracker_id=[8, 3], class_id=[1, 0], confidence=[0.6, 0.5]),
        sv.Detections.empty(),
        detections((1, 0, 5, 4), (2, 2, 3, 3), tracker_id=[8, -1], class_id=[0, 1], confidence=[0.2, 0.9]),
    ]
    prediction = prediction_from_supervision(frames, SIZE, video_id=6, category_ids=(7, 30))
    best, second = prediction.tracklets
    assert (second.track_id, second.label, second.score) == (8, 1, pytest.approx(0.4))
    assert second.segmentations == (rle(0, 0, 4, 4), None, rle(1, 0, 5, 4))
    assert (best.track_id, best.score) == (3, 0.5)
    assert [entry["category_id"] for entry in prediction.to_ytvis()] == [7, 30]
    assert {entry["video_id"] for entry in prediction.to_ytvis()} == {6}
    assert prediction_from_supervision([], SIZE).tracklets == ()


def test_a_track_without_a_pixel_is_none():
    found = prediction_from_supervision([detections((4, 4, 4, 4), tracker_id=[1])], SIZE)
    assert found.tracklets == ()


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({}, "frame 1: the detections have no tracker_id, expected one for each; link_detections gives them"),
        ({"tracker_id": [1, 1.5]}, "frame 1: tracker_id is 1.5, expected whole numbers"),
        ({"tracker_id": [1, float("inf")]}, "frame 1: tracker_id is inf, expected whole numbers"),
        ({"tracker_id": ["a", "b"]}, "frame 1: tracker_id is a, expected whole numbers"),
        ({"tracker_id": [2, 2]}, "frame 1: tracker_id 2 comes twice, expected once"),
        ({"tracker_id": [1, 2], "class_id": [0, 2]}, "frame 1: class_id is 2, expected 0 to 1"),
        ({"tracker_id": [1, 2], "confidence": [0, -1]}, "frame 1: confidence is -1, expected 0 to 1"),
    ],
    ids=["no id", "half an id", "endless id", "text", "twice", "class", "confidence"],
)
def test_detections_that_are_no_prediction(fields, sentence):
    with pytest.raises(DetectionsError) as raised:
        prediction_from_supervision(
            [sv.Detections.empty(), detections((0, 0, 2, 2), (3, 3, 5, 5), **fields)],
            SIZE,
            category_ids=(1, 2),
        )
    assert str(raised.value) == sentence


def test_there_and_back():
    tracklets = (
        Tracklet(5, 1, 0.75, (rle(0, 0, 4, 4), None, rle(1, 0, 5, 4))),
        Tracklet(2, 0, 0.5, (None, None, rle(50, 3, 60, 9))),
    )
    prediction = VideoPrediction(3, tracklets, (7, 30))
    frames = [to_supervision(prediction, t) for t in range(3)]
    assert prediction_from_supervision(frames, SIZE, video_id=3, category_ids=(7, 30)) == prediction


def test_masks_in_compact_form():
    compact = pytest.importorskip("supervision.detection.compact_mask")
    frame = detections((3, 2, 10, 7), tracker_id=[1])
    frame.mask = compact.CompactMask.from_dense(frame.mask, frame.xyxy, SIZE)
    assert from_supervision(frame, SIZE, 1, 1).masks.rles == (rle(3, 2, 10, 7),)

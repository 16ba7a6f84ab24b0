"""Streams: what a frame says at once, the video in the end, and frames that are not what they should be."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from streams import (
    CLASSES,
    CountingSegmenter,
    nearly_same_frame,
    noise,
    pushed,
    random_segmenter,
    same_frame,
    tracker_of,
    trained_segmenter,
)

from vistk.data.config import SyntheticConfig
from vistk.data.synthetic import frames_of
from vistk.data.transforms import resize_images
from vistk.engine import finishing, infer, stream_passes, streamed_frame
from vistk.engine.infer import track_video
from vistk.engine.predict import predict
from vistk.engine.stream import Stream, StreamError, push_together
from vistk.engine.video_tracker import EvalConfig
from vistk.ops.masks import decode
from vistk.structures import ScoringProtocol, TrackedFrame
from vistk.trackers.base import Tracker
from vistk.trackers.registry import get_tracker, tracker_names

NAMES = [name for name in tracker_names() if not get_tracker(name)[0].uses_targets]


@pytest.fixture(scope="module")
def segmenter():
    return random_segmenter()


@pytest.fixture(scope="module")
def minvis(segmenter):
    return tracker_of("minvis", segmenter)


@pytest.mark.parametrize("name", NAMES)
def test_a_stream_ends_as_the_batch_does(name, segmenter):
    tracker = tracker_of(name, segmenter)
    frames = noise(6)
    expected = predict(segmenter, tracker, frames, window=1, video_id=3)
    assert expected.tracklets
    with Stream(segmenter, tracker, video_id=3) as stream:
        pushed(stream, frames)
        assert stream.close() == expected


def test_oracle_is_refused(segmenter):
    with pytest.raises(StreamError, match="Oracle reads ground truth, which frames alone do not have"):
        Stream(segmenter, tracker_of("oracle", segmenter))


@pytest.mark.parametrize("rescore", [True, False])
def test_the_protocol_is_kept(rescore, segmenter, minvis):
    protocol = ScoringProtocol(keep_top=3, rescore=rescore, category_ids=(7, 5, 9, 2))
    frames = noise(3)
    stream = Stream(segmenter, minvis, protocol=protocol)
    pushed(stream, frames)
    found = stream.close()
    assert found == predict(segmenter, minvis, frames, window=1, protocol=protocol)
    assert len(found.tracklets) == 3
    assert {entry["category_id"] for entry in found.to_ytvis()} <= {7, 5, 9, 2}


def test_online_scores_are_those_of_the_video_if_it_ended_here(segmenter, minvis):
    frames = noise(4)
    protocol = ScoringProtocol(keep_top=1000, rescore=False)
    stream = Stream(segmenter, minvis, protocol=protocol)
    for number, frame in enumerate(pushed(stream, frames)):
        so_far = predict(segmenter, minvis, frames[: number + 1], window=1, protocol=protocol)
        best: dict[int, tuple[float, int]] = {}
        for tracklet in so_far.tracklets:
            best[tracklet.track_id] = max(
                best.get(tracklet.track_id, (0.0, 0)), (tracklet.score, tracklet.label)
            )
        assert frame.number == number
        assert frame.scores.tolist() == sorted(frame.scores.tolist(), reverse=True)
        said = zip(frame.ids.tolist(), frame.scores.tolist(), frame.labels.tolist(), strict=True)
        found = {track: (score, label) for track, score, label in said}
        assert found.items() >= best.items()  # a track without any pixel is in no prediction
        if number == 0:
            assert torch.equal(frame.scores, frame.frame_scores)


def test_scores_of_a_frame_are_of_that_frame_alone():
    segmenter = CountingSegmenter()
    stream = Stream(segmenter, tracker_of("identity", segmenter))
    dark, bright = (torch.full((3, 16, 24), value, dtype=torch.uint8) for value in (0, 255))
    stream.push(dark)
    frame = stream.push(bright)
    now = (segmenter.logits + 1).double()
    mean = (segmenter.logits.double() + now) / 2
    for row, track in enumerate(frame.ids.tolist()):
        label = int(mean[track][:-1].argmax())
        assert frame.labels[row] == label
        torch.testing.assert_close(frame.scores[row], mean[track].softmax(0)[label])
        torch.testing.assert_close(frame.frame_scores[row], now[track].softmax(0)[label])


def test_masks_are_finished_when_they_are_read_and_a_subset_is_of_the_best(segmenter, minvis, monkeypatch):
    finished = []
    real = streamed_frame.finish_chosen
    monkeypatch.setattr(
        streamed_frame, "finish_chosen", lambda wanted: (finished.append(wanted), real(wanted))
    )
    frame = Stream(segmenter, minvis, record=False).push(noise(1)[0])
    threshold = float(frame.scores[3])
    some = frame.above(threshold)
    assert not finished
    assert len(some) == 4
    assert some.ids.tolist() == frame.ids[:4].tolist()
    assert some.frame_scores.tolist() == frame.frame_scores[:4].tolist()
    assert some.rles == some.rles
    assert [len(queries) for ((_, queries),) in finished] == [4]
    assert frame.rles[:4] == some.rles
    assert frame.above(threshold).rles == some.rles
    masks = frame.masks
    assert masks.shape == (10, 40, 70)
    assert masks.dtype == torch.bool
    for mask, rle in zip(masks, frame.rles, strict=True):
        assert mask.any() == (rle is not None)
        assert rle is None or np.array_equal(decode(rle), mask.numpy())
    assert len(frame.above(2.0)) == 0
    assert frame.above(2.0).masks.shape == (0, 40, 70)


@pytest.mark.parametrize("name", ["minvis", "mask-iou"])
def test_a_frame_that_is_kept_holds_no_logits_but_its_own(name, segmenter, monkeypatch):
    finished = []
    real = finishing.finish_masks
    monkeypatch.setattr(
        finishing, "finish_masks", lambda logits, size: (finished.append(len(logits)), real(logits, size))[1]
    )
    frames, tracker = noise(8), tracker_of(name, segmenter)
    expected = [(frame.ids.tolist(), frame.rles) for frame in pushed(Stream(segmenter, tracker), frames)]
    finished.clear()
    stream = Stream(segmenter, tracker, record=False)
    found = stream.push_many(list(frames))
    for frame in found:
        logits = frame._masks._source.mask_logits
        assert len(logits) == len(frame) == 10
        assert logits.untyped_storage().nbytes() == logits.nbytes
        none = frame.above(2.0)
        assert none._masks._source is None
        assert none.rles == ()
    assert sum(finished) == (80 if name == "mask-iou" else 0)  # that tracker looks at masks
    assert [(frame.ids.tolist(), frame.rles) for frame in found] == expected
    assert sum(finished) == 80
    assert all(frame._masks._source is None for frame in found)


def test_some_masks_of_a_frame():
    logits = torch.randn(5, 4, 6, generator=torch.Generator().manual_seed(1))
    size = finishing.FrameSize((16, 24), (15, 23), (30, 46))
    all_masks = finishing.FrameMasks(logits, size).finished()
    some = finishing.FrameMasks(logits, size).finished([3, 1])
    for query in range(5):
        if query in (1, 3):
            assert some[query] == all_masks[query]
            assert some[query].rle is not None
        else:
            assert some[query] == (None, 0, 0)
    assert finishing.FrameMasks(logits, size).finished([]).rles == (None,) * 5
    assert finishing.FrameMasks(logits, size).only([3, 1]).finished().rles == (some.rles[3], some.rles[1])


def test_frames_are_compared_by_what_they_are(segmenter, minvis):
    a, b = Stream(segmenter, minvis).push_many(list(noise(2)))
    assert a != b
    assert a in {a}
    assert b not in {a}


def test_sides_are_whole_numbers_of_any_type(segmenter, minvis):
    frame = noise(1, 90, 120)[0]
    expected = Stream(segmenter, minvis, short_side=48, max_side=57).push(frame)
    assert same_frame(
        Stream(segmenter, minvis, short_side=np.int64(48), max_side=np.uint8(57)).push(frame), expected
    )


def test_frames_are_resized_for_the_network_and_masks_have_the_size_of_the_frame(segmenter, minvis):
    frames = noise(3, 90, 120)
    small = resize_images(frames, (43, 57)).contiguous()  # 90x120 at most 57 wide
    expected = predict(segmenter, minvis, small, (90, 120), window=1)
    stream = Stream(segmenter, minvis, short_side=48, max_side=57)
    found = pushed(stream, frames)
    assert {frame.masks.shape for frame in found} == {(10, 90, 120)}
    assert stream.close() == expected


def test_arrays_and_tensors_are_one_frame(segmenter, minvis):
    frames = noise(2)
    as_tensors, as_arrays = Stream(segmenter, minvis), Stream(segmenter, minvis)
    image = np.ascontiguousarray(frames[0].permute(1, 2, 0).numpy()[..., ::-1])
    kept = image.copy()
    found = as_arrays.push(image[..., ::-1])  # BGR in memory
    image[:] = 0
    assert same_frame(found, as_tensors.push(frames[0]))
    kept.flags.writeable = False
    assert same_frame(as_arrays.push(kept[..., ::-1]), as_tensors.push(frames[0]))
    assert as_arrays.close() == as_tensors.close()


@pytest.mark.parametrize("name", ["minvis", "propagation", "vita", "dvis"])
def test_several_frames_at_once(name, segmenter):
    tracker = tracker_of(name, segmenter)
    frames = noise(5)
    one, many = Stream(segmenter, tracker), Stream(segmenter, tracker)
    alone = pushed(one, frames)
    together = [*many.push_many(frames[:3]), *many.push_many([]), *many.push_many(list(frames[3:]))]
    for a, b in zip(alone, together, strict=True):
        nearly_same_frame(a, b)
    a, b = one.close().tracklets, many.close().tracklets
    assert [(x.track_id, x.label) for x in a] == [(x.track_id, x.label) for x in b]
    np.testing.assert_allclose([x.score for x in a], [x.score for x in b], atol=1e-4)


def test_a_frame_that_never_came(segmenter, minvis):
    frames = noise(4)
    stream = Stream(segmenter, minvis)
    stream.skip()
    pushed(stream, frames[:2])
    stream.skip()
    assert stream.push(frames[2]).number == 4
    pushed(stream, frames[3:])
    stream.skip()
    expected = predict(segmenter, minvis, frames, window=1).tracklets
    found = stream.close().tracklets
    assert len(found) == len(expected) > 0
    for ours, theirs in zip(found, expected, strict=True):
        assert (ours.track_id, ours.label, ours.score) == (theirs.track_id, theirs.label, theirs.score)
        a, b, c, d = theirs.segmentations
        assert ours.segmentations == (None, a, b, None, c, d, None)


@pytest.mark.parametrize("name", ["tracklet-linking", "vita", "vita-frame-masks"])
def test_offline_trackers_know_which_frames_were_skipped(name, segmenter):
    tracker = tracker_of(name, segmenter)
    frames = noise(3)
    stream = Stream(segmenter, tracker)
    stream.push(frames[0])
    stream.skip()
    pushed(stream, frames[1:])
    expected = predict(segmenter, tracker, frames, window=1).tracklets
    for ours, theirs in zip(stream.close().tracklets, expected, strict=True):
        a, b, c = theirs.segmentations
        assert (ours.score, ours.segmentations) == (theirs.score, (a, None, b, c))


def test_a_stream_without_frames(segmenter, minvis):
    assert Stream(segmenter, minvis).close().tracklets == ()
    stream = Stream(segmenter, tracker_of("vita", segmenter))
    stream.skip()
    assert stream.close().tracklets == ()


class Silent(Tracker):
    """Sees no object, but in frames 2 and 3."""

    Config = get_tracker("identity")[1].__class__

    def start(self):
        return []

    def step(self, state, frame):
        state.append(0)
        found = torch.tensor([5]) if len(state) in (3, 4) else torch.zeros(0, dtype=torch.int64)
        return TrackedFrame(found, found.clone() * 0, frame.logits[: len(found)])


def test_frames_without_tracks(segmenter):
    tracker = Silent(Silent.Config(), embed_dim=64, feature_channels={}, num_classes=CLASSES)
    stream = Stream(segmenter, tracker)
    frames = noise(5)
    found = pushed(stream, frames)
    assert [frame.ids.tolist() for frame in found] == [[], [], [5], [5], []]
    assert found[0].masks.shape == (0, 40, 70)
    assert found[0].above(0.0).rles == ()
    prediction = stream.close()
    assert {t.track_id for t in prediction.tracklets} == {5}
    assert prediction.tracklets[0].segmentations == (None, None, found[2].rles[0], found[3].rles[0], None)
    assert prediction == predict(segmenter, tracker, frames, window=1)


def truth_of(frame, masks):
    """The track of each object that one covers well, by the object."""
    found = {}
    confident = frame.above(0.3)
    ours = confident.masks.numpy()
    for number, mask in enumerate(masks):
        if mask is None:
            continue
        iou = [(mask & own).sum() / max(1, (mask | own).sum()) for own in ours]
        if iou and max(iou) > 0.6:
            found[number] = int(confident.ids[int(np.argmax(iou))])
    return found


def objects_of(kind, index):
    """Frames of a video of the benchmark, and of every frame the objects' masks."""
    frames, _, annotations = frames_of(SyntheticConfig(frames=16), kind, index)
    masks = [
        [None if rle is None else decode(rle) for rle in annotation["segmentations"]]
        for annotation in annotations
    ]
    return frames, list(zip(*masks, strict=True))


@pytest.mark.parametrize("change", ["none", "every second", "twice each", "one in between is lost"])
def test_ids_stay_with_slow_objects_whatever_the_frame_rate(change):
    numbers = {
        "none": list(range(16)),
        "every second": [*range(8), *range(8, 16, 2)],
        "twice each": [*range(8), *(t for t in range(8, 16) for _ in range(2))],
        "one in between is lost": [t for t in range(16) if t != 9],
    }[change]
    segmenter = trained_segmenter()
    tracker = tracker_of("minvis", segmenter)
    seen = 0
    for index in (0, 1, 2):
        frames, truth = objects_of("static", index)
        stream, tracks = Stream(segmenter, tracker), {}
        for t in numbers:
            if change.startswith("one") and t == 10:
                stream.skip()
            for number, track in truth_of(stream.push(frames[t]), truth[t]).items():
                assert tracks.setdefault(number, track) == track, f"video {index}, frame {t}"
                seen += 1
        if change.startswith("one"):
            kept = [t for t in stream.close().tracklets if t.score > 0.5]
            assert kept
            assert all(t.segmentations[9] is None and t.segmentations[10] is not None for t in kept)
    assert seen > 2 * 3 * len(numbers)


def test_a_repeated_frame_changes_nothing_but_the_count(segmenter, minvis):
    frame = noise(1)[0]
    stream = Stream(segmenter, minvis)
    first, second = stream.push(frame), stream.push(frame)
    assert sorted(zip(first.ids.tolist(), first.rles, strict=True), key=str) == sorted(
        zip(second.ids.tolist(), second.rles, strict=True), key=str
    )
    torch.testing.assert_close(first.scores, second.scores)
    for tracklet in stream.close().tracklets:
        assert tracklet.segmentations[0] == tracklet.segmentations[1]


@pytest.mark.parametrize("name", ["minvis", "mask-iou", "dvis", "vita", "propagation"])
def test_frames_of_another_size(name, segmenter, monkeypatch):
    """Masks of a push have the frame's size, those of the prediction that of the first frame."""
    monkeypatch.setattr(infer, "HELD_BYTES", 1)  # frames of several sizes are not finished together
    tracker = tracker_of(name, segmenter)
    frames = [noise(1, 40, 70)[0], noise(1, 70, 40)[0], noise(1, 40, 70, seed=3)[0], noise(1, 64, 96)[0]]
    stream = Stream(segmenter, tracker)
    found = [stream.push(frame) for frame in frames]
    assert [frame.masks.shape[1:] for frame in found] == [frame.shape[1:] for frame in frames]
    assert [frame.size for frame in found] == [tuple(frame.shape[1:]) for frame in frames]
    readers = [lambda frame=frame: frame for frame in frames]
    config = EvalConfig(window=1, keep_top=10, rescore=True)
    expected = track_video(
        segmenter, {"x": tracker}, readers, (40, 70), config, torch.device("cpu")
    )["x"].prediction  # fmt: skip
    prediction = stream.close()
    assert prediction == expected
    assert {tuple(r["size"]) for t in prediction.tracklets for r in t.segmentations if r} == {(40, 70)}


def test_streams_of_one_segmenter_together(segmenter):
    """Frames of one size share a pass; ids are those of a stream alone, whoever else is there."""
    trackers = [tracker_of(name, segmenter) for name in ("minvis", "visage", "propagation", "dvis", "minvis")]
    videos = [noise(4, seed=3), noise(4, seed=4), noise(4, seed=5), noise(4, 64, 33), noise(4, seed=6)]
    alone = [pushed(Stream(segmenter, t), v) for t, v in zip(trackers, videos, strict=True)]
    streams = [Stream(segmenter, tracker) for tracker in trackers]
    passes = []
    hook = segmenter.register_forward_pre_hook(lambda module, args: passes.append(tuple(args[0].shape[1:])))
    try:
        rounds = [push_together(streams, frames) for frames in zip(*videos, strict=True)]
    finally:
        hook.remove()
    assert passes == 4 * [(1, 3, 40, 70), (3, 3, 40, 70), (1, 3, 64, 33)]
    for i, stream in enumerate(streams):
        for ours, theirs in zip((frames[i] for frames in rounds), alone[i], strict=True):
            nearly_same_frame(ours, theirs)
        assert len(stream.close().tracklets[0].segmentations) == 4
    assert push_together([], []) == []


def test_trackers_side_by_side_share_the_pass_of_a_frame(segmenter):
    names = ("minvis", "visage", "mask-iou", "vita", "propagation")
    trackers = [tracker_of(name, segmenter) for name in names]
    frames = noise(3)
    alone = [pushed(Stream(segmenter, tracker), frames) for tracker in trackers]
    streams = [Stream(segmenter, tracker) for tracker in trackers]
    small = Stream(segmenter, trackers[0], short_side=32)
    passes = []
    hook = segmenter.register_forward_pre_hook(lambda module, args: passes.append(tuple(args[0].shape[1:])))
    try:
        for t, image in enumerate(frames):
            found = push_together([*streams, small], [image] * 6)
            for ours, theirs in zip(found, alone, strict=False):
                assert same_frame(ours, theirs[t])
    finally:
        hook.remove()
    assert passes == 3 * [(1, 3, 40, 70), (1, 3, 40, 70), (1, 3, 32, 56)]
    for stream, tracker in zip(streams, trackers, strict=True):
        assert stream.close() == predict(segmenter, tracker, frames, window=1)


def test_streams_of_one_tracker_do_not_mix(segmenter):
    tracker = tracker_of("visage", segmenter)
    a, b = noise(4, seed=8), noise(4, seed=9)
    expected = [pushed(Stream(segmenter, tracker), frames) for frames in (a, b)]
    one, other = Stream(segmenter, tracker), Stream(segmenter, tracker)
    for t in range(4):
        assert same_frame(one.push(a[t]), expected[0][t])
        assert same_frame(other.push(b[t]), expected[1][t])


def test_queries_are_described_by_the_tracker_that_wants_them(segmenter, monkeypatch):
    visage, minvis = tracker_of("visage", segmenter), tracker_of("minvis", segmenter)
    described = []
    real = type(visage).describe
    monkeypatch.setattr(
        type(visage),
        "describe",
        lambda self, out: (described.append(out.logits.shape[1]), real(self, out))[1],
    )
    streams = [Stream(segmenter, tracker) for tracker in (minvis, visage, minvis)]
    push_together(streams, list(noise(3)))
    assert described == [1]


def test_the_modules_are_left_as_they_were(segmenter, minvis):
    segmenter.train()
    segmenter.backbone.eval()
    before = {name: value.clone() for name, value in segmenter.state_dict().items()}
    try:
        frame = Stream(segmenter, minvis).push(noise(1)[0])
        assert segmenter.training
        assert not segmenter.backbone.training
    finally:
        segmenter.eval()
    assert all(torch.equal(value, before[name]) for name, value in segmenter.state_dict().items())
    assert same_frame(frame, Stream(segmenter, minvis).push(noise(1)[0]))
    for tensor in (frame.ids, frame.labels, frame.scores, frame.frame_scores, frame.masks):
        assert not tensor.is_inference()


def test_seconds_say_where_the_time_went(segmenter, minvis):
    stream = Stream(segmenter, minvis)
    pushed(stream, noise(3))
    assert min(stream.seconds.segment, stream.seconds.associate, stream.seconds.record) > 0
    assert stream.number == 3


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (noise(1)[0].float(), r"a frame has the type torch\.float32, expected uint8"),
        (noise(1)[0].numpy().astype(np.float64), "a frame has the type float64, expected uint8"),
        (noise(1), r"a frame has the shape \(1, 3, 40, 70\), expected \(3, H, W\)"),
        (noise(1)[0].permute(1, 2, 0), r"a frame has the shape \(40, 70, 3\), expected \(3, H, W\)"),
        (noise(1)[0].numpy(), r"a frame has the shape \(3, 40, 70\), expected \(H, W, 3\)"),
        (np.zeros((40, 70), np.uint8), r"a frame has the shape \(40, 70\), expected \(H, W, 3\)"),
        (np.zeros((0, 70, 3), np.uint8), r"a frame has the shape \(0, 70, 3\), expected \(H, W, 3\)"),
        (np.uint8(3), "a frame is a uint8, expected a tensor or an array"),
        ("a.jpg", "a frame is a str, expected a tensor or an array"),
    ],
)
def test_other_frames_are_refused_and_do_no_harm(frame, message, segmenter, minvis):
    frames = noise(2)
    stream = Stream(segmenter, minvis)
    stream.push(frames[0])
    with pytest.raises(StreamError, match=message):
        stream.push(frame)
    with pytest.raises(StreamError, match=message):
        stream.push_many([frames[1], frame])
    stream.push(frames[1])
    assert stream.close() == predict(segmenter, minvis, frames, window=1)


def test_after_the_end(segmenter, minvis):
    stream = Stream(segmenter, minvis)
    stream.push(noise(1)[0])
    stream.close()
    for call in (lambda: stream.push(noise(1)[0]), stream.close, stream.skip, lambda: stream.push_many([])):
        with pytest.raises(StreamError, match="the stream is closed, expected a new one for another video"):
            call()
    with Stream(segmenter, minvis) as left:
        left.push(noise(1)[0])
    with pytest.raises(StreamError, match="the stream is closed"):
        left.push(noise(1)[0])


def test_nothing_was_kept(segmenter, minvis):
    stream = Stream(segmenter, minvis, record=False)
    stream.push(noise(1)[0])
    with pytest.raises(StreamError, match=r"keeps no masks \(record=False\), expected record=True"):
        stream.close()
    assert stream.push(noise(1)[0]).number == 1


def test_streams_that_cannot_go_together(segmenter, minvis):
    frames = noise(2)
    other = random_segmenter(1)
    a, b, c = Stream(segmenter, minvis), Stream(segmenter, minvis), Stream(other, minvis)
    with pytest.raises(StreamError, match="the streams are on several segmenters, expected one"):
        push_together([a, c], list(frames))
    with pytest.raises(StreamError, match="a stream is named twice"):
        push_together([a, a], list(frames))
    with pytest.raises(StreamError, match="expected a frame for each of 2 streams, found 1"):
        push_together([a, b], list(frames[:1]))
    b.close()
    with pytest.raises(StreamError, match="the stream is closed"):
        push_together([a, b], list(frames))
    assert a.push(frames[0]).number == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"short_side": 0}, "short_side is 0, expected pixels, 1 or more, or None"),
        ({"max_side": 3.5}, r"max_side is 3\.5, expected pixels"),
        ({"short_side": True}, "short_side is True, expected pixels"),
        ({"max_side": "64"}, "max_side is '64', expected pixels"),
        ({"record": None}, "record is a NoneType, expected True, False or a folder"),
        ({"protocol": ScoringProtocol(category_ids=(1, 2))}, "expected 4 ids, one a class of the segmenter"),
    ],
)
def test_other_options_are_refused(options, message, segmenter, minvis):
    with pytest.raises(StreamError, match=message):
        Stream(segmenter, minvis, **options)


def test_an_interrupted_stream_says_so(segmenter, minvis, monkeypatch):
    frames = noise(3)
    stream = Stream(segmenter, minvis)
    stream.push(frames[0])

    def interrupted(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:  # while it is segmented: nothing has happened
        patch.setattr(stream_passes, "segment_together", interrupted)
        with pytest.raises(KeyboardInterrupt):
            stream.push(frames[1])
    stream.push(frames[1])
    with monkeypatch.context() as patch:  # in the tracker, whose state may be anything now
        patch.setattr(type(minvis), "step", interrupted)
        with pytest.raises(KeyboardInterrupt):
            stream.push(frames[2])
    for call in (lambda: stream.push(frames[2]), stream.close, stream.skip):
        with pytest.raises(
            StreamError, match="was interrupted in frame 2, expected a new one from frame 0 on"
        ):
            call()

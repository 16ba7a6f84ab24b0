"""Events of identity: each is found where it was planted and only there, and they are CLEAR's switches."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vistk.evaluation.association_errors import (
    CAUSES,
    CHANGES,
    Event,
    association_events,
    count_events,
)
from vistk.evaluation.files import load_ground_truth, load_results
from vistk.evaluation.hota import count_sequence
from vistk.evaluation.overlaps import video_overlaps

LEFT, RIGHT, BELOW = (0, 0, 5, 5), (0, 11, 5, 16), (12, 0, 18, 5)
EARLY, LATE = slice(0, 6), slice(6, 12)


@pytest.fixture
def scene(new_scene):
    """Twelve frames without objects."""
    scene = new_scene(12, 23, 17)
    scene.category(0, "cat")
    scene.category(1, "dog")
    scene.video(0)
    return scene


def tube(scene, *parts):
    """The union of boxes, each in its frames."""
    return np.any([scene.box(*box, frames) for box, frames in parts], axis=0)


def events_of(scene, score_threshold=0.3, **options):
    ground_truth = load_ground_truth(scene.ground_truth)
    videos = video_overlaps(ground_truth, load_results(scene.results, ground_truth), all_pairs=True)
    return association_events(ground_truth, videos, score_threshold, **options)


def annotate(scene, *tubes, category=0, **more):
    for instance in tubes:
        scene.annotate(len(scene.ground_truth["annotations"]), 0, category, instance, **more)


def predict(scene, *tubes, category=0):
    """Scores fall, so that the place of a track is that of its tube."""
    for track in tubes:
        scene.predict(0, category, 0.9 - 0.1 * len(scene.results), track)


def short(events):
    return [(e.change, e.cause, e.instance, e.frame, e.from_track, e.to_track, e.other) for e in events]


def test_perfect_tracks_have_no_events(scene):
    boxes = [scene.box(*LEFT), scene.box(*RIGHT, EARLY), tube(scene, (BELOW, slice(0, 3)), (BELOW, LATE))]
    annotate(scene, *boxes)
    predict(scene, *boxes)
    assert events_of(scene) == []


def test_a_gap_of_one_track_is_no_event(scene):
    annotate(scene, scene.box(*LEFT))
    predict(scene, tube(scene, (LEFT, slice(0, 4)), (LEFT, slice(7, 12))))
    assert events_of(scene) == []


def test_swap(scene):
    annotate(scene, scene.box(*LEFT), scene.box(*RIGHT))
    predict(scene, tube(scene, (LEFT, EARLY), (RIGHT, LATE)), tube(scene, (RIGHT, EARLY), (LEFT, LATE)))
    assert short(events_of(scene)) == [
        ("switch", "swap", 0, 6, 0, 1, 1),
        ("switch", "swap", 1, 6, 1, 0, 0),
    ]


def test_swap_with_a_gap(scene):
    """One of the two is found again some frames later; the exchange is one all the same."""
    annotate(scene, scene.box(*LEFT), scene.box(*RIGHT))
    predict(
        scene, tube(scene, (LEFT, EARLY), (RIGHT, slice(9, 12))), tube(scene, (RIGHT, EARLY), (LEFT, LATE))
    )
    assert [(e.cause, e.instance, e.last_frame, e.frame) for e in events_of(scene)] == [
        ("swap", 0, 5, 6),
        ("swap", 1, 5, 9),
    ]


def test_three_tracks_go_round(scene):
    places = (LEFT, RIGHT, BELOW)
    annotate(scene, *(scene.box(*place) for place in places))
    predict(scene, *(tube(scene, (places[i], EARLY), (places[(i + 1) % 3], LATE)) for i in range(3)))
    events = events_of(scene)
    assert [(e.cause, e.instance, e.from_track, e.to_track) for e in events] == [
        ("swap", 0, 0, 2),
        ("swap", 1, 1, 0),
        ("swap", 2, 2, 1),
    ]


def test_split(scene):
    annotate(scene, scene.box(*LEFT), scene.box(*RIGHT))
    predict(scene, scene.box(*LEFT, EARLY), scene.box(*RIGHT), scene.box(*LEFT, LATE))
    assert short(events_of(scene)) == [("switch", "split", 0, 6, 0, 2, None)]


def test_a_track_that_goes_back_and_forth_splits_twice(scene):
    annotate(scene, scene.box(*LEFT))
    predict(scene, tube(scene, (LEFT, slice(0, 4)), (LEFT, slice(8, 12))), scene.box(*LEFT, slice(4, 8)))
    assert short(events_of(scene)) == [
        ("switch", "split", 0, 4, 0, 1, None),
        ("switch", "split", 0, 8, 1, 0, None),
    ]


def test_merge_takes_over(scene):
    """The track of one goes over to the other, whose own ends."""
    annotate(scene, scene.box(*LEFT), scene.box(*RIGHT))
    predict(scene, tube(scene, (LEFT, EARLY), (RIGHT, LATE)), scene.box(*RIGHT, EARLY))
    assert short(events_of(scene)) == [
        ("loss", "merge", 0, 6, 0, None, 1),
        ("switch", "merge", 1, 6, 1, 0, 0),
    ]


def test_merge_one_after_the_other(scene):
    """One track for an object that leaves and another that comes: no switch, and CLEAR sees nothing."""
    annotate(scene, scene.box(*LEFT, EARLY), scene.box(*RIGHT, LATE))
    predict(scene, tube(scene, (LEFT, EARLY), (RIGHT, LATE)))
    assert short(events_of(scene)) == [("start", "merge", 1, 6, None, 0, 0)]


def words(*occluded):
    return ["severe_occlusion" if t in occluded else "slight_occlusion" for t in range(12)]


@pytest.mark.parametrize(
    ("frames", "cause"), [((5,), "occlusion"), ((6,), "occlusion"), ((4, 7), "split"), ((), "split")]
)
def test_occlusion_in_words(scene, frames, cause):
    annotate(scene, scene.box(*LEFT), occlusion=words(*frames))
    predict(scene, scene.box(*LEFT, EARLY), scene.box(*LEFT, LATE))
    assert short(events_of(scene)) == [("switch", cause, 0, 6, 0, 1, None)]


def test_lost_while_occluded(scene):
    """From frame 3 on there is no track, in frames 5 to 7 it is occluded; another one comes after."""
    annotate(scene, scene.box(*LEFT), occlusion=words(5, 6, 7))
    annotate(scene, scene.box(*RIGHT), occlusion=words(5, 6, 7))
    predict(
        scene, scene.box(*LEFT, slice(0, 3)), scene.box(*LEFT, slice(8, 12)), scene.box(*RIGHT, slice(0, 6))
    )
    assert short(events_of(scene)) == [
        ("loss", "occlusion", 1, 6, 2, None, None),
        ("switch", "occlusion", 0, 8, 0, 1, None),
    ]


def test_occlusion_without_words_is_a_small_area(scene):
    hidden = tube(scene, (LEFT, slice(0, 5)), ((0, 0, 5, 2), slice(5, 6)), (LEFT, LATE))
    annotate(scene, hidden, occlusion=[None] * 12)
    predict(scene, hidden & scene.box(*LEFT, slice(0, 5)), hidden & scene.box(*LEFT, LATE))
    assert short(events_of(scene)) == [("switch", "occlusion", 0, 6, 0, 1, None)]


def test_occlusion_without_words_is_a_box_in_front(scene):
    """An L and a square in its corner: boxes overlap, masks do not."""
    corner = scene.box(0, 0, 8, 8) & ~scene.box(0, 2, 6, 8)
    annotate(scene, corner, scene.box(0, 2, 6, 8, slice(5, 6)))
    predict(scene, corner & scene.box(0, 0, 8, 8, EARLY), corner & scene.box(0, 0, 8, 8, LATE))
    assert short(events_of(scene)) == [("switch", "occlusion", 0, 6, 0, 1, None)]


def test_re_entry(scene):
    seen = tube(scene, (LEFT, slice(0, 4)), (LEFT, slice(5, 8)), (LEFT, slice(10, 12)))
    annotate(scene, seen)
    predict(scene, seen & scene.box(*LEFT, slice(0, 4)), seen & scene.box(*LEFT, slice(4, 8)))
    assert short(events_of(scene)) == [
        ("switch", "re-entry", 0, 5, 0, 1, None),
        ("loss", "re-entry", 0, 10, 1, None, None),
    ]


def test_lost_for_no_reason(scene):
    annotate(scene, scene.box(*LEFT), scene.box(*RIGHT, EARLY))
    predict(scene, scene.box(*LEFT, slice(0, 11)), scene.box(*RIGHT))
    assert short(events_of(scene)) == [("loss", "lost", 0, 11, 0, None, None)]


def test_all_at_once_in_videos_of_their_own(new_scene, scene):
    """Every planted event is in its video, whatever happens in the others; ids count down from 0."""
    plants = [test_swap, test_split, test_merge_one_after_the_other, test_re_entry, test_lost_for_no_reason]
    expected = []
    for index, plant in enumerate(plants):
        own = new_scene(12, 23, 17)
        own.category(0, "cat")
        own.video(0)
        plant(own)
        expected += [replace(event, video=-index) for event in events_of(own)]
        if index:
            scene.video(-index)
        for entry in own.ground_truth["annotations"]:
            new_id = len(scene.ground_truth["annotations"])
            scene.ground_truth["annotations"].append(entry | {"video_id": -index, "id": new_id})
        scene.results += [entry | {"video_id": -index} for entry in own.results]
    found = events_of(scene)
    assert sorted(found, key=lambda e: -e.video) == expected
    counts = count_events(found)
    assert counts["switch"] == dict.fromkeys(CAUSES, 0) | {"swap": 2, "split": 1, "re-entry": 1}
    assert counts["loss"] == dict.fromkeys(CAUSES, 0) | {"re-entry": 1, "lost": 1}
    assert counts["start"] == dict.fromkeys(CAUSES, 0) | {"merge": 1}


def test_tracks_of_other_classes(scene):
    """A cat and a dog whose tracks are exchanged: to each class, its object is lost."""
    annotate(scene, scene.box(*LEFT))
    annotate(scene, scene.box(*RIGHT), category=1)
    predict(scene, tube(scene, (LEFT, EARLY), (RIGHT, LATE)))
    predict(scene, tube(scene, (RIGHT, EARLY), (LEFT, LATE)), category=1)
    assert [(e.change, e.cause) for e in events_of(scene)] == [("loss", "lost")] * 2
    assert [(e.change, e.cause) for e in events_of(scene, class_agnostic=True)] == [("switch", "swap")] * 2


def test_tracks_below_the_score_threshold_are_none(scene):
    annotate(scene, scene.box(*LEFT))
    predict(scene, scene.box(*LEFT, EARLY), scene.box(*LEFT, LATE))  # scores 0.9 and 0.8
    assert [e.cause for e in events_of(scene, 0.8)] == ["split"]
    assert [e.cause for e in events_of(scene, 0.81)] == ["lost"]
    assert events_of(scene, 0.91) == []


def test_nothing_there(scene, new_scene):
    annotate(scene, scene.box(*LEFT))
    assert events_of(scene) == []
    scene.video(-4)  # without instances, and one without frames
    scene.predict(-4, 0, 0.9, scene.box(*LEFT))
    scene.ground_truth["videos"].append({"id": 7, "height": 23, "width": 17, "length": 0})
    assert events_of(scene) == events_of(scene, class_agnostic=True) == []


def test_an_event_knows_its_change():
    event = Event(0, 0, "split", 1, 2, 3, 4, None)
    assert [event.change, replace(event, to_track=None).change, replace(event, from_track=None).change] == [
        "switch",
        "loss",
        "start",
    ]


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 2**32 - 1))
def test_switches_are_those_of_clear(make_random_scene, seed):
    scene = make_random_scene(seed, videos=3, categories=2)
    ground_truth = load_ground_truth(scene.ground_truth)
    videos = list(video_overlaps(ground_truth, load_results(scene.results, ground_truth), all_pairs=True))

    def switches(part):
        kept = part.scores >= 0.3
        similarity = part.frame_iou()[:, kept].transpose(0, 2, 1)
        return count_sequence(similarity, part.instance_areas > 0, part.areas[:, kept] > 0).counts["IDSW"]

    for agnostic in (False, True):
        events = association_events(ground_truth, videos, 0.3, class_agnostic=agnostic)
        parts = videos if agnostic else [cell for video in videos for cell in video.cells()]
        counts = count_events(events)
        assert sum(counts["switch"].values()) == sum(switches(part) for part in parts)
        assert sum(sum(counts[change].values()) for change in CHANGES) == len(events)
        losses = [(e.video, e.instance) for e in events if e.change == "loss"]
        assert len(set(losses)) == len(losses)
        for event in events:
            assert (event.last_frame is None) == (event.change == "start")
            assert event.last_frame is None or event.last_frame < event.frame
            assert event.other != event.instance
            assert event.cause != "swap" or event.change == "switch"

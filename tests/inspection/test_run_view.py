"""A run directory opened for looking at it, against one that was made by hand."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from vistk.evaluation.report import evaluate
from vistk.inspection.run_view import InspectionError, RunView, Track


@pytest.fixture(scope="module")
def view(planted):
    return RunView(planted)


def test_a_run_says_what_there_is(view, planted):
    assert view.name == planted.as_posix()
    assert view.rows == ("mask-iou", "minvis")  # as in the run's table
    assert view.splits == ("valid", "test")
    assert view.config.choices["tracker"] == "minvis"
    split = view.split("valid")
    assert split is view.split("valid")
    assert split.name == "valid"
    assert split.rows == view.rows
    assert split.video_ids == (4, 7, 9)
    assert split.source.num_classes == 2


def test_frames_and_truth_are_those_of_the_data(view):
    video = view.split("valid").video(4)
    assert (len(video), video.name, video.record.video_id) == (10, "clip4", 4)
    image = video.image(3)
    assert image.dtype == np.uint8
    assert image.shape == (40, 60, 3)
    assert image.tolist() == np.full((40, 60, 3), (3, 4, 200)).tolist()
    assert [(one.id, one.label, one.score) for one in video.truth] == [
        (1, "cat", None),
        (2, "cat", None),
        (3, "dog", None),
    ]
    assert [rle is not None for rle in video.truth[2].rles] == [False] * 2 + [True] * 3 + [False] * 2 + [
        True
    ] * 3


def test_tracks_are_called_after_the_instance_that_they_cover_first(view, planted):
    video = view.split("valid").video(4)
    tracks = video.tracks("minvis")
    # By falling score; the dog's second track cannot be called 3, too, and 4 is the first free number.
    assert [(one.id, one.label, one.score) for one in tracks] == [
        (2, "cat", 0.95),
        (1, "cat", 0.9),
        (3, "dog", 0.7),
        (4, "dog", 0.6),
    ]
    written = json.loads((planted / "rows/minvis/valid/results.json").read_text())
    assert isinstance(tracks[0], Track)
    assert list(tracks[0].rles) == written[1]["segmentations"]
    assert [one.id for one in video.tracks("minvis", min_score=0)] == [2, 1, 3, 4, 5]
    assert [one.id for one in video.tracks("minvis", min_score=0.8)] == [2, 1]
    assert [one.id for one in video.tracks("mask-iou")] == [2, 1, 3]
    assert video.split.video(9).tracks("minvis") == ()


def test_a_better_track_has_the_number_of_an_instance_whatever_came_earlier(planted, tmp_path):
    copied = shutil.copytree(planted, tmp_path / "run")
    path = copied / "rows/minvis/valid/results.json"
    entries = json.loads(path.read_text())
    entries[4]["score"] = 0.2  # covers the dog in frame 2 as the one of 0.7 does: the better one is called 3
    path.write_text(json.dumps(entries))
    tracks = RunView(copied).split("valid").video(4).tracks("minvis")
    assert [(one.id, one.score) for one in tracks[2:]] == [(3, 0.7), (4, 0.6), (5, 0.2)]
    entries[3]["segmentations"][2] = None  # now it comes later, and the other one is called 3
    path.write_text(json.dumps(entries))
    tracks = RunView(copied).split("valid").video(4).tracks("minvis")
    assert [(one.id, one.score) for one in tracks[2:]] == [(4, 0.7), (5, 0.6), (3, 0.2)]
    entries[4]["score"] = 0.02  # no track any more: it gives the number up
    path.write_text(json.dumps(entries))
    tracks = RunView(copied).split("valid").video(4).tracks("minvis")
    assert [(one.id, one.score) for one in tracks[2:]] == [(3, 0.7), (4, 0.6)]


def test_failures_are_those_that_were_planted(view):
    video = view.split("valid").video(4)
    found = [(f.frame, f.kind, f.truth_ids, f.track_ids, f.last_frame) for f in video.failures("minvis")]
    assert found == [
        (5, "switch: swap", (1, 2), (1, 2), 4),
        (5, "switch: swap", (2, 1), (2, 1), 4),
        (7, "switch: re-entry", (3,), (3, 4), 4),
    ]
    (lost,) = video.failures("mask-iou")
    assert (lost.change, lost.cause, lost.frame, lost.truth_ids, lost.track_ids) == (
        "loss",
        "re-entry",
        7,
        (3,),
        (3,),
    )
    assert str(lost) == "frame 7: instance 3 loses track 3 (loss: re-entry)"
    first = str(video.failures("minvis")[0])
    assert first == "frame 5: instance 1 from track 1 to track 2 (switch: swap, with instance 2)"
    for row in view.rows:
        assert view.split("valid").video(7).failures(row) == ()
        assert view.split("valid").video(9).failures(row) == ()


def test_who_covers_whom(view):
    video = view.split("valid").video(4)
    assert video.covering("minvis").T.tolist() == [
        [1] * 5 + [2] * 5,
        [2] * 5 + [1] * 5,
        [-1, -1, 3, 3, 3, -1, -1, 4, 4, 4],
    ]
    assert video.covering("mask-iou").T.tolist()[2] == [-1, -1, 3, 3, 3, -1, -1, -1, -1, -1]
    assert view.split("valid").video(9).covering("minvis").shape == (10, 0)


def test_the_worst_videos_come_first(view):
    split = view.split("valid")
    assert [video_id for video_id, _ in split.worst("minvis")] == [4, 7]  # 9 has no instance, so no AP
    assert split.worst("minvis")[1] == (7, pytest.approx(1.0))
    # One track an instance: 5 of 10 frames of each cat and 3 of 6 of the dog are right, both ways.
    assert split.worst("minvis", metric="IDF1")[0] == (4, pytest.approx(13 / 26))
    # Greater is worse; a video without instances has no switches either.
    assert split.worst("minvis", metric="IDSW") == [(4, 3.0), (7, 0.0), (9, 0.0)]
    assert split.worst("mask-iou", metric="IDSW") == [(4, 0.0), (7, 0.0), (9, 0.0)]


def test_numbers_of_a_video_are_those_of_scoring_it_alone(view, planted):
    split = view.split("valid")
    truth = json.loads((planted.parent / "data/valid.json").read_text())
    results = json.loads((planted / "rows/minvis/valid/results.json").read_text())
    alone = {
        **truth,
        "videos": truth["videos"][:1],
        "annotations": [a for a in truth["annotations"] if a["video_id"] == 4],
    }
    expected = evaluate(alone, [r for r in results if r["video_id"] == 4], score_threshold=0.1).metrics
    for metric, value in expected.items():
        if value is not None:
            assert dict(split.worst("minvis", metric))[4] == pytest.approx(value), metric
    assert expected["AP"] < 0.5


def test_hidden_truth_is_empty(view):
    split = view.split("test")
    video = split.video(4)
    assert not split.has_truth
    assert video.truth == ()
    assert video.failures("minvis") == ()
    assert [(one.id, one.score) for one in video.tracks("minvis")] == [
        (1, 0.95),
        (2, 0.9),
        (3, 0.7),
        (4, 0.6),
    ]
    assert video.image(0).shape == (40, 60, 3)
    with pytest.raises(InspectionError, match="on test: the ground truth is hidden"):
        split.worst("minvis")


@pytest.mark.parametrize(
    ("look", "message"),
    [
        (lambda v: v.split("vald"), "no split 'vald', nearest is 'valid'; there are valid, test"),
        (lambda v: v.split("valid").video(5), "on valid: no video 5 among 3, nearest is 4"),
        (lambda v: v.split("valid").find("clip44"), "no video 'clip44', nearest is 'clip4'; there are clip4"),
        (lambda v: v.split("valid").find("12"), "no video 12 among 3, nearest is 9"),
        (lambda v: v.split("valid").video(4).tracks("minvi"), "no row 'minvi', nearest is 'minvis'"),
        (lambda v: v.split("valid").video(4).failures("visage"), "no row 'visage', nearest is 'minvis'"),
        (lambda v: v.split("valid").worst("minvis", "IDF"), "no metric 'IDF', nearest is 'IDF1'"),
    ],
)
def test_unknown_names_are_told_what_is_nearest(view, look, message):
    with pytest.raises(InspectionError) as error:
        look(view)
    assert message in str(error.value)
    assert view.name in str(error.value)
    assert "\n" not in str(error.value)


def test_videos_are_found_by_id_and_by_name(view):
    split = view.split("valid")
    assert split.find("7") is split.find("clip7") is split.video(7)


def test_an_id_that_is_the_folder_of_another_video_is_an_id(planted, tmp_path):
    root = shutil.copytree(planted.parent / "data", tmp_path / "data")
    text = (root / "valid.json").read_text()
    for old, new in (("clip4", "7"), ("clip7", "0007"), ("clip9", "12")):
        text = text.replace(f"{old}/", f"{new}/")
    (root / "valid.json").write_text(text)
    split = RunView(planted, (f"data.root={root}",)).split("valid")
    found = {name: split.find(name).video_id for name in ("4", "7", "0007", "9", "12")}
    assert found == {"4": 4, "7": 7, "0007": 7, "9": 9, "12": 9}


def test_a_folder_that_is_no_run_is_refused(tmp_path, planted):
    with pytest.raises(FileNotFoundError, match=r"nothing: no run there, expected config.yaml in it"):
        RunView(tmp_path / "nothing")
    begun = tmp_path / "begun"
    begun.mkdir()
    shutil.copy(planted / "config.yaml", begun)
    with pytest.raises(InspectionError, match="begun: nothing was tracked, expected rows"):
        RunView(begun)


def test_a_row_without_results_on_a_split_says_so(planted, tmp_path):
    copied = shutil.copytree(planted, tmp_path / "run")
    shutil.rmtree(copied / "rows/minvis/test")
    view = RunView(copied)
    assert view.rows == ("mask-iou", "minvis")
    assert view.split("test").rows == ("mask-iou",)
    with pytest.raises(InspectionError, match=r"run on test: no row 'minvis', nearest is 'mask-iou'"):
        view.split("test").video(4).tracks("minvis")


def test_data_that_were_moved_are_found_by_a_word(planted, tmp_path):
    run_dir = shutil.copytree(planted, tmp_path / "run")
    moved = shutil.copytree(planted.parent / "data", tmp_path / "moved")
    config = run_dir / "config.yaml"
    config.write_text(config.read_text().replace(str(planted.parent / "data"), str(tmp_path / "gone")))
    with pytest.raises(InspectionError) as error:
        RunView(run_dir).split("valid")
    assert str(error.value) == (
        f"{run_dir}: its data are not where they were (data folder {tmp_path / 'gone'} does not exist); "
        "say where they are: data.root=DIR"
    )
    view = RunView(run_dir, words=(f"data.root={moved}",))
    assert len(view.split("valid").video(4).failures("minvis")) == 3
    (moved / "valid/JPEGImages/clip4/00002.png").unlink()
    with pytest.raises(InspectionError, match=r"00002.png .*does not exist.*data.root=DIR"):
        view.split("valid").video(4).image(2)
    Image.new("RGB", (60, 40)).save(moved / "valid/JPEGImages/clip4/00002.png")
    assert view.split("valid").video(4).image(2).max() == 0


def test_opening_prints_nothing(planted, capsys):
    RunView(planted).split("valid").video(4).failures("minvis")
    assert capsys.readouterr().out == ""

"""``vistk show``: what is drawn of a run, where it is written, what is refused."""

from __future__ import annotations

import argparse
import shutil

import numpy as np
import pytest
from PIL import Image

from vistk.inspection import commands, pictures
from vistk.inspection.run_view import InspectionError, RunView
from vistk.inspection.show import Asked, default_rows, show
from vistk.viz.colors import color_of
from vistk.viz.strips import MARK

pytest.importorskip("matplotlib")
BOTH = ("minvis", "mask-iou")


@pytest.fixture(scope="module")
def view(planted):
    return RunView(planted)


@pytest.fixture
def call(planted):
    """``vistk show`` with words; the run comes first."""

    def run(*words, run_dir=planted):
        parser = argparse.ArgumentParser()
        commands.add_arguments(parser)
        return commands.run(parser.parse_intermixed_args([str(run_dir), *map(str, words)]))

    return run


def at(picture, x, y):
    return tuple(np.asarray(picture)[y, x].tolist())


def edges(picture, color):
    """Left and top of the pixels of a colour."""
    rows, columns = np.nonzero((np.asarray(picture) == color).all(-1))
    return (int(columns.min()), int(rows.min())) if len(rows) else None


def test_a_frame_has_its_tracks_in_their_colours(view):
    video = view.split("valid").video(4)
    scale = 5  # 40 pixels to about 200
    before, after = (pictures.frame(video, "minvis", t, 200) for t in (4, 5))
    assert before.shape == after.shape == (40 * scale, 60 * scale, 3)
    # Track 1 is on the left cat, then on the right one; the contour is plain.
    left, right = (5 * scale, 16 * scale), (40 * scale, 16 * scale)
    assert at(before, *left) == color_of(1)
    assert at(before, *right) == color_of(2)
    assert at(after, *left) == color_of(2)
    assert at(after, *right) == color_of(1)
    truth = pictures.frame(video, pictures.TRUTH, 5, 200)
    assert at(truth, *left) == color_of(1)
    assert at(truth, 0, 199) == (5, 4, 200)  # the image


def test_scores_are_written_where_there_is_room(view):
    video = view.split("valid").video(4)
    assert [one.text for one in pictures.shown_in(video, "minvis", 5)][:2] == ["cat 0.95", "cat 0.90"]
    assert [one.text for one in pictures.shown_in(video, "minvis", 5, scores=False)][:2] == ["cat", "cat"]
    assert [(one.id, one.text) for one in pictures.shown_in(video, pictures.TRUTH, 5)][2] == (3, "dog")


def test_a_large_frame_is_made_smaller_with_its_masks(view):
    video = view.split("valid").video(4)
    small = pictures.frame(video, "minvis", 0, 20)
    assert small.shape == (20, 30, 3)
    assert at(small, 2, 8) == color_of(1)
    assert at(small, 20, 8) == color_of(2)
    assert at(small, 0, 19) == (0, 4, 200)


def test_the_strip_marks_where_a_row_fails(view):
    video = view.split("valid").video(4)
    calm, failing = pictures.strip(video, BOTH, [3, 4]), pictures.strip(video, BOTH, [4, 5])
    assert calm.size == failing.size
    assert edges(calm, MARK) is None
    left, top = edges(failing, MARK)
    width, height = failing.size
    assert left > width / 2  # the second frame
    assert height / 3 < top < height / 2  # of the row after the truth, which is the first of the two
    late = pictures.strip(video, BOTH, [6, 7])
    assert edges(late, MARK)[1] == top  # minvis: another track; mask-iou, below it: none
    hidden = pictures.strip(view.split("test").video(4), BOTH, [4, 5])
    assert hidden.size[1] < height  # no row of truth
    assert edges(hidden, MARK) is None


def test_a_long_video_is_told_by_its_failures(view):
    video = view.split("valid").video(4)
    assert pictures.telling_frames(video, ["minvis"]) == list(range(10))
    assert pictures.telling_frames(video, ["minvis"], most=6) == [0, 4, 5, 6, 7, 9]
    assert pictures.telling_frames(view.split("valid").video(7), ["minvis"], most=3) == [0, 4, 9]


def test_side_by_side_is_a_grid_of_named_tiles(view):
    video = view.split("valid").video(4)
    frames = list(pictures.side_by_side(video, BOTH, range(2)))
    assert len(frames) == 2
    height, width = frames[0].shape[:2]
    assert width == 2 * 60 * 9  # two tiles of 360 pixels and more
    assert height > 2 * 40 * 9  # and names above them
    assert (frames[0][height // 2 :, width // 2 :] == 255).all()  # three tiles, one place left


def test_the_timeline_shows_switches(view):
    from vistk.viz.timelines import SWITCH

    def marks(figure):
        return [line for line in figure.axes[0].lines if line.get_gid() == SWITCH]

    split = view.split("valid")
    (mark,) = marks(pictures.timeline(split.video(4), "minvis"))
    assert sorted(mark.get_xdata().tolist()) == [4.5, 4.5, 6.5]
    assert marks(pictures.timeline(split.video(7), "minvis")) == []
    figure = pictures.timeline(split.video(4), "mask-iou")
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["cat 1", "cat 2", "dog 3"]
    hidden = pictures.timeline(view.split("test").video(4), "minvis")
    assert [label.get_text() for label in hidden.axes[0].get_yticklabels()] == [
        "cat 1", "cat 2", "dog 3", "dog 4"
    ]  # fmt: skip


def test_the_command_writes_pictures_below_the_run(call, planted, tmp_path, capsys):
    run_dir = shutil.copytree(planted, tmp_path / "run")
    words = ("4", "--split", "valid", "--rows", "minvis,mask-iou", "--what", "strip,timeline")
    assert call(*words, run_dir=run_dir) == 0
    folder = run_dir / "show/valid/4"
    names = ["strip.png", "timeline-minvis.png", "timeline-mask-iou.png"]
    assert capsys.readouterr().out.splitlines() == [str(folder / name) for name in names]
    assert sorted(path.name for path in folder.iterdir()) == sorted(names)  # and nothing temporary
    for name in names:
        with Image.open(folder / name) as image:
            image.load()
            assert min(image.size) > 100
    again = {name: (folder / name).read_bytes() for name in names}
    assert call(*words, run_dir=run_dir) == 0
    assert {name: (folder / name).read_bytes() for name in names} == again


def test_frames_and_folder_are_chosen(call, planted, tmp_path):
    out = tmp_path / "out"
    for number, frames in enumerate(("3-5", "3,5,9", "4")):
        call("clip4", "--split", "valid", "--what", "strip", "--frames", frames, "-o", out / str(number))
    widths = [Image.open(out / str(number) / "strip.png").width for number in range(3)]
    assert widths[0] == widths[1] > widths[2]
    assert not (planted / "show").exists()


def test_the_worst_video_is_found(view, tmp_path):
    said: list[str] = []
    asked = Asked("worst", rows=("minvis",), what=("strip",), out=tmp_path, metric="IDSW", say=said.append)
    assert show(view, asked) == [tmp_path / "strip.png"]
    assert said == ["video 4 of valid: IDSW 3 of minvis, the worst", str(tmp_path / "strip.png")]
    with pytest.raises(InspectionError, match="on test: the ground truth is hidden"):
        show(view, Asked("worst", split="test", what=("strip",), out=tmp_path))


def test_words_say_what_was_moved_and_which_tracks_count(call, planted, tmp_path, capsys):
    words = (f"data.root={planted.parent / 'data'}", "evaluation.track_score=0.65", "cache.dir=elsewhere")
    assert call("4", *words, "--split", "valid", "--what", "timeline", "-o", tmp_path) == 0
    assert capsys.readouterr().out.splitlines() == [str(tmp_path / "timeline-minvis.png")]


def test_frames_that_are_left_out_are_said(view, monkeypatch):
    from vistk.inspection import decisions
    from vistk.inspection import show as module

    video = view.split("valid").video(4)
    monkeypatch.setattr(decisions, "similarity_figure", lambda *_: None)
    for count, expected in ((6, []), (9, ["similarities of minvis: 6 of 9 frames; --frames names others"])):
        monkeypatch.setattr(decisions, "deciding_frames", lambda *_, n=count: list(range(n)))
        said: list[str] = []
        assert len(list(module._similarities(video, "minvis", [], None, said.append))) == 6
        assert len(list(module._similarities(video, "minvis", [], (1, 2), said.append))) == 2
        assert said == expected


def test_rows_default_to_the_tracker_and_minvis(view):
    assert default_rows(view) == ["minvis"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("4",), "has several splits, and each may have a video 4: say --split valid or test"),
        (("4", "--split", "vald"), "no split 'vald', nearest is 'valid'"),
        (("44", "--split", "valid"), "no video 44 among 3, nearest is 9"),
        (("4", "--split", "valid", "--rows", "minvsi"), "no row 'minvsi', nearest is 'minvis'"),
        (("4", "--split", "valid", "--what", "stripe"), "no picture 'stripe', nearest is 'strip'"),
        (
            ("4", "--split", "valid", "--frames", "8-10"),
            "video 4 (clip4) of valid has no frame 10, expected 0 to 9",
        ),
        (("worst", "--metric", "IDF"), "no metric 'IDF', nearest is 'IDF1'"),
        (("4", "--split", "valid", "--what", ""), "--what names no picture; there are strip, timeline"),
        (("4", "tracker=visage", "--split", "valid"), "'tracker=visage' is not for show"),
        (("4", "evaluation.keep_top=3", "--split", "valid"), "'evaluation.keep_top=3' is not for show"),
        (("4", "data.root", "--split", "valid"), "'data.root' is not for show"),
    ],
)
def test_what_cannot_be_shown_is_one_sentence(call, planted, words, message):
    with pytest.raises(InspectionError) as error:
        call(*words)
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert not (planted / "show").exists()


def test_the_video_plays(call, tmp_path, capsys):
    av = pytest.importorskip("av")
    words = (
        "4",
        "--split",
        "valid",
        "--rows",
        "minvis,mask-iou",
        "--what",
        "strip",
        "--video",
        "--frames",
        "3-8",
    )
    assert call(*words, "-o", tmp_path) == 0
    path = tmp_path / "side-by-side.mp4"
    assert capsys.readouterr().out.splitlines()[-1] == str(path)
    with av.open(str(path)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert len(frames) == 6
    assert frames[0].shape[1] == 2 * 60 * 9
    assert sorted(found.name for found in tmp_path.iterdir()) == ["side-by-side.mp4", "strip.png"]


@pytest.mark.parametrize("frames", ["", "a-b", "3-x", "5-3", "3,,4"])
def test_frames_are_numbers(call, frames, capsys):
    with pytest.raises(SystemExit):
        call("4", f"--frames={frames}")
    assert "argument --frames" in capsys.readouterr().err


def test_without_matplotlib_one_sentence_says_what_to_install(call, monkeypatch, tmp_path):
    import builtins

    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(InspectionError, match=r'matplotlib.*pip install -e "\.\[viz\]"'):
        call("4", "--split", "valid", "--what", "timeline", "-o", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_picture_that_fails_leaves_no_file(call, monkeypatch, tmp_path):
    def fail(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("vistk.inspection.show.png", fail)
    with pytest.raises(KeyboardInterrupt):
        call("4", "--split", "valid", "--what", "strip,timeline", "-o", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["strip.png"]

"""The folder of ``vistk track``: what is not ours stays, and what was there until there is something new."""

from __future__ import annotations

import json
import shutil

import pytest
from track_cases import FRAMES, clip, read, save_frames, stop_after, track

from vistk.tracking import outputs
from vistk.tracking.folder import Folder
from vistk.tracking.model import TrackingError
from vistk.tracking.outputs import Outputs


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_frames(tmp_path_factory.mktemp("frames") / "clip", clip())


def contents(out):
    """All files but for the lock and what was segmented."""
    return {
        path.relative_to(out).as_posix(): path.read_bytes()
        for path in sorted(out.rglob("*"))
        if path.is_file() and path.name != ".lock" and ".segmented" not in path.parts
    }


@pytest.mark.parametrize("name", ["masks", "mots", ".segmented"])
def test_folders_of_somebody_else_are_refused_and_stay(tmp_path, folder, name):
    out = tmp_path / "out"
    (out / name).mkdir(parents=True)
    (out / name / "a.png").write_text("mine")
    for words in ((), ("--overwrite",), ("--overwrite", "--masks", "--mots")):
        with pytest.raises(TrackingError, match=rf"holds {name}, and no about\.json") as caught:
            track(folder, "-o", out, *words)
        assert "\n" not in str(caught.value)
    assert (out / name / "a.png").read_text() == "mine"


def test_only_what_was_written_is_replaced(tmp_path, folder):
    out = tmp_path / "out"
    few = (folder, "-o", out, "--no-video", "--masks", "--mots")
    assert track(*few, "--limit", 3) == 0
    assert read(out / "about.json")["files"] == [
        *(f"masks/{t}.png" for t in range(3)),
        "mots/classes.json",
        "mots/clip.txt",
        "results.json",
    ]
    (out / "mots" / "notes.txt").write_text("mine")
    (out / "overlay.mp4").write_text("mine")
    assert track(*few, "--limit", 2, "--overwrite") == 0
    assert sorted(p.name for p in (out / "masks").iterdir()) == ["0.png", "1.png"]
    (out / "masks" / "9.png").write_text("mine")
    before = contents(out)
    with pytest.raises(TrackingError, match=r"masks/9\.png is in the way, and no command wrote it"):
        track(*few, "--limit", 4, "--overwrite")
    with pytest.raises(TrackingError, match=r"overlay\.mp4 is in the way, and no command wrote it"):
        track(folder, "-o", out, "--limit", 4, "--overwrite")
    assert contents(out) == before
    assert track(folder, "-o", out, "--no-video", "--limit", 2, "--overwrite") == 0
    assert sorted(contents(out)) == [
        "about.json",
        "masks/9.png",
        "mots/notes.txt",
        "overlay.mp4",
        "results.json",
    ]
    assert (out / "overlay.mp4").read_text() == "mine"


def test_nothing_is_written_through_a_link(tmp_path, folder):
    out, elsewhere = tmp_path / "out", tmp_path / "elsewhere"
    few = (folder, "-o", out, "--no-video", "--masks", "--limit", 1)
    assert track(*few) == 0
    (out / "masks").rename(elsewhere)
    (out / "masks").symlink_to(elsewhere)
    with pytest.raises(TrackingError, match="masks is no folder of an earlier command"):
        track(*few, "--overwrite")
    assert track(folder, "-o", out, "--no-video", "--limit", 1, "--overwrite") == 0
    assert [path.name for path in elsewhere.iterdir()] == ["0.png"]


@pytest.mark.parametrize(
    "names", [["../clip/0.png"], ["masks/.."], ["/0.png"], [".lock"], [3], "results.json"]
)
def test_nothing_is_removed_elsewhere(tmp_path, folder, names):
    out = tmp_path / "out"
    assert track(folder, "-o", out, "--no-video", "--limit", 1) == 0
    about = read(out / "about.json")
    (out / "about.json").write_text(json.dumps(about | {"files": names}))
    with pytest.raises(TrackingError, match=r"about\.json is damaged, or no file of ours"):
        track(folder, "-o", out, "--no-video", "--limit", 2, "--overwrite")


@pytest.mark.parametrize("given", ["overlay.mp4", "masks", "linked"])
def test_the_input_is_not_what_is_replaced(tmp_path, folder, given):
    out = tmp_path / "out"
    assert track(folder, "-o", out, "--masks", "--limit", 2) == 0
    linked = tmp_path / "linked"
    linked.mkdir()
    (linked / "0.png").symlink_to(out / "masks" / "0.png")
    before = contents(out)
    source = linked if given == "linked" else out / given
    with pytest.raises(TrackingError, match=r"is a part of .*, which is what would be written"):
        track(source, "-o", out, "--masks", "--overwrite")
    assert contents(out) == before


def test_frames_and_results_may_share_a_folder(tmp_path):
    frames = save_frames(tmp_path / "frames", clip()[:2])
    assert track(frames, "-o", frames, "--masks") == 0
    assert track(frames, "-o", frames, "--masks", "--overwrite") == 0
    assert read(frames / "about.json")["made"]["frames"] == 2


def test_what_was_there_stays_until_there_is_something_new(tmp_path, monkeypatch, folder):
    """The second command fails at its end, and after that goes on without --overwrite."""
    out = tmp_path / "out"
    assert track(folder, "-o", out, "--masks", "--coco-video", "--limit", 3) == 0
    before = contents(out)

    def fail(self, prediction):
        raise OSError("disk full")

    other = (folder, "-o", out, "--mots", "--limit", 2)
    for method in ("add", "finish"):
        with monkeypatch.context() as patch:
            patch.setattr(Outputs, method, fail if method == "finish" else lambda *args: fail(*args[:2]))
            with pytest.raises(OSError, match="disk full"):
                track(*other, "--overwrite")
        found = contents(out)
        about = json.loads(found.pop("about.json"))
        assert found == {name: value for name, value in before.items() if name != "about.json"}
        assert about["made"] is None
        assert about["replaces"]["made"] == json.loads(before["about.json"])["made"]
    assert track(*other) == 0
    assert sorted(contents(out)) == [
        "about.json",
        "mots/classes.json",
        "mots/clip.txt",
        "overlay.mp4",
        "results.json",
    ]
    assert "replaces" not in read(out / "about.json")


def test_killed_while_files_are_moved(tmp_path, monkeypatch, folder):
    out = tmp_path / "out"
    assert track(folder, "-o", out, "--no-video", "--coco-video", "--limit", 3) == 0
    take = Folder.take

    def killed(self, new, files):
        (new / "results.json").unlink()  # the last one to be moved
        take(self, new, files)

    other = (folder, "-o", out, "--no-video", "--masks", "--limit", 2)
    with monkeypatch.context() as patch:
        patch.setattr(Folder, "take", killed)
        with pytest.raises(FileNotFoundError):
            track(*other, "--overwrite")
    assert (out / "masks" / "1.png").exists()
    assert track(*other) == 0
    assert sorted(contents(out)) == ["about.json", "masks/0.png", "masks/1.png", "results.json"]


def test_what_a_killed_command_left_is_removed(tmp_path, monkeypatch, folder):
    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(outputs.shutil, "rmtree", lambda *args, **settings: None)
        stop_after(patch, 2)
        assert track(folder, "-o", out, "--masks") == 130
    (left,) = out.glob(".vistk-track-*")
    assert sorted(path.name for path in (left / "masks").iterdir()) == ["0.png", "1.png"]
    (out / ".about.json.abcd_123.tmp").write_text("half")
    (out / ".vistk-track-notes").write_text("mine")
    assert track(folder, "-o", out, "--masks") == 0
    assert sorted(path.name for path in out.iterdir() if path.name.startswith(".")) == [
        ".lock",
        ".vistk-track-notes",
    ]


def test_frames_segmented_by_another_version_are_segmented_again(tmp_path, capsys, monkeypatch, folder):
    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        stop_after(patch, 4)
        assert track(folder, "-o", out, "--no-video") == 130
    about = out / ".segmented" / "stream.json"
    about.write_text(json.dumps({name: "another" for name in read(about)}))
    shutil.copytree(out, tmp_path / "copy")
    for where, words in ((out, ()), (tmp_path / "copy", ("--overwrite",))):
        capsys.readouterr()
        assert track(folder, "-o", where, "--no-video", *words) == 0
        said = capsys.readouterr().out
        assert "of another version, and is segmented again" in said
        assert "goes on" not in said
        assert not read(where / "about.json")["made"]["resumed"]
        assert read(where / "about.json")["made"]["frames"] == FRAMES
        assert not (where / ".segmented").exists()


def test_folders_that_cannot_be(tmp_path, folder):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(TrackingError, match="file is a file, expected a folder for the results"):
        track(folder, "-o", tmp_path / "file")
    with pytest.raises(TrackingError, match="link is a link to nothing, expected a folder for the results"):
        track(folder, "-o", tmp_path / "link")

"""``vistk track`` from frames to files: what it says is what vistk.predict says, interrupted or not."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from made_videos import write_video
from PIL import Image
from pycocotools import mask as coco_mask
from track_cases import FRAMES, clip, overlay, read, save_frames, stop_after, track, write_run_weights

import vistk
from vistk.data.config import SyntheticConfig
from vistk.data.frame_sources import VideoFileError
from vistk.data.synthetic import frames_of
from vistk.data.transforms import resize_images
from vistk.data.video_files import open_source
from vistk.evaluation.report import evaluate
from vistk.models.segmenter import Segmenter
from vistk.tracking.model import TrackingError, open_model
from vistk.tracking.outputs import Outputs
from vistk.viz.video_writer import VideoWriterError

ALL = ("--masks", "--mots", "--coco-video")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_frames(tmp_path_factory.mktemp("frames") / "clip", clip())


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    return write_video(tmp_path_factory.mktemp("video") / "clip.mp4", clip(), rate=10)


@pytest.fixture
def segmented(monkeypatch):
    """How many frames pass the segmenter."""
    passed = []
    forward = Segmenter.forward

    def counted(self, images, *args, **settings):
        passed.extend([tuple(images.shape[-2:])] * (images.shape[0] * images.shape[1]))
        return forward(self, images, *args, **settings)

    monkeypatch.setattr(Segmenter, "forward", counted)
    return passed


def predicted(source, words=(), size=None):
    """What vistk.predict says of the frames."""
    model = open_model(words, torch.device("cpu"))
    with open_source(source) as opened:
        frames = [torch.from_numpy(frame.image).permute(2, 0, 1) for frame in opened.frames()]
    given = torch.stack(frames)
    shape = tuple(given.shape[-2:])
    if size is not None:
        given = resize_images(given, size)
    prediction = vistk.predict(model.segmenter, model.tracker, given, shape, protocol=model.protocol)
    return prediction.to_ytvis()


def require_same(found, expected):
    assert len(found) == len(expected) > 1
    for one, other in zip(found, expected, strict=True):
        assert (one["video_id"], one["category_id"]) == (other["video_id"], other["category_id"])
        assert one["segmentations"] == other["segmentations"]
        assert one["score"] == pytest.approx(other["score"], abs=1e-5)


@pytest.mark.parametrize("kind", ["folder", "video"])
@pytest.mark.parametrize("words", [(), ("tracker=kalman",)])
def test_the_benchmark_out_of_the_box(tmp_path, capsys, folder, video, kind, words):
    source = {"folder": folder, "video": video}[kind]
    assert track(source, "-o", tmp_path / "out", *words, *ALL) == 0
    first, last = capsys.readouterr().out.splitlines()
    assert "the packaged weights tiny-synthetic.safetensors" in first
    assert "(disc, square, triangle, star)" in first
    assert "which has no weights of its own" in first
    assert "12 frames, " in last
    assert "results.json, overlay.mp4, masks/*.png, mots/clip.txt, coco_video.json" in last
    require_same(read(tmp_path / "out" / "results.json"), predicted(source, words))

    rate, pictures = overlay(tmp_path / "out" / "overlay.mp4")
    assert rate == (25 if kind == "folder" else 10)
    assert len(pictures) == FRAMES
    assert pictures[0].shape == (256, 384, 3)  # four times as large, to be read
    about = read(tmp_path / "out" / "about.json")["made"]
    assert (about["frames"], about["height"], about["width"]) == (FRAMES, 64, 96)
    assert not (tmp_path / "out" / ".segmented").exists()
    temporary = [p.name for p in (tmp_path / "out").iterdir() if p.name.startswith(".") and p.name != ".lock"]
    assert temporary == []


def test_the_overlay_is_the_video_with_something_on_it(tmp_path, folder):
    assert track(folder, "-o", tmp_path / "a", "--trails", "0", "--limit", 3) == 0
    assert track(folder, "-o", tmp_path / "b", "--trails", "0", "--limit", 3, "--min-score", "1") == 0
    drawn, plain = (overlay(tmp_path / name / "overlay.mp4")[1] for name in "ab")
    for t in (0, 2):
        enlarged = clip()[t].repeat(4, 0).repeat(4, 1).astype(int)
        assert np.abs(plain[t] - enlarged).mean() < 6
        assert np.abs(drawn[t].astype(int) - plain[t]).mean() > 3
    found = [read(tmp_path / name / "results.json") for name in "ab"]
    assert found[0] == found[1]  # which has the scores of whole tracks


def test_sizes_of_the_network(tmp_path, folder, segmented):
    assert track(folder, "-o", tmp_path / "a", "--short-side", 32, "--no-video", "--limit", 3) == 0
    assert track(folder, "-o", tmp_path / "b", "--max-side", 72, "data.test_short_side=60", "--limit", 1) == 0
    assert set(segmented[:3]) == {(32, 48)}
    assert segmented[3:] == [(48, 72)]
    masks = [rle for entry in read(tmp_path / "a" / "results.json") for rle in entry["segmentations"] if rle]
    assert {tuple(rle["size"]) for rle in masks} == {(64, 96)}
    assert len(read(tmp_path / "a" / "results.json")[0]["segmentations"]) == 3
    assert not (tmp_path / "a" / "overlay.mp4").exists()


def test_every_other_frame_at_half_the_rate(tmp_path, video):
    assert track(video, "-o", tmp_path, "--every", 2, "--start", 0.2, "--end", 0.9, *ALL) == 0
    rate, pictures = overlay(tmp_path / "overlay.mp4")
    assert (rate, len(pictures)) == (5, 4)
    assert sorted(path.name for path in (tmp_path / "masks").iterdir()) == [
        "00002.png",
        "00004.png",
        "00006.png",
        "00008.png",
    ]
    assert [image["source_index"] for image in read(tmp_path / "coco_video.json")["images"]] == [2, 4, 6, 8]
    frames = {line.split()[0] for line in (tmp_path / "mots" / "clip.txt").read_text().splitlines()}
    assert frames == {"2", "4", "6", "8"}


@pytest.mark.parametrize("tracker", ["minvis", "tracklet-linking", "propagation"])
def test_an_interrupted_video_goes_on_to_the_same_bytes(
    tmp_path, capsys, monkeypatch, folder, segmented, tracker
):
    words = [f"weights={write_run_weights(tmp_path / 'w.safetensors', tracker)}"]
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert track(folder, "-o", whole, *words, *ALL) == 0
    segmented.clear()
    for count in (5, 8):
        with monkeypatch.context() as patch:
            stop_after(patch, count)
            assert track(folder, "-o", parts, *words, *ALL) == 130
        assert f"stopped after {count} frames: the same command goes on" in capsys.readouterr().err
        assert len(segmented) == count
        assert sorted(p.name for p in parts.iterdir()) == [".lock", ".segmented", "about.json"]
    assert track(folder, "-o", parts, *words, *ALL) == 0
    assert "goes on: what was segmented before is read" in capsys.readouterr().out
    assert len(segmented) == FRAMES
    files = sorted(p.relative_to(whole) for p in whole.rglob("*") if p.is_file() and p.name != "about.json")
    assert len(files) == 1 + 2 + FRAMES + 2 + 1  # lock, results and overlay, masks, MOTS, COCO
    for name in files:
        assert (parts / name).read_bytes() == (whole / name).read_bytes(), name
    assert read(parts / "about.json")["made"]["resumed"]


def test_a_second_interrupt_stops_at_once(tmp_path, capsys, monkeypatch, folder):
    add = Outputs.add

    def interrupted(self, *args):
        add(self, *args)
        if self.frames == 3:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(Outputs, "add", interrupted)
    assert track(folder, "-o", tmp_path) == 130
    assert "interrupted: the same command goes on" in capsys.readouterr().err
    assert sorted(p.name for p in tmp_path.iterdir()) == [".lock", ".segmented", "about.json"]


def test_what_is_done_is_not_done_again(tmp_path, capsys, folder, segmented):
    assert track(folder, "-o", tmp_path, "--limit", 2) == 0
    segmented.clear()
    stamp = (tmp_path / "results.json").stat().st_mtime_ns
    assert track(folder, "-o", tmp_path, "--limit", 2) == 0
    assert "results.json is there already, of the same command" in capsys.readouterr().out
    assert not segmented
    assert (tmp_path / "results.json").stat().st_mtime_ns == stamp


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (("tracker=mask-iou",), "network: tracker is minvis there and mask-iou here"),
        (("--every", "2"), "input: every is 1 there and 2 here"),
        (("--masks",), "shown: masks is False there and True here"),
        (("--short-side", "32"), "network: short side is None there and 32 here"),
    ],
)
def test_another_command_is_refused(tmp_path, folder, words, named):
    out = tmp_path / "out"
    assert track(folder, "-o", out, "--limit", 2) == 0
    before = (out / "results.json").read_bytes()
    with pytest.raises(TrackingError, match=f"{named}; give another folder or say --overwrite"):
        track(folder, "-o", out, "--limit", 2, *words)
    assert (out / "results.json").read_bytes() == before
    assert track(folder, "-o", out, "--limit", 2, *words, "--overwrite") == 0
    assert read(out / "about.json")["made"]["frames"] == 2


def test_another_video_is_refused(tmp_path, folder):
    other = save_frames(tmp_path / "other", clip("static"))
    assert track(folder, "-o", tmp_path / "out", "--limit", 2) == 0
    with pytest.raises(TrackingError, match=r"of another command: input: folder is .*clip there and .*other"):
        track(other, "-o", tmp_path / "out", "--limit", 2)


def test_files_of_somebody_else_are_not_touched(tmp_path, folder):
    (tmp_path / "results.json").write_text("mine")
    for words in ((), ("--overwrite",)):
        with pytest.raises(
            TrackingError, match=r"holds results\.json, and no about\.json that says who wrote"
        ):
            track(folder, "-o", tmp_path, *words)
    assert (tmp_path / "results.json").read_text() == "mine"
    (tmp_path / "results.json").unlink()
    for text in ("{}", "[]", "mine", '{"asked": {}, "made": null, "files": []}'):
        (tmp_path / "about.json").write_text(text)
        for words in ((), ("--overwrite",)):
            with pytest.raises(TrackingError, match=r"about\.json is damaged, or no file of ours"):
                track(folder, "-o", tmp_path, *words)
        assert (tmp_path / "about.json").read_text() == text


def test_what_was_kept_is_not_segmented_again(tmp_path, folder, segmented):
    few = (folder, "-o", tmp_path, "--limit", 3)
    assert track(*few, "--keep") == 0
    assert len(segmented) == 3
    assert track(*few, "--overwrite", "--mots", "--no-video", "--keep") == 0
    assert len(segmented) == 3
    assert (tmp_path / "mots" / "clip.txt").exists()
    assert not (tmp_path / "overlay.mp4").exists()
    assert track(*few, "--overwrite", "--short-side", "32") == 0  # others
    assert len(segmented) == 6
    assert not (tmp_path / ".segmented").exists()


def test_frames_that_cannot_be_decoded_are_counted(tmp_path, capsys, folder):
    frames = save_frames(tmp_path / "frames", clip())
    for name in ("0", "4", "11"):
        (frames / f"{name}.png").write_bytes(b"no image")
    assert track(frames, "-o", tmp_path / "out", *ALL) == 0
    said = capsys.readouterr().out
    assert "3 of 12 frames could not be decoded, and have no masks" in said
    for entry in read(tmp_path / "out" / "results.json"):
        assert len(entry["segmentations"]) == FRAMES
        assert [entry["segmentations"][t] for t in (0, 4, 11)] == [None] * 3
    with av.open(str(tmp_path / "out" / "overlay.mp4")) as container:
        times = [round(frame.time, 3) for frame in container.decode(video=0)]
    assert times == [0.04, 0.08, 0.12, *np.arange(5, 11) / 25]  # the picture before is shown on
    assert len(list((tmp_path / "out" / "masks").iterdir())) == 9
    assert len(read(tmp_path / "out" / "coco_video.json")["images"]) == FRAMES


def test_videos_without_a_frame_leave_nothing(tmp_path, capsys):
    frames = save_frames(tmp_path / "frames", clip()[:2])
    for path in frames.iterdir():
        path.write_bytes(b"no image")
    with pytest.raises(TrackingError, match="frames: of 2 frames none can be decoded"):
        track(frames, "-o", tmp_path / "out")
    empty = write_video(tmp_path / "empty.avi", [], "mjpeg")
    with pytest.raises(TrackingError, match=r"empty\.avi has no frame to be tracked"):
        track(empty, "-o", tmp_path / "out")
    with pytest.raises(TrackingError, match="has no frame to be tracked"):
        track(write_video(tmp_path / "a.mp4", clip()), "-o", tmp_path / "out", "--start", 100)
    (tmp_path / "a.txt").write_text("text")
    with pytest.raises(VideoFileError, match=r"expected one INPUT, found .*frames and b\.mp4 and c$"):
        track(frames, "b.mp4", "c", "-o", tmp_path / "out")
    with pytest.raises(VideoFileError, match=r"a\.txt cannot be read as a video"):
        track(tmp_path / "a.txt", "-o", tmp_path / "out")
    assert [p.name for p in (tmp_path / "out").iterdir()] == [".lock"]


def test_frames_of_several_sizes(tmp_path):
    frames = save_frames(tmp_path / "frames", clip())
    for name in ("5", "6"):
        image = Image.open(frames / f"{name}.png")
        image.resize((161, 83)).save(frames / f"{name}.png")
    assert track(frames, "-o", tmp_path / "out", *ALL) == 0
    masks = [r for entry in read(tmp_path / "out" / "results.json") for r in entry["segmentations"] if r]
    assert {tuple(rle["size"]) for rle in masks} == {(64, 96)}
    assert Image.open(tmp_path / "out" / "masks" / "5.png").size == (161, 83)
    _, pictures = overlay(tmp_path / "out" / "overlay.mp4")
    assert len(pictures) == FRAMES
    assert pictures[5].shape == (256, 384, 3)
    images = read(tmp_path / "out" / "coco_video.json")["images"]
    assert [(i["height"], i["width"]) for i in images[4:7]] == [(64, 96), (83, 161), (83, 161)]


def test_a_camera_ends_with_an_interrupt(tmp_path, capsys, monkeypatch):
    path = write_video(tmp_path / "a.avi", clip() * 3, "ffv1")
    real, exists = av.open, Path.exists
    monkeypatch.setattr(Path, "exists", lambda p: str(p) == "/dev/video3" or exists(p))
    monkeypatch.setattr(
        av, "open", lambda name, *a, **k: real(str(path)) if name == "/dev/video3" else real(name, *a, **k)
    )
    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        stop_after(patch, 7)
        assert track("3", "-o", out, "--coco-video") == 0
    assert "7 frames, " in capsys.readouterr().out
    assert len(read(out / "results.json")[0]["segmentations"]) == 7
    assert len(overlay(out / "overlay.mp4")[1]) == 7
    with pytest.raises(TrackingError, match="holds a recording; give another folder or say --overwrite"):
        track("3", "-o", out, "--coco-video")
    assert track("3", "-o", out, "--coco-video", "--overwrite", "--limit", 2) == 0


def test_without_the_library_of_videos(tmp_path, monkeypatch, folder):
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(VideoWriterError, match=r'videos need PyAV .*: pip install -e "\.\[viz\]"'):
        track(folder, "-o", tmp_path, "--limit", 2)
    assert [p.name for p in tmp_path.iterdir()] == [".lock"]
    assert track(folder, "-o", tmp_path, "--limit", 2, "--no-video") == 0


def test_a_device_that_is_not_there(tmp_path, folder):
    with pytest.raises(FileNotFoundError, match="the input is an empty name, expected a video"):
        track("", "-o", tmp_path)
    with pytest.raises(TrackingError, match=r"device 'nonsense' cannot be used .*; expected cpu, cuda or"):
        track(folder, "-o", tmp_path, "--device", "nonsense")


@pytest.mark.parametrize(
    "words",
    [
        ("--every", "0"),
        ("--min-score", "2"),
        ("--start", "-1"),
        ("--fps", "1/0"),
        ("--fps", "x"),
        ("--trails", "x"),
    ],
)
def test_options_that_are_no_numbers(tmp_path, capsys, folder, words):
    with pytest.raises(SystemExit):
        track(folder, "-o", tmp_path, *words)
    assert words[0] in capsys.readouterr().err


def test_results_are_scored_like_any_others(tmp_path, folder):
    """The clip is easy where nothing swaps."""
    frames, entry, annotations = frames_of(SyntheticConfig(), "static", 0)
    assert track(save_frames(tmp_path / "frames", frames), "-o", tmp_path / "out", "--no-video") == 0
    truth = {
        "videos": [entry],
        "annotations": [{"id": i, **a} for i, a in enumerate(annotations, 1)],
        "categories": [{"id": i, "name": n} for i, n in enumerate(("disc", "square", "triangle", "star"), 1)],
    }
    path = tmp_path / "truth.json"
    path.write_text(json.dumps(truth))
    frame = evaluate(path, tmp_path / "out" / "results.json").frame
    value = frame[(frame.metric == "AP")].value.iloc[0]
    assert value > 0.9
    assert coco_mask.area(read(tmp_path / "out" / "results.json")[0]["segmentations"][0]) > 0

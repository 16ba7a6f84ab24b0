"""``vistk data check`` and ``vistk data convert`` as they are typed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from vistk import cli
from vistk.data import commands
from vistk.ops.masks import encode

HEIGHT, WIDTH = 7, 23
BOX = np.zeros((HEIGHT, WIDTH), np.uint8)
BOX[2:5, 3:9] = 4


@pytest.fixture(autouse=True)
def _command(monkeypatch: pytest.MonkeyPatch) -> None:
    command = cli.Command("check and convert data sets", commands.add_arguments, commands.run)
    monkeypatch.setitem(cli.COMMANDS, "data", command)


@pytest.fixture
def davis(tmp_path: Path) -> Path:
    for name in ("JPEGImages", "Annotations"):
        for video in ("ant", "bee"):
            (tmp_path / "in" / name / video).mkdir(parents=True)
    for video in ("ant", "bee"):
        for t in range(3):
            image = Image.new("RGB", (WIDTH, HEIGHT), (t, 0, len(video)))
            image.save(tmp_path / "in" / "JPEGImages" / video / f"{t}.jpg")
        Image.fromarray(BOX).save(tmp_path / "in" / "Annotations" / video / "1.png")
    return tmp_path / "in"


def vistk(*words: str | Path) -> int:
    return cli.main(["data", *map(str, words)])


def test_convert_and_check_masks(davis: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    videos = tmp_path / "videos.txt"
    videos.write_text("bee\n\nant\n")
    out = tmp_path / "out"
    words = ["--all-frames", "--videos", videos, "--categories", "thing", "--split", "valid", "--copy"]
    assert vistk("convert", "masks", davis, "-o", out, *words) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"{out / 'valid.json'}: 2 videos, 6 frames, 2 objects, 2 masks; images in ")
    assert lines[-1] == "usable: 0 errors, 0 warnings (valid)"
    assert json.loads((out / "valid.json").read_text())["categories"][0]["name"] == "thing"

    report = tmp_path / "report.json"
    assert vistk("check", out, "--split", "valid", "--decode", "--json", report) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "usable: 0 errors, 0 warnings (valid)"
    assert json.loads(report.read_text())["splits"][0]["counts"]["images_opened"] == 6

    (out / "valid" / "JPEGImages" / "ant" / "0.jpg").unlink()
    assert vistk("check", out) == 1
    captured = capsys.readouterr().out
    assert captured.splitlines()[-1] == "NOT usable: 1 error, 0 warnings (valid)"
    assert "image-missing" in captured
    assert vistk("check", out, "--images", "none", "--data", "ovis") == 1
    assert "categories-differ" in capsys.readouterr().out


def test_convert_mots(davis: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rle = encode(torch.from_numpy(BOX > 0)[None])[0]["counts"]
    for video in ("ant", "bee"):
        (davis / f"{video}.txt").write_text(f"1 1001 1 7 23 {rle}\n1 10000 10 7 23 {rle}\n")
    words = ["--images", davis / "JPEGImages", "--first-frame", "1", "--ignore", "crowd"]
    assert vistk("convert", "mots", davis, "-o", tmp_path / "out", *words) == 0
    captured = capsys.readouterr().out
    assert "2 videos, 6 frames, 4 objects, 4 masks" in captured
    assert "crowd" in captured
    masks = json.loads((tmp_path / "out" / "train.json").read_text())["annotations"][0]["segmentations"]
    assert [mask is None for mask in masks] == [False, True, True]


def test_convert_coco_video(davis: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = {
        "videos": [{"id": 1, "name": "ant"}],
        "categories": [{"id": 1, "name": "insect"}],
        "images": [
            {"id": t + 1, "video_id": 1, "frame_id": t, "file_name": f"JPEGImages/ant/{t}.jpg"}
            for t in (0, 1)
        ],
        "annotations": [
            {
                "id": 1,
                "image_id": 2,
                "category_id": 1,
                "track_id": 3,
                "segmentation": encode(torch.from_numpy(BOX > 0)[None])[0],
            }
        ],
    }
    (tmp_path / "coco.json").write_text(json.dumps(content))
    words = ["convert", "coco-video", tmp_path / "coco.json", "--images", davis, "-o", tmp_path / "out"]
    assert vistk(*words) == 0
    assert "1 videos, 2 frames, 1 objects, 1 masks" in capsys.readouterr().out
    assert vistk(*words) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.endswith("train.json exists; give another split or folder, or --overwrite\n")
    assert vistk(*words, "--overwrite") == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["check", "nowhere"], "nowhere does not exist"),
        (["convert", "masks", "nowhere", "-o", "out"], "folder nowhere does not exist"),
        (["convert", "masks", "in", "-o", "out", "--void", "-1"], "--void is '-1', expected"),
        (
            ["convert", "masks", "in", "-o", "out", "--videos", "no.txt"],
            "list of videos no.txt does not exist",
        ),
        (["convert", "masks", "in", "-o", "out", "--videos", "in/JPEGImages/ant/0.jpg"], "0.jpg is not text"),
        (["convert", "mots", "in", "-o", "out"], "no MOTS text in in"),
        (["convert", "coco-video", "no.json", "--images", "in", "-o", "out"], "file no.json does not exist"),
    ],
)
def test_errors_are_one_sentence(
    words: list[str],
    message: str,
    davis: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(davis.parent)
    assert vistk(*words) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert message in captured.err
    assert captured.err.startswith("vistk data: ")


@pytest.mark.parametrize(
    "words", [[], ["convert"], ["convert", "masks"], ["convert", "masks", "in"], ["chekc"]]
)
def test_wrong_words(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        vistk(*words)
    assert left.value.code == 2
    assert "usage: vistk data" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["check"], ["convert"], ["convert", "mots"]])
def test_help(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        vistk(*words, "--help")
    assert left.value.code == 0
    assert "usage: vistk data" in capsys.readouterr().out


def test_arguments_import_nothing_heavy() -> None:
    code = (
        "import argparse, sys; from vistk.data import commands; "
        "commands.add_arguments(argparse.ArgumentParser()); "
        "print({'torch', 'numpy', 'PIL'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"

"""What ``vistk track`` writes of videos that are long, cut out, broken off or oddly named."""

from __future__ import annotations

import av
import numpy as np
import pytest
from made_videos import write_video
from track_cases import clip, overlay, read, save_frames, track

from vistk.viz.video_writer import VideoWriterError


def test_mots_counts_frames_whose_names_are_the_same_number(tmp_path):
    frames = save_frames(tmp_path / "frames", clip()[:4])
    for old, new in (("0", "1"), ("2", "7"), ("3", "8"), ("1", "01")):
        (frames / f"{old}.png").rename(frames / f"{new}.moved")
    for path in list(frames.iterdir()):
        path.rename(path.with_suffix(".png"))  # 01, 1, 7, 8
    assert track(frames, "-o", tmp_path / "a", "--mots", "--no-video") == 0
    assert mots_frames(tmp_path / "a" / "mots" / "frames.txt") == [0, 1, 2, 3]
    (frames / "01.png").unlink()
    assert track(frames, "-o", tmp_path / "b", "--mots", "--no-video") == 0
    assert mots_frames(tmp_path / "b" / "mots" / "frames.txt") == [1, 7, 8]


def mots_frames(path):
    return sorted({int(line.split()[0]) for line in path.read_text().splitlines()})


def test_long_pictures_are_enlarged_no_further_than_players_go(tmp_path, monkeypatch):
    long = [np.tile(frame[:20], (1, 21, 1))[:, :2000] for frame in clip()[:2]]
    assert track(save_frames(tmp_path / "long", long), "-o", tmp_path / "a", "--max-side", 96) == 0
    assert overlay(tmp_path / "a" / "overlay.mp4")[1][0].shape == (40, 4000, 3)
    longer = [np.tile(frame[:4], (1, 180, 1))[:, :17000] for frame in clip()[:1]]
    frames = save_frames(tmp_path / "longer", longer)
    with pytest.raises(VideoWriterError, match=r"17000x4 pixels, expected .*; --no-video does without"):
        track(frames, "-o", tmp_path / "b", "--max-side", 96)


def test_the_overlay_of_a_part_begins_with_it(tmp_path):
    video = write_video(tmp_path / "clip.mp4", clip(), rate=10)
    assert track(video, "-o", tmp_path / "out", "--start", 0.35, "--limit", 3) == 0
    with av.open(str(tmp_path / "out" / "overlay.mp4")) as container:
        times = [round(frame.time, 3) for frame in container.decode(video=0)]
    assert times == [0, 0.1, 0.2]


def test_a_video_that_breaks_off_is_said_to(tmp_path, capsys):
    path = write_video(tmp_path / "a.avi", clip(), "ffv1")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert track(path, "-o", tmp_path / "out", "--no-video") == 0
    about = read(tmp_path / "out" / "about.json")["made"]
    assert 3 < about["frames"] < 9
    note = about["notes"][0]
    assert note == f"{path} breaks off after {about['frames']} of about 12 frames"
    assert note in capsys.readouterr().out

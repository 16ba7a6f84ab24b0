"""Frames from files, folders and cameras: order, times, turns, and whatever cannot be decoded."""

from __future__ import annotations

import math
import sys
from fractions import Fraction
from itertools import islice
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest
from made_videos import grey, set_matrix, write_video
from PIL import Image

from vistk.data import video_files
from vistk.data.frame_sources import Selection, VideoFileError, natural_key
from vistk.data.video_files import open_source

VALUES = list(range(0, 200, 10))


def read(path, selection=None, **settings):
    with open_source(path, **settings) as source:
        return list(source.frames(selection))


def greys(frames):
    """Of each frame, None where it cannot be decoded."""
    return [None if f.image is None else round(float(f.image[20:, 20:].mean()), -1) for f in frames]


def save(folder, **images):
    folder.mkdir(exist_ok=True)
    for name, pixels in images.items():
        Image.fromarray(pixels).save(folder / name.replace("_", "."))
    return folder


# Video files.


@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [
        ("a.mp4", "libx264", None),
        ("b.mp4", "libx264", {"bf": "2", "crf": "10"}),  # frames come in another order than packets
        ("a.mkv", "libx264", None),
        ("a.avi", "mjpeg", None),
        ("a.mkv", "ffv1", None),
    ],
)
def test_frames_come_in_order_with_their_times(tmp_path, name, codec, options):
    path = write_video(tmp_path / name, grey(VALUES), codec, options=options)
    with open_source(path) as source:
        assert (source.name, source.rate, source.count, source.endless) == (name[0], 10, 20, False)
        frames = list(source.frames())
    assert greys(frames) == VALUES
    assert [frame.index for frame in frames] == list(range(20))
    assert [frame.name for frame in frames][-2:] == ["00018", "00019"]
    np.testing.assert_allclose([frame.time for frame in frames], np.arange(20) / 10, atol=1e-3)
    assert frames[3].image.shape == (48, 64, 3)
    assert frames[3].image[:6, :6].min() > 240


@pytest.mark.parametrize(
    ("selection", "expected"),
    [
        (Selection(every=3), list(range(0, 20, 3))),
        (Selection(every=50), [0]),
        (Selection(limit=4), [0, 1, 2, 3]),
        (Selection(start=0.5, end=1.0), [5, 6, 7, 8, 9]),
        (Selection(start=0.55, every=2, limit=3), [6, 8, 10]),
        (Selection(start=7), []),
    ],
)
def test_a_part_of_the_frames(tmp_path, selection, expected):
    path = write_video(tmp_path / "a.mp4", grey(VALUES))
    folder = tmp_path / "folder"
    folder.mkdir()
    for t, frame in enumerate(grey(VALUES)):
        Image.fromarray(frame).save(folder / f"{t}.png")
    for frames in (read(path, selection), read(folder, selection, rate=Fraction(10))):
        assert [frame.index for frame in frames] == expected
        assert greys(frames) == [VALUES[t] for t in expected]
    assert selection.expected(20, Fraction(10)) == len(expected)


def test_what_is_expected_of_an_unknown_number():
    assert Selection(every=2).expected(None, Fraction(25)) is None
    assert Selection(limit=7).expected(None, Fraction(25)) == 7
    assert Selection(end=math.inf).expected(0, Fraction(25)) == 0


@pytest.mark.parametrize("wrong", [{"every": 0}, {"limit": 0}, {"start": -1.0}, {"start": 2.0, "end": 2.0}])
def test_parts_that_are_none(wrong):
    with pytest.raises(VideoFileError, match="expected"):
        Selection(**wrong)


def test_a_variable_rate_keeps_its_times(tmp_path):
    times = [0.0, 0.1, 0.15, 1.0, 1.01, 2.5]
    path = write_video(tmp_path / "a.mkv", grey(VALUES[:6]), times=times)
    frames = read(path)
    assert greys(frames) == VALUES[:6]
    np.testing.assert_allclose([frame.time for frame in frames], times, atol=2e-3)
    assert [f.index for f in read(path, Selection(start=0.12, end=1.005))] == [2, 3]


@pytest.mark.parametrize(
    ("name", "codec", "broken"),
    [
        ("a.avi", "mjpeg", (0, 7, 8, 19)),  # the decoder says so
        ("a.mkv", "mjpeg", (4,)),
        ("a.mp4", "libx264", (7,)),  # the decoder says nothing, or that
        ("a.mkv", "libx264", (19,)),
    ],
)
def test_frames_that_cannot_be_decoded_keep_their_places(tmp_path, name, codec, broken):
    options = {"crf": "10", "bf": "0", "g": "1"} if codec == "libx264" else None
    frames = read(write_video(tmp_path / name, grey(VALUES), codec, broken=broken, options=options))
    assert greys(frames) == [None if t in broken else value for t, value in enumerate(VALUES)]
    np.testing.assert_allclose([frame.time for frame in frames], np.arange(20) / 10, atol=1e-3)


def test_lost_frames_among_frames_in_another_order(tmp_path):
    """Packets come as 0 3 1 2 6 4 5; the third one is lost."""
    options = {"crf": "10", "bf": "2", "b-adapt": "0", "x264-params": "b-pyramid=none:bframes=2"}
    path = write_video(tmp_path / "a.mkv", grey(VALUES), broken=(2,), options=options)
    frames = read(path)
    assert len(frames) == 20
    lost = [frame.index for frame in frames if frame.image is None]
    assert lost == [1]
    assert greys(frames)[2:] == VALUES[2:]


def test_a_file_that_breaks_off(tmp_path):
    path = write_video(tmp_path / "a.mkv", [f.copy() for f in noise(20)], "ffv1")
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with open_source(path) as source:
        assert source.broken is None
        frames = [frame for frame in source.frames() if frame.image is not None]
        assert source.broken == f"{path} breaks off after {len(frames)} of about 20 frames"
    assert 5 < len(frames) < 12
    np.testing.assert_array_equal(frames[4].image, noise(20)[4])


@pytest.mark.parametrize(("name", "codec"), [("a.mp4", "libx264"), ("a.avi", "mjpeg"), ("a.mkv", "ffv1")])
@pytest.mark.parametrize("selection", [None, Selection(limit=3), Selection(end=0.5)])
def test_a_whole_file_does_not_break_off(tmp_path, name, codec, selection):
    with open_source(write_video(tmp_path / name, grey(VALUES), codec)) as source:
        assert list(source.frames(selection))
        assert source.broken is None


@pytest.mark.parametrize("rate", [10, Fraction(30000, 1001)])
def test_a_file_that_lacks_its_last_frames(tmp_path, rate):
    path = write_video(tmp_path / "a.avi", noise(20), "ffv1", rate=rate)
    with open_source(path) as source:
        starts = [packet.pos for packet in source.container.demux(source.stream)]
    path.write_bytes(path.read_bytes()[: starts[17]])
    with open_source(path) as source:
        assert len([frame for frame in source.frames() if frame.image is not None]) == 17
        assert source.broken == f"{path} breaks off after 17 of about 20 frames"


@pytest.mark.parametrize("endless", [False, True])
def test_a_disk_that_fails_is_no_end(tmp_path, camera, endless):
    with open_source("3" if endless else tmp_path / "a.avi") as source:
        demux = source.container.demux

        def failing(stream):
            yield from islice(demux(stream), 4)
            raise av.error.OSError(5, "Input/output error")

        real, source.container = source.container, SimpleNamespace(demux=failing, close=lambda: None)
        if endless:  # what was filmed before the camera was unplugged is not lost
            assert greys(source.frames()) == [0, 10, 20, 30]
            assert source.broken == "camera 3 breaks off after 4 frames (Input/output error)"
        else:
            with pytest.raises(OSError, match=r"a\.avi cannot be read any further \(Input/output error\)"):
                list(source.frames())
        real.close()


def test_what_is_on_the_disk_may_be_broken(tmp_path):
    with open_source(write_video(tmp_path / "b.mp4", grey(VALUES))) as source:
        demux = source.container.demux

        def failing(stream):
            yield from islice(demux(stream), 4)
            raise av.error.InvalidDataError(1094995529, "Invalid data")

        real, source.container = source.container, SimpleNamespace(demux=failing, close=lambda: None)
        assert greys(source.frames()) == [0, 10, 20, 30]
        assert source.broken == f"{tmp_path / 'b.mp4'} breaks off after 4 of about 20 frames (Invalid data)"
        real.close()


def noise(count, size=(48, 64)):
    rng = np.random.default_rng(0)
    return list(rng.integers(0, 256, (count, *size, 3), dtype=np.uint8))


@pytest.mark.parametrize(
    ("matrix", "turned"),
    [
        ((1, 0, 0, 1), lambda x: x),
        ((0, 1, -1, 0), lambda x: np.rot90(x, -1)),  # a quarter turn clockwise, as phones have it
        ((-1, 0, 0, -1), lambda x: np.rot90(x, 2)),
        ((0, -1, 1, 0), lambda x: np.rot90(x, 1)),
        ((-1, 0, 0, 1), lambda x: x[:, ::-1]),
        ((1, 0, 0, -1), lambda x: x[::-1]),
        ((0, 1, 1, 0), lambda x: x.swapaxes(0, 1)),
    ],
)
def test_turned_videos_are_turned_upright(tmp_path, matrix, turned):
    path = write_video(tmp_path / "a.mp4", grey(VALUES[:3]))
    (plain, *_) = read(path)
    (frame, *_) = read(set_matrix(path, matrix))
    np.testing.assert_array_equal(frame.image, turned(plain.image))


def test_pixels_are_turned_along(tmp_path):
    path = set_matrix(write_video(tmp_path / "a.mp4", grey([0, 10]), aspect=Fraction(4, 3)), (0, 1, -1, 0))
    with open_source(path) as source:
        frames = source.frames()
        assert next(frames).image.shape == (64, 48, 3)
        assert source.aspect == Fraction(3, 4)
        next(frames)
        assert source.aspect == Fraction(3, 4)


def test_what_is_no_video(tmp_path):
    text = tmp_path / "a.mp4"
    text.write_text("no video")
    with pytest.raises(VideoFileError, match=r"a\.mp4 cannot be read as a video \(Invalid data"):
        open_source(text)
    (tmp_path / "empty.mp4").write_bytes(b"")
    with pytest.raises(VideoFileError, match=r"empty\.mp4 cannot be read as a video"):
        open_source(tmp_path / "empty.mp4")
    with pytest.raises(
        FileNotFoundError, match=r"b\.mp4: no such file or folder; expected a video, a folder"
    ):
        open_source(tmp_path / "b.mp4")
    with av.open(str(tmp_path / "a.wav"), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), layout="mono")
        sound.rate = 8000
        container.mux(stream.encode(sound))
    with pytest.raises(VideoFileError, match=r"a\.wav holds no video"):
        open_source(tmp_path / "a.wav")
    with pytest.raises(VideoFileError, match="only a folder of images is given one"):
        open_source(text, Fraction(5))


def test_a_video_without_frames(tmp_path):
    assert read(write_video(tmp_path / "a.avi", [], "mjpeg")) == []


def test_without_the_library(tmp_path, monkeypatch):
    path = write_video(tmp_path / "a.mp4", grey([0]))
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(VideoFileError, match=r'videos need PyAV .*: pip install -e "\.\[viz\]"'):
        open_source(path)
    folder = save(tmp_path / "folder", a_png=grey([7])[0])
    assert greys(read(folder)) == [10]  # which does not need it


def test_reading_holds_one_frame(tmp_path):
    """The first frame is there before the last one is decoded."""
    with open_source(write_video(tmp_path / "a.mp4", grey(VALUES))) as source:
        packets, taken = source._packets, []

        def counted():
            for packet in packets():
                taken.append(packet)
                yield packet

        source._packets = counted
        frames = source.frames()
        next(frames)
        assert len(taken) < 6
        assert len(list(frames)) == 19


# Folders.


def test_folders_are_read_in_natural_order(tmp_path):
    one, two, ten = grey([10, 20, 100])
    folder = save(tmp_path / "clip", f10_png=ten, f2_png=two, f1_jpg=one)
    (folder / "notes.txt").write_text("no image")
    (folder / ".hidden.png").write_text("no image")
    (folder / "folder.png").mkdir()
    with open_source(folder) as source:
        assert (source.name, source.rate, source.count) == ("clip", 25, 3)
        assert source.files == ["f1.jpg", "f2.png", "f10.png"]
        frames = list(source.frames())
    assert greys(frames) == [10, 20, 100]
    assert [frame.name for frame in frames] == ["f1", "f2", "f10"]
    assert [frame.time for frame in frames] == [0.0, 0.04, 0.08]


def test_natural_order():
    names = ["a10", "a2", "a02", "b1", "a", "2", "10", "a2b10", "a2b9"]
    expected = ["2", "10", "a", "a02", "a2", "a2b9", "a2b10", "a10", "b1"]
    assert sorted(names, key=natural_key) == expected


def test_images_of_all_kinds_have_three_channels(tmp_path):
    rng = np.random.default_rng(1)
    colour = rng.integers(0, 256, (7, 23, 3), dtype=np.uint8)
    flat = colour[..., 0]
    deep = flat.astype(np.uint16) * 256 + 7
    alpha = np.concatenate([colour, rng.integers(0, 256, (7, 23, 1), dtype=np.uint8)], 2)
    folder = save(tmp_path / "a", a_png=colour, b_png=flat, c_png=deep, d_png=alpha)
    Image.fromarray(flat).convert("1").save(folder / "e.png")
    a, b, c, d, e = (frame.image for frame in read(folder))
    np.testing.assert_array_equal(a, colour)
    np.testing.assert_array_equal(d, colour)
    for image in (b, c):
        np.testing.assert_array_equal(image, np.repeat(flat[..., None], 3, 2))
    assert e.shape == (7, 23, 3)
    assert set(np.unique(e)) <= {0, 255}


def test_frames_of_several_sizes_and_broken_ones(tmp_path):
    folder = save(tmp_path / "a", a_png=grey([0])[0], c_png=grey([50], (83, 23))[0])
    (folder / "b.png").write_bytes((folder / "a.png").read_bytes()[:60])
    (folder / "d.jpg").write_bytes(b"")
    shapes = [None if frame.image is None else frame.image.shape for frame in read(folder)]
    assert shapes == [(48, 64, 3), None, (83, 23, 3), None]


def test_folders_that_cannot_be_used(tmp_path):
    with pytest.raises(VideoFileError, match=r"holds no image, expected files that end in \.jpg or \.png"):
        open_source(tmp_path)
    save(tmp_path, a_png=grey([0])[0], a_jpg=grey([0])[0])
    save(tmp_path, **{"a.k_png": grey([0])[0]})  # comes between the two
    with pytest.raises(VideoFileError, match=r"has both a\.jpg and a\.png, expected one of them"):
        open_source(tmp_path)
    with pytest.raises(FileNotFoundError, match="the input is an empty name"):
        open_source("")


def test_another_source_has_another_identity(tmp_path):
    path = write_video(tmp_path / "a.mp4", grey(VALUES))
    with open_source(path) as source:
        before = source.identity
    with open_source(path) as source:
        assert source.identity == before
    write_video(path, grey(VALUES[:5]))
    with open_source(path) as source:
        assert source.identity != before


# Cameras.


def test_a_camera_that_is_not_there(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match="no camera 99: there is no /dev/video99"):
        open_source("99")


def test_a_folder_may_be_called_as_a_camera(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    save(tmp_path / "99", a_png=grey([0])[0])
    assert greys(read("99")) == [0]


@pytest.fixture
def camera(monkeypatch, tmp_path):
    """Camera 3 shows a video, as Video4Linux would."""
    path = write_video(tmp_path / "a.avi", grey(VALUES), "mjpeg")
    real, opened = av.open, []

    def fake(address, *args, **settings):
        opened.append((address, settings))
        return real(str(path) if address == "/dev/video3" else address)

    exists = Path.exists
    monkeypatch.setattr(Path, "exists", lambda path: str(path) == "/dev/video3" or exists(path))
    monkeypatch.setattr(av, "open", fake)
    return opened


def test_a_camera_has_no_end(camera):
    with open_source("3") as source:
        assert (source.count, source.endless, source.name) == (None, True, "camera3")
        assert greys(source.frames(Selection(limit=3))) == [0, 10, 20]
    assert camera == [("/dev/video3", {"format": "video4linux2", "timeout": 10.0})]


def test_a_camera_that_stands_still_is_told(camera, monkeypatch):
    with open_source("3") as source:

        def demux(stream):
            yield from ()
            raise av.error.TimeoutError(110, "timed out")

        source.container.close()
        source.container = SimpleNamespace(demux=demux, close=lambda: None)
        with pytest.raises(VideoFileError, match="camera 3 gave no frame for 10 s"):
            next(source.frames())


def test_a_camera_that_is_in_use(monkeypatch):
    def fake(*args, **settings):
        raise av.error.PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "exists", lambda path: True)
    monkeypatch.setattr(av, "open", fake)
    with pytest.raises(PermissionError, match="camera 0 cannot be opened: permission denied"):
        video_files.open_camera(0)

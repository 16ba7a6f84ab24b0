"""Pictures to H.264 and back: sizes, times, colours, and what is left after a failure."""

from __future__ import annotations

import sys
from fractions import Fraction

import av
import numpy as np
import pytest

from vistk.viz.video_writer import VideoWriter, VideoWriterError, fitted


def decoded(path):
    """Frames, and what the container says."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        facts = (stream.codec_context.name, stream.codec_context.pix_fmt, stream.sample_aspect_ratio)
        frames = [(frame.time, frame.to_ndarray(format="rgb24")) for frame in container.decode(stream)]
        return frames, facts, stream.average_rate


def pictures(count, size):
    """Blocks of 8 pixels of one colour each, so that halved colours are as they were."""
    rng = np.random.default_rng(0)
    blocks = rng.integers(40, 200, (count, -(-size[0] // 8), -(-size[1] // 8), 3), dtype=np.uint8)
    return blocks.repeat(8, 1).repeat(8, 2)[:, : size[0], : size[1]]


@pytest.mark.parametrize("size", [(48, 64), (47, 63), (1, 1), (7, 23), (83, 1)])
def test_odd_sides_get_a_copy_of_the_last_row_or_column(tmp_path, size):
    path, shown = tmp_path / "a.mp4", pictures(5, size)
    with VideoWriter(path, size, Fraction(25)) as writer:
        for picture in shown:
            writer.write(picture)
    frames, facts, rate = decoded(path)
    assert facts[:2] == ("h264", "yuv420p")
    assert rate == 25
    even = [np.pad(p, ((0, size[0] % 2), (0, size[1] % 2), (0, 0)), mode="edge") for p in shown]
    assert [round(time, 4) for time, _ in frames] == [0.0, 0.04, 0.08, 0.12, 0.16]
    for (_, found), expected in zip(frames, even, strict=True):
        assert found.shape == expected.shape
        assert np.abs(found.astype(int) - expected).mean() < 8


def test_pictures_are_shown_when_they_came(tmp_path):
    path, times = tmp_path / "a.mp4", [0.0, 0.1, 0.15, 1.0, None, 0.5, 2.5]
    with VideoWriter(path, (16, 16), Fraction(10), Fraction(4, 3)) as writer:
        for time in times:
            writer.write(np.zeros((16, 16, 3), np.uint8), time)
    frames, facts, _ = decoded(path)
    # Without a time, or with one that has passed, as the rate says.
    assert [round(time, 4) for time, _ in frames] == [0.0, 0.1, 0.15, 1.0, 1.1, 1.2, 2.5]
    assert facts[2] == Fraction(4, 3)


@pytest.mark.parametrize("rate", [Fraction(30000, 1001), Fraction(1, 3), Fraction(25, 7), Fraction(1000)])
def test_rates_that_are_no_whole_numbers(tmp_path, rate):
    with VideoWriter(tmp_path / "a.mp4", (16, 16), rate) as writer:
        for _ in range(30):
            writer.write(np.zeros((16, 16, 3), np.uint8))
    frames, _, found = decoded(tmp_path / "a.mp4")
    assert len(frames) == 30
    assert float(found) == pytest.approx(float(rate), rel=1e-3)


def test_the_same_pictures_give_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        with VideoWriter(tmp_path / name, (48, 64), Fraction(25)) as writer:
            for picture in pictures(9, (48, 64)):
                writer.write(picture)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_pictures_of_another_size_have_black_bars():
    image = np.full((10, 20, 3), 200, np.uint8)
    found = fitted(image, (40, 40))
    assert found.shape == (40, 40, 3)
    assert (found[10:30] == 200).all()
    assert not found[:10].any()
    assert not found[30:].any()
    assert fitted(image, (10, 20)) is image
    assert fitted(np.full((1000, 1, 3), 9, np.uint8), (10, 10))[:, 4:6].any()


@pytest.mark.parametrize("colour", [(200, 40, 90), (10, 220, 30), (20, 30, 250), (128, 128, 128)])
def test_colours_are_those_of_hd_video(tmp_path, colour):
    """With the matrix of the other standard, that of a large picture, green would be off by 16."""
    path = tmp_path / "a.mp4"
    with VideoWriter(path, (32, 32), Fraction(25)) as writer:
        writer.write(np.full((32, 32, 3), colour, np.uint8))
    with av.open(str(path)) as container:
        (frame,) = container.decode(video=0)
        assert frame.colorspace == 1
        found = frame.to_ndarray(format="rgb24", src_colorspace="ITU709")
    assert np.abs(found.astype(int) - colour).max() <= 3


def test_an_error_inside_is_the_one_that_is_told(tmp_path):
    def fail():
        with VideoWriter(tmp_path / "a.mp4", (16, 16), Fraction(25)) as writer:
            writer.write(np.zeros((16, 16, 3), np.uint8))
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        fail()


def test_what_is_refused(tmp_path):
    with VideoWriter(tmp_path / "a.mp4", (16, 16), Fraction(25)) as writer:
        for wrong in (np.zeros((16, 16), np.uint8), np.zeros((16, 16, 3)), np.zeros((16, 16, 4), np.uint8)):
            with pytest.raises(ValueError, match=r"expected uint8 \(H, W, 3\)"):
                writer.write(wrong)
    with pytest.raises(VideoWriterError, match="pictures of 20000x16 pixels, expected sides of 1 to 16383"):
        VideoWriter(tmp_path / "a.mp4", (16, 20000), Fraction(25))


def test_without_the_library(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(VideoWriterError, match=r'videos need PyAV .*: pip install -e "\.\[viz\]"'):
        VideoWriter(tmp_path / "a.mp4", (16, 16), Fraction(25))


def test_without_the_encoder(tmp_path, monkeypatch):
    def missing(self, *args, **settings):
        raise av.codec.codec.UnknownCodecError("libx264")

    class Container:
        add_stream = missing

        def close(self):
            pass

    monkeypatch.setattr(av, "open", lambda *args, **settings: Container())
    with pytest.raises(VideoWriterError, match=r"has no encoder for H\.264 \(libx264\)"):
        VideoWriter(tmp_path / "a.mp4", (16, 16), Fraction(25))

"""Decoding: the same pixels whichever library reads them, and Pillow's errors."""

import io

import numpy as np
import pytest
import simplejpeg
import torch
from PIL import Image, UnidentifiedImageError

from vistk.data.images import padded, read_rgb


def picture(height, width, channels=3):
    cells = np.random.default_rng(0).integers(0, 256, (5, 7, channels), dtype=np.uint8)
    modes = {1: "L", 3: "RGB", 4: "CMYK"}
    image = Image.fromarray(cells[..., 0] if channels == 1 else cells, modes[channels])
    return image.resize((width, height), Image.Resampling.BICUBIC)


@pytest.mark.parametrize("size", [(1, 1), (7, 23), (83, 40), (16, 32)])
@pytest.mark.parametrize(
    ("channels", "suffix", "options"),
    [
        (3, "jpg", {"quality": 90}),
        (3, "JPEG", {"quality": 60, "subsampling": 0}),
        (3, "jpg", {"progressive": True}),
        (1, "jpg", {}),
        (4, "jpg", {}),
        (3, "png", {}),
        (1, "png", {}),
    ],
)
def test_pixels_are_those_of_pillow(tmp_path, size, channels, suffix, options):
    path = tmp_path / f"image.{suffix}"
    picture(*size, channels).save(path, **options)
    check_pixels(path)


def check_pixels(path):
    with Image.open(path) as image:
        expected = np.array(image.convert("RGB"))
    found = read_rgb(path)
    assert found.dtype == torch.uint8
    assert np.array_equal(found.permute(1, 2, 0).numpy(), expected)
    assert padded(found).data_ptr() == found.data_ptr()


@pytest.mark.parametrize("shape", [(3, 7, 23), (2, 3, 7, 1), (2, 5, 3, 1, 4)])
def test_padding_keeps_the_pixels(shape):
    images = torch.randint(0, 256, shape, dtype=torch.uint8)
    out = padded(images)
    assert torch.equal(out[..., :3, :, :], images)
    assert out.movedim(-3, -1).is_contiguous()
    assert padded(out[..., :3, :, :]).data_ptr() == out.data_ptr()
    last = out[..., 1:, :, :]  # no byte follows the last pixel: a copy
    assert torch.equal(padded(last)[..., :3, :, :], last)


def test_a_turned_picture_stays_as_it_is_stored(tmp_path):
    turned = Image.Exif()
    turned[0x0112] = 6  # to be shown turned by a quarter; masks are drawn upon the stored pixels
    picture(23, 40).save(tmp_path / "image.jpg", exif=turned)
    check_pixels(tmp_path / "image.jpg")
    assert read_rgb(tmp_path / "image.jpg").shape == (3, 23, 40)


def test_content_counts_not_the_suffix(tmp_path):
    picture(7, 23).save(tmp_path / "png.jpg", format="PNG")
    picture(7, 23).save(tmp_path / "jpeg.png", format="JPEG")
    check_pixels(tmp_path / "png.jpg")
    check_pixels(tmp_path / "jpeg.png")


def test_rgb_and_grey_jpegs_bypass_pillow(tmp_path, monkeypatch):
    opened = []
    monkeypatch.setattr(Image, "open", lambda path: opened.append(path) or io.BytesIO())
    picture(23, 40).save(tmp_path / "rgb.jpg")
    picture(23, 40, 1).save(tmp_path / "grey.jpg")
    picture(23, 40, 4).save(tmp_path / "cmyk.jpg")
    for name in ("rgb.jpg", "grey.jpg"):
        read_rgb(tmp_path / name)
    assert not opened
    with pytest.raises(AttributeError, match="convert"):
        read_rgb(tmp_path / "cmyk.jpg")
    assert opened == [tmp_path / "cmyk.jpg"]


def test_what_only_pillow_forgives_is_read_by_pillow(tmp_path):
    path = tmp_path / "image.jpg"
    picture(83, 40).save(path, quality=95)
    content = bytearray(path.read_bytes())
    content[len(content) * 3 // 4] ^= 0x55  # of the compressed pixels: strange ones, but all are there
    path.write_bytes(content)
    with pytest.raises(ValueError, match="Corrupt JPEG data"):
        simplejpeg.decode_jpeg(bytes(content))
    check_pixels(path)


def test_errors_are_those_of_pillow(tmp_path):
    path = tmp_path / "image.jpg"
    with pytest.raises(FileNotFoundError):
        read_rgb(path)
    picture(83, 40).save(path, quality=95)
    whole = path.read_bytes()
    for broken in (whole[: len(whole) // 2], whole[:100]):
        path.write_bytes(broken)
        with pytest.raises((OSError, SyntaxError), match=r"truncated|Truncated|cannot identify"):
            read_rgb(path)
    for other in (b"", b"<html>"):
        path.write_bytes(other)
        with pytest.raises(UnidentifiedImageError):
            read_rgb(path)

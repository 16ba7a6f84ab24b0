"""Decoding: the same pixels whichever library reads them, and Pillow's errors."""

import sys

import numpy as np
import pytest
import torch
from PIL import Image

from vistk.data.images import _jpeg_decoder, read_rgb

pytestmark = pytest.mark.filterwarnings(
    "ignore:The image decoding and encoding capabilities:DeprecationWarning"
)


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
    with Image.open(path) as image:
        expected = np.array(image.convert("RGB"))
    found = read_rgb(path)
    assert found.dtype == torch.uint8
    assert np.array_equal(found.permute(1, 2, 0).numpy(), expected)


def test_without_torchvision_pillow_reads(tmp_path, monkeypatch):
    path = tmp_path / "image.jpg"
    picture(7, 23).save(path)
    with_it = read_rgb(path)
    monkeypatch.setitem(sys.modules, "torchvision", None)
    _jpeg_decoder.cache_clear()
    try:
        assert torch.equal(read_rgb(path), with_it)
    finally:
        _jpeg_decoder.cache_clear()


def test_errors_are_those_of_pillow(tmp_path):
    path = tmp_path / "image.jpg"
    with pytest.raises(FileNotFoundError):
        read_rgb(path)
    picture(83, 40).save(path, quality=95)
    whole = path.read_bytes()
    for broken in (whole[: len(whole) // 2], whole[:100], b"", b"<html>"):
        path.write_bytes(broken)
        with pytest.raises((OSError, SyntaxError)):
            read_rgb(path)

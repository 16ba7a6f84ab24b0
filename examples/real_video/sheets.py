"""Contact sheets of a written data set, for checking its masks and identities by eye."""

from __future__ import annotations

import colorsys
import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw
from scipy import ndimage

from vistk.ops.masks import decode

COLUMNS, ROWS = 2, 3


def write_sheets(data: Path, out: Path) -> list[Path]:
    """Pages of six frames for every clip of the data set ``data``, read back from its files.

    Each person has an outline and a number in one colour for the whole clip; the picture is cropped
    to where the clip has people. Pages are ``out/<clip>_<page>.png``.
    """
    out.mkdir(parents=True, exist_ok=True)
    pages = []
    for split in ("train", "valid"):
        content = json.loads((data / f"{split}.json").read_text())
        for video in content["videos"]:
            annotations = [a for a in content["annotations"] if a["video_id"] == video["id"]]
            tiles = _tiles(data / split / "JPEGImages", video, annotations)
            for start in range(0, len(tiles), COLUMNS * ROWS):
                page = out / f"{Path(video['file_names'][0]).parent}_{start // (COLUMNS * ROWS)}.png"
                _page(tiles[start : start + COLUMNS * ROWS]).save(page)
                pages.append(page)
    return pages


def _tiles(images: Path, video: dict[str, Any], annotations: list[dict[str, Any]]) -> list[Image.Image]:
    crop = _crop(video, annotations)
    tiles = []
    for t, name in enumerate(video["file_names"]):
        with Image.open(images / name) as file:
            pixels = np.array(file.convert("RGB"))
        present = [(n, a) for n, a in enumerate(annotations) if a["segmentations"][t] is not None]
        for n, annotation in present:
            mask = decode(annotation["segmentations"][t])
            pixels[mask & ~ndimage.binary_erosion(mask)] = _colour(n)
        tile = Image.fromarray(pixels)
        draw = ImageDraw.Draw(tile)
        for n, annotation in present:
            x, y, _, _ = annotation["bboxes"][t]
            label = str(annotation["id"])
            draw.text((x, y - 12), label, fill=_colour(n), stroke_width=1, stroke_fill=(0, 0, 0))
        draw.text(
            (crop[0] + 3, crop[1] + 2), name, fill=(255, 255, 255), stroke_width=1, stroke_fill=(0, 0, 0)
        )
        tiles.append(tile.crop(crop))
    return tiles


def _crop(video: dict[str, Any], annotations: list[dict[str, Any]]) -> tuple[int, int, int, int]:
    boxes = np.array([box for a in annotations for box in a["bboxes"] if box is not None]).reshape(-1, 4)
    if not len(boxes):
        return 0, 0, video["width"], video["height"]
    x0, y0 = boxes[:, :2].min(axis=0)
    x1, y1 = (boxes[:, :2] + boxes[:, 2:]).max(axis=0)
    return (
        max(int(x0) - 20, 0),
        max(int(y0) - 20, 0),
        min(int(x1) + 20, video["width"]),
        min(int(y1) + 20, video["height"]),
    )


def _colour(n: int) -> tuple[int, int, int]:
    """Bright colours whose hues stay far apart for any number of people (golden-ratio steps)."""
    r, g, b = colorsys.hsv_to_rgb((n * 0.618) % 1.0, 1.0, 1.0)
    return int(255 * r), int(255 * g), int(255 * b)


def _page(tiles: list[Image.Image]) -> Image.Image:
    width, height = tiles[0].size
    page = Image.new("RGB", (COLUMNS * width, ROWS * height))
    for n, tile in enumerate(tiles):
        page.paste(tile, (n % COLUMNS * width, n // COLUMNS * height))
    return page

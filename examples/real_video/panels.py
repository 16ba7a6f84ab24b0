"""All trackers in one picture: the same frame once for each, with its tracks; and who was where when."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from make_dataset import resized
from PIL import Image

from vistk.ops.masks import decode, encode
from vistk.structures import RLE
from vistk.viz.figures import png
from vistk.viz.lettering import letters, paint
from vistk.viz.overlay import Shown, Trails, draw
from vistk.viz.timelines import instance_timeline, track_timeline

PAPER, INK = (24, 24, 24), (240, 240, 240)
TITLE = 13  # height of the font, pixels
GAP = 4  # pixels between panels


class Panels:
    """Draws the panels of one video, frame after frame; keeps the trails of all tracks.

    Args:
        names: of the panels, in their order.
        size: (width, height) of the frames.
        width: of a panel, pixels; frames are made smaller for it, not larger.
    """

    def __init__(self, names: Sequence[str], size: tuple[int, int], width: int) -> None:
        if width < 16:
            raise ValueError(f"the width of a panel is {width}, expected 16 pixels or more")
        width = min(width, size[0])
        self.size = (width, max(round(size[1] * width / size[0]), 1))
        self.columns = math.ceil(math.sqrt(len(names)))
        self.trails = {name: Trails() for name in names}
        self._line = letters("0", TITLE).shape[0] + GAP
        rows = math.ceil(len(names) / self.columns)
        self.canvas = (rows * (self.size[1] + self._line), self.columns * (self.size[0] + GAP))

    def draw(self, frame: np.ndarray, shown: Mapping[str, Sequence[Shown]], note: str = "") -> np.ndarray:
        """One picture of height and width ``canvas``.

        Args:
            frame: ``(H, W, 3)`` uint8.
            shown: tracks by panel, masks at the size of the frame; of a panel that is not named, none.
            note: after the name of the first panel.
        """
        image = np.asarray(Image.fromarray(frame).resize(self.size, Image.Resampling.BOX))
        smaller: dict[str, RLE | None] = {}  # most masks are in every panel
        canvas = np.full((*self.canvas, 3), PAPER, np.uint8)
        for place, (name, trails) in enumerate(self.trails.items()):
            tracks = [self._smaller(track, smaller) for track in shown.get(name, ())]
            trails.add(tracks)
            top = place // self.columns * (self.size[1] + self._line)
            left = place % self.columns * (self.size[0] + GAP)
            paint(canvas, f"{name}   {note}" if place == 0 else name, TITLE, left + GAP, top + 2, INK)
            top += self._line
            canvas[top : top + self.size[1], left : left + self.size[0]] = draw(image, tracks, trails)
        return canvas

    def _smaller(self, track: Shown, known: dict[str, RLE | None]) -> Shown:
        if track.rle is None:
            return track
        key = track.rle["counts"]
        if key not in known:
            mask = resized(decode(track.rle), self.size)
            known[key] = encode(torch.from_numpy(mask[None]))[0] if mask.any() else None
        return Shown(track.id, known[key], track.text)


def people_timeline(covering: np.ndarray, visible: np.ndarray, title: str) -> Image.Image:
    """Who of the people was covered by which track when.

    Args:
        covering: ``(people, T)`` int64 tracks, -1 for none.
        visible: ``(people, T)`` bool.
    """
    names = [f"person {n + 1}" for n in range(len(covering))]
    return _picture(png(instance_timeline(covering, visible, names, title=title), dpi=60))


def tracks_timeline(present: Mapping[int, np.ndarray], title: str) -> Image.Image:
    """Which track was there when: ``{track: (T,) bool}``, of a video whose people nobody checked."""
    return _picture(png(track_timeline(present, title=title), dpi=60))


def sheet(pictures: Sequence[Image.Image]) -> Image.Image:
    """Pictures in two columns, row by row."""
    columns = min(2, len(pictures))
    rows = [pictures[start : start + columns] for start in range(0, len(pictures), columns)]
    heights = [max(picture.height for picture in row) for row in rows]
    width = max(picture.width for picture in pictures)
    page = Image.new("RGB", (columns * width, sum(heights)), "white")
    for row, top in zip(rows, np.cumsum([0, *heights[:-1]]).tolist(), strict=True):
        for column, picture in enumerate(row):
            page.paste(picture, (column * width, top))
    return page


def _picture(content: bytes) -> Image.Image:
    return Image.open(io.BytesIO(content)).convert("RGB")

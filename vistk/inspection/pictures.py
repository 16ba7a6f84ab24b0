"""Pictures of one video of a run, composed from :mod:`vistk.viz`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image

from vistk.inspection.run_view import VideoView
from vistk.ops.masks import decode, encode
from vistk.structures import RLE
from vistk.viz.lettering import letters, paint
from vistk.viz.overlay import Shown, Trails, draw
from vistk.viz.strips import INK, PAPER, film_strip
from vistk.viz.timelines import instance_timeline, track_timeline

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TRUTH = "truth"
"""Name of the annotated instances among the rows of a picture."""

STRIP_SIDE = 200  # pixels, about the shorter side of a frame in a film strip
VIDEO_SIDE = 360  # in a video with several rows
MOST_FRAMES = 12  # of a film strip, unless they are named


def strip(view: VideoView, rows: Sequence[str], frames: Sequence[int] | None = None) -> Image.Image:
    """Truth and rows under each other; frames in which a failure of a row shows first are marked.

    Args:
        frames: their numbers; None: :func:`telling_frames`.
    """
    numbers = list(telling_frames(view, rows) if frames is None else frames)
    drawn = {
        name: [frame(view, name, t, STRIP_SIDE, scores=False) for t in numbers]
        for name in with_truth(view, rows)
    }
    marked = {
        (row, numbers.index(failure.frame))
        for row in rows
        for failure in view.failures(row)
        if failure.frame in numbers
    }
    return film_strip(drawn, numbers, marked)


def side_by_side(view: VideoView, rows: Sequence[str], frames: Sequence[int]) -> Iterator[np.ndarray]:
    """One picture ``(H, W, 3)`` uint8 for each frame: truth and rows in a grid, named, with trails."""
    names = with_truth(view, rows)
    across = round(len(names) ** 0.5) or 1
    trails = {name: Trails() for name in names}
    for t in frames:
        tiles = [frame(view, name, t, VIDEO_SIDE, trails[name], name) for name in names]
        blank = np.full_like(tiles[0], 255)
        tiles += [blank] * (-len(tiles) % across)
        grid = [np.concatenate(tiles[i : i + across], 1) for i in range(0, len(tiles), across)]
        yield np.concatenate(grid)


def timeline(view: VideoView, row: str) -> Figure:
    """Who covered which instance when, switches marked, and tracks while they covered none; where the truth
    is hidden, when each track was there.
    """
    tracks = {
        track.id: np.array([rle is not None and decode(rle).any() for rle in track.rles])
        for track in view.tracks(row)
    }
    title = f"{row}, {view.title}"
    if not view.split.has_truth:
        return track_timeline(tracks, {track.id: track.label for track in view.tracks(row)}, title=title)
    covering = view.covering(row).T
    alone = {i: there & ~(covering == i).any(0) for i, there in tracks.items()}
    visible = view.overlaps(row).instance_areas.T > 0
    return instance_timeline(
        covering, visible, [f"{one.label} {one.id}" for one in view.truth], others=alone, title=title
    )


def with_truth(view: VideoView, rows: Sequence[str]) -> list[str]:
    """The rows, after the truth where there is one."""
    return [*([TRUTH] if view.split.has_truth else []), *rows]


def frame(
    view: VideoView,
    row: str,
    t: int,
    side: int,
    trails: Trails | None = None,
    title: str = "",
    *,
    scores: bool = True,
) -> np.ndarray:
    """One frame ``(h, w, 3)`` uint8 with the tracks of a row, or of :data:`TRUTH`.

    Args:
        side: about the shorter side of the picture, pixels; small frames grow by a whole factor.
        trails: of this row, to which the frame is added.
        title: stands above.
        scores: write those of the tracks, which are of the whole video.
    """
    image, shown = view.image(t), shown_in(view, row, t, scores)
    scale = max(1, round(side / min(image.shape[:2])))
    if min(image.shape[:2]) > side:
        image, shown = _smaller(image, shown, side)
    if trails is not None:
        trails.add(shown)
    picture = draw(image, shown, trails, scale=scale)
    return _titled(picture, title) if title else picture


def shown_in(view: VideoView, row: str, t: int, scores: bool = True) -> list[Shown]:
    """The tracks of a frame, as they are drawn: with the category, where the data have several."""
    tracks = view.truth if row == TRUTH else view.tracks(row)
    named = len(view.split.truth.categories) > 1
    return [
        Shown(
            track.id,
            track.rles[t],
            " ".join(
                [
                    *([track.label] if named else []),
                    *([f"{track.score:.2f}"] if scores and track.score is not None else []),
                ]
            ),
        )
        for track in tracks
    ]


def telling_frames(view: VideoView, rows: Sequence[str], most: int = MOST_FRAMES) -> list[int]:
    """All frames of a short video; of a long one the ends, those around failures, and some between."""
    count = len(view)
    if count <= most:
        return list(range(count))
    chosen = {0, count - 1}
    events = sorted({failure.frame for row in rows for failure in view.failures(row)})
    for t in (t for event in events for t in (event, max(event - 1, 0))):
        if len(chosen) < most:
            chosen.add(t)
    while len(chosen) < most:
        ordered = sorted(chosen)
        a, b = max(pairwise(ordered), key=lambda pair: pair[1] - pair[0])
        chosen.add((a + b) // 2)
    return sorted(chosen)


def _smaller(image: np.ndarray, shown: Sequence[Shown], side: int) -> tuple[np.ndarray, list[Shown]]:
    """A frame and its masks with a shorter side of ``side`` pixels."""
    height, width = image.shape[:2]
    factor = side / min(height, width)
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    small = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BOX))

    def resized(rle: RLE | None) -> RLE | None:
        if rle is None:
            return None
        mask = Image.fromarray(decode(rle)).resize(size, Image.Resampling.NEAREST)
        return encode(torch.from_numpy(np.array(mask))[None])[0]

    return small, [Shown(one.id, resized(one.rle), one.text) for one in shown]


def _titled(picture: np.ndarray, title: str) -> np.ndarray:
    """With a line of text above."""
    size = 18
    line = np.full((letters(title, size).shape[0] + 8, picture.shape[1], 3), PAPER, np.uint8)
    paint(line, title, size, 6, 4, INK)
    return np.concatenate([line, picture])

"""What happens in a synthetic video: which objects there are and where each one is in every frame."""

from __future__ import annotations

from dataclasses import dataclass
from math import isqrt

import numpy as np

from vistk.data.config import SyntheticConfig
from vistk.data.sampling import Stream
from vistk.data.sprites import CLASSES, PIXEL, TURN, Texture, textures

KINDS = ("static", "track", "swap", "reenter")
"""Kinds of video: objects hardly move; cross; exchange places at one frame; leave and return elsewhere."""


@dataclass(frozen=True)
class Scene:
    """The plan of one video. Objects are in drawing order, the furthest first."""

    shapes: tuple[int, ...]  # n classes
    sizes: tuple[int, ...]  # pixels
    angles: tuple[int, ...]  # 1/TURN turns
    textures: tuple[Texture, ...]
    centres: np.ndarray  # (T, n, 2) int64, x and y in 1/256 pixel
    present: np.ndarray  # (T, n) bool
    swap_frame: int | None = None  # first frame after the exchange of places

    def __len__(self) -> int:
        return len(self.shapes)


def plan_still(stream: Stream, config: SyntheticConfig, main: int) -> tuple[Scene, bool]:
    """A video of one frame for the training of the segmenter, and whether its objects are twins."""
    twins = stream.chance(config.twins)
    shapes, sizes, angles = _draw_objects(stream, config, main)
    # Half of the stills are crowded, for the occlusions and the objects cut by the border in the videos.
    places = _places(stream, config, sizes, crowded=stream.chance(0.5))
    fills = _draw_textures(stream, len(shapes), held_out=False)
    if twins:
        fills = fills[:1] * len(shapes)
    return Scene(shapes, sizes, angles, fills, places[None], np.ones((1, len(shapes)), bool)), twins


def plan_video(stream: Stream, config: SyntheticConfig, kind: str, main: int, held_out: bool) -> Scene:
    """A video of one of :data:`KINDS`, mostly of class ``main``; its objects differ in texture."""
    shapes, sizes, angles = _draw_objects(stream, config, main)
    fills = _draw_textures(stream, len(shapes), held_out)
    places = _places(stream, config, sizes)
    n, length = len(shapes), config.frames
    present = np.ones((length, n), bool)
    swap_frame = None
    if kind == "static":
        centres = _drift(stream, places, length, reach=PIXEL)
    elif kind == "track":
        centres = _crossing(stream, config, places)
    elif kind == "swap":
        centres = _drift(stream, places, length, reach=3 * PIXEL)
        swap_frame = stream.integer(length // 3, length - length // 3 + 1)
        centres[swap_frame:] = centres[swap_frame:, stream.derangement(n)]
    elif kind == "reenter":
        centres, present = _reentry(stream, config, places, sizes)
    else:
        raise ValueError(f"kind of synthetic video is {kind!r}, expected one of {', '.join(KINDS)}")
    return Scene(shapes, sizes, angles, fills, centres, present, swap_frame)


def _draw_objects(
    stream: Stream, config: SyntheticConfig, main: int
) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """Classes, sizes and angles of a video's objects."""
    n = stream.integer(config.min_objects, config.max_objects + 1)
    shapes = [
        main if stream.chance(config.same_class) else (main + stream.integer(1, len(CLASSES))) % len(CLASSES)
        for _ in range(n)
    ]
    sizes = [stream.integer(config.min_size, config.max_size + 1) for _ in range(n)]
    return tuple(shapes), tuple(sizes), tuple(stream.integer(0, TURN) for _ in range(n))


def _draw_textures(stream: Stream, n: int, held_out: bool) -> tuple[Texture, ...]:
    """``n`` textures of different main colours and different colour pairs."""
    pool = textures(held_out)
    picked: list[Texture] = []
    while len(picked) < n:
        candidate = stream.choice(pool)
        if all(candidate.first != t.first and candidate.pair != t.pair for t in picked):
            picked.append(candidate)
    return tuple(picked)


def _inside(config: SyntheticConfig, point: np.ndarray, margin: int) -> np.ndarray:
    """``(.., 2)`` points moved so that they are at least ``margin`` inside the frame."""
    limit = np.array([config.width * PIXEL, config.height * PIXEL]) - margin
    return np.clip(point, margin, limit)


def _places(
    stream: Stream, config: SyntheticConfig, sizes: tuple[int, ...], crowded: bool = False
) -> np.ndarray:
    """``(n, 2)`` places, well apart: of a few random candidates, the one with the most room is taken.

    ``crowded``: the first candidate is taken, and up to a quarter of an object lies outside of the frame.
    """
    places = np.zeros((len(sizes), 2), np.int64)
    count = 1 if crowded else 12
    for k, size in enumerate(sizes):
        margin = size * PIXEL // (4 if crowded else 2)
        x = stream.integers(margin, config.width * PIXEL - margin + 1, (count,))
        y = stream.integers(margin, config.height * PIXEL - margin + 1, (count,))
        candidates = np.stack([x, y], axis=1)
        if k:
            room = ((candidates[:, None] - places[None, :k]) ** 2).sum(-1).min(1)
            places[k] = candidates[int(room.argmax())]
        else:
            places[k] = candidates[0]
    return places


def _bezier(start: np.ndarray, control: np.ndarray, end: np.ndarray, length: int) -> np.ndarray:
    """``(length, n, 2)`` points on quadratic Bezier curves between ``(n, 2)`` points."""
    m = max(length - 1, 1)
    i = np.arange(length, dtype=np.int64)[:, None, None]
    return ((m - i) ** 2 * start + 2 * i * (m - i) * control + i**2 * end) // m**2


def _drift(stream: Stream, places: np.ndarray, length: int, reach: int) -> np.ndarray:
    """``(length, n, 2)`` straight slow paths from the places to at most ``reach`` away on each axis."""
    end = places + stream.integers(-reach, reach + 1, places.shape)
    return _bezier(places, (places + end) // 2, end, length)


def _crossing(stream: Stream, config: SyntheticConfig, places: np.ndarray) -> np.ndarray:
    """``(T, n, 2)`` curves that lead each object towards the place of another one."""
    target = places[stream.derangement(len(places))]
    fastest = int(config.speed * PIXEL) * (config.frames - 1)
    end = places.copy()
    for k, (here, there) in enumerate(zip(places, target, strict=True)):
        way = (there - here) * stream.integer(75, 126) // 100
        distance = isqrt(int((way**2).sum()))
        end[k] = here + (way if distance <= fastest else way * fastest // distance)
    margin = config.min_size * PIXEL // 2
    end = _inside(config, end, margin)
    bend = 8 * PIXEL
    control = _inside(config, (places + end) // 2 + stream.integers(-bend, bend + 1, places.shape), margin)
    return _bezier(places, control, end, config.frames)


def _reentry(
    stream: Stream, config: SyntheticConfig, places: np.ndarray, sizes: tuple[int, ...]
) -> tuple[np.ndarray, np.ndarray]:
    """Centres ``(T, n, 2)`` and presence ``(T, n)``: two or more objects go and return where another was.

    Half of them vanish at once; the others slide out over the nearest border and back in. All have
    gone before the first returns, so that nobody returns to a place that is still taken.
    """
    n, length = len(places), config.frames
    going = stream.permutation(n)[: stream.integer(2, n + 1)]
    back = places.copy()
    back[going] = places[going[stream.derangement(len(going))]]
    before = _drift(stream, places, length, reach=2 * PIXEL)
    after = before + (back - places)
    centres, present = before.copy(), np.ones((length, n), bool)
    for k in going:
        first = stream.integer(length // 6, length // 3 + 1)
        gap = stream.integer(length // 4, 5 * length // 12 + 1)
        slides = stream.chance(0.5)
        last = min(first + gap + 2 * slides, length - 2)  # first frame after the return
        centres[last:, k] = after[last:, k]
        gone = slice(first + slides, last - slides)
        present[gone, k] = False
        if slides:
            centres[first, k] = _half_out(config, before[first, k], sizes[k])
            centres[last - 1, k] = _half_out(config, after[last - 1, k], sizes[k])
    return centres, present


def _half_out(config: SyntheticConfig, centre: np.ndarray, size: int) -> np.ndarray:
    """The point half-way to where an object of this size would just be outside of the nearest border."""
    limit = np.array([config.width, config.height], np.int64) * PIXEL
    reach = size * PIXEL // 2
    to_border = np.stack([centre, limit - centre])  # rows: low side, high side; columns: x, y
    side, axis = divmod(int(to_border.argmin()), 2)
    out = centre.copy()
    out[axis] = -reach if side == 0 else limit[axis] + reach
    return (centre + out) // 2

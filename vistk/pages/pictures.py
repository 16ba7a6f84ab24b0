"""Frames of the worst videos, small enough to be embedded, with what is annotated and predicted there.

A frame is embedded once, however many trackers are shown on it: masks travel as run-length encodings at the
size of the picture, and the page draws them.
"""

from __future__ import annotations

import base64
import io
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image

from vistk.data.progress import bar
from vistk.data.ytvis import DataError
from vistk.inspection.run_view import InspectionError, Track, VideoView
from vistk.ops.masks import decode, encode
from vistk.pages.collect import Collected
from vistk.structures import RLE
from vistk.viz.colors import hex_of

MOST_TRACKS = 20
"""Tracks of a video that are shown, best scores first, of those that take part in HOTA and the events."""
QUALITY = 80


@dataclass(frozen=True)
class Budget:
    """How many pictures there are.

    Attributes:
        worst: videos of each row and split.
        megabytes: of all frames and masks together; the worst video of every row comes first, then the
            second worst, until they are used up.
        frames: of each video; of a longer one those with the most failures.
        side: of the longer side of a picture, in pixels.
    """

    worst: int = 5
    megabytes: float = 4.0
    frames: int = 60
    side: int = 400


Video = tuple[int, int]
"""A truth and a position in it."""

Size = tuple[int, int]
"""Height and width."""


def add_pictures(collected: Collected, budget: Budget, *, progress: bool = False) -> None:
    """Adds ``pictures`` to the content, and ``worst`` to every case: its videos from the worst one on.

    Of rows with several seeds the first one is shown. Where a frame cannot be read there are no more
    pictures, and a note says why.
    """
    cases = collected.content["cases"]
    for case in cases:
        case["worst"] = worst(case)[: budget.worst]
    shown = _first_seeds(cases)
    wanted = list(dict.fromkeys(_wanted(cases, shown, budget.worst)))
    pictures: list[dict[str, Any]] = []
    left = budget.megabytes * 1e6
    with bar(len(wanted), "pictures", "video", show=progress, delay=1) as steps:
        for truth, position in wanted:
            own = [n for n in shown if cases[n]["truth"] == truth]
            first = _window([cases[n] for n in own], position, budget.frames)
            views = {n: collected.scored[n].video(position) for n in own}
            try:
                picture = _picture(views[own[0]], first, budget)
            except (InspectionError, DataError) as error:
                collected.content["notes"].append(f"No pictures: {error}.")
                break
            for n, view in views.items():
                picture["tracks"][str(n)] = _tracks(view, collected.scored[n].cell.row, picture)
            picture |= {"truth": truth, "video": position}
            left -= len(json.dumps(picture))
            if left < 0 and pictures:
                break
            pictures.append(picture)
            steps.update(1)
    collected.content["pictures"] = pictures


def worst(case: Mapping[str, Any]) -> list[int]:
    """Positions of the videos by rising AP, of equals those with more identity events first; videos without
    AP are not among them.
    """
    events = [event[0] for event in case["events"]]
    ap = case["values"].get("AP", [])
    found = [v for v, value in enumerate(ap) if value is not None]
    return sorted(found, key=lambda v: (ap[v], -events.count(v), v))


def _first_seeds(cases: Sequence[Mapping[str, Any]]) -> list[int]:
    """Positions of the cases with the first seed of their row on their truth."""
    first: dict[tuple[int, int, int], int] = {}
    for n, case in enumerate(cases):
        place = case["truth"], case["place"], case["row"]
        if place not in first or case["seed"] < cases[first[place]]["seed"]:
            first[place] = n
    return sorted(first.values())


def _wanted(cases: Sequence[Mapping[str, Any]], shown: Sequence[int], most: int) -> Iterator[Video]:
    """The worst video of every row, then the second worst of every row, and so on."""
    for rank, n in itertools.product(range(most), shown):
        if rank < len(cases[n]["worst"]):
            yield cases[n]["truth"], cases[n]["worst"][rank]


def _window(cases: Sequence[Mapping[str, Any]], position: int, most: int) -> int:
    """The frame from which ``most`` frames have the most identity events; of equals the first."""
    frames = sorted(event[2] for case in cases for event in case["events"] if event[0] == position)
    starts = [max(0, t - most // 4) for t in frames]  # with some frames before the failure
    return max([0, *starts], key=lambda s: (sum(s <= t < s + most for t in frames), -s))


def _picture(view: VideoView, first: int, budget: Budget) -> dict[str, Any]:
    """Frames and annotated instances; without tracks."""
    size = _size(view.record.height, view.record.width, budget.side)
    first = max(0, min(first, len(view) - budget.frames))
    numbers = range(first, min(len(view), first + budget.frames))
    return {
        "first": first,
        "height": size[0],
        "width": size[1],
        "frames": [_data_uri(view.image(t), size) for t in numbers],
        "instances": [_drawn(track, numbers, size) for track in view.truth],
        "tracks": {},
    }


def _tracks(view: VideoView, row: str, picture: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The best tracks of a row, those that take part in HOTA and events; by falling score, so that the place
    in the list is that which errors and events name.
    """
    numbers = range(picture["first"], picture["first"] + len(picture["frames"]))
    size = picture["height"], picture["width"]
    return [
        _drawn(track, numbers, size) | {"score": track.score and round(track.score, 4)}
        for track in view.tracks(row)[:MOST_TRACKS]
    ]


def _drawn(track: Track, numbers: range, size: Size) -> dict[str, Any]:
    masks = [_resized(track.rles[t], size) for t in numbers]
    return {"id": track.id, "label": track.label, "color": hex_of(track.id), "masks": masks}


def _size(height: int, width: int, side: int) -> Size:
    scale = min(1.0, side / max(height, width))
    return max(1, round(height * scale)), max(1, round(width * scale))


def _resized(rle: RLE | None, size: Size) -> str:
    """Compressed counts of a mask at another size, nearest pixel; empty without any."""
    if rle is None:
        return ""
    if tuple(rle["size"]) != size:
        rows, columns = (
            ((np.arange(new) + 0.5) * old / new).astype(int)
            for new, old in zip(size, rle["size"], strict=True)
        )
        (rle,) = encode(torch.from_numpy(decode(rle)[rows][:, columns])[None])
    return str(rle["counts"])


def _data_uri(pixels: np.ndarray, size: Size) -> str:
    height, width = size
    image = Image.fromarray(pixels)
    if image.size != (width, height):
        image = image.resize((width, height), Image.Resampling.LANCZOS, reducing_gap=2.0)
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=QUALITY)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()

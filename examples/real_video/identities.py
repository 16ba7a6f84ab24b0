"""Identities set by eye: who stands where in the validation part.

The file names no component or track, which would change with every threshold, but places: boxes of
each person in some source frames, in source pixels. Boxes in between are interpolated linearly. A
person has one list of boxes for each stretch of frames in which any part of the person can be seen;
the frames between two stretches have no mask.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from foreground import Box


@dataclass(frozen=True)
class Identities:
    """Boxes by person and frame, interpolated between the frames of the file."""

    width: int  # of the video that the file describes, as are the next two
    height: int
    num_frames: int
    first: int  # first and last source frame in which every person is described
    last: int
    stretches: tuple[tuple[int, np.ndarray], ...]  # person, (n, 5) float of frame, x0, y0, x1, y1

    def boxes(self, frame: int) -> dict[int, Box]:
        """Person to box in one source frame."""
        out: dict[int, Box] = {}
        for person, rows in self.stretches:
            if rows[0, 0] <= frame <= rows[-1, 0]:
                x0, y0, x1, y1 = (float(np.interp(frame, rows[:, 0], rows[:, c])) for c in range(1, 5))
                out[person] = (x0, y0, x1, y1)
        return out


def load_identities(path: Path) -> Identities:
    """Reads and checks an identities file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no json, a field is missing, or frames or boxes are out of order.
    """
    if not path.is_file():
        raise FileNotFoundError(f"identities file not found: {path}")
    try:
        content = json.loads(path.read_text())
        video, (first, last) = content["video"], content["frames"]
        stretches = [
            (int(person["id"]), np.array(rows, float).reshape(len(rows), 5))
            for person in content["persons"]
            for rows in person["stretches"]
        ]
        found = Identities(video["width"], video["height"], video["frames"], first, last, tuple(stretches))
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path}: {type(error).__name__}: {error}; expected the fields video, frames, and persons "
            "with id and stretches of [frame, x0, y0, x1, y1]"
        ) from error
    for person, rows in stretches:
        if not len(rows) or (np.diff(rows[:, 0]) <= 0).any():
            raise ValueError(f"{path}: person {person}: a stretch is empty or its frames do not increase")
        if (rows[:, 3] <= rows[:, 1]).any() or (rows[:, 4] <= rows[:, 2]).any():
            raise ValueError(f"{path}: person {person}: a box has x1 <= x0 or y1 <= y0")
    last_frame: dict[int, float] = {}
    for person, rows in stretches:
        if rows[0, 0] <= last_frame.get(person, -1):
            raise ValueError(f"{path}: person {person}: stretches overlap or are out of order")
        last_frame[person] = rows[-1, 0]
    return found

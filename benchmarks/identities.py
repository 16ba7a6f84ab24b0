"""Does a tracker keep identities? Queries of known objects, scenario by scenario, in one table.

    python benchmarks/identities.py [--trackers visage minvis ..] [--out FILE.csv]

The queries are stored numbers of ``tests/golden/tracker_synth`` (query and appearance vectors, class logits,
the object behind every query), on which the trackers of the published implementation were recorded; scenarios
are called as there. No network and no mask is in them, and no object hides another: this judges association
alone.

An object is right in a frame if its query is in the track that the object was in when it was tracked first;
one that is in no track is not. The share of right ones is over all objects and all frames but each one's
first. Trackers with birth and death leave out what scores little: their share among the tracked stands in
brackets.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from rows import CARD, card, write_rows
from tabulate import tabulate

from vistk.structures import FrameQueries
from vistk.trackers.base import track_video
from vistk.trackers.registry import get_tracker, tracker_names

GOLDEN = Path(__file__).resolve().parents[1] / "tests" / "golden" / "tracker_synth"
SCENARIOS = ("mild", "occlusion", "drift", "chaos")
LEFT_OUT = {
    "cavis": "its vectors are learned",
    "dvis": "its refiner is learned",
    "kalman": "it reads masks",
    "mask-iou": "it reads masks",
    "oracle": "it reads the truth",
    "propagation": "it steers a network",
    "vita": "its decoder is learned",
}
"""Families that cannot run on vectors alone, and why."""


class Accuracy(NamedTuple):
    """Shares of objects, over frames."""

    right: float  # of all
    tracked: float  # of all, in any track

    def __str__(self) -> str:
        if self.tracked == 1:
            return f"{100 * self.right:.1f}"
        return f"{100 * self.right:.1f} ({100 * self.right / max(self.tracked, 1e-9):.1f})"


def accuracy(tracks: Sequence[dict[int, int]], objects: np.ndarray) -> Accuracy:
    """Of a video.

    Args:
        tracks: of each frame, query to track.
        objects: ``(T, Q)``, the object of each query; every object is in every frame.
    """
    home: dict[int, int] = {}
    right = tracked = total = 0
    for t, of_query in enumerate(tracks):
        for query, thing in enumerate(objects[t].tolist()):
            track = of_query.get(query)
            if t:
                total += 1
                tracked += track is not None
                right += track is not None and home.get(thing, track) == track
            if track is not None:
                home.setdefault(thing, track)
    return Accuracy(right / max(total, 1), tracked / max(total, 1))


def measure(name: str, scenario: str) -> Accuracy:
    """A tracker with the settings that its name stands for; heads, which are not asked, are random."""
    stored = dict(np.load(GOLDEN / f"{scenario}.npz"))
    cls, config = get_tracker(name)
    width, classes = stored["reid_queries"].shape[-1], int(stored["num_classes"])
    sizes = {"res2": 4, "res3": 4, "res4": 4, "res5": 4}
    tracker = cls(config, embed_dim=width, feature_channels=sizes, num_classes=classes)
    frames = [
        FrameQueries(
            logits,
            {"query": query, "appearance": appearance, "overlap": torch.zeros(len(query), len(query))},
        )
        for logits, query, appearance in zip(
            *(torch.from_numpy(stored[key]) for key in ("pred_logits", "reid_queries", "appearance_queries")),
            strict=True,
        )
    ]
    with torch.inference_mode():
        tracked = track_video(tracker, frames)
    of_query = [dict(zip(f.query_index.tolist(), f.track_ids.tolist(), strict=True)) for f in tracked]
    return accuracy(of_query, stored["object_of_slot"])


def families() -> dict[str, str]:
    """Every registered name and the family that it is of: itself, or that of the ablation."""
    by_class = {get_tracker(family)[0]: family for family in LEFT_OUT}
    return {name: by_class.get(get_tracker(name)[0], name) for name in tracker_names()}


def main() -> None:
    parser = argparse.ArgumentParser(description="Shares of objects whose identity a tracker keeps.")
    family = families()
    able = [name for name in family if family[name] not in LEFT_OUT]
    parser.add_argument("--trackers", nargs="+", default=able, choices=able)
    parser.add_argument("--out", type=Path, help="CSV; written in the end")
    arguments = parser.parse_args()
    found = {name: {s: measure(name, s) for s in SCENARIOS} for name in arguments.trackers}
    table = [[name, *(str(value) for value in of.values())] for name, of in found.items()]
    print(tabulate(table, ["percent", *SCENARIOS], tablefmt="github", disable_numparse=True))
    print("\nleft out: " + ", ".join(f"{name} ({why})" for name, why in sorted(LEFT_OUT.items())))
    if arguments.out:
        rows = [
            {"tracker": name, "scenario": scenario, **value._asdict(), **card("cpu")}
            for name, of in found.items()
            for scenario, value in of.items()
        ]
        write_rows(arguments.out, ("tracker", "scenario", *Accuracy._fields, *CARD), rows)


if __name__ == "__main__":
    main()

"""The stretch whose identities were checked by eye, as one annotated video to judge trackers by."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from foreground import ForegroundConfig, foreground
from identities import Identities
from make_dataset import CATEGORIES, Clip, Scan, annotate
from tqdm import tqdm
from video import read_frames, sample_background

from vistk.evaluation.clear import clear_matches
from vistk.evaluation.report import evaluate
from vistk.ops.masks import encode, frame_iou
from vistk.structures import FrameTargets, VideoPrediction
from vistk.viz.overlay import Shown


@dataclass(frozen=True)
class Stretch:
    """Who is where in some source frames of the video, and what trackers made of it."""

    frames: range  # source frames
    content: dict[str, Any]  # one video with these frames, in the YouTube-VIS form

    @cached_property
    def _targets(self) -> list[FrameTargets]:
        targets = []
        for t in range(len(self.frames)):
            there = [a for a in self.content["annotations"] if a["segmentations"][t] is not None]
            targets.append(
                FrameTargets(
                    torch.tensor([a["id"] for a in there], dtype=torch.int64),
                    torch.zeros(len(there), dtype=torch.int64),
                    tuple(a["segmentations"][t] for a in there),
                )
            )
        return targets

    def targets(self, frame: int) -> FrameTargets:
        """Who is where in one source frame; nobody, outside the stretch."""
        if frame not in self.frames:
            return FrameTargets(torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.int64), ())
        return self._targets[self.frames.index(frame)]

    def shown(self, frame: int) -> tuple[Shown, ...]:
        """The same, to be drawn."""
        targets = self.targets(frame)
        return tuple(map(Shown, targets.instance_ids.tolist(), targets.masks))

    def judge(
        self, predictions: dict[str, VideoPrediction], frames: range, score_threshold: float
    ) -> dict[str, dict[str, float]]:
        """Numbers of every tracker: fractions, and counts of switches, fragments and tracks.

        Args:
            frames: source frames of the predictions, among them all of the stretch.
            score_threshold: tracks below it do not take part.
        """
        entries = {name: self._cut(prediction, frames) for name, prediction in predictions.items()}
        report = evaluate(
            self.content, entries, metrics=("hota",), score_threshold=score_threshold, bootstrap=0
        )
        numbers = {}
        for name, scores in report.scores.items():
            metrics = scores.metrics
            numbers[name] = {
                "switches": scores.counts["IDSW"],
                "fragments": scores.counts["Frag"],
                "tracks": sum(entry["score"] >= score_threshold for entry in entries[name]),
                **{metric: metrics[metric] for metric in ("IDF1", "AssA", "HOTA", "DetA")},
            }
        return numbers

    def tracks_over_time(
        self, prediction: VideoPrediction, frames: range, score_threshold: float
    ) -> np.ndarray:
        """``(T, people)`` int64: the track that covers each person (IoU 0.5), -1 for none, -2 for absent."""
        entries = [e for e in self._cut(prediction, frames) if e["score"] >= score_threshold]
        ids = np.array([entry["track_id"] for entry in entries] or [-1])
        people = [a["segmentations"] for a in self.content["annotations"]]
        iou = np.stack(
            [
                frame_iou([p[t] for p in people], [e["segmentations"][t] for e in entries])
                for t in range(len(self.frames))
            ]
        ).reshape(len(self.frames), len(people), len(entries))
        there = np.array([[p[t] is not None for p in people] for t in range(len(self.frames))])
        tracked = np.array([[e["segmentations"][t] is not None for e in entries] for t in range(len(iou))])
        found = clear_matches(iou, there, tracked.reshape(len(iou), len(entries)))
        return np.where(found >= 0, ids[found], np.where(there, -1, -2))

    def _cut(self, prediction: VideoPrediction, frames: range) -> list[dict[str, Any]]:
        """Entries of a results file with the frames of the stretch alone, and their track ids."""
        place = [frames.index(frame) for frame in self.frames]
        entries = []
        for entry, tracklet in zip(prediction.to_ytvis(), prediction.tracklets, strict=True):
            masks = [entry["segmentations"][t] for t in place]
            if any(masks):
                entry |= {"segmentations": masks, "category_id": 1, "track_id": tracklet.track_id}
                entries.append(entry)
        return entries


def hand_checked(video: Path, identities: Identities, frames: range) -> Stretch:
    """Annotations of those ``frames`` of the video that the identities describe.

    Masks are those of the data set: against the median of frames from the whole video, and shared by the
    boxes that were set by eye.

    Raises:
        ValueError: the identities are for another video, or describe none of the frames.
    """
    judged = [frame for frame in frames if identities.first <= frame <= identities.last]
    if len(judged) < 2:
        raise ValueError(
            f"the identities describe the frames {identities.first} to {identities.last}, "
            f"of which {len(judged)} are tracked; expected 2 or more"
        )
    background, count = sample_background(video)
    height, width = background.colour.shape[:2]
    if (width, height, count) != (identities.width, identities.height, identities.num_frames):
        raise ValueError(
            f"the identities are for a video of {identities.width}x{identities.height} and "
            f"{identities.num_frames} frames, this one has {width}x{height} and {count}"
        )
    stretch = range(judged[0], judged[-1] + 1, frames.step)
    scan = Scan({}, {})
    bar = tqdm(total=len(stretch), desc="by eye", unit="frame")
    for index, image in enumerate(read_frames(video)):
        if index > stretch[-1]:
            break
        if index in stretch:
            mask = foreground(image, background, ForegroundConfig())
            scan.masks[index] = encode(torch.from_numpy(mask[None]))[0]
            scan.boxes[index] = identities.boxes(index)
            bar.update()
    bar.close()
    annotations = annotate(Clip("valid", "stretch", stretch), 1, scan, (width, height))
    return Stretch(
        stretch,
        {
            "categories": CATEGORIES,
            "videos": [
                {
                    "id": 1,
                    "width": width,
                    "height": height,
                    "length": len(stretch),
                    "file_names": [f"{index:05d}.jpg" for index in stretch],
                }
            ],
            "annotations": [{"id": n, **a} for n, a in enumerate(annotations, start=1)],
        },
    )

"""Average precision of YouTube-VIS step by step as its official evaluator takes it, to time ours against.

Written from the definition. It spends its time where the official one does: an area and a box call for every
mask that is loaded; for every pair of one category and every frame, the union and the intersection as RLEs
and their areas; greedy matching in Python, for every category, range of areas and video.
"""

from __future__ import annotations

import json
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0, 1, 101)
AREAS = ((0, 1e10), (0, 128**2), (128**2, 256**2), (256**2, 1e10))
LIMITS = (1, 10, 100)

Entry = dict[str, Any]
Places = dict[tuple[int, int], list[Entry]]  # by video and category


def official_ap(ground_truth: Path, results: Path) -> tuple[float, dict[str, float]]:
    """AP, and the seconds of each stage."""
    clock = [time.perf_counter()]
    truth = json.loads(ground_truth.read_text())
    predictions = json.loads(results.read_text())
    clock.append(time.perf_counter())
    _load_results(truth, predictions)
    clock.append(time.perf_counter())
    videos = sorted(video["id"] for video in truth["videos"])
    categories = sorted(category["id"] for category in truth["categories"])
    instances, detections = _by_place(truth["annotations"]), _by_place(predictions)
    for entries in detections.values():
        entries.sort(key=lambda entry: -entry["score"])
        del entries[LIMITS[-1] :]
    ious = {
        (v, c): _ious(detections[v, c], instances[v, c])
        for v in videos
        for c in categories
        if detections[v, c] or instances[v, c]
    }
    clock.append(time.perf_counter())
    matches = {
        (c, r, v): _match(detections[v, c], instances[v, c], ious[v, c], AREAS[r])
        for c in categories
        for r in range(len(AREAS))
        for v in videos
        if (v, c) in ious
    }
    clock.append(time.perf_counter())
    precision = _accumulate(matches, videos, categories)[..., 0, -1]
    clock.append(time.perf_counter())
    stages = ("json", "areas and boxes", "IoU", "matching", "accumulating")
    seconds = {name: b - a for name, a, b in zip(stages, clock, clock[1:], strict=False)}
    return float(precision[precision > -1].mean()), seconds


def _load_results(truth: Entry, predictions: list[Entry]) -> None:
    assert {entry["video_id"] for entry in predictions} <= {video["id"] for video in truth["videos"]}
    for number, entry in enumerate(predictions):
        present = [rle for rle in entry["segmentations"] if rle]
        entry["areas"] = [float(coco_mask.area(rle)) for rle in present]
        entry["bboxes"] = [coco_mask.toBbox(rle) for rle in present]
        entry |= {"id": number + 1, "iscrowd": 0, "mean_area": _mean(entry["areas"])}
    for entry in truth["annotations"]:
        entry["mean_area"] = _mean([area for area in entry["areas"] if area])


def _mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def _by_place(entries: list[Entry]) -> Places:
    places: Places = defaultdict(list)
    for entry in entries:
        places[entry["video_id"], entry["category_id"]].append(entry)
    return places


def _ious(detections: list[Entry], instances: list[Entry]) -> np.ndarray:
    values = [[_tube_iou(d["segmentations"], g["segmentations"]) for g in instances] for d in detections]
    return np.array(values).reshape(len(detections), len(instances))


def _tube_iou(detection: list[Entry | None], instance: list[Entry | None]) -> float:
    shared = united = 0.0
    for a, b in zip(detection, instance, strict=True):
        if a and b:
            shared += coco_mask.area(coco_mask.merge([a, b], True))
            united += coco_mask.area(coco_mask.merge([a, b], False))
        elif a or b:
            united += coco_mask.area(a or b)
    return shared / united if united else 0.0


def _match(
    detections: list[Entry], instances: list[Entry], ious: np.ndarray, limits: tuple[float, float]
) -> tuple[np.ndarray, ...]:
    """Scores; matched and ignored (thresholds, detections); ignored instances."""
    low, high = limits
    ignored = np.array([g["iscrowd"] or not low <= g["mean_area"] <= high for g in instances], dtype=bool)
    order = np.argsort(ignored, kind="stable")
    ignored, ious = ignored[order], ious[:, order]
    crowd = [instances[g]["iscrowd"] for g in order]
    matched = np.zeros((len(THRESHOLDS), len(detections)), dtype=bool)
    left_out = np.zeros_like(matched)
    for t, threshold in enumerate(THRESHOLDS):
        taken = [False] * len(instances)
        for d in range(len(detections)):
            best, found = min(threshold, 1 - 1e-10), -1
            for g in range(len(instances)):
                if taken[g] and not crowd[g]:
                    continue
                if found >= 0 and not ignored[found] and ignored[g]:
                    break
                if ious[d, g] >= best:
                    best, found = ious[d, g], g
            if found >= 0:
                matched[t, d], left_out[t, d], taken[found] = True, ignored[found], True
    outside = np.array([not low <= d["mean_area"] <= high for d in detections], dtype=bool)
    return np.array([d["score"] for d in detections]), matched, left_out | (~matched & outside), ignored


def _accumulate(matches: dict, videos: list[int], categories: list[int]) -> np.ndarray:
    """Precision (thresholds, recalls, categories, ranges, limits), -1 without instances."""
    precision = -np.ones((len(THRESHOLDS), len(RECALLS), len(categories), len(AREAS), len(LIMITS)))
    for k, category in enumerate(categories):
        for r in range(len(AREAS)):
            found = [matches[category, r, v] for v in videos if (category, r, v) in matches]
            total = sum(int((~ignored).sum()) for *_, ignored in found)
            if not total:
                continue
            for m, limit in enumerate(LIMITS):
                scores = np.concatenate([s[:limit] for s, *_ in found])
                order = np.argsort(-scores, kind="mergesort")
                hit = np.concatenate([h[:, :limit] for _, h, _, _ in found], axis=1)[:, order]
                counts = ~np.concatenate([i[:, :limit] for _, _, i, _ in found], axis=1)[:, order]
                true = np.cumsum(hit & counts, axis=1).astype(float)
                false = np.cumsum(~hit & counts, axis=1).astype(float)
                for t in range(len(THRESHOLDS)):
                    precision[t, :, k, r, m] = _curve(true[t], false[t], total)
    return precision


def _curve(true: np.ndarray, false: np.ndarray, total: int) -> np.ndarray:
    values = (true / (true + false + np.spacing(1))).tolist()
    for i in range(len(values) - 1, 0, -1):
        values[i - 1] = max(values[i - 1], values[i])
    out = np.zeros(len(RECALLS))
    for p, at in enumerate(np.searchsorted(true / total, RECALLS, side="left")):
        if at < len(values):
            out[p] = values[at]
    return out

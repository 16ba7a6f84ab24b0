"""What the options of an evaluation leave of ground truth and results."""

from __future__ import annotations

from dataclasses import replace

from vistk.evaluation.ap_options import OFFICIAL, APOptions
from vistk.evaluation.files import GroundTruth, Results

ONE_CATEGORY = "object"
"""Name of all categories taken for one."""


def select(ground_truth: GroundTruth, results: Results, options: APOptions) -> tuple[GroundTruth, Results]:
    """The videos and categories that are evaluated, for all metrics alike.

    Raises:
        ValueError: the ground truth has no such video or category.
    """
    if (options.video_ids, options.category_ids) != (None, None):
        ground_truth, results = options.select(ground_truth, results)
    return (ground_truth, results) if options.use_categories else _of_one_category(ground_truth, results)


def _of_one_category(ground_truth: GroundTruth, results: Results) -> tuple[GroundTruth, Results]:
    """With all categories taken for one. Equal scores go by category, then by the order of the file, as in
    the official code (``useCats=0``).
    """
    place = {category_id: k for k, category_id in enumerate(ground_truth.categories)}
    videos = []
    for video in ground_truth.videos:
        instances = sorted(video.instances, key=lambda instance: place[instance.category_id])
        videos.append(replace(video, instances=tuple(replace(i, category_id=0) for i in instances)))
    found = {}
    for video_id, own in results.videos.items():
        predictions = sorted(own, key=lambda prediction: place[prediction.category_id])
        found[video_id] = tuple(replace(p, category_id=0) for p in predictions)
    truth = replace(ground_truth, videos=tuple(videos), categories={0: ONE_CATEGORY})
    return truth, replace(results, videos=found)


def describe(options: APOptions) -> str | None:
    """In which way options are not the official ones, in words; None: in none."""
    said, of_ap = [], []
    if not options.use_categories:
        said.append("all classes taken for one")
    if options.category_ids is not None:
        said.append(f"{len(set(options.category_ids))} of the classes")
    if options.video_ids is not None:
        said.append(f"{len(set(options.video_ids))} of the videos")
    if options.max_detections != OFFICIAL.max_detections:
        of_ap.append(f"at most {', '.join(map(str, options.max_detections))} predictions")
    if options.iou_thresholds != OFFICIAL.iou_thresholds:
        of_ap.append(f"IoU {', '.join(f'{at:g}' for at in options.iou_thresholds)}")
    if options.recall_points != OFFICIAL.recall_points:
        of_ap.append(f"{len(options.recall_points)} recall points")
    if dict(options.area_ranges) != dict(OFFICIAL.area_ranges):
        ranges = (f"{name} {low:g} to {high:g}" for name, (low, high) in options.area_ranges.items())
        of_ap.append(f"areas {', '.join(ranges)} pixels")
    if of_ap:
        said.append(f"AP with {', '.join(of_ap)}, errors and gaps as officially")
    return "; ".join(said) or None

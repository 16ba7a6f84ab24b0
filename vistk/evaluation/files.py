"""Ground truth and results files of video instance segmentation, read and checked.

Any data set in the YouTube-VIS json form will do (YouTube-VIS 2019/2021/2022, OVIS, LV-VIS, one's own).
Ids are any integers, 0 included: they are looked up, never used as flags or positions.
"""

from vistk.evaluation.ground_truth import load_ground_truth
from vistk.evaluation.reading import EvaluationFileError
from vistk.evaluation.records import (
    GroundTruth,
    Instance,
    Prediction,
    Results,
    Video,
    distinct,
    mean_area,
    mean_occlusion,
)
from vistk.evaluation.results import load_results

__all__ = [
    "EvaluationFileError",
    "GroundTruth",
    "Instance",
    "Prediction",
    "Results",
    "Video",
    "distinct",
    "load_ground_truth",
    "load_results",
    "mean_area",
    "mean_occlusion",
]

"""Ground truth for scoring from a data set that has been read already."""

from __future__ import annotations

from vistk.data.ytvis import YTVIS
from vistk.evaluation.files import GroundTruth, Instance, Video, distinct, mean_area, mean_occlusion
from vistk.structures import InstanceAnnotation


def ground_truth_of(source: YTVIS) -> GroundTruth:
    """What :func:`vistk.evaluation.files.load_ground_truth` makes of the same file, or of part of it.

    Args:
        source: a data set with annotations; its videos may be a selection.
    """
    videos = (
        Video(v.video_id, v.height, v.width, len(v), tuple(_instance(a) for a in v.annotations))
        for v in sorted(source.videos, key=lambda v: v.video_id)
    )
    return GroundTruth(str(source.json_path), tuple(videos), distinct(source.categories))


def _instance(annotation: InstanceAnnotation) -> Instance:
    return Instance(
        category_id=annotation.category_id,
        masks=annotation.segmentations,
        area=mean_area(annotation.areas),
        iscrowd=annotation.iscrowd,
        occlusion=None if annotation.occlusion is None else mean_occlusion(annotation.occlusion),
    )

"""Where the ids of a results file are from, for messages on ids that are unknown."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from vistk.data.categories import COCO, TABLES, YTVIS2021
from vistk.data.category_check import same_categories

VIDEOS: Mapping[str, Mapping[str, int]] = {
    "YouTube-VIS 2019": {"train": 2238, "valid": 302, "test": 343},
    "YouTube-VIS 2021": {"train": 2985, "valid": 421, "test": 453},
    "YouTube-VIS 2022": {"valid": 492},
    "OVIS": {"train": 607, "valid": 140},
}
"""How many videos the published splits have; no two have the same number."""

FROM_ZERO = "a file that counts classes from 0, as training code does, where the annotations count from 1"


def other_data_set(
    categories: Mapping[int, str], video_ids: Collection[int], category_ids: Collection[int]
) -> str | None:
    """What results may be that do not fit, in words; None unless the ids say so.

    They do where classes are counted from 0, but not in the ground truth; where the videos are numbered
    from 1 to the size of a published split; or where the ground truth is of a published data set and the
    categories of the results are another's.

    Args:
        categories: of the ground truth, id to name.
        video_ids, category_ids: of all results.
    """
    counted = list(categories) == list(range(1, len(categories) + 1))
    if counted and category_ids and min(category_ids) == 0 and max(category_ids) < len(categories):
        return FROM_ZERO
    count = len(set(video_ids))
    if count and (min(video_ids), max(video_ids)) == (1, count):
        for name, splits in VIDEOS.items():
            for split, size in splits.items():
                if size == count:
                    return f"{name}, whose {split} split has {size} videos"
    if any(same_categories(categories, table) for table in TABLES.values()) and category_ids:
        found = set(category_ids)
        if len(categories) < max(found) and found <= YTVIS2021.keys():
            return f"YouTube-VIS, which has {len(YTVIS2021)} categories"
        if len(YTVIS2021) < max(found) and found <= COCO.keys() and categories.keys() != COCO.keys():
            return f"COCO, whose category ids go to {max(COCO)}"
    return None

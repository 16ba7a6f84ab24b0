"""Small data sets in the published formats and folder layouts, with every oddity that real ones have.

Frames are 23x83 pixels: two or more rectangles that move over noise. Ids are unsorted and start at 0;
masks come as compressed RLE, uncompressed RLE and polygons; there are null frames, crowds, a video of
one frame, one without annotations, and a long one.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask

from vistk.data.categories import COCO, TABLES

HEIGHT, WIDTH = 23, 83
OCCLUSION = ("no_occlusion", "slight_occlusion", "severe_occlusion", None)


def write_official(root: Path, name: str, long: int = 40) -> Path:
    """The data set ``name`` (ytvis2019, ytvis2021, ytvis2022, ovis) under ``root``; validation is hidden.

    Args:
        long: frames of the longest video.
    """
    rng = np.random.default_rng(5)
    for split in ("train", "valid"):
        images = root / split if name == "ovis" else root / split / "JPEGImages"
        content = _videos(rng, images, name, split, long)
        if split == "valid":
            _hide(root, name, content)
        path = {
            "ytvis2019": root / f"{split}.json",
            "ytvis2021": root / split / "instances.json",
            "ytvis2022": root / split / "instances.json",
            "ovis": root / f"annotations_{split}.json",
        }[name]
        path.write_text(json.dumps(content))
    return root


def _hide(root: Path, name: str, content: dict[str, Any]) -> None:
    """Drop the annotations; YouTube-VIS 2022 keeps them, as the server did, in files of their own."""
    annotations = content.pop("annotations")
    if name != "ytvis2022":
        return
    longest = max(content["videos"], key=lambda video: video["length"])["id"]
    for part, wanted in (("", None), ("_short", False), ("_long", True)):
        videos = [v for v in content["videos"] if wanted is None or (v["id"] == longest) is wanted]
        ids = {video["id"] for video in videos}
        truth = content | {
            "videos": videos,
            "annotations": [a for a in annotations if a["video_id"] in ids],
        }
        (root / "valid" / f"gt{part}.json").write_text(json.dumps(truth))


def _videos(rng: np.random.Generator, images: Path, name: str, split: str, long: int) -> dict[str, Any]:
    lengths = {7: 5, 0: 1, 3: long, 12: 6, 5: 4, 9: 3}  # by video id, in no order
    videos, annotations = [], []
    annotation_ids = iter([11, 0, 4, 2, 30, 8, 21, 5, 16, 40, 41, 42])
    categories = list(TABLES[name])
    for video_id, length in lengths.items():
        folder = f"{split}{video_id:04d}"
        (images / folder).mkdir(parents=True)
        objects = 0 if video_id == 9 else 2
        start = rng.integers(0, 30, size=(2, 2))
        boxes = [
            [(int(x + 2 * t % 40), int(y % 10), 14, 9) for t in range(length)] for x, y in start[:objects]
        ]
        names = []
        for t in range(length):
            frame = rng.integers(0, 60, size=(HEIGHT, WIDTH, 3), dtype=np.uint8)
            for i, track in enumerate(boxes):
                x, y, w, h = track[t]
                frame[y : y + h, x : x + w] = (200, 40 + 120 * i, 90)
            names.append(f"{folder}/{'img_' if name == 'ovis' else ''}{t * 5:05d}.jpg")
            Image.fromarray(frame).save(images / names[-1], quality=95)
        videos.append(
            {
                "id": video_id,
                "width": WIDTH,
                "height": HEIGHT,
                "length": length,
                "file_names": names,
                "license": 1,
                "date_captured": "2019-04-11 00:55:41.903634",
                "flickr_url": "",
                "coco_url": "",
            }
        )
        for i, track in enumerate(boxes):
            crowd = int(video_id == 12 and i == 1)
            entry = _annotation(track, i, crowd)
            entry |= {
                "id": next(annotation_ids),
                "video_id": video_id,
                "category_id": categories[(3 * i) % len(categories)],
            }
            if name == "ovis":
                entry |= {"occlusion": [OCCLUSION[t % 4] for t in range(length)], "ori_id": 1000 + i}
            annotations.append(entry)
    return {
        "info": {"description": name, "version": "1.0"},
        "licenses": [{"id": 1, "name": "CC", "url": ""}],
        "videos": videos,
        "categories": [{"id": k, "name": v, "supercategory": "object"} for k, v in TABLES[name].items()],
        "annotations": annotations,
    }


def _annotation(track: list[tuple[int, int, int, int]], style: int, crowd: int) -> dict[str, Any]:
    segmentations: list[Any] = []
    areas: list[float | None] = []
    bboxes: list[Any] = []
    for t, (x, y, w, h) in enumerate(track):
        if len(track) > 2 and t == 1:  # out of sight for a frame
            segmentations.append(None)
            areas.append(None)
            bboxes.append(None)
            continue
        mask = np.zeros((HEIGHT, WIDTH), np.uint8, order="F")
        mask[y : y + h, x : x + w] = 1
        if crowd or (style + t) % 3 == 1:
            segmentations.append({"size": [HEIGHT, WIDTH], "counts": runs_of(mask)})
        elif (style + t) % 3 == 2:
            segmentations.append([[x, y, x + w, y, x + w, y + h, x, y + h]])
        else:
            rle = coco_mask.encode(mask)
            segmentations.append({"size": [HEIGHT, WIDTH], "counts": rle["counts"].decode()})
        areas.append(float(w * h))
        bboxes.append([x, y, w, h])
    return {
        "iscrowd": crowd,
        "height": HEIGHT,
        "width": WIDTH,
        "length": 1,  # published files say 1 here, whatever the video
        "segmentations": segmentations,
        "areas": areas,
        "bboxes": bboxes,
    }


def runs_of(mask: np.ndarray) -> list[int]:
    """Uncompressed RLE counts of a mask."""
    flat = mask.ravel(order="F")
    ends = np.flatnonzero(np.diff(flat)) + 1
    runs = np.diff([0, *ends.tolist(), flat.size]).tolist()
    return [0, *runs] if flat[0] else runs


def write_coco(root: Path, count: int = 7) -> Path:
    """COCO 2017 with ``count`` images a split: polygons in parts, a crowd, grey and empty images."""
    rng = np.random.default_rng(6)
    (root / "annotations").mkdir(parents=True)
    for split in ("train2017", "val2017"):
        (root / split).mkdir()
        images, annotations = [], []
        for i in range(count):
            image_id = 900 - 7 * i
            name = f"{image_id:012d}.jpg"
            frame = rng.integers(0, 60, size=(HEIGHT, WIDTH), dtype=np.uint8)
            frame[4:15, 10 + i : 30 + i] = 220
            Image.fromarray(frame).convert("L" if i == 1 else "RGB").save(root / split / name)
            images.append({"id": image_id, "file_name": name, "height": HEIGHT, "width": WIDTH, "license": 1})
            if i == 2:
                continue
            x, y, w, h = 10.5 + i, 4.0, 20.0, 11.0
            halves = [
                [x, y, x + 8, y, x + 8, y + h, x, y + h],
                [x + 12, y, x + w, y, x + w, y + h, x + 12, y + h],
            ]
            annotations.append(
                {
                    "id": 5000 - i,
                    "image_id": image_id,
                    "category_id": (1, 18, 47)[i % 3],  # person, dog; a cup, which no VIS data set has
                    "iscrowd": 0,
                    "area": 2 * 8 * h,
                    "bbox": [x, y, w, h],
                    "segmentation": halves,
                }
            )
        crowd = np.zeros((HEIGHT, WIDTH), np.uint8)
        crowd[:, 60:] = 1
        annotations.append(
            {
                "id": 1,
                "image_id": 900,
                "category_id": 1,
                "iscrowd": 1,
                "area": int(crowd.sum()),
                "bbox": [60, 0, 23, 23],
                "segmentation": {"size": [HEIGHT, WIDTH], "counts": runs_of(crowd)},
            }
        )
        content = {
            "info": {},
            "licenses": [],
            "images": images,
            "annotations": annotations,
            "categories": [{"id": k, "name": v, "supercategory": "x"} for k, v in COCO.items()],
        }
        (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))
    return root

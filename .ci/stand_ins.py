"""Writes what the commands of README.md expect a reader to have: ``python .ci/stand_ins.py FOLDER``.

Small data sets in the published layouts, checkpoints with the published names and sizes (weights by a
recipe), results files, folders of masks, and links to a finished default run, which has to be there.
"""

from __future__ import annotations

import json
import pickle
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from pycocotools import mask as coco_mask

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from golden_weights import published_state  # noqa: E402
from official_data import write_coco, write_official  # noqa: E402

from vistk.data.config import SyntheticConfig  # noqa: E402
from vistk.data.synthetic import dataset_root  # noqa: E402
from vistk.ops.masks import decode  # noqa: E402
from vistk.structures import RLE  # noqa: E402


def main(folder: Path) -> None:
    folder.mkdir(parents=True)
    swap = (ROOT / dataset_root(SyntheticConfig())) / "swap"
    rows = ROOT / "runs/synthetic/visage/default/rows"
    (folder / "GT.json").symlink_to(swap / "instances.json")
    (folder / "RESULTS.json").symlink_to(rows / "minvis/swap/results.json")
    (folder / "MORE.json").symlink_to(rows / "visage/swap/results.json")
    write_masks(folder / "masks", swap)

    write_coco(folder / "coco")
    data = folder / "data"
    for name in ("ytvis2019", "ytvis2021", "ovis"):
        write_official(data / name, name, long=4)
    write_results(folder / "ytvis21", json.loads((data / "ytvis2021/train/instances.json").read_text()))
    write_results(folder / "ovis", json.loads((data / "ovis/annotations_train.json").read_text()))
    for split in ("train", "valid"):
        shutil.copytree(data / "ytvis2021/train", folder / "videos" / split)

    torch.save({"model": published_state("visage_r50_ytvis2019")}, folder / "visage.pth")
    arrays = {
        name.replace("query_feat", "static_query"): value.numpy()
        for name, value in published_state("coco_m2f_r50").items()
    }
    (folder / "model_final_3c8ec9.pkl").write_bytes(pickle.dumps({"model": arrays}))


def write_masks(folder: Path, split: Path) -> None:
    """A video of the synthetic benchmark as frames and indexed masks, as DAVIS has them."""
    content = json.loads((split / "instances.json").read_text())
    video = content["videos"][1]
    name = Path(video["file_names"][0]).parent.name
    shutil.copytree(split / "JPEGImages" / name, folder / "JPEGImages" / name)
    (folder / "Annotations" / name).mkdir(parents=True)
    tracks = [a["segmentations"] for a in content["annotations"] if a["video_id"] == video["id"]]
    for t, frame in enumerate(video["file_names"]):
        indexed = np.zeros((video["height"], video["width"]), np.uint8)
        for number, masks in enumerate(tracks, start=1):
            if masks[t] is not None:
                indexed[pixels(masks[t])] = number
        image = Image.fromarray(indexed)
        image.putpalette([number * 40 % 256 for number in range(768)])
        image.save(folder / "Annotations" / name / Path(frame).with_suffix(".png").name)


def pixels(rle: dict[str, Any]) -> np.ndarray:
    """``(height, width)`` bool."""
    return np.asarray(decode(RLE(**rle)), dtype=bool)


def write_results(folder: Path, truth: dict[str, Any]) -> None:
    """``gt.json``, ``mine.json``, which is right, and ``theirs.json``, which misses every other object."""
    folder.mkdir()
    (folder / "gt.json").write_text(json.dumps(truth))
    sizes = {video["id"]: (video["height"], video["width"]) for video in truth["videos"]}
    entries = [
        {
            "video_id": one["video_id"],
            "category_id": one["category_id"],
            "score": 0.9 - 0.01 * number,
            "segmentations": [
                mask and compressed(mask, *sizes[one["video_id"]]) for mask in one["segmentations"]
            ],
        }
        for number, one in enumerate(truth["annotations"])
        if not one["iscrowd"]
    ]
    (folder / "mine.json").write_text(json.dumps(entries))
    (folder / "theirs.json").write_text(json.dumps(entries[::2]))


def compressed(mask: Any, height: int, width: int) -> dict[str, Any]:
    """Polygons and uncompressed counts as a results file has masks."""
    if isinstance(mask, dict) and isinstance(mask["counts"], str):
        return mask
    rle = coco_mask.frPyObjects(mask, height, width)
    rle = coco_mask.merge(rle) if isinstance(rle, list) else rle
    return {"size": [height, width], "counts": rle["counts"].decode()}


if __name__ == "__main__":
    main(Path(sys.argv[1]))

"""A run made by hand: who covers whom when is planned, so that all that is shown can be said beforehand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from vistk.config import compose, save
from vistk.ops.masks import encode

HEIGHT, WIDTH, FRAMES = 40, 60, 10
LEFT, RIGHT, LOW = (5, 5), (5, 40), (25, 20)  # top and left of squares


def square(corner: tuple[int, int] | None) -> dict[str, Any] | None:
    """12 pixels wide."""
    if corner is None:
        return None
    mask = torch.zeros(1, HEIGHT, WIDTH, dtype=torch.bool)
    mask[0, corner[0] : corner[0] + 12, corner[1] : corner[1] + 12] = True
    return encode(mask)[0]


def tube(*spans: tuple[int, tuple[int, int] | None]) -> list[dict[str, Any] | None]:
    """(number of frames, place) one after the other, nothing after that."""
    masks = [square(corner) for count, corner in spans for _ in range(count)]
    return masks + [None] * (FRAMES - len(masks))


# Instance 1 (cat) left, 2 (cat) right, 3 (dog) below in frames 2 to 9, but not in 5 and 6.
INSTANCES = [
    (1, tube((FRAMES, LEFT))),
    (1, tube((FRAMES, RIGHT))),
    (2, tube((2, None), (3, LOW), (2, None), (3, LOW))),
]
SWAPPED = [  # category, score, masks: cats swap in frame 5, the dog comes back as another one
    (1, 0.9, tube((5, LEFT), (5, RIGHT))),
    (1, 0.95, tube((5, RIGHT), (5, LEFT))),
    (2, 0.6, tube((7, None), (3, LOW))),
    (2, 0.7, tube((2, None), (3, LOW))),
    (2, 0.05, tube((1, None), (9, LOW))),
]
LOST = [  # the cats are right, the dog is not found again
    (1, 0.8, tube((FRAMES, LEFT))),
    (1, 0.9, tube((FRAMES, RIGHT))),
    (2, 0.7, tube((2, None), (3, LOW))),
]


def _entries(video_id: int, predictions: list[tuple[int, float, list[Any]]]) -> list[dict[str, Any]]:
    return [
        {"video_id": video_id, "category_id": category, "score": score, "segmentations": masks}
        for category, score, masks in predictions
    ]


def write_data(root: Path, videos: tuple[int, ...] = (4, 7, 9)) -> Path:
    """Splits ``valid`` with truth, ``test`` without. Video 4 and 7 have all instances, 9 has none."""
    for split in ("valid", "test"):
        content: dict[str, Any] = {
            "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
            "videos": [],
            "annotations": [],
        }
        for video_id in videos:
            names = [f"clip{video_id}/{t:05d}.png" for t in range(FRAMES)]
            content["videos"].append(
                {"id": video_id, "height": HEIGHT, "width": WIDTH, "length": FRAMES, "file_names": names}
            )
            for t, name in enumerate(names):
                path = root / split / "JPEGImages" / name
                path.parent.mkdir(parents=True, exist_ok=True)
                pixels = np.full((HEIGHT, WIDTH, 3), (t, video_id, 200), dtype=np.uint8)
                Image.fromarray(pixels).save(path)
            for category, masks in INSTANCES if video_id != 9 else ():
                content["annotations"].append(
                    {
                        "id": len(content["annotations"]) + 1,
                        "video_id": video_id,
                        "category_id": category,
                        "iscrowd": 0,
                        "segmentations": masks,
                    }
                )
        if split == "test":
            del content["annotations"]
        (root / f"{split}.json").write_text(json.dumps(content))
    return root


@pytest.fixture(scope="session")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the rows minvis (video 4 with swaps) and mask-iou (video 4 with a loss), video 7 all right."""
    folder = tmp_path_factory.mktemp("planted")
    root = write_data(folder / "data")
    return write_run(folder / "run", root)


def write_run(run_dir: Path, root: Path) -> Path:
    words = (
        *("tracker=minvis", "data=ytvis", f"data.root={json.dumps(str(root))}", "eval_only=true"),
        *("data.eval_splits=[valid,test]", "evaluation.rows=[mask-iou,minvis]"),
        f"run_dir={json.dumps(str(run_dir))}",
    )
    save(compose(words))
    right = [(category, 0.9, masks) for category, masks in INSTANCES]
    for row, predictions in {"minvis": SWAPPED, "mask-iou": LOST}.items():
        for split in ("valid", "test"):
            path = run_dir / "rows" / row / split / "results.json"
            path.parent.mkdir(parents=True)
            path.write_text(json.dumps([*_entries(4, predictions), *_entries(7, right)]))
    return run_dir

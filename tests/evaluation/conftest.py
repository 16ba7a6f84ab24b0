"""Tiny videos as pixel arrays, and the files made of them."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from vistk.ops.masks import encode

Tube = np.ndarray  # (T, H, W) bool


def rle_tube(tube: Tube) -> list[dict[str, Any] | None]:
    rles = encode(torch.from_numpy(np.ascontiguousarray(tube)))
    return [rle if frame.any() else None for rle, frame in zip(rles, tube, strict=True)]


class Scene:
    """Videos of one size, with annotations and predictions added one by one."""

    def __init__(self, num_frames: int = 3, height: int = 7, width: int = 5) -> None:
        self.shape = (num_frames, height, width)
        self.ground_truth: dict[str, Any] = {"videos": [], "categories": [], "annotations": []}
        self.results: list[dict[str, Any]] = []

    def video(self, video_id: int) -> None:
        num_frames, height, width = self.shape
        self.ground_truth["videos"].append(
            {"id": video_id, "height": height, "width": width, "length": num_frames}
        )

    def category(self, category_id: int, name: str) -> None:
        self.ground_truth["categories"].append({"id": category_id, "name": name})

    def annotate(self, annotation_id: int, video_id: int, category_id: int, tube: Tube, **more: Any) -> None:
        self.ground_truth["annotations"].append(
            {
                "id": annotation_id,
                "video_id": video_id,
                "category_id": category_id,
                "iscrowd": 0,
                "segmentations": rle_tube(tube),
                "areas": [int(frame.sum()) or None for frame in tube],
                **more,
            }
        )

    def predict(self, video_id: int, category_id: int, score: float, tube: Tube) -> None:
        self.results.append(
            {
                "video_id": video_id,
                "category_id": category_id,
                "score": score,
                "segmentations": rle_tube(tube),
            }
        )

    def box(self, top: int, left: int, bottom: int, right: int, frames: slice = slice(None)) -> Tube:
        tube = np.zeros(self.shape, dtype=bool)
        tube[frames, top:bottom, left:right] = True
        return tube


def random_scene(seed: int, videos: int = 5, categories: int = 3, objects: int = 4, tracks: int = 9) -> Scene:
    """Annotated boxes that move, and predictions that copy them with errors of place and class."""
    rng = np.random.default_rng(seed)
    scene = Scene(num_frames=6, height=23, width=17)
    for k in range(categories):
        scene.category(k, f"category {k}")
    for v in range(videos):
        scene.video(v)
        truth = []
        for n in range(objects):
            tube = np.zeros(scene.shape, dtype=bool)
            top, left, step = rng.integers(0, 10, 3)
            for t in range(6):
                if rng.random() < 0.8:
                    tube[t, top + (t * step) % 7 :, left : left + 8][:9] = True
            truth.append((tube, int(rng.integers(categories))))
            scene.annotate(v * objects + n, v, truth[-1][1], tube, iscrowd=int(rng.random() < 0.1))
        for n in range(tracks):
            tube, category = truth[n % objects]
            tube = np.roll(tube, rng.integers(-3, 4, 2), axis=(1, 2)) & (rng.random((6, 1, 1)) < 0.9)
            if rng.random() < 0.2:  # an identity switch
                tube = np.concatenate([tube[:3], truth[(n + 1) % objects][0][3:]])
            label = category if rng.random() < 0.7 else int(rng.integers(categories))
            scene.predict(v, label, float(rng.random()), tube)
    return scene


@pytest.fixture(scope="session")
def new_scene() -> Callable[..., Scene]:
    return Scene


@pytest.fixture(scope="session")
def make_random_scene() -> Callable[..., Scene]:
    return random_scene


@pytest.fixture
def scene() -> Scene:
    """Two videos and two categories, ids from 0; every annotation predicted exactly, and two false tracks."""
    scene = Scene()
    scene.category(0, "cat")
    scene.category(1, "dog")
    for video_id in (0, 1):
        scene.video(video_id)
        scene.annotate(2 * video_id, video_id, 0, scene.box(0, 0, 3, 2))
        scene.annotate(2 * video_id + 1, video_id, 1, scene.box(4, 2, 7, 5, slice(1, 3)))
        scene.predict(video_id, 0, 0.9, scene.box(0, 0, 3, 2))
        scene.predict(video_id, 1, 0.8, scene.box(4, 2, 7, 5, slice(1, 3)))
        scene.predict(video_id, 1, 0.1, scene.box(0, 0, 3, 2))
    return scene

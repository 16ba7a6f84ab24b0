"""The embedded benchmark: a small YouTube-VIS data set, written from a seed in a few minutes.

It asks one question: does a tracker link objects by what they look like when where they are
misleads? The objects of a video mostly share a class and differ in their interior texture.

Splits:
    ``stills``  one-frame videos for the training of the segmenter; in some of them (``twins``) all
        objects share one texture, so that a segmenter cannot bind its queries to colours.
    ``train``  clips of all kinds, in turn.
    ``static``, ``track``, ``swap``, ``reenter``  validation clips of one kind (:data:`scenes.KINDS`),
        with textures that training never shows. ``swap`` follows the pseudo videos of VISAGE
        (arXiv 2312.04885): the remaining paths are permuted once, at a random frame.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterable
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from vistk.data.config import DataConfig, SyntheticConfig
from vistk.data.sampling import Stream
from vistk.data.scenes import KINDS, Scene, plan_still, plan_video
from vistk.data.sprites import CLASSES, COLOURS, PATTERNS, compose, draw_background, draw_sprite
from vistk.data.ytvis import DataError
from vistk.ops.masks import encode

FORMAT = 2
"""Raised whenever the same configuration would give other pixels or annotations."""

SPLITS = ("stills", "train", *KINDS)


def config_hash(config: SyntheticConfig) -> str:
    """Ten hexadecimal digits over everything that the files depend on."""
    return hashlib.sha256(json.dumps(_recipe(config), sort_keys=True).encode()).hexdigest()[:10]


def dataset_root(config: SyntheticConfig) -> Path:
    """The folder of the data set: ``config.root``, or ``datasets/synthetic/<hash>``."""
    return Path(config.root) if config.root else Path("datasets/synthetic") / config_hash(config)


def ensure(config: SyntheticConfig, splits: Iterable[str], progress: bool = True) -> Path:
    """Write those of the splits that are not there yet, and say where they are.

    A split appears in one rename when it is complete: ``{root}/{split}/instances.json`` and
    ``{root}/{split}/JPEGImages``. An interrupted or concurrent run never leaves half a split.

    Raises:
        DataError: the configuration cannot be drawn, a split is unknown, or the folder holds a data
            set of another configuration.
    """
    _check(config)
    root = dataset_root(config)
    for split in splits:
        if split not in SPLITS:
            raise DataError(f"synthetic split {split!r} is unknown, expected one of {', '.join(SPLITS)}")
        if not _is_complete(root / split, config):
            _write_split(config, root, split, progress)
    return root


def frames_of(
    config: SyntheticConfig, split: str, index: int
) -> tuple[list[np.ndarray], dict[str, Any], list[dict[str, Any]]]:
    """Video ``index`` of a split: T frames ``(H, W, 3)`` uint8, its json entry, its annotations' entries."""
    stream = Stream("synthetic", config.seed, split, index)
    # In turn, not by chance: an average over classes is no steadier than the rarest class.
    main = index // len(KINDS) % len(CLASSES)
    video: dict[str, Any] = {"id": index + 1, "width": config.width, "height": config.height}
    if split == "stills":
        scene, twins = plan_still(stream, config, main)
        video |= {"kind": "still", "twins": twins}
    else:
        kind = split if split in KINDS else KINDS[index % len(KINDS)]
        scene = plan_video(stream, config, kind, main, held_out=split in KINDS)
        video |= {"kind": kind, "swap_frame": scene.swap_frame}
    background = draw_background(stream, config.height, config.width)
    sprites = [
        draw_sprite(*parts)
        for parts in zip(scene.shapes, scene.sizes, scene.angles, scene.textures, strict=True)
    ]
    frames, visible, whole = [], [], []
    for centres, present in zip(scene.centres, scene.present, strict=True):
        frame, shown, size = compose(background, sprites, centres, present)
        frames.append(frame)
        visible.append(shown)
        whole.append(size)
    video |= {
        "length": len(frames),
        "file_names": [f"{index:05d}/{t:05d}.jpg" for t in range(len(frames))],
    }
    annotations = _annotate(scene, np.stack(visible, 1), np.stack(whole, 1), config.min_visible)
    for annotation in annotations:
        annotation |= {"video_id": video["id"], "height": config.height, "width": config.width}
    return frames, video, annotations


def _annotate(scene: Scene, visible: np.ndarray, whole: np.ndarray, min_visible: int) -> list[dict[str, Any]]:
    """json entries, without ids, from visible parts ``(n, T, H, W)`` and unhidden areas ``(n, T)``."""
    area = visible.sum((2, 3))  # (n, T)
    shown = area >= min_visible
    rles = iter(encode(torch.from_numpy(visible[shown])))
    out = []
    for k in range(len(scene)):
        if not shown[k].any():
            continue
        segmentations, boxes, occlusion = [], [], []
        for t in range(visible.shape[1]):
            segmentations.append(next(rles) if shown[k, t] else None)
            boxes.append(_box(visible[k, t]) if shown[k, t] else None)
            occlusion.append(_occlusion(int(area[k, t]), int(whole[k, t])) if shown[k, t] else None)
        texture = scene.textures[k]
        out.append(
            {
                "category_id": scene.shapes[k] + 1,
                "iscrowd": 0,
                "length": visible.shape[1],
                "segmentations": segmentations,
                "bboxes": boxes,
                "areas": [int(a) if s else None for a, s in zip(area[k], shown[k], strict=True)],
                "occlusion": occlusion,
                "texture": [texture.pattern, texture.first, texture.second],
            }
        )
    return out


def _box(mask: np.ndarray) -> list[int]:
    """x, y, width and height of the box around a mask's pixels."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    left, top = int(columns[0]), int(rows[0])
    return [left, top, int(columns[-1]) - left + 1, int(rows[-1]) - top + 1]


def _occlusion(area: int, whole: int) -> str:
    """OVIS's word for the hidden part of an object; half of it hidden is severe."""
    if 20 * area >= 19 * whole:
        return "no_occlusion"
    return "slight_occlusion" if 2 * area > whole else "severe_occlusion"


def _write_split(config: SyntheticConfig, root: Path, split: str, progress: bool) -> None:
    root.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{split}-", dir=root))
    try:
        os.chmod(temporary, 0o755)  # mkdtemp's folders are for the owner alone
        content = _write_videos(config, temporary / "JPEGImages", split, progress)
        (temporary / "instances.json").write_text(json.dumps(content, separators=(",", ":")))
        try:
            temporary.rename(root / split)
        except OSError:
            # Another process may have been faster; then its split is as good as this one.
            if not _is_complete(root / split, config):
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _write_videos(config: SyntheticConfig, folder: Path, split: str, progress: bool) -> dict[str, Any]:
    """Write all frames of a split and return the content of its json."""
    videos: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for index in tqdm(_indices(config, split), desc=f"synthetic {split}", unit="video", disable=not progress):
        frames, video, objects = frames_of(config, split, index)
        (folder / f"{index:05d}").mkdir(parents=True)
        for name, frame in zip(video["file_names"], frames, strict=True):
            Image.fromarray(frame).save(folder / name, quality=config.jpeg_quality, subsampling=0)
        videos.append(video)
        for annotation in objects:
            annotations.append({"id": len(annotations) + 1, **annotation})
    return {
        "info": {
            "description": f"synthetic video instance segmentation, split {split}",
            "recipe": _recipe(config),
            "patterns": list(PATTERNS),
            "colours": COLOURS.tolist(),
        },
        "licenses": [],
        "categories": [
            {"id": k + 1, "name": name, "supercategory": "shape"} for k, name in enumerate(CLASSES)
        ],
        "videos": videos,
        "annotations": annotations,
    }


def _indices(config: SyntheticConfig, split: str) -> range:
    return range({"stills": config.num_stills, "train": config.num_train}.get(split, config.num_val))


def _recipe(config: SyntheticConfig) -> dict[str, Any]:
    """What the files depend on: the fields that only this data set has, and the format."""
    common = {f.name for f in fields(DataConfig)}
    return {"format": FORMAT} | {k: v for k, v in asdict(config).items() if k not in common}


def _is_complete(folder: Path, config: SyntheticConfig) -> bool:
    """Whether the split is there; a split of another recipe is an error."""
    if not folder.exists():
        return False
    try:
        found = json.loads((folder / "instances.json").read_text())["info"]["recipe"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{folder} is not a synthetic data set ({error}); expected it to be absent or generated, "
            "so move it away or set another data.root"
        ) from error
    expected = _recipe(config)
    if found != expected:
        names = sorted(k for k in expected.keys() | found.keys() if expected.get(k) != found.get(k))
        differences = ", ".join(f"{k} {found.get(k)} instead of {expected.get(k)}" for k in names)
        raise DataError(f"{folder} holds a data set of another configuration: {differences}")
    return True


def _check(config: SyntheticConfig) -> None:
    problems = [
        (config.frames < 8, f"frames is {config.frames}, expected at least 8"),
        (
            not 2 <= config.min_objects <= config.max_objects <= 6,
            f"min_objects, max_objects are {config.min_objects}, {config.max_objects}, "
            "expected 2 <= min <= max <= 6",
        ),
        (
            not 10 <= config.min_size <= config.max_size <= min(config.height, config.width) // 2,
            f"min_size, max_size are {config.min_size}, {config.max_size}, "
            f"expected 10 <= min <= max <= half of the shorter side {min(config.height, config.width)}",
        ),
        (min(config.num_stills, config.num_train, config.num_val) < 0, "a number of videos is negative"),
    ]
    for wrong, message in problems:
        if wrong:
            raise DataError(f"synthetic data: {message}")

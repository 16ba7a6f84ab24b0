"""A small YouTube-VIS-format data set with pseudo-labels from one video of a fixed camera.

    python examples/real_video/make_dataset.py vtest.avi data/vtest --sheets sheets

Masks come from background subtraction. Identities come from an automatic linker in the training
part, and from ``identities.json`` (set and checked by eye) in the validation part.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from foreground import (
    Background,
    Box,
    ForegroundConfig,
    components,
    foreground,
    mask_box,
    share_pixels,
)
from identities import Identities, load_identities
from linking import LinkConfig, Linker
from PIL import Image
from sheets import write_sheets
from tqdm import tqdm
from video import read_frames, sample_background

from vistk.ops.masks import decode, encode
from vistk.structures import RLE

CATEGORIES = [{"id": 1, "name": "person", "supercategory": "person"}]
MIN_VISIBLE_AREA = 60  # source pixels; a smaller sliver of a person is written as absent
MIN_VISIBLE_FRAMES = 2  # a person seen in fewer frames of a clip has no identity to follow


@dataclass(frozen=True)
class Clip:
    """One "video" of the data set: every ``step``-th frame of a stretch of the source."""

    split: str  # train or valid
    name: str
    frames: range  # source frames


@dataclass(frozen=True)
class Scan:
    """What the pass over the video leaves behind, per source frame that some clip uses."""

    masks: dict[int, RLE]  # all foreground, source size
    boxes: dict[int, dict[int, Box]]  # person -> box


def plan_clips(num_frames: int, valid_from: int, gap: int, clip_frames: int, step: int) -> list[Clip]:
    """Cuts a video into training clips, a gap and validation clips, none of which share a frame.

    Raises:
        ValueError: a part is too short for one clip.
    """
    span = (clip_frames - 1) * step + 1
    clips = []
    for split, start, stop in (("train", 0, valid_from - gap), ("valid", valid_from, num_frames)):
        starts = range(start, stop - span + 1, clip_frames * step)
        if not starts:
            raise ValueError(
                f"the {split} part is source frames {start} to {stop - 1} of {num_frames}, one clip of "
                f"{clip_frames} frames at step {step} needs {span}; change --valid-from, --gap, "
                "--clip-frames or --step"
            )
        clips += [
            Clip(split, f"{split}_{n:02d}", range(first, first + span, step))
            for n, first in enumerate(starts)
        ]
    return clips


def scan_video(
    video: Path,
    clips: list[Clip],
    background: Background,
    identities: Identities | None,
    size: tuple[int, int],
    out: Path,
) -> Scan:
    """Writes the frames of all clips and finds foreground and people's boxes in them.

    Args:
        identities: boxes of the validation part; None = that part is linked automatically too.
        size: (width, height) of the written frames.
        out: root of the data set.
    """
    uses = {frame: (clip, t) for clip in clips for t, frame in enumerate(clip.frames)}
    linker = Linker(LinkConfig())
    config = ForegroundConfig()
    scan = Scan({}, {})
    for clip in clips:
        (out / clip.split / "JPEGImages" / clip.name).mkdir(parents=True)
    last = max(uses)
    for index, image in enumerate(tqdm(read_frames(video), desc="masks", unit="frame", total=last + 1)):
        if index > last:
            break
        by_eye = identities is not None and index >= identities.first
        if by_eye and index not in uses:
            continue
        mask = foreground(image, background, config)
        if not by_eye:  # the linker wants every frame, also those between the clips' frames
            linker.update(index, components(mask)[1])
        if index in uses:
            clip, t = uses[index]
            scan.masks[index] = encode(torch.from_numpy(mask[None]))[0]
            scan.boxes[index] = identities.boxes(index) if identities is not None and by_eye else {}
            picture = Image.fromarray(image).resize(size, Image.Resampling.BOX)
            picture.save(out / clip.split / "JPEGImages" / clip.name / f"{t:05d}.jpg", quality=92)
    for track in linker.confirmed():
        for index, box in track.boxes.items():
            if index in uses:
                scan.boxes[index][track.id] = box
    return scan


def annotate(clip: Clip, video_id: int, scan: Scan, size: tuple[int, int]) -> list[dict[str, Any]]:
    """YouTube-VIS annotations of one clip, without their ids.

    A person is None in a frame where fewer than ``MIN_VISIBLE_AREA`` source pixels are theirs.
    """
    width, height = size
    absent = [None] * len(clip.frames)
    people: dict[int, dict[str, Any]] = {}
    for t, index in enumerate(clip.frames):
        shared = share_pixels(decode(scan.masks[index]), scan.boxes[index])
        for person, source_mask in shared.items():
            mask = resized(source_mask, size)
            box = mask_box(mask)
            if source_mask.sum() < MIN_VISIBLE_AREA or box is None:
                continue
            entry = people.setdefault(
                person,
                {
                    "video_id": video_id,
                    "category_id": 1,
                    "iscrowd": 0,
                    "height": height,
                    "width": width,
                    "length": len(clip.frames),
                    "segmentations": list(absent),
                    "bboxes": list(absent),
                    "areas": list(absent),
                },
            )
            entry["segmentations"][t] = encode(torch.from_numpy(mask[None]))[0]
            entry["bboxes"][t] = [box[0], box[1], box[2] - box[0], box[3] - box[1]]
            entry["areas"][t] = int(mask.sum())
    entries = [people[person] for person in sorted(people)]
    return [e for e in entries if sum(m is not None for m in e["segmentations"]) >= MIN_VISIBLE_FRAMES]


def resized(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A bool mask at ``(width, height)``; a pixel is set if at least half of it is covered."""
    picture = Image.fromarray(mask.astype(np.uint8) * 255)
    return np.asarray(picture.resize(size, Image.Resampling.BOX)) >= 128


def make_dataset(
    video: Path,
    out: Path,
    *,
    identities: Identities | None,
    valid_from: int = 650,
    gap: int = 24,
    clip_frames: int = 24,
    step: int = 2,
    height: int | None = None,
) -> dict[str, dict[str, float]]:
    """Writes the data set and returns its counts per split.

    Args:
        video: source video, fixed camera.
        out: folder to create; written under a temporary name and renamed when complete.
        identities: boxes set by eye for the validation part; None = linked automatically.
        valid_from: first source frame of the validation part.
        gap: source frames left out between the parts.
        clip_frames: frames of a clip.
        step: source frames from one frame of a clip to the next.
        height: height of the written frames in pixels; None = as the video.

    Raises:
        FileExistsError: ``out`` exists.
        ValueError: the video is unreadable, too short, or not the one the identities are for.
    """
    if out.exists():
        raise FileExistsError(f"output folder exists: {out}; remove it or name another")
    background, num_frames = sample_background(video)
    source_height, source_width = background.colour.shape[:2]
    clips = plan_clips(num_frames, valid_from, gap, clip_frames, step)
    if identities is not None:
        _check_identities(identities, (source_width, source_height, num_frames), clips)
    size = (source_width, source_height)
    if height is not None:
        if not 1 <= height <= source_height:
            raise ValueError(f"--height is {height}, expected 1 to {source_height} (the height of the video)")
        size = (round(source_width * height / source_height), height)

    working = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    working.mkdir(parents=True)
    try:
        scan = scan_video(video, clips, background, identities, size, working)
        counts = {}
        for split in ("train", "valid"):
            content = _split_content([c for c in clips if c.split == split], scan, size, video.name)
            (working / f"{split}.json").write_text(json.dumps(content))
            counts[split] = _counts(content)
        working.rename(out)
    except BaseException:
        shutil.rmtree(working)
        raise
    return counts


def _check_identities(identities: Identities, found: tuple[int, int, int], clips: list[Clip]) -> None:
    expected = (identities.width, identities.height, identities.num_frames)
    if found != expected:
        raise ValueError(
            "the identities are for a video of {}x{} and {} frames, this one has {}x{} and {}; "
            "use --identities none to link the validation part automatically".format(*expected, *found)
        )
    for clip in clips:
        first, last = clip.frames[0], clip.frames[-1]
        if clip.split == "train" and last >= identities.first:
            raise ValueError(f"{clip.name} ends in frame {last}, the identities begin in {identities.first}")
        if clip.split == "valid" and not identities.first <= first <= last <= identities.last:
            raise ValueError(
                f"{clip.name} is source frames {first} to {last}, the identities cover "
                f"{identities.first} to {identities.last}; change --valid-from or use --identities none"
            )


def _split_content(clips: list[Clip], scan: Scan, size: tuple[int, int], source: str) -> dict[str, Any]:
    videos, annotations = [], []
    for video_id, clip in enumerate(tqdm(clips, desc=clips[0].split, unit="clip"), start=1):
        names = [f"{clip.name}/{t:05d}.jpg" for t in range(len(clip.frames))]
        videos.append(
            {
                "id": video_id,
                "width": size[0],
                "height": size[1],
                "length": len(names),
                "file_names": names,
                "source_frames": list(clip.frames),
            }
        )
        annotations += annotate(clip, video_id, scan, size)
    return {
        "info": {"description": f"Pseudo-labels from background subtraction in {source}"},
        "categories": CATEGORIES,
        "videos": videos,
        "annotations": [{"id": n, **a} for n, a in enumerate(annotations, start=1)],
    }


def _counts(content: dict[str, Any]) -> dict[str, float]:
    frames = sum(video["length"] for video in content["videos"])
    tracked = sum(len(a["segmentations"]) for a in content["annotations"])
    sizes = [area for a in content["annotations"] for area in a["areas"] if area is not None]
    return {
        "clips": len(content["videos"]),
        "frames": frames,
        "instances": len(content["annotations"]),
        "instances a frame": len(sizes) / frames,
        "absent, of all instance-frames": 1 - len(sizes) / max(tracked, 1),
        "mean mask area in pixels": sum(sizes) / max(len(sizes), 1),
    }


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("video", type=Path, help="video of a fixed camera")
    parser.add_argument("out", type=Path, help="folder to create")
    parser.add_argument("--height", type=int, help="height of the written frames (default: as the video)")
    parser.add_argument("--clip-frames", type=int, default=24, help="frames of a clip (default: 24)")
    parser.add_argument("--step", type=int, default=2, help="use every n-th frame (default: 2)")
    parser.add_argument("--valid-from", type=int, default=650, help="first frame of the validation part")
    parser.add_argument("--gap", type=int, default=24, help="frames left out before it (default: 24)")
    parser.add_argument(
        "--identities",
        default=str(Path(__file__).with_name("identities.json")),
        help="identities of the validation part, or 'none' to link it automatically",
    )
    parser.add_argument("--sheets", type=Path, metavar="DIR", help="also write contact sheets to DIR")
    args = parser.parse_args(argv)
    try:
        if min(args.clip_frames, args.step) < 1 or args.gap < 0:
            raise ValueError("--clip-frames and --step must be at least 1, --gap at least 0")
        identities = None if args.identities == "none" else load_identities(Path(args.identities))
        counts = make_dataset(
            args.video,
            args.out,
            identities=identities,
            valid_from=args.valid_from,
            gap=args.gap,
            clip_frames=args.clip_frames,
            step=args.step,
            height=args.height,
        )
    except (OSError, ValueError, ModuleNotFoundError) as error:
        print(f"make_dataset: {error}", file=sys.stderr)
        return 1
    for split, numbers in counts.items():
        print(f"{split}: " + ", ".join(f"{name} {value:.4g}" for name, value in numbers.items()))
    if args.sheets:
        print(f"{len(write_sheets(args.out, args.sheets))} contact sheets in {args.sheets}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

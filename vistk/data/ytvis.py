"""Reader of the YouTube-VIS json format (YouTube-VIS 2019/2021/2022, OVIS, the synthetic benchmark)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from PIL import UnidentifiedImageError
from torch import Tensor

from vistk.data.images import read_rgb
from vistk.data.json_stream import compressed, load_json
from vistk.ops.masks import areas as mask_areas
from vistk.ops.masks import decode, to_rle
from vistk.ops.runs import first_broken
from vistk.structures import RLE, InstanceAnnotation, VideoRecord

OCCLUSION_WORDS = ("no_occlusion", "slight_occlusion", "severe_occlusion")
"""How OVIS says how much of an object is hidden in a frame."""


class DataError(ValueError):
    """A data set that cannot be used as it is. The message is one sentence for the user."""


@dataclass(frozen=True)
class YTVIS:
    """A data set: names, annotations and where its frames lie. Pixels are read when asked for.

    Masks are kept as compressed RLE whatever the file's encoding: about a hundred bytes each.
    """

    json_path: Path
    image_root: Path
    videos: Sequence[VideoRecord]  # in the file's order
    categories: Mapping[int, str]  # id to name, by rising id
    has_annotations: bool  # False for published validation and test splits: no list, or an empty one

    @property
    def category_ids(self) -> list[int]:
        """Data-set id of each contiguous label: label ``i`` is category ``category_ids[i]``."""
        return list(self.categories)

    @property
    def num_classes(self) -> int:
        return len(self.categories)

    @classmethod
    def load(cls, json_path: str | Path, image_root: str | Path) -> YTVIS:
        """Read and check a json file; no image is opened.

        Raises:
            FileNotFoundError: the json file or the image folder does not exist.
            DataError: the file is not json or of another form, or an entry is broken; the message names the
                entry and the field, what was found and what was expected.
        """
        json_path, image_root = Path(json_path), Path(image_root)
        if not json_path.is_file():
            raise FileNotFoundError(f"annotation file {json_path} does not exist")
        if not image_root.is_dir():
            raise FileNotFoundError(f"image folder {image_root} does not exist")
        try:
            content = load_json(json_path, compressed)
        except ValueError as error:  # JSONDecodeError, or bytes that are not UTF-8
            raise DataError(f"{json_path} is not json: {error}") from error
        if not isinstance(content, dict):
            raise DataError(
                f"{json_path}: found a {type(content).__name__}, expected an object with 'videos'"
            )
        _refuse_coco(content, json_path)
        categories = _categories(content, json_path)
        videos = _videos(content, json_path)
        has_annotations = content.get("annotations") not in (None, [])
        if has_annotations:
            videos = _with_annotations(content, videos, categories, json_path)
        return cls(json_path, image_root, tuple(videos.values()), categories, has_annotations)

    def read_frame(self, video: VideoRecord, t: int) -> Tensor:
        """Frame ``t`` as ``(3, H, W)`` uint8 RGB, in memory as :func:`~vistk.data.images.read_rgb` says.

        Raises:
            FileNotFoundError: the image does not exist.
            DataError: the image is truncated, not an image, or of another size than the json says.
        """
        path = self.image_root / video.file_names[t]
        try:
            pixels = read_rgb(path)
        except FileNotFoundError:
            raise FileNotFoundError(
                f"image {path} (video {video.video_id}, frame {t}) does not exist"
            ) from None
        except UnidentifiedImageError:
            raise DataError(f"{path} (video {video.video_id}, frame {t}) is not an image") from None
        except (OSError, SyntaxError) as error:  # how PIL reports truncated and broken files
            raise DataError(
                f"image {path} (video {video.video_id}, frame {t}) cannot be decoded: {error}"
            ) from error
        _, height, width = pixels.shape
        if (height, width) != (video.height, video.width):
            raise DataError(
                f"image {path} (video {video.video_id}, frame {t}) is {width}x{height} pixels, "
                f"{self.json_path.name} says {video.width}x{video.height}"
            )
        return pixels

    def frame_rles(self, video: VideoRecord, t: int) -> tuple[RLE | None, ...]:
        """The masks of frame ``t``, one entry per annotation of the video, ``None`` where it is absent."""
        return tuple(annotation.segmentations[t] for annotation in video.annotations)

    def instance_mask(self, video: VideoRecord, annotation: InstanceAnnotation, t: int) -> Tensor:
        """``(H, W)`` bool mask of one annotation in frame ``t``; empty where it is absent."""
        rle = annotation.segmentations[t]
        if rle is None:
            return torch.zeros(video.height, video.width, dtype=torch.bool)
        return torch.from_numpy(decode(rle))


def is_finite(value: Any) -> bool:
    """Whether a value of a json file is a number that a float can hold."""
    try:
        return isinstance(value, int | float) and math.isfinite(value)
    except OverflowError:
        return False


_MISSING = object()


def _field(entry: Any, name: str, kinds: type | tuple[type, ...], where: str, expected: str) -> Any:
    """``entry[name]``, or a sentence that says what is wrong with it."""
    if not isinstance(entry, dict):
        raise DataError(f"{where}: found a {type(entry).__name__}, expected an object")
    value = entry.get(name, _MISSING)
    if value is _MISSING:
        raise DataError(f"{where}: field '{name}' is missing, expected {expected}")
    if not isinstance(value, kinds) or (isinstance(value, bool) and kinds is int):
        raise DataError(f"{where}: field '{name}' is {_short(value)}, expected {expected}")
    return value


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _refuse_coco(content: dict[str, Any], path: Path) -> None:
    """COCO's forms are told from broken files: mmtracking's annotations are such."""
    videos = content.get("videos")
    first = videos[0] if isinstance(videos, list) and videos else None
    if not content.get("images") or (isinstance(first, dict) and "file_names" in first):
        return
    if videos is None:
        raise DataError(f"{path} is a COCO file of stills (no 'videos'), expected the YouTube-VIS form")
    raise DataError(
        f"{path} is a COCO video file (frames listed in 'images'), expected the YouTube-VIS form; "
        "'vistk data convert coco-video' makes that of it"
    )


def _entries(content: dict[str, Any], name: str, path: Path) -> Iterator[tuple[str, Any]]:
    """Where each entry of a top-level list stands, in words, and the entry."""
    for i, entry in enumerate(_field(content, name, list, str(path), "a list")):
        yield f"{path}: {name}[{i}]", entry


def _categories(content: dict[str, Any], path: Path) -> dict[int, str]:
    found: dict[int, str] = {}
    for where, entry in _entries(content, "categories", path):
        identity = _field(entry, "id", int, where, "an integer")
        if identity in found:
            raise DataError(f"{where}: field 'id' is {identity} a second time, expected unique ids")
        found[identity] = _field(entry, "name", str, where, "a string")
    if not found:
        raise DataError(f"{path}: field 'categories' is empty, expected at least one category")
    return dict(sorted(found.items()))


def _videos(content: dict[str, Any], path: Path) -> dict[int, VideoRecord]:
    found: dict[int, VideoRecord] = {}
    for where, entry in _entries(content, "videos", path):
        identity = _field(entry, "id", int, where, "an integer")
        where = f"{where} (id {identity})"
        if identity in found:
            raise DataError(f"{where}: field 'id' is given a second time, expected unique ids")
        names = _field(entry, "file_names", list, where, "a list of file names")
        for name in names:
            if not isinstance(name, str):
                raise DataError(f"{where}: field 'file_names' holds {_short(name)}, expected strings")
        length = entry.get("length", len(names))
        if length != len(names):
            raise DataError(
                f"{where}: field 'length' is {_short(length)}, expected {len(names)}, as file_names"
            )
        size = [_field(entry, side, int, where, "a positive integer") for side in ("height", "width")]
        if min(size) < 1:
            raise DataError(
                f"{where}: height and width are {size[0]} and {size[1]}, expected positive integers"
            )
        found[identity] = VideoRecord(identity, tuple(names), *size)
    return found


def _with_annotations(
    content: dict[str, Any], videos: dict[int, VideoRecord], categories: dict[int, str], path: Path
) -> dict[int, VideoRecord]:
    """The videos with their annotations, in the file's order."""
    read: list[tuple[str, int, InstanceAnnotation]] = []
    seen: set[int] = set()
    for where, entry in _entries(content, "annotations", path):
        identity = _field(entry, "id", int, where, "an integer")
        where = f"{where} (id {identity})"
        if identity in seen:
            raise DataError(f"{where}: field 'id' is given a second time, expected unique ids")
        seen.add(identity)
        video_id = _field(entry, "video_id", int, where, "an integer")
        if video_id not in videos:
            raise DataError(f"{where}: field 'video_id' is {video_id}, expected the id of one of the videos")
        where = f"{where} of video {video_id}"
        read.append((where, video_id, _annotation(entry, identity, videos[video_id], categories, where)))
    _check_coverage([(where, annotation) for where, _, annotation in read])
    of_video: dict[int, list[InstanceAnnotation]] = {identity: [] for identity in videos}
    for _, video_id, annotation in read:
        of_video[video_id].append(annotation if annotation.areas else _with_areas(annotation))
    return {
        identity: VideoRecord(
            identity, video.file_names, video.height, video.width, tuple(of_video[identity])
        )
        for identity, video in videos.items()
    }


def _check_coverage(read: list[tuple[str, InstanceAnnotation]]) -> None:
    """Refuse masks whose runs do not cover their frame: decoded they are wrong, without an error.

    All masks of a file at once: one by one it would take longer than reading the file.
    """
    masks = [
        (where, t, rle)
        for where, annotation in read
        for t, rle in enumerate(annotation.segmentations)
        if rle is not None
    ]
    broken = first_broken([rle for _, _, rle in masks])
    if broken is not None:
        where, t, _ = masks[broken[0]]
        raise DataError(f"{where}: field 'segmentations', frame {t}: {broken[1]}")


def _with_areas(annotation: InstanceAnnotation) -> InstanceAnnotation:
    rles = annotation.segmentations
    counted = mask_areas(rles).tolist()
    sizes = tuple(None if rle is None else area for rle, area in zip(rles, counted, strict=True))
    return replace(annotation, areas=sizes)


def _annotation(
    entry: Any, identity: int, video: VideoRecord, categories: dict[int, str], where: str
) -> InstanceAnnotation:
    """An entry as it stands; without areas if the file gives none."""
    category = _field(entry, "category_id", int, where, "an integer")
    if category not in categories:
        raise DataError(
            f"{where}: field 'category_id' is {category}, expected the id of one of the categories"
        )
    iscrowd = entry.get("iscrowd", 0)
    if iscrowd not in (0, 1):
        raise DataError(f"{where}: field 'iscrowd' is {_short(iscrowd)}, expected 0 or 1")
    rles: list[RLE | None] = []
    for t, segmentation in enumerate(_per_frame(entry, "segmentations", video, where)):
        try:
            rles.append(None if segmentation is None else to_rle(segmentation, video.height, video.width))
        except (ValueError, TypeError) as error:
            raise DataError(f"{where}: field 'segmentations', frame {t}: {error}") from error
    sizes: tuple[float | None, ...] = ()
    if entry.get("areas") is not None:
        sizes = tuple(_per_frame(entry, "areas", video, where))
        for t, size in enumerate(sizes):
            if size is not None and not is_finite(size):
                raise DataError(
                    f"{where}: field 'areas', frame {t} is {_short(size)}, expected a finite number or null"
                )
    occlusion = None
    if entry.get("occlusion") is not None:
        occlusion = tuple(_per_frame(entry, "occlusion", video, where))
        for t, word in enumerate(occlusion):
            if word is not None and word not in OCCLUSION_WORDS:
                raise DataError(
                    f"{where}: field 'occlusion', frame {t} is {_short(word)}, expected null or one of "
                    f"{', '.join(OCCLUSION_WORDS)}"
                )
    return InstanceAnnotation(identity, category, bool(iscrowd), tuple(rles), sizes, occlusion)


def _per_frame(entry: Any, name: str, video: VideoRecord, where: str) -> list[Any]:
    """A field with one entry per frame of the video."""
    values = _field(entry, name, list, where, f"a list of {len(video)} entries")
    if len(values) != len(video):
        raise DataError(
            f"{where}: field '{name}' has {len(values)} entries, expected {len(video)}, one per frame"
        )
    return values

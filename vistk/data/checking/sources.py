"""Which files ``vistk data check`` looks at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vistk.data.layouts import find_split
from vistk.data.ytvis import DataError

USUAL_SPLITS = ("train", "valid", "val", "test", "train2017", "val2017")
"""Looked for where no split is named, beside every folder with an instances.json."""

_COCO_PREFIX = "instances_"


@dataclass(frozen=True)
class Source:
    """A json file and its images."""

    name: str  # of the split
    json_path: Path
    image_root: Path | None
    no_images: str = ""  # why there is no image folder, where there should be one


def sources(
    root: Path, splits: Sequence[str], image_root: Path | None, with_images: bool, data: str = ""
) -> list[Source]:
    """The splits to check: those named, or all that are found.

    Args:
        root: folder of a data set, or one json file, whose images ``image_root`` holds.
        with_images: whether images will be looked at.
        data: name of the data set, where ``root`` is a folder of data sets.

    Raises:
        FileNotFoundError: nothing to check, or a split that is named has no json file.
        DataError: the arguments do not go together.
    """
    if root.is_file():
        if splits:
            raise DataError(f"{root} is one file: it has no splits to choose from")
        if image_root is None and with_images:
            raise DataError(f"where are the images of {root}? Give --image-root DIR, or --images none")
        if image_root is not None and not image_root.is_dir():
            raise FileNotFoundError(f"image folder {image_root} does not exist")
        return [Source(root.stem, root, image_root)]
    if not root.is_dir():
        raise FileNotFoundError(f"{root} does not exist, expected the folder of a data set or a json file")
    if image_root is not None:
        raise DataError(f"--image-root is for a single json file, {root} is a folder")
    there = _json_files(root)
    found: dict[Path, Source] = {}
    for name in dict.fromkeys(splits or (*USUAL_SPLITS, *there)):
        try:
            source = Source(name, *find_split(root, name, data))
        except FileNotFoundError as error:
            if name in there:
                source = _without_folder(root, name, there[name], str(error) if with_images else "")
            elif splits:
                raise
            else:
                continue
        found.setdefault(source.json_path, source)  # "valid" is also found as "val"
    if not found:
        names = ", ".join(sorted(path.relative_to(root).as_posix() for path in root.rglob("*.json"))[:8])
        raise FileNotFoundError(
            f"no split found in {root}: looked for {', '.join(USUAL_SPLITS)}; it holds "
            f"{names or 'no json file'}; name a split, or give one json file with its image folder"
        )
    return list(found.values())


def _json_files(root: Path) -> dict[str, Path]:
    """Annotations by split, for files that are named like them."""
    found = {path.parent.name: path for path in sorted(root.glob("*/instances.json"))}
    for name in USUAL_SPLITS:
        for path in (f"{name}.json", f"annotations_{name}.json", f"annotations/{_COCO_PREFIX}{name}.json"):
            if (root / path).is_file():
                found.setdefault(name, root / path)
    return found


def _without_folder(root: Path, name: str, json_path: Path, reason: str) -> Source:
    """A split that no video layout fits; that of COCO may."""
    if json_path.name.startswith(_COCO_PREFIX):
        for folder in (root / name, root / "images" / name):
            if folder.is_dir():
                return Source(name, json_path, folder)
    return Source(name, json_path, None, reason)

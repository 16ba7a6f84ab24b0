"""Reader of COCO's instances json: stills as videos of one frame."""

from __future__ import annotations

import json
import math
from array import array
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from vistk.data.categories import COCO_TO, TABLES
from vistk.data.stills import Polygons, StillAnnotations, StillRecords
from vistk.data.ytvis import YTVIS, DataError, is_finite
from vistk.ops.masks import FARTHEST, to_rle
from vistk.ops.runs import first_broken
from vistk.structures import RLE

CLASS_MAPS: Mapping[str, Mapping[int, int]] = {
    "coco": {identity: identity for identity in TABLES["coco"]},
    **COCO_TO,
}
"""COCO category id to that of the classes to learn, by the name of their table."""


def load_coco(root: str | Path, split: str, classes: str = "coco") -> YTVIS:
    """A split of COCO as a data set of one-frame videos, the image id as video id.

    Args:
        root: folder with ``annotations`` and the images, or one that holds it as ``coco``.
        split: ``train2017``, ``val2017``, .., or the name of a file in ``annotations`` without ``.json``.
        classes: a key of :data:`CLASS_MAPS`. Annotations of classes that are not mapped are dropped; images
            without annotations stay.

    Raises:
        FileNotFoundError: the annotations or the images are not there; says what was looked for.
        DataError: an entry is broken; names the file, the entry and the field, what was found and what was
            expected.
    """
    return read_coco(*find_coco(root, split, classes), classes)


def find_coco(root: str | Path, split: str, classes: str = "coco") -> tuple[Path, Path]:
    """The json file and the image folder of a split of COCO.

    Annotations, the first one that exists: ``annotations/instances_SPLIT.json``, the files that VIS
    repositories filter from it (``annotations/coco2ytvis2019_train.json`` and the like, only those of
    ``classes``), ``annotations/SPLIT.json``. Images: ``SPLIT`` or ``images/SPLIT``.

    Raises:
        FileNotFoundError: one of them is missing.
    """
    root = Path(root)
    if not root.is_dir():
        raise FileNotFoundError(f"data folder {root} does not exist")
    part = split.removesuffix("2017").rpartition("_")[2]  # train, of train2017 and coco2ovis_train
    filtered = [f"coco2{name}_{part}.json" for name in (classes, *_SAME_CLASSES.get(classes, ()))]
    names = [f"instances_{split}.json", *(filtered if classes != "coco" else []), f"{split}.json"]
    folders = [split, f"images/{split}"]
    if not split.endswith("2017"):
        folders += [f"{part}2017", f"images/{part}2017"]
    places = [root, root / "coco", root / "COCO"]
    jsons = [place / "annotations" / name for place in places for name in names]
    json_path = next((path for path in jsons if path.is_file()), None)
    if json_path is None:
        raise FileNotFoundError(
            f"no COCO annotations of split {split!r}: looked in {root}, its sub-folders coco and COCO, for "
            f"{', '.join(f'annotations/{name}' for name in names)}"
        )
    place = json_path.parent.parent
    images = next((place / name for name in folders if (place / name).is_dir()), None)
    if images is None:
        raise FileNotFoundError(
            f"no images of split {split!r} beside {json_path}: looked in {place} for {', '.join(folders)}"
        )
    return json_path, images


_SAME_CLASSES = {"ytvis2022": ("ytvis2021",)}


def read_coco(json_path: Path, image_root: Path, classes: str = "coco") -> YTVIS:
    """Read and check an instances json; no image is opened. See :func:`load_coco`."""
    if classes not in CLASS_MAPS:
        raise DataError(
            f"COCO has no map onto the classes of {classes!r}, expected one of {', '.join(CLASS_MAPS)}"
        )
    reader = _Reader(json_path)
    try:
        # Entries are taken apart as they are read, so that only one of them exists at a time.
        content = json.loads(json_path.read_text("utf-8-sig"), object_hook=reader.take)
    except DataError:
        raise
    except (ValueError, RecursionError) as error:  # JSONDecodeError, not UTF-8, or lists in lists in lists
        raise DataError(f"{json_path} is not json: {error}") from error
    if not isinstance(content, dict):
        raise DataError(f"{json_path}: found a {type(content).__name__}, expected an object with 'images'")
    if "videos" in content:
        raise DataError(f"{json_path} is a file of videos, expected a COCO file of stills ('images')")
    # A sequence that makes its entries when asked, where other readers have a tuple of all.
    videos = reader.records(content, classes)
    has_annotations = content.get("annotations") not in (None, [])
    return YTVIS(json_path, image_root, videos, dict(TABLES[classes]), has_annotations)


_IMAGE, _ANNOTATION = object(), object()
"""What is left of an entry in its list."""


class _Reader:
    """Takes the entries of a file apart into flat arrays, and checks them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.image_ids, self.sizes, self.names = array("q"), array("i"), list[str]()
        self.ids, self.image_of, self.categories = array("q"), array("q"), array("q")
        self.crowds, self.areas = array("b"), array("d")
        self.coordinates, self.ends, self.last = array("d"), array("q"), array("q")
        self.rles: dict[int, RLE] = {}

    def take(self, entry: dict[str, Any]) -> Any:
        """What json puts in the place of an object."""
        if "image_id" in entry:
            self._take_annotation(entry)
            return _ANNOTATION
        if "file_name" in entry:
            self._take_image(entry)
            return _IMAGE
        return entry

    def _take_image(self, entry: dict[str, Any]) -> None:
        where = f"{self.path}: images[{len(self.names)}]"
        try:
            self.image_ids.append(entry["id"])
            self.sizes.extend((entry["height"], entry["width"]))
        except (KeyError, TypeError, OverflowError):
            _check(entry, where, id=_INTEGER, height=_SIDE, width=_SIDE)
            raise
        if min(self.sizes[-2:]) < 1 or not isinstance(entry["file_name"], str):
            _check(entry, where, height=_SIDE, width=_SIDE, file_name=_TEXT)
        self.names.append(entry["file_name"])

    def _take_annotation(self, entry: dict[str, Any]) -> None:
        crowd, area = entry.get("iscrowd", 0), entry.get("area")
        if crowd not in (0, 1):
            _check(entry, self._where(), iscrowd=_FLAG)
        if area is not None and not is_finite(area):
            _check(entry, self._where(), area=_NUMBER)
        try:
            self.crowds.append(bool(crowd))
            self.areas.append(math.nan if area is None else area)
            self.ids.append(entry["id"])
            self.image_of.append(entry["image_id"])
            self.categories.append(entry["category_id"])
            segmentation = entry["segmentation"]
        except (KeyError, TypeError, OverflowError):
            ids: dict[str, Kind] = dict.fromkeys(("id", "image_id", "category_id"), _INTEGER)
            _check(entry, self._where(), **ids, segmentation=_ANY_MASK)
            raise
        try:
            self._take_segmentation(segmentation)
        except (ValueError, TypeError, OverflowError) as error:
            raise DataError(f"{self._where()} (id {entry['id']}): field 'segmentation': {error}") from error
        self.last.append(len(self.ends))

    def _take_segmentation(self, segmentation: Any) -> None:
        if isinstance(segmentation, dict) and "size" in segmentation:
            size = segmentation["size"]
            if not (isinstance(size, list) and len(size) == 2 and all(map(_SIDE[0], size))):
                raise ValueError(f"RLE size is {size!r}, expected [height, width]")
            self.rles[len(self.last)] = to_rle(segmentation, *size)
            return
        if not isinstance(segmentation, list) or not segmentation:
            to_rle(segmentation, 1, 1)  # says what is wrong with it
        for polygon in segmentation:
            if not isinstance(polygon, list) or len(polygon) < 6 or len(polygon) % 2:
                to_rle([polygon], 1, 1)
            self.coordinates.extend(polygon)
            self.ends.append(len(self.coordinates))

    def _where(self, row: int | None = None) -> str:
        """An annotation in words; ``None`` = the one that is being taken."""
        if row is None:
            return f"{self.path}: annotations[{len(self.last)}]"
        return f"{self.path}: annotations[{row}] (id {self.ids[row]}, image {self.image_of[row]})"

    def records(self, content: dict[str, Any], classes: str) -> StillRecords:
        """What was taken, checked, with the ids of the classes to learn.

        Args:
            content: the rest of the file.
        """
        self._check_lists(content)
        image_ids, ids = np.asarray(self.image_ids), np.asarray(self.ids)
        _refuse_twice(image_ids, f"{self.path}: images")
        _refuse_twice(ids, f"{self.path}: annotations")
        still_of = self._still_of(image_ids)
        sizes = np.asarray(self.sizes).reshape(-1, 2)
        self._check_masks(sizes[still_of])
        categories = self._categories(content, classes)
        kept = categories >= 0
        rows = np.flatnonzero(kept)[np.argsort(still_of[kept], kind="stable")]
        annotations = StillAnnotations(
            ids=ids,
            categories=categories,
            crowds=np.asarray(self.crowds, dtype=bool),
            areas=np.asarray(self.areas),
            polygons=Polygons(*map(np.asarray, (self.coordinates, self.ends, self.last))).of_rows(kept),
            rles={row: rle for row, rle in self.rles.items() if kept[row]},
        )
        counts = np.bincount(still_of[kept], minlength=len(image_ids))
        first = np.concatenate([[0], counts.cumsum()])
        return StillRecords(image_ids, sizes, self.names, rows, first, annotations, np.arange(len(image_ids)))

    def _check_lists(self, content: dict[str, Any]) -> None:
        """That all that was taken, and nothing else, stands in the two lists."""
        for name, mark, key in (("images", _IMAGE, "file_name"), ("annotations", _ANNOTATION, "image_id")):
            if name in content or mark is _IMAGE:
                _check(content, str(self.path), **{name: _LIST})
            entries = content.get(name, [])
            for i, entry in enumerate(entries):
                if entry is mark:
                    continue
                where = f"{self.path}: {name}[{i}]"
                if isinstance(entry, dict):
                    _check(entry, where, **{key: _TEXT if key == "file_name" else _INTEGER})
                raise DataError(f"{where}: found something else than an object with '{key}'")
        found = (len(content["images"]), len(content.get("annotations", [])))
        if found != (len(self.names), len(self.last)):
            raise DataError(
                f"{self.path}: {len(self.names)} images and {len(self.last)} annotations stand in the file, "
                f"{found[0]} and {found[1]} of them in its lists, expected all"
            )

    def _still_of(self, image_ids: np.ndarray) -> np.ndarray:
        """Position of each annotation's image."""
        wanted = np.asarray(self.image_of)
        order = np.argsort(image_ids)
        places = np.searchsorted(image_ids, wanted, sorter=order)
        known = places < len(image_ids)
        known[known] = image_ids[order[places[known]]] == wanted[known]
        if not known.all():
            row = int(np.argmin(known))
            raise DataError(
                f"{self._where(row)}: field 'image_id' is {wanted[row]}, expected the id of one of the images"
            )
        return order[places]

    def _check_masks(self, sizes: np.ndarray) -> None:
        """Coordinates that a rasteriser can take, and runs that cover their image: ``(n, 2)`` sizes."""
        values = np.asarray(self.coordinates)
        if len(values) and not (values.min() >= -FARTHEST and values.max() <= FARTHEST):
            bad = np.flatnonzero(~(np.abs(values) <= FARTHEST))[0]
            polygon = np.searchsorted(np.asarray(self.ends), bad, "right")
            row = int(np.searchsorted(np.asarray(self.last), polygon, "right"))
            raise DataError(
                f"{self._where(row)}: field 'segmentation' has the coordinate {values[bad]}, expected pixels "
                "of the image"
            )
        for row, rle in self.rles.items():
            if rle["size"] != sizes[row].tolist():
                raise DataError(
                    f"{self._where(row)}: field 'segmentation' has size {rle['size']}, expected "
                    f"{sizes[row].tolist()}, height and width of the image"
                )
        broken = first_broken(list(self.rles.values()))
        if broken is not None:
            raise DataError(f"{self._where(list(self.rles)[broken[0]])}: field 'segmentation': {broken[1]}")

    def _categories(self, content: dict[str, Any], classes: str) -> np.ndarray:
        """The class to learn of each annotation, -1 where there is none."""
        names: dict[int, str] = {}
        _check(content, str(self.path), categories=_LIST)
        for i, entry in enumerate(content["categories"]):
            _check(entry, f"{self.path}: categories[{i}]", id=_INTEGER, name=_TEXT)
            names[entry["id"]] = entry["name"]
        mapped = self._class_map(names, classes)
        found, inverse = np.unique(np.asarray(self.categories), return_inverse=True)
        unknown = [identity for identity in found.tolist() if identity not in names]
        if unknown:
            row = self.categories.index(unknown[0])
            raise DataError(
                f"{self._where(row)}: field 'category_id' is {unknown[0]}, expected the id of one of the "
                "categories"
            )
        targets = np.array([mapped.get(identity, -1) for identity in found.tolist()], dtype=np.int64)
        return targets[inverse] if len(found) else np.zeros(0, dtype=np.int64)

    def _class_map(self, names: Mapping[int, str], classes: str) -> Mapping[int, int]:
        """From the file's category ids: it has COCO's own, or already those of the classes to learn."""
        plain = {(identity, _plain(name)) for identity, name in names.items()}
        if plain <= {(identity, _plain(name)) for identity, name in TABLES["coco"].items()}:
            return CLASS_MAPS[classes]
        if plain <= {(identity, _plain(name)) for identity, name in TABLES[classes].items()}:
            return {identity: identity for identity in names}
        few = ", ".join(f"{identity} = {name}" for identity, name in list(names.items())[:3])
        either = "COCO's" if classes == "coco" else f"COCO's or those of {classes}"
        raise DataError(f"{self.path} has other categories than {either} (it begins with {few})")


def _plain(name: str) -> str:
    """Spelling that does not tell categories apart."""
    return name.lower().replace("_", "").replace("-", "").replace(" ", "")


def _refuse_twice(ids: np.ndarray, where: str) -> None:
    found, counts = np.unique(ids, return_counts=True)
    if (counts > 1).any():
        twice = found[counts > 1][0]
        again = np.flatnonzero(ids == twice)[1]
        raise DataError(f"{where}[{again}]: field 'id' is {twice} a second time, expected unique ids")


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63


Kind = tuple[Callable[[Any], bool], str]
_INTEGER: Kind = (_is_integer, "an integer")
_SIDE: Kind = (lambda value: _is_integer(value) and 0 < value < 2**31, "a positive integer")
_FLAG: Kind = (lambda value: value in (0, 1), "0 or 1")
_NUMBER: Kind = (lambda value: value is None or is_finite(value), "a finite number or null")
_TEXT: Kind = (lambda value: isinstance(value, str), "a string")
_LIST: Kind = (lambda value: isinstance(value, list), "a list")
_ANY_MASK: Kind = (lambda value: True, "polygons or an RLE")


def _check(entry: Any, where: str, **kinds: Kind) -> None:
    """Refuse the first field that is missing or of another kind."""
    if not isinstance(entry, dict):
        raise DataError(f"{where}: found a {type(entry).__name__}, expected an object")
    for name, (fits, expected) in kinds.items():
        if name not in entry:
            raise DataError(f"{where}: field '{name}' is missing, expected {expected}")
        if not fits(entry[name]):
            text = repr(entry[name])
            text = text if len(text) <= 60 else f"{text[:57]}..."
            raise DataError(f"{where}: field '{name}' is {text}, expected {expected}")

"""Reading a json file entry by entry, with one sentence for whatever is wrong in it."""

from __future__ import annotations

import gc
import math
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from numbers import Integral, Real
from operator import itemgetter
from pathlib import Path
from reprlib import repr as short
from types import NoneType
from typing import Any

import numpy as np

from vistk.data.json_stream import load_json
from vistk.ops.masks import MOST_PIXELS, Tube, to_rle
from vistk.ops.runs import count_pixels, run_lengths, what_is_wrong
from vistk.structures import RLE


class EvaluationFileError(ValueError):
    """A ground truth or results file that cannot be evaluated; the message says where and why."""


class EntryError(EvaluationFileError):
    """One entry of a file that cannot be used.

    Attributes:
        reason: the kind of fault in a few words, the same for all entries that have it.
    """

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


MISSING = "entry that is no dict or lacks a key"
NUMBER = "id or score that is no number"
FRAMES = "wrong number of frames"
SIZE = "mask of another size"
BROKEN = "broken mask"
_KEPT = 1 << 24  # bytes


@contextmanager
def collector_paused() -> Iterator[None]:
    """Without the cyclic garbage collector, which looks through all that was read, again and again.

    Also, from here on, the C library gives less of what is freed back to the system, which would have to
    clear it for the next arrays: glibc keeps up to twice the largest block that was ever freed.
    """
    enabled = gc.isenabled()
    gc.disable()
    np.empty(_KEPT, dtype=np.uint8)  # never touched, so it costs nothing
    try:
        yield
    finally:
        if enabled:
            if not gc.get_freeze_count():  # what was read counts as old from the start
                gc.freeze()
                gc.unfreeze()
            gc.enable()


def read(given: Any, name: str) -> tuple[str, Any]:
    """The name to use in messages, and the parsed content of a path, or of what was parsed already."""
    if not isinstance(given, str | Path):
        return name, given
    path = Path(given)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such {name} file, expected a json file")
    try:
        return str(path), load_json(path)
    except ValueError as error:  # JSONDecodeError, or bytes that are not UTF-8
        if zipfile.is_zipfile(path):  # what is submitted to a server
            raise EvaluationFileError(
                f"{path}: the {name} file is a zip archive, expected the json file that is in it"
            ) from error
        raise EvaluationFileError(f"{path}: the {name} file is not json ({error})") from error


def kind(value: Any) -> str:
    """The type of what was looked up under a key, in words."""
    return "missing" if value is None else type(value).__name__


def what(value: Any) -> str:
    """The type of a value that is there, in words."""
    return "null" if value is None else f"a {kind(value)}"


def require(where: str, entry: Any, keys: Sequence[str]) -> None:
    """Raises unless the entry is a dict with these keys."""
    if not isinstance(entry, Mapping):
        raise EntryError(f"{where}: found {what(entry)}, expected a dict", MISSING)
    for key in keys:
        if key not in entry:
            raise EntryError(
                f"{where}: '{key}' is missing, found the keys {sorted(map(str, entry))}, "
                f"expected {list(keys)}",
                MISSING,
            )


def integer(where: str, entry: Mapping[str, Any], key: str) -> int:
    """An id or a size; any integer."""
    value = entry[key]
    if type(value) is int:
        return value
    if not isinstance(value, Integral) or isinstance(value, bool):
        raise EntryError(f"{where}: '{key}' is {short(value)}, expected an integer", NUMBER)
    return int(value)


def is_number(value: Any) -> bool:
    """Whether it is a number that a float can hold, and not NaN or infinite."""
    try:
        plain = type(value) in (float, int)  # asking for Real takes far longer
        return (plain or (isinstance(value, Real) and not isinstance(value, bool))) and math.isfinite(value)
    except OverflowError:
        return False


def by_id(
    source: str, name: str, entries: Sequence[Any], keys: Sequence[str], make: Callable[[str, Any], Any]
) -> dict[int, Any]:
    """What ``make(where, entry)`` makes of the entries of a list, by rising id."""
    found: dict[int, Any] = {}
    for index, entry in enumerate(entries):
        where = f"{source}: {name}[{index}]"
        require(where, entry, ("id", *keys))
        key = integer(where, entry, "id")
        if key in found:
            raise EvaluationFileError(f"{where}: 'id' {key} occurs twice, expected unique ids")
        found[key] = make(where, entry)
    return dict(sorted(found.items()))


def per_frame(where: str, values: Any, key: str, num_frames: int) -> Sequence[Any]:
    """A list with one entry a frame."""
    if not isinstance(values, Sequence) or isinstance(values, str):
        raise EntryError(
            f"{where}: '{key}' is {what(values)}, expected a list with one entry a frame", FRAMES
        )
    if len(values) != num_frames:
        raise EntryError(
            f"{where}: '{key}' has {len(values)} entries, expected {num_frames}, the frames of its video",
            FRAMES,
        )
    return values


def tube(where: str, segmentations: Any, height: int, width: int, num_frames: int) -> Tube:
    """The masks of one entry as compressed RLEs, their runs not yet looked at (see :func:`counted`)."""
    size = [height, width]
    given = per_frame(where, segmentations, "segmentations", num_frames)
    present = [mask for mask in given if mask is not None] if NoneType in set(map(type, given)) else given
    if height * width <= MOST_PIXELS and _are_compressed(present, size):
        return Tube(given)
    masks: list[RLE | None] = []
    for t, mask in enumerate(given):
        if mask is None:
            masks.append(None)
            continue
        try:
            masks.append(to_rle(mask, height, width))
        except (ValueError, TypeError) as error:
            raise EntryError(
                f"{where}: 'segmentations' of frame {t}: {error}",
                SIZE if _is_of_another_size(mask, size) else BROKEN,
            ) from error
    return Tube(masks)


def _are_compressed(masks: Sequence[Any], size: list[int]) -> bool:
    """Whether all are compressed RLEs of this size and nothing else: so nearly all files have them."""
    if not (set(map(type, masks)) <= {dict} and set(map(len, masks)) <= {2}):
        return False
    try:
        sizes, counts = (list(map(itemgetter(key), masks)) for key in ("size", "counts"))
    except KeyError:
        return False
    return sizes.count(size) == len(masks) and set(map(type, counts)) <= {str}


def _is_of_another_size(mask: Any, size: list[int]) -> bool:
    found = mask.get("size") if isinstance(mask, Mapping) else None
    return isinstance(found, Sequence) and list(found) != size


def counted(tubes: Sequence[tuple[str, Tube, int]]) -> list[Tube | EntryError]:
    """Reads the runs of all masks at once.

    Args:
        tubes: where each stands, in words; its masks; and the pixels of a frame.

    Returns:
        each tube, knowing its areas and fit to be compared; or what is wrong with it.
    """
    present: list[list[int]] = []
    texts: list[str] = []
    for _, masks, _ in tubes:
        there = [(t, mask["counts"]) for t, mask in enumerate(masks) if mask is not None]
        present.append([t for t, _ in there])
        texts.extend(text for _, text in there)
    covered, inside, canonical = count_pixels(texts)
    checked: list[Tube | EntryError] = []
    first = 0
    for (where, masks, pixels), frames in zip(tubes, present, strict=True):
        part = slice(first, first := first + len(frames))
        wrong = np.flatnonzero(covered[part] != pixels)
        if len(wrong):
            problem = what_is_wrong(int(covered[part][wrong[0]]), pixels)
            message = f"{where}: 'segmentations' of frame {frames[wrong[0]]}: {problem}"
            checked.append(EntryError(message, BROKEN))
            continue
        if not canonical[part].all():
            masks = _without_empty_runs(masks, [frames[i] for i in np.flatnonzero(~canonical[part])])
        areas = np.zeros(len(masks))
        areas[frames] = inside[part]
        masks.areas = areas
        checked.append(masks)
    return checked


def _without_empty_runs(masks: Tube, frames: Sequence[int]) -> Tube:
    """The same masks, written anew in these frames."""
    written = list(masks)
    for t in frames:
        rle = masks[t]
        assert rle is not None
        written[t] = to_rle(rle | {"counts": run_lengths(rle["counts"]).tolist()}, *rle["size"])
    return Tube(written)

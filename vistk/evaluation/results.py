"""Results files: predictions, read and checked against the ground truth."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np

from vistk.evaluation.data_sets import other_data_set
from vistk.evaluation.ground_truth import check_masks
from vistk.evaluation.reading import (
    NUMBER,
    EntryError,
    EvaluationFileError,
    collector_paused,
    counted,
    integer,
    is_number,
    read,
    require,
    short,
    tube,
    what,
)
from vistk.evaluation.records import GroundTruth, Prediction, Results, Shared, Video
from vistk.ops.masks import Tube
from vistk.ops.tube_pixels import TubePixels, tube_pixels

KEYS = ("video_id", "category_id", "score", "segmentations")
UNKNOWN = "unknown"

Item = TypeVar("Item")
Made = TypeVar("Made")


def load_results(
    results: str | Path | Sequence[Mapping[str, Any]] | Results,
    ground_truth: GroundTruth,
    *,
    lenient: bool = False,
    all_pairs: bool = False,
) -> Results:
    """Reads a results file (a path, its parsed content, or the result of this function) and checks it
    against the ground truth.

    Args:
        lenient: leave out the entries that cannot be used, and count them in ``Results.skipped``.
        all_pairs: predictions will be compared with instances of other categories, too. It is faster to know
            now, and makes no other difference.

    Raises:
        EvaluationFileError, FileNotFoundError: as :func:`vistk.evaluation.files.load_ground_truth` does; or
            the result of this function is of other videos or categories. With ``lenient`` only where the
            file is no list of predictions, or no entry of it can be used.
    """
    if isinstance(results, Results):
        _require_fit(results, ground_truth)
        check_masks(ground_truth.videos)
        return results
    with collector_paused():
        source, content = read(results, "results")
        if not isinstance(content, Sequence) or isinstance(content, str):
            raise EvaluationFileError(
                f"{source}: found {what(content)}, expected a list of predictions{_hint(content)}"
            )
        return _Reader(source, ground_truth, lenient, all_pairs).read(content)


def _hint(content: Any) -> str:
    """What a file that is no list of predictions may be."""
    if not isinstance(content, Mapping):
        return ""
    if "videos" in content:
        return "; is this the ground truth?"
    for key in ("results", "annotations", "predictions"):
        if isinstance(content.get(key), Sequence):
            return f"; its '{key}' has {len(content[key])} entries, write that list alone to a file"
    return ""


def _require_fit(results: Results, ground_truth: GroundTruth) -> None:
    """What was read for one ground truth can be scored on another that has the same videos and categories."""
    shapes = {video.id: (video.num_frames, [video.height, video.width]) for video in ground_truth.videos}
    for video_id, predictions in results.videos.items():
        for prediction in predictions:
            sizes = (list(mask["size"]) for mask in prediction.masks if mask is not None)
            num_frames, size = shapes.get(video_id, (-1, []))
            if len(prediction.masks) != num_frames or next(sizes, size) != size:
                found = f"video {video_id} of these frames"
            elif prediction.category_id not in ground_truth.categories:
                found = f"category {prediction.category_id}"
            else:
                continue
            raise EvaluationFileError(
                f"{results.source}: was read for another ground truth, {ground_truth.source} has no {found}; "
                "expected the file itself, or its content"
            )


class _Ids(NamedTuple):
    at: int  # position of the entry in the file
    video: int
    category: int


class _Entry(NamedTuple):
    """A prediction whose runs of masks are yet to be looked at."""

    where: str
    video_id: int
    category_id: int
    score: float
    masks: Tube
    pixels: int  # of a frame


class _Reader:
    """Predictions from the entries of one file, in two turns: first all but the runs of masks, then these."""

    def __init__(self, source: str, ground_truth: GroundTruth, lenient: bool, all_pairs: bool) -> None:
        self.source, self.lenient, self.all_pairs = source, lenient, all_pairs
        self.truth, self.categories = ground_truth.source, ground_truth.categories
        self.videos = {video.id: video for video in ground_truth.videos}
        self.skipped: Counter[str] = Counter()

    def read(self, content: Sequence[Any]) -> Results:
        ids = list(self._usable(range(len(content)), lambda at: self._ids(at, content[at])))
        if not self.lenient:
            self._check_known("video", [i.video for i in ids], self.videos, ids)
            self._check_known("category", [i.category for i in ids], self.categories, ids)
        entries = list(self._usable(ids, lambda found: self._entry(found, content[found.at])))
        videos: dict[int, list[Prediction]] = {}
        shared = self._shared(entries)
        check_masks(self.videos.values())
        rest = [entry for entry, pixels in zip(entries, shared, strict=True) if pixels is None]
        checked = iter(counted([(entry.where, entry.masks, entry.pixels) for entry in rest]))
        for entry, pixels in zip(entries, shared, strict=True):
            masks = entry.masks if pixels is not None else next(checked)
            if isinstance(masks, EntryError):
                self._skip(masks)
            else:
                prediction = Prediction(entry.category_id, entry.score, masks, pixels)
                videos.setdefault(entry.video_id, []).append(prediction)
        if content and not videos:
            reasons = ", ".join(f"{count} x {reason}" for reason, count in sorted(self.skipped.items()))
            unknown = any(reason.startswith(UNKNOWN) for reason in self.skipped)
            hint = self._question(ids) if unknown else ""
            raise EvaluationFileError(f"{self.source}: no entry can be used ({reasons}){hint}")
        found = {video_id: tuple(predictions) for video_id, predictions in videos.items()}
        return Results(self.source, found, dict(sorted(self.skipped.items())))

    def _shared(self, entries: Sequence[_Entry]) -> list[Shared | None]:
        """What each entry shares with instances: as its runs have to be read to be checked, they are
        compared at once. None for those that may be broken.
        """
        of_video: dict[int, list[int]] = {}
        for i, entry in enumerate(entries):
            of_video.setdefault(entry.video_id, []).append(i)
        shared: list[Shared | None] = [None] * len(entries)
        for video_id, own in of_video.items():
            video = self.videos[video_id]
            categories = np.array([entries[i].category_id for i in own])
            pairs = categories[:, None] == [instance.category_id for instance in video.instances]
            pairs |= self.all_pairs
            found = self._pixels(video, [entries[i].masks for i in own], pairs)
            if found is None and any(instance.unchecked for instance in video.instances):
                check_masks([video])  # writes some anew, or says what is wrong with them
                found = self._pixels(video, [entries[i].masks for i in own], pairs)
            if found is None:
                continue
            for instance, areas in zip(video.instances, found.other_areas, strict=True):
                if instance.unchecked:
                    masks = Tube(instance.masks)
                    masks.areas = areas.astype(np.float64)
                    instance.check(masks)
            for n in np.flatnonzero(found.sound).tolist():
                entries[own[n]].masks.areas = found.areas[n].astype(np.float64)
                shared[own[n]] = Shared(video.instances, pairs[n], found.shared[n].astype(np.int32))
        return shared

    @staticmethod
    def _pixels(video: Video, masks: Sequence[Tube], pairs: np.ndarray) -> TubePixels | None:
        others = [instance.masks for instance in video.instances]
        return tube_pixels(masks, others, video.num_frames, (video.height, video.width), pairs)

    def _usable(self, items: Iterable[Item], make: Callable[[Item], Made]) -> Iterator[Made]:
        for item in items:
            try:
                made = make(item)
            except EntryError as error:
                self._skip(error)
            else:
                yield made

    def _skip(self, error: EntryError) -> None:
        if not self.lenient:
            raise error
        self.skipped[error.reason] += 1

    def _ids(self, at: int, entry: Any) -> _Ids:
        where = f"{self.source}: entry {at}"
        require(where, entry, KEYS)
        return _Ids(at, integer(where, entry, "video_id"), integer(where, entry, "category_id"))

    def _entry(self, ids: _Ids, entry: Mapping[str, Any]) -> _Entry:
        where = f"{self.source}: entry {ids.at}"
        for known, name, value in (
            (self.videos, "video", ids.video),
            (self.categories, "category", ids.category),
        ):
            if value not in known:  # only where entries may be skipped
                raise EntryError(f"{where}: '{name}_id' {value} is unknown", f"{UNKNOWN} {name}")
        score = entry["score"]
        if not is_number(score):
            raise EntryError(f"{where}: 'score' is {short(score)}, expected a finite number", NUMBER)
        video = self.videos[ids.video]
        masks = tube(where, entry["segmentations"], video.height, video.width, video.num_frames)
        return _Entry(where, ids.video, ids.category, float(score), masks, video.height * video.width)

    def _check_known(
        self, name: str, values: Sequence[int], known: Mapping[int, Any], ids: Sequence[_Ids]
    ) -> None:
        """Unknown ids usually mean another data set, so the message counts them before naming the first."""
        found = set(values)
        unknown = found - known.keys()
        if not unknown:
            return
        first = next(i for i, value in enumerate(values) if value in unknown)
        raise EvaluationFileError(
            f"{self.source}: {len(unknown)} of {len(found)} {name} ids are unknown (first in entry "
            f"{ids[first].at}, '{name}_id' {values[first]}; {self.truth} has {len(known)})"
            f"{self._question(ids)}"
        )

    def _question(self, ids: Sequence[_Ids]) -> str:
        other = other_data_set(self.categories, {i.video for i in ids}, {i.category for i in ids})
        return f"; is this {other or 'another data set or split'}?"

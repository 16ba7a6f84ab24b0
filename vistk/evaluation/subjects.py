"""What is evaluated: ground truths, the parts that are scored apart, and the results files on each."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

from vistk.data.categories import YTVIS2021
from vistk.data.category_check import same_categories
from vistk.evaluation.ap_options import OCCLUSION_RANGES
from vistk.evaluation.data_sets import VIDEOS
from vistk.evaluation.files import EvaluationFileError, GroundTruth, Results, Video, load_ground_truth
from vistk.evaluation.parts import find_parts, require_complete, union
from vistk.evaluation.printing import plural
from vistk.evaluation.reading import by_id, kind, read
from vistk.evaluation.scores import Predicted, Truth

Many = Predicted | Sequence[str | Path] | Mapping[str, Predicted]
"""One results file, or several: a list of paths, or ``{name: results}``."""

_NO_NAME = ("instances", "annotations", "gt")  # what a file of annotations may be called whatever its split
_SPLITS = ("train", "training", "val", "valid", "validation", "test", "dev")


@dataclass(frozen=True)
class DataSet:
    """One ground truth and the results on it, as they are given.

    Attributes:
        ground_truth: a json file or its parsed content.
        results: as :data:`Many`; the others are compared with the first.
        name: what to call it; None: by its path. With a name of
            :func:`vistk.evaluation.quoted.data_sets`, its published numbers are those of that data set.
        parts: annotations of the parts that are scored apart, by the suffix of their metrics (see
            :mod:`vistk.evaluation.parts`). True: those that lie beside the ground truth, if any; False: none.
    """

    ground_truth: Truth
    results: Many
    name: str | None = None
    parts: Mapping[str, Truth] | bool = True


@dataclass(frozen=True, eq=False)
class Subject:
    """A data set whose ground truth was read.

    Attributes:
        truth: of all videos that are scored.
        parts: of each part; empty where all is scored as one.
        named: whether the name of the data set was given, not guessed.
        notes: what a reader of its numbers should know, in sentences.
    """

    data_set: str
    split: str
    truth: GroundTruth
    parts: Mapping[str, GroundTruth]
    files: Mapping[str, Predicted]
    named: bool
    notes: tuple[str, ...] = ()

    @property
    def place(self) -> str:
        """Data set and split."""
        return f"{self.data_set} {self.split}".strip()

    def split_of(self, word: str) -> str:
        """The split of a part."""
        return f"{self.split} ({word})".strip()


def open_data_sets(given: Sequence[DataSet]) -> list[Subject]:
    """Reads the ground truths, and names them and the results files: in a way that the names of one method's
    results on several data sets are the same, as far as their paths tell.

    Raises:
        EvaluationFileError, FileNotFoundError: a file cannot be used; the message says what to mend.
    """
    if not given:
        raise EvaluationFileError("no ground truth, expected at least one")
    subjects = []
    for one in given:
        truth, parts = _read(one)
        source = str(one.ground_truth) if isinstance(one.ground_truth, str | Path) else truth.source
        guessed, split = named_place(source)
        files = named_results(one.results, without=(guessed, split) if len(given) > 1 else ())
        named = one.name is not None
        subjects.append(
            Subject(one.name or guessed, split, truth, parts, files, named, tuple(_notes(one, truth, parts)))
        )
    again, times = Counter(subject.place for subject in subjects).most_common(1)[0]
    if times > 1:
        raise EvaluationFileError(f"{times} ground truths are called {again!r}, expected a name for each")
    alone = all(len(one.files) == 1 for one in subjects)
    if alone and not any(isinstance(one.results, Mapping) for one in given):
        name = _common([next(iter(subject.files)) for subject in subjects])
        subjects = [replace(one, files={name: next(iter(one.files.values()))}) for one in subjects]
    return subjects


def _notes(given: DataSet, truth: GroundTruth, parts: Mapping[str, GroundTruth]) -> Iterator[str]:
    size = VIDEOS["YouTube-VIS 2022"]["valid"]
    unsure = given.parts and not parts
    if unsure and len(truth.videos) == size and same_categories(truth.categories, YTVIS2021):
        yield (
            f"These {size} videos may be those of YouTube-VIS 2022, whose server scores its short and its "
            "long ones apart and takes the mean: name their annotations by --parts SHORT.json LONG.json."
        )


def overlapping_groups(truth: GroundTruth) -> Iterator[str]:
    """What a reader of AP in occlusion groups should know, if it concerns these instances."""
    borders = {high for _, high in OCCLUSION_RANGES.values()} & {low for low, _ in OCCLUSION_RANGES.values()}
    twice = sum(i.occlusion in borders and not i.iscrowd for video in truth.videos for i in video.instances)
    if twice:
        yield (
            f"The occlusion groups so, mo, ho overlap, as officially: {plural(twice, 'instance')} on a "
            "border in two of them, and a prediction that finds nothing is wrong in all three."
        )


def _read(given: DataSet) -> tuple[GroundTruth, Mapping[str, GroundTruth]]:
    """The truth about all videos, and about each part."""
    path, found = given.ground_truth, given.parts
    if isinstance(found, bool):
        beside = found and isinstance(path, str | Path) and Path(path).is_file()
        found = find_parts(path) if beside and isinstance(path, str | Path) else {}
    if not found:
        return load_ground_truth(path, runs_later=True), {}
    whole = _videos(path)
    parts = {suffix: load_ground_truth(part, runs_later=True) for suffix, part in found.items()}
    try:
        require_complete(whole, parts)
    except EvaluationFileError as error:
        if isinstance(given.parts, Mapping):
            raise
        raise EvaluationFileError(f"{error}; to score it as one, say parts=False (--no-parts)") from error
    return replace(union(parts), source=whole.source), parts


def _videos(ground_truth: Truth) -> GroundTruth:
    """The videos alone: published validation files come without annotations."""
    if isinstance(ground_truth, GroundTruth):
        return ground_truth
    source, content = read(ground_truth, "ground truth")
    videos = content.get("videos") if isinstance(content, Mapping) else content
    if not isinstance(videos, Sequence) or not isinstance(content, Mapping):
        raise EvaluationFileError(
            f"{source}: 'videos' is {kind(videos)}, expected a dict with a list of videos"
        )
    ids = by_id(source, "videos", videos, (), lambda where, entry: None)
    return GroundTruth(source, tuple(Video(key, 0, 0, 0, ()) for key in ids), {})


def named_place(source: str) -> tuple[str, str]:
    """Data set and split that a ground truth file is of, as its path has it: ``DIR/valid.json``,
    ``DIR/valid/instances.json``, ``DIR/annotations/instances_valid.json``, ``DIR/gt.json``.
    """
    path = Path(source)
    if path.suffix != ".json":
        return source, ""
    *folders, split = path.resolve().with_suffix("").parts[1:]
    for word in _NO_NAME:
        split = split.removeprefix(word).strip("_")
    if not split and folders and folders[-1] in _SPLITS:
        split = folders.pop()
    while folders and folders[-1] in ("annotations", split):
        folders.pop()
    return (folders[-1] if folders else path.stem), split


def named_results(results: Many, without: Collection[str] = ()) -> dict[str, Predicted]:
    """Results files by name: what tells their paths apart, or the names that they were given.

    Args:
        without: folders that name no method, but the data set and the split.
    """
    if isinstance(results, Mapping):
        if not results:
            raise EvaluationFileError("no results file, expected at least one")
        return dict(results)
    if isinstance(results, Results):
        return {named_place(results.source)[1] or results.source: results}
    if isinstance(results, str | Path):
        return {_short_name(Path(results), without): results}
    paths = [Path(file) for file in results if isinstance(file, str | Path)]
    if paths and len(paths) == len(results):
        return dict(zip(_told_apart(paths, without), paths, strict=True))
    return {"results": cast(Predicted, results)}  # parsed content


def _short_name(path: Path, without: Collection[str]) -> str:
    if path.stem != "results":
        return path.stem
    folders = [folder for folder in path.resolve().parent.parts[1:] if folder not in without]
    return folders[-1] if folders else path.stem


def _told_apart(paths: Sequence[Path], without: Collection[str]) -> list[str]:
    """A name for each path: its parts that are not those of all, at the start or at the end."""
    if len(paths) == 1:
        return [_short_name(paths[0], without)]
    resolved = [path.resolve() for path in paths]
    again = next((path for i, path in enumerate(resolved) if path in resolved[:i]), None)
    if again is not None:
        raise EvaluationFileError(f"{again}: given twice, expected different results files")
    parts = [(*path.parent.parts, path.name.removesuffix(".json")) for path in resolved]
    if len(set(parts)) < len(parts):  # "a.json" and "a"
        parts = [path.parts for path in resolved]
    for end in (0, -1):
        while all(len(p) > 1 for p in parts) and len({p[end] for p in parts}) == 1:
            parts = [p[1:] if end == 0 else p[:-1] for p in parts]
    return ["/".join(p) for p in parts]


def _common(names: Sequence[str]) -> str:
    """One name for the results of one method: the words at the start or at the end of all of them."""
    if len(set(names)) == 1:
        return names[0]
    words = [re.split(r"[\W_]+", name) for name in names]
    for step in (1, -1):
        shared = []
        for column in zip(*(own[::step] for own in words), strict=False):
            if len(set(column)) > 1:
                break
            shared.append(column[0])
        if shared:
            return "_".join(shared[::step])
    return "results"

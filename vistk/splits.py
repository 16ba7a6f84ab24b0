"""The data of a run: what is trained on, what is tracked, and what is known of the truth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from accelerate import Accelerator

from vistk.config import RunConfig
from vistk.data.categories import COCO_TO
from vistk.data.category_check import check_categories
from vistk.data.coco import load_coco
from vistk.data.config import CocoConfig, DataConfig, SyntheticConfig
from vistk.data.holdout import describe, split_videos
from vistk.data.layouts import find_split
from vistk.data.synthetic import ensure
from vistk.data.ytvis import YTVIS, DataError
from vistk.evaluation.files import GroundTruth, load_ground_truth
from vistk.evaluation.ground_truth import ground_truth_of
from vistk.evaluation.parts import find_parts, require_complete
from vistk.schema import ConfigError

LOCAL = "local"
"""Name of the split that is held out of the training videos."""


@dataclass(frozen=True)
class EvaluationSplit:
    """Videos to track and, where it is known, the truth about them."""

    source: YTVIS
    truth: GroundTruth | None = None  # of all videos; None where it is hidden or comes in parts
    parts: Mapping[str, GroundTruth] = field(default_factory=dict)  # of YouTube-VIS 2022, by suffix

    @property
    def scored(self) -> bool:
        return self.truth is not None or bool(self.parts)


@dataclass(frozen=True)
class RunData:
    """What a run reads."""

    training: YTVIS | None  # None: nothing is trained
    stills: YTVIS | None  # trained on beside the videos
    evaluation: Mapping[str, EvaluationSplit]
    categories: Mapping[int, str]  # of all of them
    notes: Mapping[str, str]  # for the card of the table


def open_data(config: RunConfig, accelerator: Accelerator) -> RunData:
    """Read the annotations of every split that the configuration names; no image is opened.

    Raises:
        DataError, FileNotFoundError: data that cannot be used; the message says what to mend.
        ConfigError: keys that do not go together.
    """
    data = config.data
    name = config.train.split or data.train_split
    wanted = [name] if not config.eval_only or data.local_split is not None else []
    accelerator.print(f"reading {', '.join(dict.fromkeys([*wanted, *data.eval_splits]))} of data={data.name}")
    splits = open_splits(data, [*wanted, *data.eval_splits], accelerator)
    training = splits[name] if wanted else None
    evaluation = {split: _evaluation_split(splits[split]) for split in data.eval_splits}
    if data.name == "ytvis2022" and not all(split.parts for split in evaluation.values()):
        accelerator.print(
            "YouTube-VIS 2022 is scored on its short and its long videos apart where gt_short.json and "
            "gt_long.json lie beside the annotations, and they do not"
        )
    notes = {}
    if training is not None and data.local_split is not None:
        training, held_out = split_videos(training, data.local_split)
        evaluation[LOCAL] = EvaluationSplit(held_out, ground_truth_of(held_out))
        notes["local split"] = describe(training, held_out, data.local_split).removeprefix("local split: ")
        if config.eval_only:  # published weights were trained on all of them
            notes["local split"] += "; held out here, but the weights may have been trained on them"
    categories = _common_categories(list(splits.values()))
    stills = None
    if data.stills.root is not None and not config.eval_only:
        stills = replace(_open_stills(data), categories=categories)  # equal ids; names may differ in case
    return RunData(None if config.eval_only else training, stills, evaluation, categories, notes)


def open_splits(data: DataConfig, splits: Sequence[str], accelerator: Accelerator) -> dict[str, YTVIS]:
    """The named splits of a data set; the synthetic one is written first where it is missing."""
    splits = list(dict.fromkeys(splits))
    root: str | Path | None = data.root
    if isinstance(data, SyntheticConfig):
        if accelerator.is_main_process:
            ensure(data, splits, progress=True)
        accelerator.wait_for_everyone()
        root = ensure(data, splits, progress=False)
    elif root is None:
        raise ConfigError(f"data={data.name} lies in a folder of yours: say data.root=DIR", "data.root")
    if isinstance(data, CocoConfig):
        return {split: load_coco(root, split, data.classes) for split in splits}
    found = {split: YTVIS.load(*find_split(root, split, data.name)) for split in splits}
    if data.categories is not None:
        for source in found.values():
            check_categories(source, data.categories)
    return found


def _evaluation_split(source: YTVIS) -> EvaluationSplit:
    parts = {suffix: load_ground_truth(path) for suffix, path in find_parts(source.json_path).items()}
    videos = ground_truth_of(source)
    if parts:
        require_complete(videos, parts)  # now, not after hours of tracking
    return EvaluationSplit(source, videos if source.has_annotations else None, parts)


def _open_stills(data: DataConfig) -> YTVIS:
    """COCO with the classes of the data set beside it."""
    if isinstance(data, CocoConfig):
        raise ConfigError(
            f"data.stills.root is {data.stills.root}, but data=coco are the stills; expected null",
            "data.stills.root",
        )
    if data.categories is None or data.categories not in COCO_TO:
        raise ConfigError(
            f"data.stills.root needs videos whose classes COCO's are mapped onto ({', '.join(COCO_TO)}), "
            f"found data.categories={data.categories or 'null'}",
            "data.stills.root",
        )
    assert data.stills.root is not None
    return load_coco(data.stills.root, data.stills.split, data.categories)


def _common_categories(sources: Sequence[YTVIS]) -> Mapping[int, str]:
    """The categories of all splits.

    Raises:
        DataError: two splits differ.
    """
    first = sources[0]
    for other in sources[1:]:
        if other.categories != first.categories:
            raise DataError(
                f"{other.json_path} has the categories {dict(other.categories)}, but {first.json_path} has "
                f"{dict(first.categories)}; expected the same in all splits"
            )
    return first.categories

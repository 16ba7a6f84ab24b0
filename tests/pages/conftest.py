"""Finished runs made by hand: what each row gets wrong is known."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from vistk.config import compose, save
from vistk.data.config import SyntheticConfig
from vistk.data.synthetic import ensure
from vistk.evaluation.scores import score
from vistk.pages.collect import Collected, collect
from vistk.pages.pictures import Budget, add_pictures

SPLITS = ("track", "swap")
FRAMES, SWITCH = 8, 5


@pytest.fixture(scope="session")
def data_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("report") / "data"
    return ensure(SyntheticConfig(root=str(root), num_val=4, frames=FRAMES), SPLITS, progress=False)


def truth_as_results(root: Path, split: str, *, swap: bool = False, keep: int = 99) -> list[dict[str, Any]]:
    """The annotations as predictions; with ``swap`` two of one class exchange their masks at ``SWITCH``."""
    content = json.loads((root / split / "instances.json").read_text())
    out: list[dict[str, Any]] = []
    for video in content["videos"]:
        own = [a for a in content["annotations"] if a["video_id"] == video["id"]][:keep]
        masks = [list(a["segmentations"]) for a in own]
        pairs = [
            (i, j)
            for j in range(len(own))
            for i in range(j)
            if own[i]["category_id"] == own[j]["category_id"]
        ]
        if swap and pairs:
            i, j = pairs[0]
            masks[i][SWITCH:], masks[j][SWITCH:] = masks[j][SWITCH:], masks[i][SWITCH:]
        out += [
            {
                "video_id": video["id"],
                "category_id": annotation["category_id"],
                "segmentations": own_masks,
                "score": 0.9 - 0.1 * place,
            }
            for place, (annotation, own_masks) in enumerate(zip(own, masks, strict=True))
        ]
    return out


def make_run(
    folder: Path, words: Sequence[str], results: Mapping[str, Mapping[str, list[dict[str, Any]]]]
) -> Path:
    """A finished run with ``results``: ``{row: {split: results entries}}``."""
    composed = compose([*words, f"run_dir={json.dumps(str(folder))}"])
    save(composed)
    rows: dict[str, dict[str, Any]] = {}
    for row, splits in results.items():
        for split, content in splits.items():
            path = folder / "rows" / row / split / "results.json"
            path.parent.mkdir(parents=True)
            path.write_text(json.dumps(content))
            truth = Path(composed.config.data.root) / split / "instances.json"
            numbers = score(truth, path, score_threshold=composed.config.evaluation.track_score).metrics
            rows.setdefault(row, {})[split] = numbers | {"frames_per_second": 9.0}
    (folder / "metrics.json").write_text(json.dumps({"rows": rows, "card": {"seed": 0, "commit": "abc"}}))
    return folder


@pytest.fixture(scope="session")
def runs(data_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MinVIS exchanges two objects of a class in every video, the oracle nothing; VISAGE finds all objects
    with seed 0 and two of each video with seed 1.
    """
    folder = tmp_path_factory.mktemp("report") / "runs"
    words = [f"data.root={json.dumps(str(data_root))}", "data.num_val=4", f"data.frames={FRAMES}"]
    words.append("data.eval_splits=[track,swap]")
    every = {split: truth_as_results(data_root, split) for split in SPLITS}
    some = {split: truth_as_results(data_root, split, keep=2) for split in SPLITS}
    swapped = {split: truth_as_results(data_root, split, swap=True) for split in SPLITS}
    make_run(folder / "a", [*words, "tracker=minvis"], {"minvis": swapped, "oracle": every})
    make_run(folder / "b0", [*words, "tracker=visage"], {"visage": every})
    make_run(folder / "b1", [*words, "tracker=visage", "seed=1"], {"visage": some})
    return folder


@pytest.fixture(scope="session")
def collected(runs: Path) -> Collected:
    """The content of a report of the runs, with pictures; not to be changed."""
    found = collect([runs])
    add_pictures(found, Budget())
    return found

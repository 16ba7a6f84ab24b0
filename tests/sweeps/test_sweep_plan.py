"""Cells and jobs of a sweep: all checked before anything runs, and nothing trained twice."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from vistk.config import CONFIG_FILE, compose, save
from vistk.runs import RunError
from vistk.schema import ConfigError
from vistk.sweeps.cells import Cell, make_cells
from vistk.sweeps.definition import Row, Sweep, load_sweep, with_words
from vistk.sweeps.plan import Job, make_jobs

SHIPPED = sorted((Path(__file__).parents[2] / "experiments" / "sweeps").glob("*.yaml"))


def jobs_of(folder: Path, rows: dict[str, Any], **values: Any) -> list[Job]:
    rows = {name: row if isinstance(row, Row) else Row(row.split()) for name, row in rows.items()}
    cells, _ = make_cells(Sweep(rows, **{"seeds": [0], **values}), folder)
    return make_jobs(cells, folder / "cache")


def names(jobs: Sequence[Job]) -> list[tuple[list[str], str | None]]:
    return [([c.row for c in job.cells], job.after and job.after.cells[0].row) for job in jobs]


def test_rows_that_differ_in_association_are_trained_once(tmp_path: Path) -> None:
    jobs = jobs_of(
        tmp_path,
        {
            "minvis": "tracker=minvis",
            "visage": "",
            "no memory": "tracker.memory_frames=1",
            "ablation": "tracker=visage-no-appearance",
            "kept": "evaluation.keep_top=3",
            "small": "data.test_short_side=32",
            "levels": "tracker.levels=[res3]",
            "steps": "train.steps=3",
            "own": Row(["tracker.memory_frames=2"], retrain=True),
        },
    )
    assert names(jobs) == [
        (["visage"], None),
        (["minvis", "no memory", "ablation", "kept", "small"], "visage"),
        (["levels"], None),
        (["steps"], None),
        (["own"], None),
    ]
    cell = jobs[1].cells[1]
    words = jobs[1].words(cell)
    weights = jobs[0].cells[0].run_dir / "weights.safetensors"
    composed = compose(words)
    assert composed.run_dir == cell.run_dir
    assert composed.config.weights == str(weights)
    assert composed.config.eval_only
    assert composed.config.evaluation.rows == []
    assert composed.config.tracker.memory_frames == 1
    assert (composed.config.choices["cache"], composed.config.cache.dir) == ("auto", str(tmp_path / "cache"))
    trainer = compose(jobs[0].words(jobs[0].cells[0])).config
    assert (trainer.weights, trainer.eval_only) == ("default", False)


def test_rows_on_the_weights_of_another(tmp_path: Path) -> None:
    rows = {
        "a": Row(["tracker.levels=[res3]"], weights_of="b"),
        "b": "",
        "c": "tracker.memory_frames=1",
        "d": "tracker=minvis",
        "e": "train.steps=3",
        "f": Row(["tracker.levels=[res4]"], weights_of="e"),
    }
    assert names(jobs_of(tmp_path, rows)) == [
        (["b"], None),
        (["a", "c", "d"], "b"),
        (["e"], None),
        (["f"], "e"),
    ]


def test_weights_of_a_row_that_trains_nothing(tmp_path: Path) -> None:
    file = tmp_path / "released.pth"
    file.touch()
    rows = {"released": f"weights={file} eval_only=true", "b": Row([], weights_of="released")}
    with pytest.raises(ConfigError, match="row 'b': weights_of names 'released', which trains nothing"):
        jobs_of(tmp_path / "out", rows)


def test_seeds_and_data_sets_are_trained_apart(tmp_path: Path) -> None:
    (tmp_path / "ovis").mkdir()
    data = {"synthetic": [], "mine": ["data=ytvis", f"data.root={tmp_path / 'ovis'}"]}
    jobs = jobs_of(tmp_path / "out", {"a": "", "b": "tracker.memory_frames=1"}, seeds=[5, 3], data=data)
    assert [(job.cells[0].data, job.cells[0].seed, job.trains) for job in jobs] == [
        (data, seed, trains) for data in ("synthetic", "mine") for seed in (5, 3) for trains in (True, False)
    ]
    folders = [cell.run_dir.relative_to(tmp_path / "out").parts for job in jobs for cell in job.cells]
    assert folders[0] == ("synthetic", "visage", "default", "seed5")
    assert len(set(folders)) == 8
    assert jobs[4].cells[0].config.choices["data"] == "ytvis"


def test_trackers_without_weights_alone(tmp_path: Path) -> None:
    rows = {"minvis": "tracker=minvis", "identity": "tracker=identity"}
    assert names(jobs_of(tmp_path, rows)) == [(["minvis"], None), (["identity"], "minvis")]


def test_released_weights_are_only_evaluated(tmp_path: Path) -> None:
    file = tmp_path / "released.pth"
    file.touch()
    jobs = jobs_of(
        tmp_path,
        {"a": "", "b": "tracker.memory_frames=1", "c": "tracker=minvis"},
        words=[f"weights={file}", "eval_only=true"],
    )
    assert names(jobs) == [(["a", "b", "c"], None)]
    assert not jobs[0].trains
    assert compose(jobs[0].words(jobs[0].cells[1])).config.weights == str(file)


def finish(cell: Cell, weights: str, trained: bool = True) -> None:
    cell.run_dir.mkdir(parents=True, exist_ok=True)
    save(compose([*cell.words, f"run_dir={json.dumps(str(cell.run_dir))}"]))
    cell.metrics.write_text(json.dumps({"rows": {}, "card": {"weights hash": weights}}))
    if trained:
        cell.weights.touch()


def test_what_is_finished(tmp_path: Path) -> None:
    rows = {"a": "", "b": "tracker.memory_frames=1", "c": "tracker.memory_frames=2"}
    train, evaluate = jobs_of(tmp_path, rows)
    assert train.unfinished() == list(train.cells)
    finish(evaluate.cells[0], "old", trained=False)
    assert evaluate.unfinished() == list(evaluate.cells)
    finish(train.cells[0], "new")
    finish(evaluate.cells[1], "new", trained=False)
    assert train.unfinished() == []
    assert evaluate.unfinished() == [evaluate.cells[0]], "it is of weights that are not there any more"
    damaged = evaluate.cells[0].metrics
    damaged.write_text('{"rows": {')
    with pytest.raises(RunError, match=rf"^{re.escape(str(damaged))}: not what a run writes .*; remove it"):
        evaluate.unfinished()


def test_a_row_that_was_evaluated_trains_when_its_trainer_is_gone(tmp_path: Path) -> None:
    train, evaluate = jobs_of(tmp_path, {"a": "", "b": "tracker.memory_frames=1"})
    assert "resume=false" not in evaluate.words(evaluate.cells[0])  # nothing lies there
    finish(train.cells[0], "new")
    finish(evaluate.cells[0], "new", trained=False)
    train, evaluate = jobs_of(tmp_path, {"b": "tracker.memory_frames=1", "c": "tracker.memory_frames=2"})
    assert [cell.row for cell in train.unfinished()] == ["b"]
    assert "resume=false" in train.words(train.cells[0])
    assert [cell.row for cell in evaluate.unfinished()] == ["c"]


def test_who_has_begun_goes_on_training(tmp_path: Path) -> None:
    rows = {"a": "", "b": "tracker.memory_frames=1"}
    jobs_of(tmp_path, rows)[1].cells[0].run_dir.joinpath("checkpoints").mkdir(parents=True)
    assert names(jobs_of(tmp_path, rows)) == [(["b"], None), (["a"], "b")]
    minvis = {"m": "tracker=minvis", **rows}
    jobs_of(tmp_path, {"m": "tracker=minvis"})[0].cells[0].run_dir.joinpath("checkpoints").mkdir(parents=True)
    assert names(jobs_of(tmp_path, minvis))[-2:] == [(["b"], None), (["m", "a"], "b")]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("tracker.frames=1", "row 'bad' on synthetic: unknown key 'tracker.frames'; did you mean"),
        ("tracker.memory_frames=0", "row 'bad' on synthetic: tracker=visage: VISAGE: memory_frames is 0"),
        ("tracker.levels=[res9]", "row 'bad' on synthetic: tracker=visage: levels: the segmenter has no"),
        ("tracker=vis", "row 'bad' on synthetic: unknown tracker 'vis'"),
        ("train.steps=x", "row 'bad' on synthetic: train.steps: expected a whole number"),
        ("weights=gone.pth", "row 'bad': there is no file weights=gone.pth"),
        ("eval_only=true weights=null", "row 'bad' on synthetic: eval_only=true evaluates trained weights"),
        ("tracker.memory_frames=5", "rows 'good' and 'bad' say the same on synthetic"),
    ],
)
def test_a_row_that_cannot_run_is_named(tmp_path: Path, words: str, sentence: str) -> None:
    with pytest.raises((ConfigError, FileNotFoundError)) as raised:
        jobs_of(tmp_path, {"good": "tracker.memory_frames=5", "bad": words})
    assert str(raised.value).startswith(sentence)
    assert "\n" not in str(raised.value)
    assert list(tmp_path.iterdir()) == []


def test_data_without_a_root(tmp_path: Path) -> None:
    rows = {"a": Row()}
    cells, left_out = make_cells(Sweep(rows, data={"synthetic": [], "ovis": []}), tmp_path)
    assert ({cell.data for cell in cells}, left_out) == ({"synthetic"}, ["ovis"])
    with pytest.raises(ConfigError, match=r"row 'a' on ovis: data=ovis lies in a folder of yours: say data"):
        make_cells(Sweep(rows, data={"ovis": []}), tmp_path)
    with pytest.raises(ConfigError, match=r"all data sets lie in folders of yours: say data=ovis data.root="):
        make_cells(Sweep(rows, data={"ovis": [], "ytvis2019": []}), tmp_path)


def test_a_folder_of_other_defaults_is_refused(tmp_path: Path) -> None:
    rows = {"a": ""}
    (cell,) = jobs_of(tmp_path, rows)[0].cells
    finish(cell, "x")
    jobs_of(tmp_path, rows)
    path = cell.run_dir / CONFIG_FILE
    path.write_text(path.read_text().replace("memory_frames: 5", "memory_frames: 6"))
    with pytest.raises(ConfigError, match=r"row 'a': .* tracker\.memory_frames is 6 there and 5 here"):
        jobs_of(tmp_path, rows)


@pytest.mark.parametrize(
    "path", [path for path in SHIPPED if path.stem != "data"], ids=lambda path: path.stem
)
def test_shipped_sweeps(path: Path, tmp_path: Path) -> None:
    sweep = load_sweep(path)
    assert sweep.title
    assert sweep.seeds == [0, 1, 2]
    assert {row.row for row in sweep.published} <= set(sweep.rows)
    if path.stem == "components":
        assert set(sweep.data) == {"synthetic", "ytvis2019", "ytvis2021", "ytvis2022", "ovis"}
    # The presets of the data sets in folders differ in steps and classes; one of four is enough for all rows.
    for data in [name for name in sweep.data if name in ("synthetic", "ovis") or path.stem == "components"]:
        said = with_words(sweep, ["seed=0", f"data={data}"])
        if data != "synthetic":
            with pytest.raises(ConfigError, match=r"data\.root=DIR"):
                make_cells(said, tmp_path)
            said = with_words(said, [f"data.root={tmp_path}"])
        cells, left_out = make_cells(said, tmp_path)
        assert [cell.row for cell in cells] == list(sweep.rows)
        assert not left_out
        assert sum(len(job.cells) for job in make_jobs(cells, tmp_path)) == len(cells)
        assert {cell.config.data.name for cell in cells} == {data}


def test_the_components_are_one_training(tmp_path: Path) -> None:
    sweep = load_sweep(SHIPPED[0].with_name("components.yaml"))
    for data in ("synthetic", "ovis"):
        said = with_words(sweep, ["seed=0", f"data={data}", f"data.root={tmp_path}"])
        jobs = make_jobs(make_cells(said, tmp_path)[0], tmp_path)
        assert [(job.trains, len(job.cells)) for job in jobs] == [(True, 1), (False, 3)]

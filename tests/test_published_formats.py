"""Data sets in the published formats, from check to submission, through the public commands."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest
from official_data import write_coco, write_official

from vistk.cli import main as vistk_command
from vistk.data.categories import TABLES

SMALL = (
    "weights=null",
    "tracker=visage",
    "segmenter=tiny",
    "train.freeze_segmenter=false",
    "train.steps=3",
    "train.batch_size=1",
    "train.num_frames=2",
    "train.loss.num_points=16",
    "data.num_workers=0",
    "data.train_short_sides=[23,32]",
    "data.crop_short_sides=[32]",
    "data.crop_range=[20,32]",
    "data.test_short_side=23",
    "evaluation.rows=[minvis,visage,oracle]",
)


def check(root: Path, *options: str) -> tuple[int, dict]:
    report = root.with_suffix(".check.json")
    code = vistk_command(["data", "check", str(root), "--json", str(report), *options])
    return code, json.loads(report.read_text())


@pytest.mark.parametrize("name", ["ytvis2019", "ytvis2021", "ytvis2022", "ovis"])
def test_from_check_to_submission(run_experiment, tmp_path, name):
    root = write_official(tmp_path / name, name, long=400)
    missing = next((root / "train").rglob("*00000.jpg"))
    content = missing.read_bytes()
    missing.unlink()
    code, report = check(root, "--data", name)
    assert code == 1
    assert missing.name in json.dumps(report)
    missing.write_bytes(content)
    code, _ = check(root, "--data", name)
    assert code == 0
    words = (*SMALL, f"data={name}", f"data.root={root}", f"run_dir={tmp_path / 'run'}")
    code, out, err = run_experiment(*words, "data.local_split=0.3")
    assert code == 0, err

    rows = json.loads((tmp_path / "run" / "metrics.json").read_text())["rows"]
    hidden = tmp_path / "run" / "rows" / "visage" / "valid"
    results = json.loads((hidden / "results.json").read_text())
    assert {entry["category_id"] for entry in results} <= set(TABLES[name])
    assert {entry["video_id"] for entry in results} <= {7, 0, 3, 12, 5, 9}
    card = json.loads((tmp_path / "run" / "metrics.json").read_text())["card"]
    assert "training videos held out by name hash" in card["local split"]
    assert {"AP", "AR10", "IDF1"} <= set(rows["oracle"]["local"])
    if name == "ytvis2022":  # its parts are there, so it is scored as the server did
        columns = rows["visage"]
        assert set(columns) == {"valid (short)", "valid (long)", "valid (mean)", "local"}
        halves = [columns[f"valid ({part})"]["AR10"] for part in ("short", "long")]
        assert columns["valid (mean)"]["AR10"] == pytest.approx(sum(halves) / 2)
        assert not (hidden / "submission.zip").exists()
    else:
        assert set(rows["visage"]) == {"local"}
        assert "valid.json has no annotations" in out or "instances.json has no annotations" in out
        with zipfile.ZipFile(hidden / "submission.zip") as archive:
            assert archive.namelist() == ["results.json"]
            assert json.loads(archive.read("results.json")) == results
    if name == "ovis":
        assert {"APso", "APmo", "APho"} <= set(rows["visage"]["local"])
        assert "APso" in (tmp_path / "run" / "table.md").read_text()


def test_a_missing_image_is_found_by_the_check_and_named_by_the_run(run_experiment, tmp_path):
    root = write_official(tmp_path / "ytvis2019", "ytvis2019", long=6)
    missing = root / "train" / "JPEGImages" / "train0000" / "00000.jpg"
    missing.unlink()
    code, report = check(root)
    assert code == 1
    assert str(missing.relative_to(root / "train" / "JPEGImages")) in json.dumps(report)
    words = (*SMALL, "data=ytvis2019", f"data.root={root}", f"run_dir={tmp_path / 'run'}")
    code, _, err = run_experiment(*words, "train.steps=12")
    assert code == 2
    assert str(missing) in err
    assert err.count("\n") <= err.count("\r") + 1 or "error: " in err.splitlines()[-1]


def test_joint_training_with_coco_stills(run_experiment, tmp_path):
    root = write_official(tmp_path / "ytvis2019", "ytvis2019", long=6)
    coco = write_coco(tmp_path / "coco")
    assert check(coco)[0] == 0
    words = (*SMALL, "data=ytvis2019", f"data.root={root}", f"run_dir={tmp_path / 'run'}")
    code, out, err = run_experiment(
        *words, "train=joint", "train.steps=7", "train.log_every=1", f"data.stills.root={coco}"
    )
    assert code == 0, err
    # Of seven stills one is empty and two show a cup, which YouTube-VIS has not.
    assert "batches 1 of stills to 0.75 of videos" in out
    log = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in log] == list(range(1, 8))


def test_coco_alone_is_trained_on_and_scored(run_experiment, tmp_path):
    coco = write_coco(tmp_path / "coco")
    words = (*SMALL, "data=coco", f"data.root={coco}", f"run_dir={tmp_path / 'run'}")
    code, _, err = run_experiment(*words)
    assert code == 0, err
    rows = json.loads((tmp_path / "run" / "metrics.json").read_text())["rows"]
    assert set(rows["visage"]) == {"val2017"}
    assert rows["oracle"]["val2017"]["AP"] is not None


def test_data_of_another_year_is_named(run_experiment, tmp_path):
    root = write_official(tmp_path / "data", "ytvis2019", long=6)
    words = (*SMALL, "data=ytvis2021", f"data.root={root}", f"run_dir={tmp_path / 'run'}")
    code, _, err = run_experiment(*words)
    assert code == 2
    assert "has the categories of ytvis2019" in err
    assert "say data=ytvis2019" in err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["data=ytvis", "data.stills.root=x"], "data.stills.root needs videos whose classes"),
        (["data=coco", "data.stills.root=x"], "data=coco are the stills"),
        (["data=ytvis2019", "data.root=null"], "say data.root=DIR"),
    ],
)
def test_keys_that_do_not_go_together(run_experiment, tmp_path, words, message):
    root = write_official(tmp_path / "data", "ytvis2019", long=6)
    coco = write_coco(root)
    assert coco == root
    code, _, err = run_experiment(*SMALL, f"data.root={root}", f"run_dir={tmp_path / 'run'}", *words)
    assert code == 2
    assert message in err

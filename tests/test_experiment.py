"""Whole experiments at the smallest size: what they leave behind, and what they say to bad input."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from experiment_script import experiment_main
from filelock import FileLock
from PIL import Image

from vistk.comparison import _over_processes
from vistk.evaluation.report import evaluate
from vistk.models.checkpoints import load_weights, save_weights

SMALL = (
    "weights=null",
    "train.freeze_segmenter=false",
    "train.steps=2",
    "train.batch_size=1",
    "train.num_frames=2",
    "train.loss.num_points=16",
    "data.num_workers=0",
)
SYNTHETIC = ("data.num_train=4", "data.num_val=2", "data.frames=8", "data.eval_splits=[track,reenter]")
ROWS = (
    *("identity", "mask-iou", "minvis", "visage", "visage-no-memory"),
    *("visage-no-appearance", "visage-appearance-only", "oracle"),
)


@pytest.fixture
def run(run_experiment):
    return run_experiment


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run on the synthetic benchmark, tracker=visage."""
    folder = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        words = [
            "tracker=visage",
            f"run_dir={folder / 'run'}",
            f"data.root={folder / 'data'}",
            *SMALL,
            *SYNTHETIC,
        ]
        patch.setattr("sys.argv", ["experiments/run.py", *words])
        assert experiment_main() == 0
    return folder


def words_of(folder, **other):
    values = {"run_dir": folder / "run", "data.root": folder / "data"} | other
    return [*SMALL, *SYNTHETIC, *(f"{key}={value}" for key, value in values.items())]


def test_a_run_leaves_what_a_reader_needs(finished):
    run_dir = finished / "run"
    for name in (
        "config.yaml",
        "log.jsonl",
        "weights.safetensors",
        "metrics.json",
        "table.md",
        "table.csv",
        "table.tex",
    ):
        assert (run_dir / name).stat().st_size > 0
    content = json.loads((run_dir / "metrics.json").read_text())
    assert tuple(content["rows"]) == ROWS
    for splits in content["rows"].values():
        assert set(splits) == {"track", "reenter"}
        assert {"AP", "AP50", "AP75", "AR1", "AR10", "AssA", "IDF1"} <= set(splits["track"])
    wanted = {
        "seeds",
        "kept predictions",
        "test size",
        "commit",
        "config hash",
        "weights hash",
        "frames/s",
        "peak memory",
    }
    assert wanted <= set(content["card"])
    steps = [json.loads(line)["step"] for line in (run_dir / "log.jsonl").read_text().splitlines()]
    assert steps == [2]


def test_results_of_a_row_score_as_the_table_says(finished):
    rows = json.loads((finished / "run" / "metrics.json").read_text())["rows"]
    for row in ("minvis", "oracle"):
        results = finished / "run" / "rows" / row / "track" / "results.json"
        report = evaluate(finished / "data" / "track" / "instances.json", results, score_threshold=0.1)
        assert report.metrics["AP"] == rows[row]["track"]["AP"]
        assert report.metrics["IDF1"] == rows[row]["track"]["IDF1"]


def test_a_finished_run_is_not_run_again(finished, run):
    before = (finished / "run" / "metrics.json").stat().st_mtime_ns
    code, out, _ = run("tracker=visage", *words_of(finished))
    assert code == 0
    assert "is there already" in out
    assert "| track " in out
    assert (finished / "run" / "metrics.json").stat().st_mtime_ns == before


def test_trained_weights_evaluate_to_the_same_numbers(finished, run, tmp_path):
    weights = finished / "run" / "weights.safetensors"
    words = words_of(finished, run_dir=tmp_path / "again", weights=weights, eval_only="true")
    code, _, err = run("tracker=visage", *words)
    assert code == 0, err
    first, second = (
        json.loads((folder / "metrics.json").read_text())["rows"]
        for folder in (finished / "run", tmp_path / "again")
    )
    for row in ROWS:
        assert second[row]["track"]["AP"] == first[row]["track"]["AP"]
        assert second[row]["reenter"]["AssA"] == first[row]["reenter"]["AssA"]


def test_rows_with_heads_that_were_not_trained_are_left_out(finished, run, tmp_path):
    code, out, err = run("tracker=minvis", *words_of(finished, run_dir=tmp_path / "run"))
    assert code == 0, err
    assert "row visage is left out: it has heads that tracker=minvis did not train" in out
    assert "visage" not in json.loads((tmp_path / "run" / "metrics.json").read_text())["rows"]


def write_ytvis(root, change=lambda content: None):
    """One video of two frames, 40x60 pixels, one instance; ``change`` may break the json."""
    for split in ("train", "valid"):
        images = root / split / "JPEGImages" / "v"
        images.mkdir(parents=True)
        for t in range(2):
            Image.fromarray(np.full((40, 60, 3), 90, np.uint8)).save(images / f"{t:05d}.jpg")
        square = {"size": [40, 60], "counts": [0, 20, 2380]}
        content = {
            "videos": [
                {
                    "id": 1,
                    "width": 60,
                    "height": 40,
                    "length": 2,
                    "file_names": ["v/00000.jpg", "v/00001.jpg"],
                }
            ],
            "categories": [{"id": 1, "name": "person"}],
            "annotations": [
                {
                    "id": 7,
                    "video_id": 1,
                    "category_id": 1,
                    "iscrowd": 0,
                    "segmentations": [square, None],
                    "areas": [20, None],
                    "bboxes": [[0, 0, 1, 20], None],
                }
            ],
        }
        change(content)
        (root / f"{split}.json").write_text(json.dumps(content))
    return root


def ytvis_words(root, tmp_path, *words):
    return (
        "tracker=visage",
        "data=ytvis",
        f"data.root={root}",
        f"run_dir={tmp_path / 'run'}",
        *SMALL,
        *words,
    )


def test_a_data_set_of_ones_own(run, tmp_path, finished):
    root = write_ytvis(tmp_path / "data")
    weights = finished / "run" / "weights.safetensors"
    code, out, err = run(*ytvis_words(root, tmp_path, f"weights={weights}"))
    assert code == 0, err
    assert "the class heads of the segmenter start from random weights" in out
    assert set(json.loads((tmp_path / "run" / "metrics.json").read_text())["rows"]["oracle"]) == {"valid"}


def test_a_split_without_annotations_gets_results_and_no_scores(run, tmp_path):
    root = write_ytvis(tmp_path / "data")
    content = json.loads((root / "valid.json").read_text())
    del content["annotations"]
    (root / "valid.json").write_text(json.dumps(content))
    code, out, err = run(*ytvis_words(root, tmp_path))
    assert code == 0, err
    assert "has no annotations: results.json and submission.zip are written" in out
    card = json.loads((tmp_path / "run" / "metrics.json").read_text())["card"]
    assert float(card["frames/s"].split()[0]) > 0
    results = json.loads((tmp_path / "run" / "rows" / "visage" / "valid" / "results.json").read_text())
    assert {entry["video_id"] for entry in results} <= {1}
    assert not (tmp_path / "run" / "rows" / "oracle").exists()


def truncate(path):
    path.write_bytes(path.read_bytes()[:300])


BAD_DATA = {
    "missing folder": (lambda root: None, ["data.root=/nowhere"], "/nowhere"),
    "image of another size": (
        lambda root: Image.new("RGB", (61, 40)).save(root / "train/JPEGImages/v/00000.jpg"),
        ["train.num_frames=2"],
        "60",
    ),
    "truncated image": (lambda root: truncate(root / "train/JPEGImages/v/00001.jpg"), [], "00001.jpg"),
    "missing image": (lambda root: (root / "train/JPEGImages/v/00000.jpg").unlink(), [], "00000.jpg"),
}


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("case", BAD_DATA)
def test_bad_images_and_folders(run, tmp_path, case, workers):
    root = write_ytvis(tmp_path / "data")
    spoil, words, expected = BAD_DATA[case]
    spoil(root)
    code, _, err = run(*ytvis_words(root, tmp_path, *words, f"data.num_workers={workers}"))
    assert code == 2
    (sentence,) = [line for line in err.splitlines() if line.startswith("error: ")]
    assert expected in sentence
    assert "Traceback" not in err
    assert not (tmp_path / "run" / "metrics.json").exists()


def set_annotation(**fields):
    def change(content):
        content["annotations"][0].update(fields)

    return change


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"category_id": 9}, ["annotation", "7", "category_id", "9"]),
        ({"segmentations": [None]}, ["annotation", "7", "segmentations", "2"]),
        ({"segmentations": [{"size": [4, 6], "counts": [24]}, None]}, ["annotation", "7", "[40, 60]"]),
        ({"video_id": 3}, ["annotation", "7", "video_id", "3"]),
    ],
)
def test_a_broken_annotation_is_named(run, tmp_path, fields, expected):
    root = write_ytvis(tmp_path / "data", set_annotation(**fields))
    code, _, err = run(*ytvis_words(root, tmp_path))
    assert code == 2
    (sentence,) = err.strip().splitlines()
    assert all(word in sentence for word in expected), sentence


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["tracker=visag"], ["visag", "visage"]),
        (["tracker=visage", "tracker.app_weight=1"], ["tracker.app_weight", "tracker.appearance_weight"]),
        (["tracker=visage", "train.steps=many"], ["train.steps", "many"]),
        (["tracker=visage", "tracker.memory_weighting=recnt"], ["memory_weighting", "recnt", "recent"]),
        (["tracker=visage", "segmenter.backbone=resnet51"], ["resnet51", "resnet"]),
        (["tracker=visage", "data=ytvis"], ["data.root"]),
        (["tracker=visage", "weights=none.safetensors"], ["none.safetensors", "no such file"]),
        (["tracker=visage", "train.freeze_segmenter=true"], ["train.freeze_segmenter=true", "weights=FILE"]),
    ],
)
def test_bad_words(run, finished, tmp_path, words, expected):
    base = [
        w
        for w in words_of(finished, run_dir=tmp_path / "run")
        if w.split("=")[0] not in {x.split("=")[0] for x in words}
    ]
    if "data=ytvis" in words:
        base = [w for w in base if not w.startswith("data.")]
    code, _, err = run(*words, *base)
    assert code == 2
    (sentence,) = err.strip().splitlines()
    assert all(word in sentence for word in expected), sentence


def test_eval_only_never_evaluates_random_heads(run, finished, tmp_path):
    words = words_of(finished, run_dir=tmp_path / "run")
    code, _, err = run("tracker=visage", *words, "eval_only=true")
    assert code == 2
    assert "say weights=FILE" in err
    words = words_of(finished, run_dir=tmp_path / "minvis")
    code, _, err = run("tracker=minvis", *words)
    assert code == 0, err
    words = words_of(
        finished, run_dir=tmp_path / "other", weights=tmp_path / "minvis" / "weights.safetensors"
    )
    code, _, err = run("tracker=visage", *words, "eval_only=true")
    assert code == 2
    assert "hold no tracker heads, expected those of tracker=visage" in err


def test_a_bad_row_stops_a_run_before_it_trains(run, finished, tmp_path):
    words = words_of(finished, run_dir=tmp_path / "run")
    code, _, err = run("tracker=visage", *words, "evaluation.rows=[visagee]")
    assert code == 2
    assert "'visagee'" in err
    assert not (tmp_path / "run" / "log.jsonl").exists()


def test_an_ablation_that_the_words_forbid_is_left_out(run, finished, tmp_path):
    words = words_of(finished, run_dir=tmp_path / "run")
    code, out, err = run("tracker=visage", *words, "tracker.levels=[]", "tracker.appearance_weight=0")
    assert code == 0, err
    assert "row visage-appearance-only is left out: tracker=visage-appearance-only: VISAGE: levels" in out


def test_two_processes_do_not_share_a_run_directory(run, finished, tmp_path):
    (tmp_path / "run").mkdir()
    with FileLock(tmp_path / "run" / ".lock"):
        code, _, err = run("tracker=visage", *words_of(finished, run_dir=tmp_path / "run"))
    assert code == 2
    assert "is in use by another process" in err


def test_results_of_several_processes_are_summed_and_leave_no_files(tmp_path):
    (tmp_path / ".swap.7.json").write_text("of eight processes that were killed")
    (tmp_path / ".track.1.json").write_text("of another split")
    barrier = threading.Barrier(2, timeout=30)

    def merged(rank):
        accelerator = SimpleNamespace(
            num_processes=2, process_index=rank, is_main_process=rank == 0, wait_for_everyone=barrier.wait
        )
        return _over_processes(
            {"minvis": {"results": [rank], "frames": 10 + rank}}, tmp_path, "swap", accelerator
        )

    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(merged, range(2)))
    assert found == [{"minvis": {"results": [0, 1], "frames": 21}}] * 2
    assert [path.name for path in tmp_path.iterdir()] == [".track.1.json"]

    alone = SimpleNamespace(num_processes=1, process_index=0, is_main_process=True)
    assert _over_processes({"minvis": {"frames": 3}}, tmp_path, "track", alone) == {"minvis": {"frames": 3}}
    assert not list(tmp_path.iterdir())


def test_weights_of_another_architecture(run, finished, tmp_path):
    weights = finished / "run" / "weights.safetensors"
    code, _, err = run(
        "tracker=visage",
        *words_of(finished, run_dir=tmp_path / "run", weights=weights),
        "segmenter.hidden_dim=32",
    )
    assert code == 2
    (sentence,) = err.strip().splitlines()
    assert "are those of a VISAGE of width 64" in sentence
    assert "the model is a VISAGE of width 32" in sentence


def test_interrupted_while_the_weights_are_written(finished, run, tmp_path, monkeypatch):
    state, metadata = load_weights(finished / "run" / "weights.safetensors")
    path = tmp_path / "w.safetensors"
    save_weights(path, state, metadata)

    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("vistk.models.checkpoints.save_file", interrupted)
    with pytest.raises(KeyboardInterrupt):
        save_weights(path, {"a": torch.zeros(1)}, {})
    assert load_weights(path)[0].keys() == state.keys()
    assert list(tmp_path.iterdir()) == [path]

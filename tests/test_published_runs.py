"""Published checkpoints in whole runs: ``preset=NAME weights=FILE``, evaluated and trained on."""

from __future__ import annotations

import hashlib
import json
import pickle

import pytest
import torch
from golden_weights import published_state
from official_data import write_coco, write_official

import vistk
from vistk.config import compose
from vistk.data.transforms import resize_images, resized_size
from vistk.data.ytvis import YTVIS
from vistk.published import convert


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_official(tmp_path_factory.mktemp("data"), "ytvis2019", long=4)


@pytest.fixture(scope="module")
def visage_file(tmp_path_factory):
    """As the training code of VISAGE leaves it."""
    path = tmp_path_factory.mktemp("weights") / "model_final.pth"
    state = published_state("visage_r50_ytvis2019")
    torch.save({"model": state, "trainer": {"iteration": 19999}, "iteration": 19999}, path)
    return path


@pytest.fixture(scope="module")
def coco_file(tmp_path_factory):
    """As the model zoo of Mask2Former has it: numpy arrays, and ``static_query``."""
    path = tmp_path_factory.mktemp("weights") / "model_final_3c8ec9.pkl"
    state = published_state("coco_m2f_r50")
    arrays = {name.replace("query_feat", "static_query"): value.numpy() for name, value in state.items()}
    with path.open("wb") as file:
        pickle.dump({"model": arrays, "__author__": "third_party"}, file)
    return path


def test_evaluation_writes_what_predict_gives(run_experiment, tmp_path, root, visage_file):
    words = ("preset=visage-r50-ytvis2019", f"data.root={root}", f"run_dir={tmp_path}", "eval_only=true")
    folder = tmp_path / "weights"
    folder.mkdir()
    (folder / "pytorch_model.bin").symlink_to(visage_file)
    code, out, err = run_experiment(*words, f"weights={folder}", "data.test_short_side=32")
    assert code == 0, err
    card = json.loads((tmp_path / "metrics.json").read_text())["card"]
    digest = hashlib.sha256(visage_file.read_bytes()).hexdigest()[:12]
    assert card["weights hash"] == card["start weights hash"] == digest
    assert "a VISAGE with ResNet-50, 100 queries and 40 classes" in out
    entries = json.loads((tmp_path / "rows" / "visage-released" / "valid" / "results.json").read_text())

    segmenter, tracker = vistk.load_published(visage_file, "visage-r50-ytvis2019")
    source = YTVIS.load(root / "valid.json", root / "valid" / "JPEGImages")
    video = next(video for video in source.videos if video.video_id == 7)
    frames = torch.stack([source.read_frame(video, t) for t in range(len(video))])
    size = resized_size(video.height, video.width, 32, 1333)
    prediction = vistk.predict(
        segmenter, tracker, resize_images(frames, size), (video.height, video.width), video_id=7
    )
    expected = prediction.to_ytvis()
    assert len(expected) > 1
    assert "data.local_split=0.15, in training too, holds out" in out
    assert [entry for entry in entries if entry["video_id"] == 7] == expected


def test_training_begins_with_coco_weights(run_experiment, tmp_path, root, coco_file):
    coco = write_coco(tmp_path / "coco")
    code, out, err = run_experiment(
        "preset=visage-r50-ytvis2019",
        f"weights={coco_file}",
        f"data.root={root}",
        f"data.stills.root={coco}",
        f"run_dir={tmp_path / 'run'}",
        *("train.steps=2", "train.batch_size=1", "train.num_frames=2", "train.loss.num_points=16"),
        *("data.train_short_sides=[32]", "data.crop=0", "data.test_short_side=32", "data.num_workers=0"),
    )
    assert code == 0, err
    assert "a Mask2Former with ResNet-50, 100 queries and 80 classes, in the names of Detectron2" in out
    assert "the class heads of the segmenter start from random weights" in out
    assert "batches 1 of stills to 0.75 of videos" in out
    weights = tmp_path / "run" / "weights.safetensors"
    vistk.load_published(weights, "visage-r50-ytvis2019")  # what was trained is again such a model


def test_weights_of_another_model_are_named(run_experiment, tmp_path, root, visage_file):
    words = (f"data.root={root}", f"run_dir={tmp_path}", "eval_only=true", f"weights={visage_file}")
    code, _, err = run_experiment("preset=visage-swinl-ytvis2019", *words)
    assert code == 2
    assert "are those of a VISAGE with ResNet-50, 100 queries and 40 classes" in err
    assert "segmenter=r50 fits" in err


def test_classes_are_compared_by_what_they_are(run_experiment, tmp_path, visage_file):
    """A converted file names its classes as published; the data may spell them in another way."""
    root = write_official(tmp_path / "data", "ytvis2019", long=4)
    path = root / "valid.json"
    content = json.loads(path.read_text())
    for category in content["categories"]:
        category["name"] = category["name"].replace("_", " ").title()
    path.write_text(json.dumps(content))
    ours = tmp_path / "w.safetensors"
    convert(visage_file, ours, "visage-r50-ytvis2019")
    words = (f"data.root={root}", "eval_only=true", "data.test_short_side=32", f"weights={ours}")
    code, _, err = run_experiment("preset=visage-r50-ytvis2019", *words, f"run_dir={tmp_path / 'a'}")
    assert code == 0, err
    root = write_official(tmp_path / "other", "ytvis2021", long=4)
    words = (f"data.root={root}", "eval_only=true", f"weights={ours}")
    code, _, err = run_experiment("preset=visage-r50-ytvis2021", *words, f"run_dir={tmp_path / 'b'}")
    assert code == 2
    assert "category 1 is person there, airplane in the data" in err
    assert len(err) < 400


def test_a_local_split_of_published_weights_is_no_test(run_experiment, tmp_path, root, visage_file):
    words = ("preset=minvis-r50-ytvis2019", f"data.root={root}", f"weights={visage_file}", "eval_only=true")
    code, out, err = run_experiment(
        *words, "data.test_short_side=32", "data.local_split=0.3", f"run_dir={tmp_path}"
    )
    assert code == 0, err
    assert "but the weights may have been trained on them" in (tmp_path / "table.md").read_text()
    assert "in training too" not in out


def test_parts_that_lack_a_video_are_refused_before_tracking(run_experiment, tmp_path, visage_file):
    root = write_official(tmp_path / "data", "ytvis2022", long=4)
    path = root / "valid" / "gt_long.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | {"videos": [], "annotations": []}))
    code, _, err = run_experiment(
        "preset=minvis-r50-ytvis2022",
        f"data.root={root}",
        f"weights={visage_file}",
        "eval_only=true",
        "data.test_short_side=32",
        f"run_dir={tmp_path / 'run'}",
    )
    assert code == 2
    assert "is in no part, expected each in one of" in err
    assert not (tmp_path / "run" / "rows").exists()


def test_a_preset_names_every_fault_of_the_release_and_the_default_has_none() -> None:
    released = compose(["preset=visage-r50-ytvis2019"]).config
    sound = compose(["tracker=visage", "segmenter=r50", "data=ytvis2019", "train=joint"]).config

    def switches(config):
        return (
            config.tracker.memory_weighting,
            config.train.loss.absent_labels,
            config.evaluation.keep_top,
            config.data.repeat_frames,
        )

    assert switches(released) == ("released", "released", 40, True)
    assert switches(sound) == ("recent", "kept", 10, False)
    assert compose(["preset=visage-swinl-ovis"]).config.evaluation.keep_top == 25
    minvis = compose(["preset=minvis-r50-ovis"]).config
    assert (minvis.evaluation.keep_top, minvis.evaluation.rescore) == (10, False)
    assert minvis.data.test_short_side == 360

"""From words and weights to a model: what the file says need not be said, and what contradicts it is told."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from golden_weights import published_state
from PIL import Image
from track_cases import read, save_frames, track, write_run_weights

import vistk
from vistk.data.categories import YTVIS2019
from vistk.data.transforms import resize_images
from vistk.models.checkpoints import CheckpointError, save_weights
from vistk.models.segmenter import Segmenter, TinySegmenterConfig
from vistk.models.weight_files import read_state
from vistk.published import convert
from vistk.schema import ConfigError
from vistk.start_weights import START_WEIGHTS
from vistk.structures import ScoringProtocol
from vistk.trackers.minvis import MinVIS
from vistk.trackers.visage import VISAGE
from vistk.tracking.model import TrackingError, open_model

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def run_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("run") / "weights.safetensors"
    words = ("tracker.memory_frames=3", "data.test_short_side=40", "evaluation.keep_top=7")
    return write_run_weights(path, "visage", *words)


@pytest.fixture(scope="module")
def official(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "model_final.pth"
    torch.save({"model": published_state("visage_r50_ytvis2019")}, path)
    return path


def open_words(*words):
    return open_model(list(map(str, words)), CPU)


def test_nothing_said_is_the_packaged_segmenter_with_minvis():
    model = open_words()
    assert isinstance(model.tracker, MinVIS)
    assert model.categories == {1: "disc", 2: "square", 3: "triangle", 4: "star"}
    assert not model.tracker.training
    assert not model.segmenter.training
    assert model.protocol == ScoringProtocol(10, True, (1, 2, 3, 4))
    assert model.said.endswith("tracker minvis, which has no weights of its own")


def test_the_weights_of_a_run_say_all(run_file):
    model = open_words(f"weights={run_file}")
    assert isinstance(model.tracker, VISAGE)
    assert model.tracker.config.memory_frames == 3
    assert (model.config.data.test_short_side, model.protocol.keep_top) == (40, 7)
    state = read_state(run_file).state
    own = model.tracker.state_dict()
    assert own
    assert all(torch.equal(value, state[f"tracker.{name}"]) for name, value in own.items())
    assert f"weights={run_file}" in model.words
    assert "which has no weights" not in model.said


def test_words_win_over_what_the_weights_say(run_file):
    model = open_words(f"weights={run_file}", "tracker.memory_frames=1", "data.test_short_side=null")
    assert (model.tracker.config.memory_frames, model.config.data.test_short_side) == (1, None)
    other = open_words(f"weights={run_file}", "tracker=visage-no-appearance")  # an ablation on the same heads
    assert other.config.choices["tracker"] == "visage-no-appearance"
    assert isinstance(open_words(f"weights={run_file}", "tracker=minvis").tracker, MinVIS)


def test_knobs_are_those_of_the_tracker_in_the_file(tmp_path):
    """Not those of the tracker that is the default elsewhere."""
    path = write_run_weights(tmp_path / "w.safetensors", "idol")
    model = open_words(f"weights={path}", "tracker.memory_frames=2")
    assert model.tracker.config.memory_frames == 2


def test_a_segmenter_of_another_shape_is_that_of_the_file(tmp_path):
    config = TinySegmenterConfig(num_queries=6, decoder_layers=2)
    state = {f"segmenter.{k}": v for k, v in Segmenter(config, 2).state_dict().items()}
    facts = {"segmenter": vars(config), "tracker": "minvis", "categories": {"4": "cat", "9": "dog"}}
    save_weights(tmp_path / "w.safetensors", state, facts)
    model = open_words(f"weights={tmp_path / 'w.safetensors'}")
    assert (model.segmenter.config.num_queries, model.categories) == (6, {4: "cat", 9: "dog"})
    with pytest.raises(TrackingError, match="of a segmenter with num_queries=6, but the words say 10"):
        open_words(f"weights={tmp_path / 'w.safetensors'}", "segmenter=tiny")


@pytest.mark.parametrize(
    ("words", "error", "message"),
    [
        (["tracker=visage"], TrackingError, "hold no heads of a tracker, expected those of tracker=visage"),
        (["tracker=oracle"], TrackingError, "tracker=oracle reads ground truth"),
        (["segmenter=r50"], TrackingError, "no weights come with segmenter=r50, only with tiny"),
        (["preset=visage-r50-ovis"], TrackingError, "preset=visage-r50-ovis needs its weights"),
        (["preset=visage-r50-ovvis"], ConfigError, "nearest is 'visage-r50-ovis'"),
        (["weights=null"], TrackingError, "weights=null are random ones"),
        (["weights=none.pth"], CheckpointError, r"none\.pth: no such file"),
        (
            ["segmenter.num_queries=5"],
            TrackingError,
            "of a segmenter with num_queries=10, but the words say 5",
        ),
        (["data=ovis"], TrackingError, "know other classes than data=ovis: 4 .* there, 25 "),
        (["train.lr=1"], ConfigError, "train.lr has no say in tracking"),
        (["data.root=x"], ConfigError, "data.root has no say in tracking"),
        (["wieghts=x"], ConfigError, "did you mean 'weights'"),
        (["tracker=minvus"], ConfigError, "did you mean 'minvis'"),
        (["video.mp4"], ConfigError, "cannot read 'video.mp4'"),
    ],
)
def test_what_cannot_be_is_told_in_a_sentence(words, error, message):
    with pytest.raises(error, match=message) as caught:
        open_words(*words)
    assert "\n" not in str(caught.value)


def test_heads_of_another_tracker_are_refused(run_file):
    with pytest.raises(TrackingError, match="hold heads of tracker visage, expected those of tracker=idol"):
        open_words(f"weights={run_file}", "tracker=idol")


def test_published_weights_need_their_name(official):
    with pytest.raises(
        TrackingError, match=r"a VISAGE with ResNet-50.*; say preset=NAME \(fitting: visage-r50"
    ):
        open_words(f"weights={official}")
    with pytest.raises(CheckpointError, match="are those of a VISAGE with ResNet-50, 100 queries and 40"):
        open_words(f"weights={official}", "preset=visage-swinl-ytvis2019")
    model = open_words(f"weights={official}", "tracker=minvis", "segmenter=r50")
    assert model.categories[40] == "class 40"


def test_a_converted_file_names_its_preset(tmp_path, official):
    path = tmp_path / "w.safetensors"
    convert(official, path, "visage-r50-ytvis2019")
    model = open_words(f"weights={path}")
    assert model.config.preset == "visage-r50-ytvis2019"
    assert (model.config.data.test_short_side, model.protocol.keep_top) == (480, 40)
    assert model.categories == YTVIS2019
    with pytest.raises(TrackingError, match="know other classes than preset=visage-r50-ytvis2021"):
        open_words(f"weights={path}", "preset=visage-r50-ytvis2021")


def test_published_weights_give_what_predict_gives(tmp_path, official, capsys):
    rng = np.random.default_rng(0)
    frames = [rng.integers(0, 256, (23, 83, 3), dtype=np.uint8) for _ in range(2)]
    folder = save_frames(tmp_path / "frames", frames)
    words = ("preset=visage-r50-ytvis2019", f"weights={official}")
    assert track(folder, "-o", tmp_path / "out", *words, "--short-side", 32, "--max-side", 96) == 0
    assert "a VISAGE with ResNet-50, 100 queries and 40 classes (person," in capsys.readouterr().out

    segmenter, tracker = vistk.load_published(official, "visage-r50-ytvis2019")
    given = torch.stack([torch.from_numpy(np.array(Image.open(folder / f"{t}.png"))) for t in range(2)])
    small = resize_images(given.permute(0, 3, 1, 2), (27, 96))
    expected = vistk.predict(segmenter, tracker, small, (23, 83)).to_ytvis()
    found = read(tmp_path / "out" / "results.json")
    assert len(found) == len(expected) > 1
    for one, other in zip(found, expected, strict=True):
        assert one["category_id"] == other["category_id"]
        assert one["segmentations"] == other["segmentations"]
        assert one["score"] == pytest.approx(other["score"], abs=1e-5)


def test_the_packaged_file_is_what_it_says():
    assert open_words().weights == START_WEIGHTS["tiny"]

"""Published models by name."""

from __future__ import annotations

import dataclasses

import pytest

from vistk.config import compose
from vistk.data.categories import TABLES
from vistk.models.segmenter import SegmenterConfig, SwinLargeConfig, SwinTinyConfig
from vistk.presets import PRESETS, get_preset
from vistk.schema import ConfigError
from vistk.trackers.minvis import MinVISConfig
from vistk.trackers.visage import VISAGEConfig


def test_names():
    video = {
        f"{method}-{segmenter}-{data}"
        for method in ("visage", "minvis")
        for segmenter in ("r50", "swinl")
        for data in ("ytvis2019", "ytvis2021", "ytvis2022", "ovis")
    }
    stills = {f"mask2former-{segmenter}-coco" for segmenter in ("r50", "swint", "swins", "swinb", "swinl")}
    assert set(PRESETS) == video | stills
    assert all(name == preset.name for name, preset in PRESETS.items())


@pytest.mark.parametrize(
    ("name", "queries", "classes", "keep_top", "rescore", "side"),
    [
        ("visage-r50-ytvis2019", 100, 40, 40, True, 480),
        ("visage-swinl-ovis", 200, 25, 25, True, 480),
        ("visage-swinl-ytvis2022", 200, 40, 40, True, 480),
        ("minvis-r50-ytvis2021", 100, 40, 10, False, 360),
        ("minvis-swinl-ovis", 200, 25, 10, False, 480),
        ("mask2former-swint-coco", 100, 80, 100, True, 800),
        ("mask2former-swinl-coco", 200, 80, 100, True, 800),
    ],
)
def test_published_numbers(name, queries, classes, keep_top, rescore, side):
    preset = get_preset(name)
    assert preset.segmenter_config().num_queries == queries
    assert preset.num_classes == classes
    assert preset.test_short_side == side
    protocol = preset.protocol()
    assert (protocol.keep_top, protocol.rescore) == (keep_top, rescore)
    assert len(protocol.category_ids) == classes


def test_categories_of_labels():
    """Label i is the i-th id: 1, 2, .. for videos; COCO leaves out ids, 12 first."""
    assert get_preset("visage-r50-ovis").protocol().category_ids == tuple(range(1, 26))
    coco = get_preset("mask2former-r50-coco").protocol().category_ids
    assert coco[:12] == (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 13)
    assert coco[-1] == 90
    assert all(
        TABLES["ytvis2021"] == get_preset(f"minvis-r50-{n}").categories for n in ("ytvis2021", "ytvis2022")
    )


def test_configurations():
    visage = get_preset("visage-swinl-ytvis2019")
    assert visage.segmenter_config() == SwinLargeConfig()
    assert visage.tracker_config() == VISAGEConfig(memory_weighting="released")
    assert get_preset("mask2former-swint-coco").segmenter_config() == SwinTinyConfig()
    minvis = get_preset("minvis-r50-ovis")
    assert type(minvis.segmenter_config()) is SegmenterConfig
    assert minvis.tracker_config() == MinVISConfig()


def test_a_configuration_is_the_callers_own():
    config = get_preset("visage-r50-ovis").segmenter_config()
    config.num_queries = 7
    assert get_preset("visage-r50-ovis").segmenter_config().num_queries == 100


def test_words_by_hand():
    assert get_preset("visage-r50-ytvis2019").words() == (
        "tracker=visage-released",
        "segmenter=r50",
        "data=ytvis2019",
        "data.test_short_side=480",
        "evaluation.rows=[visage-released]",
        "evaluation.keep_top=40",
        "evaluation.rescore=true",
        "train=joint",
        "train.steps=20000",
        "train.loss.absent_labels=released",
        "data.repeat_frames=true",
    )
    assert "train.steps=60000" in get_preset("visage-swinl-ovis").words()


@pytest.mark.parametrize("name", PRESETS)
def test_no_model_is_trained_as_a_small_one(name):
    """Where the published training is not known, nothing is trained unless it is asked for."""
    config = compose([f"preset={name}"]).config
    assert config.eval_only == (config.choices["train"] != "joint") == (not name.startswith("visage"))
    assert not compose([f"preset={name}", "eval_only=false"]).config.eval_only


@pytest.mark.parametrize("name", PRESETS)
def test_words_compose_to_the_preset(name):
    preset = PRESETS[name]
    config = compose(preset.words()).config
    assert dataclasses.asdict(config.segmenter) == dataclasses.asdict(preset.segmenter_config())
    assert config.tracker == preset.tracker_config()
    assert config.data.name == preset.data
    assert config.data.test_short_side == preset.test_short_side
    assert config.data.test_max_side == 1333
    protocol = preset.protocol()
    assert (config.evaluation.keep_top, config.evaluation.rescore) == (protocol.keep_top, protocol.rescore)
    assert config.evaluation.rows == [preset.tracker]


@pytest.mark.parametrize("data", ["ytvis2019", "ytvis2021", "ytvis2022", "ovis"])
def test_published_training_of_visage(data):
    config = compose(get_preset(f"visage-r50-{data}").words()).config
    steps = config.train.steps
    assert steps == (20000 if data == "ytvis2019" else 60000)
    assert [share * steps for share in config.train.milestones] == [15000 if data == "ytvis2019" else 45000]
    assert (config.train.lr, config.train.schedule, config.train.num_frames) == (1e-4, "multistep", 4)
    assert config.train.batch_size == 16
    assert config.train.loss.absent_labels == "released"
    assert config.data.frame_range == 10
    assert config.data.repeat_frames
    assert config.data.train_short_sides == [320, 352, 392, 416, 448, 480, 512, 544, 576, 608, 640]
    assert config.data.train_max_side == 768
    assert (config.data.crop, config.data.crop_drift) == (0.5, True)
    assert config.data.stills.copy_paste == (1.0 if data == "ytvis2019" else 0.0)


def test_an_unknown_name_has_a_nearest_one():
    with pytest.raises(
        ConfigError, match=r"'visage-r50-ytvis19'; nearest is 'visage-r50-ytvis2019'; known are visage"
    ):
        get_preset("visage-r50-ytvis19")

"""The data-set configurations as structured configs."""

import pytest
from omegaconf import OmegaConf
from omegaconf.errors import ConfigKeyError, ValidationError

from vistk.data.categories import TABLES
from vistk.data.config import (
    CocoConfig,
    DataConfig,
    OVISConfig,
    StillsConfig,
    SyntheticConfig,
    YTVIS2019Config,
    YTVIS2021Config,
    YTVIS2022Config,
)
from vistk.schema import ConfigError, cast

PUBLISHED = {
    "ytvis2019": YTVIS2019Config,
    "ytvis2021": YTVIS2021Config,
    "ytvis2022": YTVIS2022Config,
    "ovis": OVISConfig,
}
KINDS = [DataConfig, SyntheticConfig, *PUBLISHED.values(), CocoConfig]


@pytest.mark.parametrize("kind", KINDS)
def test_round_trip_through_a_structured_config(kind):
    config = OmegaConf.structured(kind)
    assert OmegaConf.to_object(config) == kind()
    merged = OmegaConf.merge(
        config, OmegaConf.from_dotlist(["root=here", "frame_range=null", "train_short_sides=[23]"])
    )
    assert OmegaConf.to_object(merged) == kind(root="here", frame_range=None, train_short_sides=[23])


def test_wrong_words_and_types_are_refused():
    config = OmegaConf.structured(DataConfig)
    with pytest.raises(ConfigKeyError):
        OmegaConf.merge(config, {"twins": 0.5})  # a knob of the synthetic data alone
    with pytest.raises(ValidationError):
        OmegaConf.merge(config, {"frame_range": "all"})


def test_defaults_are_not_shared():
    DataConfig().eval_splits.append("test")
    assert DataConfig().eval_splits == ["valid"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"train_short_sides": [23, 0]}, r"data.train_short_sides is \[23, 0\], expected sides of 1 or more"),
        ({"train_max_side": 0}, "data.train_max_side is 0, expected 1 or more pixels, or null"),
        ({"test_short_side": -7}, "data.test_short_side is -7, expected 1 or more pixels, or null"),
        ({"test_max_side": 0}, "data.test_max_side is 0, expected 1 or more pixels, or null"),
        ({"frame_range": -1}, "data.frame_range is -1, expected 0 or more, or null"),
        ({"hflip": 1.5}, "data.hflip is 1.5, expected a number from 0 to 1"),
        ({"hflip": float("nan")}, "data.hflip is nan, expected a number from 0 to 1"),
        ({"colour_jitter": -0.1}, "data.colour_jitter is -0.1, expected a number from 0 to 1"),
        ({"crop": 2.0}, "data.crop is 2.0, expected a number from 0 to 1"),
        ({"crop_short_sides": [0]}, r"data.crop_short_sides is \[0\], expected sides of 1 or more pixels"),
        ({"crop": 0.5, "crop_short_sides": []}, r"data.crop_short_sides is \[\], expected at least one side"),
        ({"crop_range": [7]}, r"data.crop_range is \[7\], expected a lowest and a highest side"),
        ({"crop_range": [8, 7]}, r"data.crop_range is \[8, 7\], expected .* 1 <= lowest <= highest"),
        ({"crop_range": [0, 7]}, r"data.crop_range is \[0, 7\], expected .* 1 <= lowest <= highest"),
        ({"num_workers": -1}, "data.num_workers is -1, expected 0 or more"),
        ({"eval_splits": []}, r"data.eval_splits is \[\], expected at least one split"),
        ({"local_split": 0.0}, "data.local_split is 0.0, expected a number between 0 and 1, or null"),
        ({"local_split": 1.0}, "data.local_split is 1.0, expected a number between 0 and 1, or null"),
        (
            {"categories": "coco2019"},
            "data.categories is coco2019, expected one of ytvis2019, .*coco, or null",
        ),
    ],
)
def test_values_out_of_range_are_named(kind, values, message):
    for make in (lambda: kind(**values), lambda: cast(kind, values, "data")):
        with pytest.raises(ConfigError, match=f"^{message}") as error:
            make()
        assert error.value.key.startswith("data.")
        assert error.value.key in str(error.value)


def test_the_ends_of_the_ranges_are_allowed():
    DataConfig(
        train_short_sides=[1],
        train_max_side=1,
        test_short_side=1,
        test_max_side=None,
        frame_range=0,
        hflip=1.0,
    )
    DataConfig(colour_jitter=1.0, crop=1.0, crop_short_sides=[1], crop_range=[1, 1], num_workers=0)
    DataConfig(crop=0.0, crop_short_sides=[])


@pytest.mark.parametrize("config", [kind() for kind in (*PUBLISHED.values(), CocoConfig)])
def test_published_training(config):
    assert config.train_short_sides == [320, 352, 392, 416, 448, 480, 512, 544, 576, 608, 640]
    assert (config.train_max_side, config.test_short_side, config.test_max_side) == (768, 480, 1333)
    assert (config.crop, config.crop_short_sides, config.crop_range) == (0.5, [400, 500, 600], [384, 600])
    assert (config.crop_drift, config.hflip, config.frame_range, config.colour_jitter) == (True, 0.5, 10, 0)
    assert not config.repeat_frames
    assert config.local_split is None


def test_published_names():
    for name, kind in PUBLISHED.items():
        config = kind()
        assert (config.name, config.categories) == (name, name)
        assert config.categories in TABLES
        assert (config.train_split, config.eval_splits) == ("train", ["valid"])
        assert config.stills.copy_paste == (1.0 if name == "ytvis2019" else 0.0)
    assert (CocoConfig().train_split, CocoConfig().eval_splits) == ("train2017", ["val2017"])
    assert CocoConfig().name == CocoConfig().classes == "coco"


def test_classes_of_coco():
    assert CocoConfig(classes="ovis").classes == "ovis"
    with pytest.raises(ConfigError, match=r"^data.classes is lvis, expected one of ytvis2019, .*ovis, coco$"):
        CocoConfig(classes="lvis")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"ratio": [1.0]},
            r"data.stills.ratio is \[1.0\], expected two positive numbers, of stills and of videos",
        ),
        ({"ratio": [1.0, 0.0]}, r"data.stills.ratio is \[1.0, 0.0\], expected two positive numbers"),
        ({"ratio": [float("inf"), 1.0]}, r"data.stills.ratio is \[inf, 1.0\], expected two positive numbers"),
        ({"rotation": -1.0}, "data.stills.rotation is -1.0, expected 0 to 180 degrees"),
        ({"rotation": float("inf")}, "data.stills.rotation is inf, expected 0 to 180 degrees"),
        ({"copy_paste": 1.5}, "data.stills.copy_paste is 1.5, expected a number from 0 to 1"),
    ],
)
def test_settings_of_stills_out_of_range_are_named(values, message):
    with pytest.raises(ConfigError, match=f"^{message}"):
        StillsConfig(**values)
    with pytest.raises(ConfigError, match=f"^{message}") as error:
        cast(YTVIS2019Config, {"stills": values}, "data")
    assert error.value.key == f"data.stills.{next(iter(values))}"

"""The data-set configurations as structured configs."""

import pytest
from omegaconf import OmegaConf
from omegaconf.errors import ConfigKeyError, ValidationError

from vistk.data.config import DataConfig, SyntheticConfig
from vistk.schema import ConfigError, cast


@pytest.mark.parametrize("kind", [DataConfig, SyntheticConfig])
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


@pytest.mark.parametrize("kind", [DataConfig, SyntheticConfig])
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

"""The data-set configurations as structured configs."""

import pytest
from omegaconf import OmegaConf
from omegaconf.errors import ConfigKeyError, ValidationError

from vistk.data.config import DataConfig, SyntheticConfig


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

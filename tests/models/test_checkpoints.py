"""Weights files: complete or absent, and every disagreement named."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from vistk.models import checkpoints
from vistk.models.checkpoints import (
    CheckpointError,
    from_detectron2_name,
    load_into,
    load_weights,
    save_weights,
)


def test_round_trip(tmp_path):
    path = tmp_path / "folder" / "w.safetensors"
    state = {"a.weight": torch.randn(3, 7), "b": torch.tensor(2)}
    save_weights(path, state, {"categories": {"1": "disc"}})
    loaded, metadata = load_weights(path)
    assert all(torch.equal(loaded[k], state[k]) for k in state)
    assert metadata == {"categories": {"1": "disc"}}


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "w.safetensors"
    save_weights(path, {"a": torch.ones(1)}, {})

    def full(tensors, name, metadata):
        with open(name, "wb") as file:
            file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoints, "save_file", full)
    with pytest.raises(OSError, match="No space left"):
        save_weights(path, {"a": torch.zeros(1)}, {})
    assert load_weights(path)[0]["a"].item() == 1
    assert [p.name for p in tmp_path.iterdir()] == ["w.safetensors"]


def test_missing_and_truncated_files(tmp_path):
    with pytest.raises(CheckpointError, match="no such file"):
        load_weights(tmp_path / "none.safetensors")
    path = tmp_path / "w.safetensors"
    save_weights(path, {"a": torch.ones(100)}, {})
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(CheckpointError, match="not a complete safetensors file"):
        load_weights(path)


def test_disagreements_are_named_and_change_nothing():
    module = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 1))
    before = {k: v.clone() for k, v in module.state_dict().items()}
    state = {
        "0.weight": torch.zeros(2, 4),
        "0.bias": torch.zeros(2),
        "1.weight": torch.zeros(1, 2),
        "extra": torch.zeros(1),
    }
    with pytest.raises(CheckpointError) as caught:
        load_into(module, state, "w.safetensors")
    message = str(caught.value)
    assert "weights w.safetensors are of another architecture" in message
    assert "1 of another shape (0.weight is (2, 4) in the file and (2, 3) in the model)" in message
    assert "1 missing (1.bias)" in message
    assert "1 unexpected (extra)" in message
    assert all(torch.equal(v, before[k]) for k, v in module.state_dict().items())


@pytest.mark.parametrize(
    ("published", "ours"),
    [
        ("backbone.stem.conv1.weight", "backbone.body.conv1.weight"),
        ("backbone.stem.conv1.norm.running_var", "backbone.body.bn1.running_var"),
        ("backbone.res2.0.shortcut.norm.bias", "backbone.body.layer1.0.downsample.1.bias"),
        ("backbone.res5.2.conv3.weight", "backbone.body.layer4.2.conv3.weight"),
        ("backbone.res4.1.conv2.norm.weight", "backbone.body.layer3.1.bn2.weight"),
        ("sem_seg_head.pixel_decoder.adapter_1.norm.bias", "pixel_decoder.adapter_1.norm.bias"),
        ("sem_seg_head.predictor.query_feat.weight", "transformer_decoder.query_feat.weight"),
    ],
)
def test_published_names(published, ours):
    assert from_detectron2_name(published) == ours

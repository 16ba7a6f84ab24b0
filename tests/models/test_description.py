"""What weights are, from names and shapes."""

from __future__ import annotations

import pytest
import torch

from vistk.models.description import describe_state
from vistk.models.segmenter import (
    Segmenter,
    SegmenterConfig,
    SwinBaseConfig,
    SwinLargeConfig,
    SwinSmallConfig,
    SwinTinyConfig,
    TinySegmenterConfig,
)
from vistk.models.weight_files import CheckpointError


@pytest.mark.parametrize(
    ("config", "name", "text"),
    [
        (TinySegmenterConfig(), "tiny", "Mask2Former of width 64 with the tiny ResNet, 10 queries"),
        (SegmenterConfig(), "r50", "Mask2Former with ResNet-50, 100 queries"),
        (SwinTinyConfig(), "swint", "Mask2Former with Swin-T, 100 queries"),
        (SwinSmallConfig(), "swins", "Mask2Former with Swin-S, 100 queries"),
        (SwinBaseConfig(), "swinb", "Mask2Former with Swin-B, 100 queries"),
        (SwinLargeConfig(), "swinl", "Mask2Former with Swin-L, 200 queries"),
    ],
)
def test_every_segmenter_knows_itself(config, name, text):
    with torch.device("meta"):
        found = describe_state(Segmenter(config, 7).state_dict())
    assert str(found) == f"a {text} and 7 classes"
    assert (found.family, found.backbone, found.classes) == ("vistk", name, 7)
    assert found.words == f"segmenter={name}"
    assert not found.appearance


@pytest.mark.parametrize(
    ("config", "backbone", "words"),
    [
        (SegmenterConfig(num_queries=23), "r50", "segmenter=r50 segmenter.num_queries=23"),
        (SegmenterConfig(hidden_dim=64), "r50", None),
        (SegmenterConfig(backbone="resnet101"), "r101", None),
        (SegmenterConfig(backbone="resnet34"), "other", None),
        (SegmenterConfig(backbone="convnext_atto"), "other", None),
        (SegmenterConfig(backbone="swin_base_patch4_window7_224"), "other", None),
    ],
)
def test_segmenters_that_are_no_option(config, backbone, words):
    with torch.device("meta"):
        found = describe_state(Segmenter(config, 1).state_dict())
    assert found.backbone == backbone
    assert found.words == words


def test_heads_of_visage_and_parts_that_are_not_there():
    found = describe_state({"tracker.appearance_decoder.reid_embd.layers.0.bias": torch.zeros(256)})
    assert found.appearance
    assert str(found) == "a VISAGE with another backbone, no queries and no classes"


def test_names_of_no_family():
    with pytest.raises(
        CheckpointError, match=r"weights w\.pth: no Mask2Former, MinVIS or VISAGE, its entries are a, b"
    ):
        describe_state({"a": torch.ones(1), "b": torch.ones(1)}, "w.pth")

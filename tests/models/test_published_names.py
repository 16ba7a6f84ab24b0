"""Names of published parameters and ours, both ways."""

from __future__ import annotations

import json

import pytest
import torch
from golden_weights import GOLDEN

from vistk.models.checkpoints import load_published_into
from vistk.models.name_tables import DETECTRON2, TRANSFORMERS
from vistk.models.published_names import (
    to_detectron2,
    to_transformers,
    translate,
)
from vistk.models.segmenter import Segmenter, SegmenterConfig, SwinLargeConfig
from vistk.models.weight_files import CheckpointError
from vistk.trackers.registry import get_tracker

NAME_FILES = sorted(
    path.name.removesuffix("_state_dict.json") for path in (GOLDEN / "names").glob("*_dict.json")
)


def entries_of(names: str) -> dict[str, tuple[int, ...]]:
    entries = json.loads((GOLDEN / "names" / f"{names}_state_dict.json").read_text())
    return {name: tuple(shape) for name, shape, _ in entries}


def on_meta(shapes: dict[str, tuple[int, ...]]) -> dict[str, torch.Tensor]:
    return {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}


def model_of(names: str, device: str = "meta"):
    """Segmenter and tracker that an official file is of."""
    shapes = entries_of(names)
    classes = shapes["sem_seg_head.predictor.class_embed.bias"][0] - 1
    config = SwinLargeConfig() if "swinl" in names else SegmenterConfig()
    with torch.device(device):
        segmenter = Segmenter(config, classes)
        cls, tracker_config = get_tracker("visage" if "visage" in names else "minvis")
        tracker = cls(
            tracker_config,
            embed_dim=256,
            feature_channels=segmenter.feature_channels,
            num_classes=classes,
        )
    return segmenter, tracker


@pytest.mark.parametrize(
    ("published", "ours"),
    [
        ("backbone.stem.conv1.weight", "segmenter.backbone.body.conv1.weight"),
        ("backbone.stem.conv1.norm.running_var", "segmenter.backbone.body.bn1.running_var"),
        ("backbone.res2.0.shortcut.norm.bias", "segmenter.backbone.body.layer1.0.downsample.1.bias"),
        ("backbone.res2.0.shortcut.weight", "segmenter.backbone.body.layer1.0.downsample.0.weight"),
        ("backbone.res5.2.conv3.weight", "segmenter.backbone.body.layer4.2.conv3.weight"),
        ("backbone.res4.1.conv2.norm.weight", "segmenter.backbone.body.layer3.1.bn2.weight"),
        ("backbone.patch_embed.proj.bias", "segmenter.backbone.body.patch_embed.proj.bias"),
        (
            "backbone.layers.2.blocks.17.mlp.fc1.bias",
            "segmenter.backbone.body.layers_2.blocks.17.mlp.fc1.bias",
        ),
        ("backbone.layers.0.downsample.norm.bias", "segmenter.backbone.body.layers_1.downsample.norm.bias"),
        ("backbone.norm3.weight", "segmenter.backbone.norm3.weight"),
        ("sem_seg_head.pixel_decoder.adapter_1.norm.bias", "segmenter.pixel_decoder.adapter_1.norm.bias"),
        ("sem_seg_head.predictor.query_feat.weight", "segmenter.transformer_decoder.query_feat.weight"),
        (
            "appearance_decoder.input_proj.0.0.norm.weight",
            "tracker.appearance_decoder.input_proj.0.0.norm.weight",
        ),
    ],
)
def test_detectron2_names_by_hand(published, ours):
    assert DETECTRON2.there(published) == ours
    assert DETECTRON2.back(ours) == published


@pytest.mark.parametrize("name", ["backbone.res6.0.conv1.weight", "backbone.fc.weight", "text_encoder.x", ""])
def test_names_of_no_table(name):
    assert DETECTRON2.there(name) is None
    assert DETECTRON2.back(name) is None


@pytest.mark.parametrize("names", NAME_FILES)
def test_every_official_file_fits_completely(names):
    shapes = entries_of(names)
    segmenter, tracker = model_of(names)
    report = load_published_into(segmenter, tracker, on_meta(shapes), names)
    beside = [n for n in shapes if n == "criterion.empty_weight" or n.endswith("relative_position_index")]
    assert len(report.loaded) == len(shapes) - len(beside)
    assert set(report.ignored) == set(beside)
    assert report.missing == report.fresh == report.skipped_for_shape == ()


def test_there_are_seven_name_files():
    assert len(NAME_FILES) == 7


@pytest.mark.parametrize("names", ["visage_r50_ovis", "visage_swinl_ovis", "coco_m2f_swinl"])
def test_there_and_back_is_the_official_file(names):
    shapes = entries_of(names)
    ours = translate(on_meta(shapes), names).state
    tables = {n: torch.empty(v.shape) for n, v in ours.items() if n.endswith("bias_table")}
    classes = {n: torch.empty(v.shape) for n, v in ours.items() if n.endswith("class_embed.bias")}
    back = to_detectron2(ours | tables | classes)
    assert {name: tuple(value.shape) for name, value in back.items()} == shapes
    assert back["criterion.empty_weight"].tolist() == [1.0] * (len(back["criterion.empty_weight"]) - 1) + [
        pytest.approx(0.1)
    ]


def test_position_index_by_hand():
    """Windows of 2x2 pixels: row (dy + 1) * 3 + (dx + 1) of the table."""
    ours = {
        "segmenter.backbone.body.layers_0.blocks.0.attn.relative_position_bias_table": torch.zeros(9, 1),
        "segmenter.transformer_decoder.class_embed.bias": torch.zeros(2),
    }
    index = to_detectron2(ours)["backbone.layers.0.blocks.0.attn.relative_position_index"]
    assert index.tolist() == [[4, 3, 1, 0], [5, 4, 2, 1], [7, 6, 4, 3], [8, 7, 5, 4]]
    assert index.dtype == torch.int64


class TestOldFiles:
    @pytest.fixture
    def shapes(self):
        return entries_of("coco_m2f_r50")

    def load(self, shapes):
        segmenter, _ = model_of("coco_m2f_r50")
        return load_published_into(segmenter, None, on_meta(shapes), "old.pkl")

    def test_without_the_pixel_decoder_in_its_names(self, shapes):
        old = {name.replace("sem_seg_head.pixel_decoder.", "sem_seg_head."): s for name, s in shapes.items()}
        assert sum(name not in shapes for name in old) == 117
        report = self.load(old)
        assert len(report.loaded) == 557
        assert (
            report.renamed["sem_seg_head.mask_features.bias"] == "segmenter.pixel_decoder.mask_features.bias"
        )

    def test_some_names_have_it_and_some_have_not(self, shapes):
        mixed = {
            name.replace("sem_seg_head.pixel_decoder.", "sem_seg_head.") if i % 2 else name: s
            for i, (name, s) in enumerate(shapes.items())
        }
        assert len(self.load(mixed).loaded) == 557

    def test_static_query(self, shapes):
        old = {name.replace("query_feat", "static_query"): s for name, s in shapes.items()}
        assert set(old) != set(shapes)
        report = self.load(old)
        assert (
            report.renamed["sem_seg_head.predictor.static_query.weight"]
            == "segmenter.transformer_decoder.query_feat.weight"
        )

    def test_data_parallel(self, shapes):
        assert len(self.load({f"module.{name}": s for name, s in shapes.items()}).loaded) == 557

    def test_two_names_for_one_parameter(self, shapes):
        twice = shapes | {"sem_seg_head.predictor.static_query.weight": (100, 256)}
        with pytest.raises(CheckpointError, match=r"1 unexpected \(sem_seg_head\.predictor\.static_query"):
            self.load(twice)


def test_a_backbone_alone():
    with pytest.raises(
        CheckpointError, match=r"R-50\.pkl: no Mask2Former, MinVIS or VISAGE, its entries are stem"
    ):
        translate({"stem.conv1.weight": torch.ones(1), "res2.0.conv1.weight": torch.ones(1)}, "R-50.pkl")


def test_a_segmenter_that_was_never_published():
    with pytest.raises(CheckpointError, match=r"segmenter\.dense_embed\.bias has no name in Detectron2's"):
        to_detectron2({"segmenter.dense_embed.bias": torch.ones(3)})


def test_transformers_has_no_resnet():
    ours = translate(on_meta(entries_of("coco_m2f_r50")), "").state
    ours["segmenter.transformer_decoder.class_embed.bias"] = torch.zeros(81)
    with pytest.raises(CheckpointError, match=r"backbone\.\S+ has no name in Transformers' Mask2Former"):
        to_transformers(ours)
    theirs = {
        "model.pixel_level_module.encoder.embedder.embedder.convolution.weight": torch.ones(1),
        "model.transformer_module.queries_features.weight": torch.ones(1),
    }
    with pytest.raises(CheckpointError, match="whose backbone is not Swin"):
        translate(theirs, "")


@pytest.mark.parametrize(
    ("spelling", "published"),
    [
        ("encoder.swin.encoder.layers.0.blocks.1.attention.q_proj.bias", "attention.self.query.bias"),
        ("encoder.model.encoder.layers.0.blocks.1.attention.self.query.bias", "attention.self.query.bias"),
        ("encoder.encoder.layers.0.blocks.1.attention.self.query.bias", "attention.self.query.bias"),
    ],
)
def test_spellings_of_other_versions(spelling, published):
    """A file of any version of Transformers; the norms of the oldest were numbered."""
    base = "model.pixel_level_module."
    shapes = {
        f"{base}encoder.embeddings.norm.weight": (12,),
        f"{base}encoder.hidden_states_norms.0.weight": (12,),
        "model.transformer_module.queries_features.weight": (7, 32),
    }
    parts = {"q": torch.full((12,), 1.0), "k": torch.full((12,), 2.0), "v": torch.full((12,), 3.0)}
    state = on_meta(shapes)
    for letter, long in (("q", "query"), ("k", "key"), ("v", "value")):
        state[base + spelling.replace("q_proj", f"{letter}_proj").replace("query", long)] = parts[letter]
    found = translate(state, "")
    assert found.unknown == []
    assert set(found.state) == {
        "segmenter.backbone.body.patch_embed.norm.weight",
        "segmenter.backbone.norm0.weight",
        "segmenter.transformer_decoder.query_feat.weight",
        "segmenter.backbone.body.layers_0.blocks.1.attn.qkv.bias",
    }
    joined = found.state["segmenter.backbone.body.layers_0.blocks.1.attn.qkv.bias"]
    assert joined.tolist() == [1.0] * 12 + [2.0] * 12 + [3.0] * 12
    assert published in " ".join(found.origin.values()) or "q_proj" in spelling


def test_a_part_of_a_joint_projection_is_missing():
    state = on_meta(
        {
            "model.pixel_level_module.encoder.embeddings.norm.weight": (12,),
            "model.transformer_module.queries_features.weight": (7, 32),
            "model.transformer_module.decoder.layers.0.self_attn.q_proj.bias": (32,),
            "model.transformer_module.decoder.layers.0.self_attn.k_proj.bias": (32,),
        }
    )
    assert sorted(translate(state, "").unknown) == [
        "model.transformer_module.decoder.layers.0.self_attn.k_proj.bias",
        "model.transformer_module.decoder.layers.0.self_attn.q_proj.bias",
    ]


def test_tables_read_backwards_are_the_way_back():
    for names in ("visage_swinl_ovis", "coco_m2f_swinl"):
        for name in entries_of(names):
            theirs = TRANSFORMERS.there(name)
            if theirs is not None:
                assert TRANSFORMERS.back(theirs) == name

"""Published weights through the public door: which file makes which model, and back into files."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from golden_weights import GOLDEN, published_state

import vistk
from vistk import published
from vistk.data.categories import TABLES
from vistk.models.checkpoints import CheckpointError, load_weights
from vistk.models.description import describe_state
from vistk.models.published_names import to_transformers
from vistk.models.segmenter import Segmenter, SegmenterConfig, SwinTinyConfig
from vistk.models.weight_files import read_state
from vistk.presets import PRESETS, get_preset
from vistk.published import convert, fits, read_published
from vistk.schema import ConfigError
from vistk.trackers.minvis import MinVIS
from vistk.trackers.visage import VISAGE


def entries_of(names: str):
    return json.loads((GOLDEN / "names" / f"{names}_state_dict.json").read_text())


@pytest.fixture(scope="module")
def ovis() -> dict[str, torch.Tensor]:
    """The official VISAGE R50 file of OVIS, complete, every value from the recipe."""
    state = published_state("visage_r50_ovis")
    state["criterion.empty_weight"] = torch.tensor([1.0] * 25 + [0.1])
    assert set(state) == {name for name, _, _ in entries_of("visage_r50_ovis")}
    return state


@pytest.fixture(scope="module")
def official(ovis, tmp_path_factory):
    path = tmp_path_factory.mktemp("official") / "model_final.pth"
    torch.save({"model": ovis, "iteration": 59999, "trainer": {"iteration": 59999}}, path)
    return path


class TestLoad:
    def test_visage(self, official, ovis):
        model = read_published(official, "visage-r50-ovis")
        assert isinstance(model.tracker, VISAGE)
        assert model.tracker.config.memory_weighting == "released"
        assert (model.tracker.protocol.keep_top, model.tracker.protocol.rescore) == (25, True)
        assert not model.segmenter.training
        assert not model.tracker.training
        assert len(model.report.loaded) == 581
        assert list(model.report.ignored) == ["criterion.empty_weight"]
        assert torch.equal(
            model.segmenter.transformer_decoder.query_feat.weight,
            ovis["sem_seg_head.predictor.query_feat.weight"],
        )
        assert torch.equal(
            model.segmenter.backbone.body.layer4[2].conv3.weight, ovis["backbone.res5.2.conv3.weight"]
        )

    def test_random_numbers_go_on_as_before(self, official):
        torch.manual_seed(3)
        expected = torch.rand(2)
        torch.manual_seed(3)
        vistk.load_published(official, "minvis-r50-ovis")
        assert torch.equal(torch.rand(2), expected)

    def test_minvis_takes_the_segmenter_of_visage(self, official):
        model = read_published(official, "minvis-r50-ovis")
        assert isinstance(model.tracker, MinVIS)
        assert (model.tracker.protocol.keep_top, model.tracker.protocol.rescore) == (10, False)
        assert sum(why == "the tracker has no heads" for why in model.report.ignored.values()) == 24
        assert "left out, the tracker has no heads: 24 (appearance_decoder." in str(model.report)

    def test_visage_does_not_take_a_file_without_heads(self, ovis):
        without = {k: v for k, v in ovis.items() if not k.startswith("appearance_decoder.")}
        message = (
            r"of a Mask2Former with ResNet-50, .* not visage-r50-ovis; presets that fit: minvis-r50-ovis$"
        )
        with pytest.raises(CheckpointError, match=message):
            vistk.load_published(without, "visage-r50-ovis")
        vistk.load_published(without, "minvis-r50-ovis")

    @pytest.mark.parametrize("preset", ["visage-r50-ytvis2019", "visage-swinl-ovis", "mask2former-r50-coco"])
    def test_another_preset(self, official, preset):
        with pytest.raises(
            CheckpointError,
            match=rf"a VISAGE with ResNet-50, 100 queries and 25 classes, which is not {preset}; "
            "presets that fit: visage-r50-ovis, minvis-r50-ovis$",
        ):
            vistk.load_published(official, preset)

    @pytest.mark.parametrize(
        "name",
        ["appearance_decoder.reid_embd.layers.2.bias", "sem_seg_head.pixel_decoder.mask_features.bias"],
    )
    def test_missing_entries_are_named(self, ovis, name):
        state = {k: v for k, v in ovis.items() if k != name}
        with pytest.raises(CheckpointError, match=rf"1 missing \((tracker|segmenter)\.\S*{name[-12:]}\)"):
            vistk.load_published(state, "visage-r50-ovis")

    def test_unexpected_entries_are_named(self, ovis):
        with pytest.raises(CheckpointError, match=r"1 unexpected \(sem_seg_head\.predictor\.novel\)"):
            vistk.load_published(ovis | {"sem_seg_head.predictor.novel": torch.ones(1)}, "visage-r50-ovis")

    def test_unknown_preset(self, official):
        with pytest.raises(ConfigError, match="nearest is 'visage-r50-ovis'"):
            vistk.load_published(official, "visage-r50-oviss")


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (
            "visage_r50_ytvis2019",
            [f"{m}-r50-{d}" for m in ("visage", "minvis") for d in ("ytvis2019", "ytvis2021", "ytvis2022")],
        ),
        ("visage_swinl_ovis", ["visage-swinl-ovis", "minvis-swinl-ovis"]),
        ("coco_m2f_r50", ["mask2former-r50-coco"]),
        ("coco_m2f_swinl", ["mask2former-swinl-coco"]),
    ],
)
def test_presets_that_fit_official_files(names, expected):
    state = {name: torch.empty(shape, device="meta") for name, shape, _ in entries_of(names)}
    description = describe_state(state)
    assert [name for name, preset in PRESETS.items() if fits(description, preset)] == expected


class TestConvert:
    def assert_same_model(self, path, official, preset="visage-r50-ovis"):
        first, second = read_published(official, preset), read_published(path, preset)
        for name in ("segmenter", "tracker"):
            a, b = getattr(first, name).state_dict(), getattr(second, name).state_dict()
            assert set(a) == set(b)
            assert all(torch.equal(a[key], b[key]) for key in a)

    def test_to_a_file_of_this_project(self, official, tmp_path):
        path = tmp_path / "folder" / "visage.safetensors"
        report = convert(official, path, "visage-r50-ovis")
        assert len(report.loaded) == 581
        state, metadata = load_weights(path)
        assert len(state) == 581
        assert all(name.startswith(("segmenter.", "tracker.")) for name in state)
        assert metadata["tracker"] == "visage-released"
        assert metadata["preset"] == "visage-r50-ovis"
        assert metadata["categories"] == {str(k): v for k, v in TABLES["ovis"].items()}
        assert metadata["words"] == list(get_preset("visage-r50-ovis").words())
        assert SegmenterConfig(**metadata["segmenter"]) == SegmenterConfig()
        self.assert_same_model(path, official)
        assert [p.name for p in path.parent.iterdir()] == ["visage.safetensors"]

    @pytest.mark.parametrize("suffix", [".pth", ".pkl"])
    def test_and_back_to_the_official_layout(self, official, ovis, tmp_path, suffix):
        convert(official, tmp_path / "ours.safetensors", "visage-r50-ovis")
        convert(tmp_path / "ours.safetensors", tmp_path / f"back{suffix}", "visage-r50-ovis")
        file = read_state(tmp_path / f"back{suffix}")
        assert set(file.state) == set(ovis)
        assert all(torch.equal(file.state[name], value) for name, value in ovis.items())
        if suffix == ".pkl":  # as Detectron2 reads its model zoo
            tree = pickle.loads((tmp_path / "back.pkl").read_bytes(), encoding="latin1")
            assert set(tree) == {"model", "__author__"}
            assert all(isinstance(value, np.ndarray) for value in tree["model"].values())
        else:
            tree = torch.load(tmp_path / "back.pth", weights_only=True)
            assert torch.equal(tree["model"]["criterion.empty_weight"], ovis["criterion.empty_weight"])
        self.assert_same_model(tmp_path / f"back{suffix}", official)

    @pytest.mark.parametrize(
        ("target", "layout", "message"),
        [
            (
                "w.txt",
                None,
                r"w\.txt: expected a file that ends in \.safetensors or \.pth or \.pkl or \.bin$",
            ),
            ("w.pth", "vistk", r"w\.pth: expected a file that ends in \.safetensors for the layout vistk"),
            ("w.bin", "detectron2", r"ends in \.pth or \.pkl for the layout detectron2"),
        ],
    )
    def test_suffixes(self, official, tmp_path, target, layout, message):
        with pytest.raises(CheckpointError, match=message):
            convert(official, tmp_path / target, "visage-r50-ovis", layout)
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize("target", ["w.safetensors", "w.bin"])
    def test_transformers_has_no_resnet(self, official, tmp_path, target):
        (tmp_path / target).write_text("old")
        with pytest.raises(CheckpointError, match="has no name in Transformers' Mask2Former"):
            convert(official, tmp_path / target, "visage-r50-ovis", "transformers")
        assert (tmp_path / target).read_text() == "old"
        assert len(list(tmp_path.iterdir())) == 1

    def test_a_file_that_names_its_classes_is_of_no_other_data(self, tmp_path):
        """The official files of YouTube-VIS 2019 and 2021 cannot be told apart; those of this project can."""
        official = {"model": published_state("visage_r50_ytvis2019")}
        vistk.load_published(official, "minvis-r50-ytvis2021")
        torch.save(official, tmp_path / "w.pth")
        ours = tmp_path / "w.safetensors"
        convert(tmp_path / "w.pth", ours, "visage-r50-ytvis2019")
        with pytest.raises(
            CheckpointError,
            match=r"not minvis-r50-ytvis2021; presets that fit: visage-r50-ytvis2019, minvis-r50-ytvis2019$",
        ):
            vistk.load_published(ours, "minvis-r50-ytvis2021")
        vistk.load_published(ours, "minvis-r50-ytvis2019")

    def test_transformers_and_back(self, tmp_path):
        """A Swin-T as Transformers publishes it, through a file of this project and back."""
        torch.manual_seed(0)
        ours = Segmenter(SwinTinyConfig(), 80).state_dict()
        theirs = to_transformers({f"segmenter.{name}": value for name, value in ours.items()})
        torch.save(theirs, tmp_path / "pytorch_model.bin")
        preset = "mask2former-swint-coco"
        report = convert(tmp_path, tmp_path / "ours.safetensors", preset)
        assert "Swin-T, 100 queries and 80 classes, in the names of Transformers" in report.holds
        state = read_state(tmp_path / "ours.safetensors").state
        assert set(state) == {f"segmenter.{name}" for name in ours}
        assert all(torch.equal(state[f"segmenter.{name}"], value) for name, value in ours.items())
        convert(tmp_path / "ours.safetensors", tmp_path / "back.safetensors", preset, "transformers")
        back = read_state(tmp_path / "back.safetensors")
        assert back.metadata == {"format": "pt"}
        assert set(back.state) == set(theirs)
        assert all(torch.equal(back.state[name], value) for name, value in theirs.items())

    def test_transformers_has_no_heads(self, tmp_path, monkeypatch):
        """What is lost on the way is said."""
        theirs = to_transformers(
            {f"segmenter.{k}": v for k, v in Segmenter(SwinTinyConfig(), 80).state_dict().items()}
        )
        model = read_published(theirs, "mask2former-swint-coco")
        channels = dict.fromkeys(["res2", "res3", "res4", "res5"], 8)
        visage = VISAGE(VISAGE.Config(), embed_dim=256, feature_channels=channels, num_classes=80)
        monkeypatch.setattr(published, "read_published", lambda *_: replace(model, tracker=visage))
        report = convert("heads.pth", tmp_path / "w.bin", "visage-swint", "transformers")
        heads = {f"tracker.{name}" for name in visage.state_dict()}
        assert heads <= set(report.ignored)
        assert f"left out, for Transformers has no such heads: {len(heads)} (tracker." in str(report)
        assert set(read_state(tmp_path / "w.bin").state) == set(theirs)

    def test_a_file_onto_itself(self, official, tmp_path, ovis):
        path = tmp_path / "w.pth"
        path.write_bytes(official.read_bytes())
        convert(path, path, "visage-r50-ovis")
        state = read_state(path).state
        assert all(torch.equal(state[name], value) for name, value in ovis.items())

    def test_a_full_disk(self, official, tmp_path, monkeypatch):
        def full(tree, path):
            path.write_bytes(b"half")
            raise RuntimeError("[enforce fail at inline_container.cc:664] . unexpected pos 64 vs 0")

        monkeypatch.setattr(torch, "save", full)
        with pytest.raises(OSError, match=r"w\.pth cannot be written"):
            convert(official, tmp_path / "w.pth", "visage-r50-ovis")
        assert list(tmp_path.iterdir()) == []

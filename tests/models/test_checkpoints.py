"""Weights files: complete or absent, and every disagreement named."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from vistk.models import checkpoints
from vistk.models.checkpoints import (
    CheckpointError,
    load_into,
    load_published_into,
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


# Published weights into modules.


class Tracker(nn.Module):
    """With VISAGE's heads, as far as names go."""

    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.appearance_decoder = nn.ModuleDict({"reid_embd": nn.Linear(width, width)})


class Segmenter(nn.Module):
    """Names of a segmenter: a few of every part."""

    def __init__(self, classes: int = 3, queries: int = 5, dense: bool = False) -> None:
        super().__init__()
        self.backbone = nn.ModuleDict({"body": nn.ModuleDict({"bn1": nn.BatchNorm2d(2)})})
        self.transformer_decoder = nn.ModuleDict(
            {"query_feat": nn.Embedding(queries, 4), "class_embed": nn.Linear(4, classes + 1)}
        )
        if dense:
            self.dense_embed = nn.Conv2d(4, classes + 1, 1)


def published(classes: int = 3, queries: int = 5, heads: bool = True) -> dict[str, torch.Tensor]:
    predictor = "sem_seg_head.predictor"
    state = {
        f"{predictor}.static_query.weight": torch.full((queries, 4), 1.0),
        f"{predictor}.class_embed.weight": torch.full((classes + 1, 4), 2.0),
        f"{predictor}.class_embed.bias": torch.full((classes + 1,), 3.0),
        "criterion.empty_weight": torch.ones(classes + 1),
    } | {
        f"backbone.stem.conv1.norm.{name}": torch.full((2,), 4.0)
        for name in ("weight", "bias", "running_mean", "running_var")
    }
    if heads:
        state |= {
            "appearance_decoder.reid_embd.weight": torch.full((4, 4), 5.0),
            "appearance_decoder.reid_embd.bias": torch.full((4,), 6.0),
        }
    return state


HEAD = {"segmenter.transformer_decoder.class_embed.weight", "segmenter.transformer_decoder.class_embed.bias"}
COUNTER = "segmenter.backbone.body.bn1.num_batches_tracked"


def copy_of(*modules: nn.Module) -> list[dict[str, torch.Tensor]]:
    return [{name: value.clone() for name, value in m.state_dict().items()} for m in modules]


def assert_unchanged(before, *modules: nn.Module) -> None:
    for state, module in zip(before, modules, strict=True):
        assert all(torch.equal(value, state[name]) for name, value in module.state_dict().items())


def test_published_weights_are_loaded_whole():
    segmenter, tracker = Segmenter(), Tracker()
    report = load_published_into(segmenter, tracker, published(), "w.pth")
    assert segmenter.transformer_decoder["query_feat"].weight.eq(1).all()
    assert segmenter.transformer_decoder["class_embed"].bias.eq(3).all()
    assert segmenter.backbone["body"]["bn1"].running_var.eq(4).all()
    assert tracker.appearance_decoder["reid_embd"].bias.eq(6).all()
    assert len(report.loaded) == len(report.renamed) == 9
    assert report.missing == (COUNTER,)  # no published file counts batches
    assert report.ignored == {"criterion.empty_weight": "a setting of the loss"}
    assert str(report).splitlines() == [
        "w.pth: a VISAGE of width 4 with another backbone, 5 queries and 3 classes, in the names of "
        "Detectron2",
        "loaded: 9 entries, 9 of them under another name (first: backbone.stem.conv1.norm.weight -> "
        "segmenter.backbone.body.bn1.weight)",
        f"fresh, because the file has none: 1 ({COUNTER})",
        "left out, a setting of the loss: 1 (criterion.empty_weight)",
    ]


def test_half_precision_files_fill_modules_of_single_precision():
    segmenter = Segmenter()
    load_published_into(segmenter, None, {k: v.half() for k, v in published(heads=False).items()})
    assert segmenter.transformer_decoder["query_feat"].weight.dtype == torch.float32
    assert segmenter.transformer_decoder["query_feat"].weight.eq(1).all()


@pytest.mark.parametrize("tracker", [None, nn.Identity()])
def test_a_tracker_without_heads_leaves_those_of_the_file(tracker):
    report = load_published_into(Segmenter(), tracker, published())
    assert report.ignored["appearance_decoder.reid_embd.bias"] == "the tracker has no heads"
    assert "left out, the tracker has no heads: 2 (appearance_decoder.reid_embd.weight" in str(report)


class TestOtherClasses:
    def test_are_an_error(self):
        segmenter, tracker = Segmenter(classes=7), Tracker()
        before = copy_of(segmenter, tracker)
        with pytest.raises(
            CheckpointError, match=r"w\.pth are those of .* 3 classes, the model is .* 7 classes"
        ):
            load_published_into(segmenter, tracker, published(), "w.pth")
        assert_unchanged(before, segmenter, tracker)

    def test_leave_the_head_as_it_is_on_request(self):
        segmenter = Segmenter(classes=7, dense=True)
        head = copy_of(segmenter.transformer_decoder["class_embed"])
        report = load_published_into(segmenter, Tracker(), published(), fresh_class_head=True)
        assert_unchanged(head, segmenter.transformer_decoder["class_embed"])
        assert report.skipped_for_shape == (
            ("segmenter.transformer_decoder.class_embed.bias", (4,), (8,)),
            ("segmenter.transformer_decoder.class_embed.weight", (4, 4), (8, 4)),
        )
        assert set(report.missing) == {COUNTER, "segmenter.dense_embed.bias", "segmenter.dense_embed.weight"}
        assert len(report.loaded) == 7
        assert (
            "fresh, because of another shape in the file: 2 (segmenter.transformer_decoder.class_embed.bias "
            "is (4,) in the file and (8,) in the model"
        ) in str(report)

    def test_of_the_same_number_too(self):
        segmenter = Segmenter()
        head = copy_of(segmenter.transformer_decoder["class_embed"])
        report = load_published_into(segmenter, Tracker(), published(), fresh_class_head=True)
        assert_unchanged(head, segmenter.transformer_decoder["class_embed"])
        assert set(report.fresh) == HEAD
        assert "fresh, as asked: 2 (segmenter.transformer_decoder.class_embed.weight" in str(report)

    def test_queries_are_no_classes(self):
        with pytest.raises(CheckpointError, match=r"5 queries and 3 classes, the model is .* 6 queries"):
            load_published_into(Segmenter(queries=6), None, published(), fresh_class_head=True)


class TestHeads:
    def test_missing_ones_are_an_error(self):
        segmenter, tracker = Segmenter(), Tracker()
        before = copy_of(segmenter, tracker)
        with pytest.raises(
            CheckpointError, match=r"do not fit: 2 missing \(tracker\.appearance_decoder\.reid"
        ):
            load_published_into(segmenter, tracker, published(heads=False))
        assert_unchanged(before, segmenter, tracker)

    def test_start_fresh_on_request(self):
        segmenter, tracker = Segmenter(), Tracker()
        before = copy_of(tracker)
        report = load_published_into(segmenter, tracker, published(heads=False), fresh_tracker=True)
        assert_unchanged(before, tracker)
        assert {n for n in report.missing if n.startswith("tracker.")} == {
            "tracker.appearance_decoder.reid_embd.weight",
            "tracker.appearance_decoder.reid_embd.bias",
        }

    def test_of_another_tracker(self):
        segmenter, tracker = Segmenter(), Tracker(width=6)
        before = copy_of(segmenter, tracker)
        with pytest.raises(CheckpointError, match="2 of another shape"):
            load_published_into(segmenter, tracker, published())
        assert_unchanged(before, segmenter, tracker)
        report = load_published_into(segmenter, tracker, published(), fresh_tracker=True)
        assert_unchanged(before[1:], tracker)
        assert report.ignored["appearance_decoder.reid_embd.bias"] == "heads of another tracker"

    def test_that_fit_are_loaded_even_if_they_might_be_fresh(self):
        tracker = Tracker()
        load_published_into(Segmenter(), tracker, published(), fresh_tracker=True)
        assert tracker.appearance_decoder["reid_embd"].bias.eq(6).all()


@pytest.mark.parametrize("fresh", [False, True])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda s: s.update({"sem_seg_head.predictor.novel.weight": torch.ones(1)}),
            r"1 unexpected \(sem_seg_h",
        ),
        (lambda s: s.update({"novel": torch.ones(1)}), r"1 unexpected \(novel\)"),
        (
            lambda s: s.pop("backbone.stem.conv1.norm.bias"),
            r"1 missing \(segmenter\.backbone\.body\.bn1\.bias\)",
        ),
        (
            lambda s: s.update({"backbone.stem.conv1.norm.bias": torch.ones(3)}),
            r"1 of another shape \(segmenter\.backbone\.body\.bn1\.bias is \(3,\) in the file and \(2,\)",
        ),
    ],
)
def test_everything_else_is_loud_and_changes_nothing(change, message, fresh):
    segmenter, tracker = Segmenter(), Tracker()
    before = copy_of(segmenter, tracker)
    state = published()
    change(state)
    with pytest.raises(CheckpointError, match=rf"w\.pth do not fit: {message}"):
        load_published_into(segmenter, tracker, state, "w.pth", fresh_class_head=fresh, fresh_tracker=fresh)
    assert_unchanged(before, segmenter, tracker)


def test_own_files_load_the_same_way(tmp_path):
    segmenter, tracker = Segmenter(), Tracker()
    state = {f"segmenter.{n}": v for n, v in segmenter.state_dict().items()}
    state |= {f"tracker.{n}": v for n, v in tracker.state_dict().items()}
    others = Segmenter(), Tracker()
    report = load_published_into(*others, state)
    assert report.missing == ()
    assert report.renamed == report.ignored == {}
    assert_unchanged(copy_of(segmenter, tracker), *others)
    assert "in the names of vistk" in str(report)
    alone = load_published_into(others[0], None, segmenter.state_dict())  # a state dict in memory
    assert len(alone.loaded) == 8


def test_counters_of_a_batch_norm_that_the_model_has_frozen():
    segmenter = Segmenter()
    segmenter.backbone["body"]["bn1"].num_batches_tracked = None
    state = published(heads=False) | {"backbone.stem.conv1.norm.num_batches_tracked": torch.tensor(9)}
    report = load_published_into(segmenter, None, state)
    assert report.ignored["backbone.stem.conv1.norm.num_batches_tracked"] == "a counter of batch norms"

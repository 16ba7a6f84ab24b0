"""One whole training step of the published VISAGE: every loss and every gradient norm."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from golden_losses import RecordedPoints, golden_targets
from golden_weights import published_state

from vistk.engine import train
from vistk.engine.train import TrainConfig, TrainingModel
from vistk.losses.segmentation import SegmentationLossConfig
from vistk.models.checkpoints import load_published_into
from vistk.models.segmenter import Segmenter, SegmenterConfig
from vistk.structures import ClipBatch
from vistk.trackers.visage import VISAGE, VISAGEConfig

EMBEDDING = {
    "loss_reid": "reid_query",
    "loss_aux_reid": "aux_reid_query",
    "loss_reid_app": "reid_appearance",
    "loss_aux_reid_app": "aux_reid_appearance",
}


def our_name(published):
    """Our name of a published loss."""
    if published in EMBEDDING:
        return EMBEDDING[published]
    kind, _, layer = published.removeprefix("loss_").partition("_")
    return {"ce": "class"}.get(kind, kind) + (f"_{layer}" if layer else "")


def test_a_training_step_equals_the_published_one(golden, monkeypatch):
    z = np.load(golden / "losses" / "train_step.npz")
    state = published_state("visage_r50_ytvis2019")
    segmenter = Segmenter(SegmenterConfig(), 40)
    visage = VISAGE(
        VISAGEConfig(), embed_dim=256, feature_channels=segmenter.feature_channels, num_classes=40
    )
    origin = load_published_into(segmenter, visage, state, "the recipe").renamed
    loss = SegmentationLossConfig(num_points=int(z["num_points"]), absent_labels="released")
    model = TrainingModel(segmenter, visage, TrainConfig(freeze_segmenter=False, loss=loss)).train()

    points = RecordedPoints(z, layers=10, frames=8)
    monkeypatch.setattr(train, "ClipPointSampler", lambda seeds, device: points)
    images = torch.stack([torch.from_numpy(z[f"images_{clip}"]) for clip in range(2)])
    batch = ClipBatch(images, torch.tensor([[64, 96]] * 2), tuple(golden_targets(z, "gt_classes")))
    losses = model(batch, [0, 0], dense_only=False)

    expected = dict(zip(z["loss_names"].tolist(), z["loss_values"].tolist(), strict=True))
    found = {name: losses[our_name(name)].item() for name in expected}
    assert set(losses) == {our_name(name) for name in expected}
    assert len(expected) == 34
    for name, value in expected.items():
        # Exponentials of dot products of 256 numbers: 1.2e-6 on a CPU without vector instructions.
        rel = 2e-6 if name.startswith("loss_reid") else 1e-6
        assert found[name] == pytest.approx(value, rel=rel), name
    total = torch.stack(list(losses.values())).sum()
    assert total.item() == pytest.approx(float(z["total"]), rel=1e-6)

    total.backward()
    norms = {
        f"{prefix}.{name}": parameter.grad.double().norm().item()
        for module, prefix in ((segmenter, "segmenter"), (visage, "tracker"))
        for name, parameter in module.named_parameters()
    }
    published = dict(zip(z["param_names"].tolist(), z["param_grad_norms"].tolist(), strict=True))
    assert len(published) == 369
    for name, norm in published.items():
        assert norms[origin[name]] == pytest.approx(norm, rel=1e-3, abs=1e-6), name

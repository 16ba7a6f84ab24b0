"""CAVIS on videos small enough to do in the head."""

import dataclasses
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from vistk.structures import ClipTargets, FrameOutput, FrameQueries, Matches
from vistk.trackers.base import track_video
from vistk.trackers.cavis import CAVIS, CAVISConfig
from vistk.trackers.contract import check_tracker
from vistk.trackers.minvis import MinVIS, MinVISConfig

SIZES = {"embed_dim": 2, "feature_channels": {"res2": 3}, "num_classes": 1}


def cavis(**fields: object) -> CAVIS:
    return CAVIS(CAVISConfig(**fields), **SIZES)  # type: ignore[arg-type]


def output(embeds: Tensor, masks: Tensor, features: Tensor) -> FrameOutput:
    """One frame; ``masks`` (Q, h, w) 0 or 1, ``features`` (2, h, w)."""
    logits = torch.zeros(len(embeds), 2)
    return FrameOutput(logits, 2.0 * masks - 1, embeds, features, {"res2": torch.ones(3, *masks.shape[1:])})


def two_places(left: tuple[float, float], right: tuple[float, float]) -> FrameOutput:
    """Two queries with one embedding; a pixel wide mask on the left and on the right, and what is there."""
    masks = torch.zeros(2, 3, 6)
    masks[0, :, 1] = masks[1, :, 4] = 1.0
    features = torch.zeros(2, 3, 6)
    features[:, :, :3] = torch.tensor(left)[:, None, None]
    features[:, :, 3:] = torch.tensor(right)[:, None, None]
    return output(torch.ones(2, 2), masks, features)


def test_the_vector_is_made_of_embedding_and_context() -> None:
    tracker = cavis(filter_size=3)
    tracker.context_embed = nn.Identity()  # type: ignore[assignment]
    out = two_places((1.0, 0.0), (0.0, 5.0))
    expected = torch.tensor([[1.0, 1.0, 1.0, 0.0], [1.0, 1.0, 0.0, 5.0]])
    torch.testing.assert_close(tracker.describe(out).vectors["query"], expected)
    # A window of five reaches into the other half: one of five columns. At the border of the frame it is cut.
    found = cavis(filter_size=5)
    found.context_embed = nn.Identity()  # type: ignore[assignment]
    vector = found.describe(out).vectors["query"]
    torch.testing.assert_close(vector[0], torch.tensor([1.0, 1.0, 3 / 4, 5 / 4]))


def test_context_tells_queries_of_one_embedding_apart() -> None:
    a, b = (3.0, 0.0), (0.0, 3.0)
    video = [two_places(a, b), two_places(b, a), two_places(b, a), two_places(a, b)]
    tracker = cavis(filter_size=1)
    tracker.context_embed = nn.Identity()  # type: ignore[assignment]
    tracked = track_video(tracker, [tracker.describe(out) for out in video])
    assert [t.query_index.tolist() for t in tracked] == [[0, 1], [1, 0], [1, 0], [0, 1]]
    assert all(t.track_ids.tolist() == [0, 1] for t in tracked)


def test_ladder_without_context_and_head_it_is_minvis() -> None:
    rng = torch.Generator().manual_seed(0)
    outs = [
        output(torch.randn(7, 2, generator=rng), torch.zeros(7, 3, 4), torch.zeros(2, 3, 4)) for _ in range(9)
    ]
    plain = cavis(context=False)
    plain.context_embed = nn.Identity()  # type: ignore[assignment]
    trackers = (plain, MinVIS(MinVISConfig(), **SIZES))  # type: ignore[arg-type]
    found, expected = (track_video(t, [t.describe(out) for out in outs]) for t in trackers)
    for a, b in zip(found, expected, strict=True):
        assert torch.equal(a.query_index, b.query_index)


def test_maps_of_the_backbone_can_be_the_context() -> None:
    tracker = cavis(features="res2", filter_size=1)
    assert tracker.context_embed.layers[0].in_features == 2 + 3
    assert cavis(context=False).context_embed.layers[0].in_features == 2
    assert tracker.describe(two_places((1.0, 0.0), (0.0, 1.0))).vectors["query"].shape == (2, 2)


def clip(features: Tensor) -> tuple[FrameOutput, tuple[ClipTargets], Matches]:
    """Two frames with two instances, one on the left and one on the right; features (2, 2, 1, 2)."""
    masks = torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]]]).expand(1, 2, 2, 1, 2)
    embeds = torch.ones(1, 2, 2, 2)
    out = FrameOutput(torch.zeros(1, 2, 2, 2), 2 * masks - 1, embeds, features[None], {})
    visible = torch.ones(2, 2) > 0
    targets = ClipTargets(torch.zeros(2, dtype=torch.int64), visible, visible[:, :, None, None])
    return out, (targets,), Matches((torch.tensor([[0, 0], [1, 1]]),))


def test_prototypes_are_contrasted_in_training() -> None:
    # Prototypes are the pixels: (1, 0) and (0, 1) in the first frame, (2, 0) and (0, 2) in the second.
    # Both instances: product 2 with themselves, 0 with the other: log(1 + exp(-2)).
    features = torch.zeros(2, 2, 1, 2)
    for t, size in enumerate((1.0, 2.0)):
        features[t, 0, 0, 0] = features[t, 1, 0, 1] = size
    features.requires_grad_()
    out, targets, matches = clip(features)
    tracker = cavis(prototype_weight=3.0).train()
    losses = tracker.losses(tracker.describe(out), targets, matches)
    assert set(losses) == {"reid", "aux_reid", "pcc"}
    expected = 3.0 * torch.log1p(torch.tensor(-2.0).exp())
    torch.testing.assert_close(losses["pcc"].detach(), expected)
    losses["pcc"].backward()
    assert features.grad is not None
    assert features.grad.any()
    assert all(p.grad is None for p in tracker.parameters())
    assert "prototype" not in tracker.eval().describe(out).vectors


def test_a_frozen_segmenter_leaves_the_other_losses() -> None:
    out, targets, matches = clip(torch.rand(2, 2, 1, 2))
    tracker = cavis().train()
    losses = tracker.losses(tracker.describe(out), targets, matches)
    assert set(losses) == {"reid", "aux_reid"}
    (losses["reid"] + losses["aux_reid"]).backward()
    assert all(p.grad is not None for p in tracker.parameters())


@pytest.mark.parametrize(
    "config",
    [
        CAVISConfig(context=False),
        CAVISConfig(features="res3", filter_size=1, hidden_dim=7, head_layers=1),
        CAVISConfig(filter_size=51, prototype_weight=0.0),
    ],
)
def test_contract_of_other_configs(config: CAVISConfig) -> None:
    check_tracker(CAVIS, config)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"filter_size": 4}, "filter_size is 4, expected an odd number"),
        ({"filter_size": -1}, "filter_size is -1, expected an odd number"),
        ({"features": "res9"}, "'res9', expected one of mask_features, res2; nearest is 'res2'"),
        ({"head_layers": 0}, "head_layers is 0, expected 1 or more"),
    ],
)
def test_fields_out_of_range_are_refused(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        cavis(**fields)


def test_frames_of_another_tracker_are_refused() -> None:
    with pytest.raises(ValueError, match="vectors embed, expected 'query'"):
        track_video(cavis(), [FrameQueries(torch.zeros(1, 2), {"embed": torch.zeros(1, 2)})])


def test_the_page_names_every_knob() -> None:
    page = (Path(__file__).parents[2] / "docs/trackers/cavis.md").read_text()
    assert all(f"`{field.name}`" in page for field in dataclasses.fields(CAVISConfig))

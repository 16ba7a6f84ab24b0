"""DVIS: referring attention, alignment, ground truth kept from the first appearance, masks anew."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

import vistk
from vistk.models.query_attention import AttentionBlock, QueryAttention, masks_of
from vistk.models.segmenter import Segmenter, TinySegmenterConfig
from vistk.structures import ClipTargets, FrameOutput, FrameQueries, Matches, TrackedFrame
from vistk.trackers.base import track_video
from vistk.trackers.contract import check_tracker
from vistk.trackers.contract_videos import CLASSES, EMBED_DIM, FEATURE_CHANNELS, make_videos, random_order
from vistk.trackers.dvis import DVIS, DVISConfig, aligned_order, mask_embeds_of
from vistk.trackers.minvis import MinVIS, MinVISConfig

SIZES = {"embed_dim": EMBED_DIM, "feature_channels": FEATURE_CHANNELS, "num_classes": CLASSES}
SMALL = {"embed_dim": 2, "feature_channels": {}, "num_classes": 2}
X, Y = [1.0, 0.0], [0.0, 1.0]
SURE = 30.0  # a logit whose probability is 0 or 1 to all digits of the tests


def dvis(sizes: dict = SIZES, **fields: object) -> DVIS:
    torch.manual_seed(0)
    return DVIS(DVISConfig(**({"num_points": 64} | fields)), **sizes).eval()


def small(**fields: object) -> DVIS:
    return dvis(SMALL, heads=1, layers=1, **fields)


def pixels_of_their_own(embeds: Tensor, logits: Tensor, mask_logits: Tensor) -> FrameOutput:
    """Frames of two pixels and two channels, where channel c is pixel c: masks are their own embeddings."""
    lead = embeds.shape[:-2]
    features = torch.eye(2).view(2, 1, 2).expand(*lead, 2, 1, 2)
    return FrameOutput(logits, mask_logits, embeds, features, {})


def with_plain_attention(layer: QueryAttention) -> None:
    """Projections that hand everything through, and no norm."""
    with torch.no_grad():
        layer.attention.in_proj_weight.copy_(torch.eye(2).repeat(3, 1))
        layer.attention.in_proj_bias.zero_()
        layer.attention.out_proj.weight.copy_(torch.eye(2))
        layer.attention.out_proj.bias.zero_()
    layer.norm = nn.Identity()


def test_the_residual_of_referring_attention_is_not_its_query() -> None:
    layer = QueryAttention(2, 1)
    with_plain_attention(layer)
    # Scores ln 3 and 0 after division by sqrt(2): weights 3/4 and 1/4 of X and Y, so (3/4, 1/4) is found.
    query = torch.tensor([[[math.sqrt(2) * math.log(3), 0.0]]])
    found = layer(torch.tensor([[Y]]), query, torch.tensor([[X, Y]]), torch.tensor([[X, Y]]))
    torch.testing.assert_close(found, torch.tensor([[[0.75, 1.25]]]))
    # What is blocked has no weight: Y alone is left.
    found = layer(
        torch.tensor([[Y]]),
        query,
        torch.tensor([[X, Y]]),
        torch.tensor([[X, Y]]),
        torch.tensor([[[True, False]]]),
    )
    torch.testing.assert_close(found, torch.tensor([[[0.0, 2.0]]]))


def test_a_block_is_cross_attention_then_self_attention_then_feed_forward() -> None:
    block = AttentionBlock(2, 1, 1)
    with_plain_attention(block.cross)
    with_plain_attention(block.among)
    block.ffn.norm = nn.Identity()
    with torch.no_grad():
        block.ffn.linear1.weight.copy_(torch.tensor([[1.0, 0.0]]))
        block.ffn.linear1.bias.zero_()
        block.ffn.linear2.weight.copy_(torch.tensor([[0.0], [10.0]]))
        block.ffn.linear2.bias.zero_()
    # One track and one key: both attentions find all there is. Identity (1, 2) + value (0, 1) = (1, 3);
    # plus itself = (2, 6); the hidden unit is the first channel, 2, and adds 10 * 2 to the second: (2, 26).
    x = block(*(torch.tensor([[v]]) for v in ([1.0, 2.0], [5.0, 5.0], X, [0.0, 1.0])), torch.zeros(()))
    torch.testing.assert_close(x, torch.tensor([[[2.0, 26.0]]]))


def test_mask_embeddings_are_recovered() -> None:
    rng = torch.Generator().manual_seed(0)
    features = torch.randn(2, 3, 7, 5, 4, generator=rng)
    embeds = torch.randn(2, 3, 6, 7, generator=rng)
    out = FrameOutput(torch.zeros(2, 3, 6, 2), masks_of(embeds, features), embeds, features, {})
    torch.testing.assert_close(mask_embeds_of(out), embeds)
    assert mask_embeds_of(out[1, 2]).shape == (6, 7)
    empty = mask_embeds_of(replace(out, mask_features=torch.zeros_like(features)))
    assert (empty == 0).all()
    # Two equal channels share what either could do alone.
    twice = torch.tensor([[1.0, 2.0], [1.0, 2.0]]).view(2, 1, 2)
    out = FrameOutput(torch.zeros(1, 2), torch.tensor([[[3.0, 6.0]]]), torch.zeros(1, 2), twice, {})
    torch.testing.assert_close(mask_embeds_of(out), torch.tensor([[1.5, 1.5]]))


def test_queries_are_aligned_with_the_frame_before() -> None:
    # Frame 1 exchanges the queries, frame 2 exchanges them once more, so that tracks 0 and 1 are queries
    # 0 and 1, then 1 and 0, then 0 and 1. Residual predictions that learned nothing are the segmenter's.
    embeds = torch.tensor([[X, Y], [[0.1, 1.0], [1.0, 0.2]], [[1.0, 0.0], [0.3, 1.0]]])
    logits = torch.tensor([[1.0, 0.0, 0.0], [2.0, 0.0, 0.0]]).expand(3, 2, 3)
    mask_logits = torch.tensor([[[1.0, -1.0]], [[-2.0, 2.0]]]).expand(3, 2, 1, 2)
    tracker = small(prediction="residual")
    queries = tracker.describe(pixels_of_their_own(embeds, logits, mask_logits))
    with torch.no_grad():
        tracked = track_video(tracker, [queries[t] for t in range(3)])
    for frame, order in zip(tracked, ([0, 1], [1, 0], [0, 1]), strict=True):
        assert frame.track_ids.tolist() == [0, 1]
        assert frame.query_index.tolist() == [-1, -1]
        torch.testing.assert_close(frame.logits, logits[0][order])
        assert frame.mask_logits is not None
        torch.testing.assert_close(frame.mask_logits, mask_logits[0][order])


def test_residual_predictions_start_as_minvis() -> None:
    videos = make_videos(3)
    rng = torch.Generator().manual_seed(1)
    features = torch.randn(videos.out.mask_features.shape, generator=rng)
    mask_logits = masks_of(torch.randn(videos.out.embeds.shape, generator=rng), features)
    out = replace(videos.out, mask_features=features, mask_logits=mask_logits)
    tracker = dvis(prediction="residual")
    with torch.no_grad():
        ours = track_video(tracker, [tracker.describe(out)[0, t] for t in range(6)])
        minvis = MinVIS(MinVISConfig(), **SIZES)
        theirs = track_video(minvis, [minvis.describe(out)[0, t] for t in range(6)])
    for t, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        torch.testing.assert_close(a.logits, b.logits)
        torch.testing.assert_close(a.mask_logits, mask_logits[0, t, b.query_index], atol=1e-4, rtol=1e-4)
    assert any(frame.query_index.tolist() != list(range(7)) for frame in theirs)


@pytest.mark.parametrize("prediction", ["own", "residual"])
def test_training_sees_what_inference_does(prediction: str) -> None:
    tracker = dvis(prediction=prediction)
    with torch.no_grad():
        for parameter in tracker.parameters():  # nothing may be zero by chance of the start
            parameter.add_(0.05 * torch.randn(parameter.shape))
        queries = tracker.describe(make_videos(4, clips=2).out)
        clip = tracker.track_clips(queries, aligned_order(queries.vectors["query"]))
        for b in range(2):
            for t, frame in enumerate(track_video(tracker, [queries[b, t] for t in range(6)])):
                torch.testing.assert_close(clip.logits[-1][b, t], frame.logits, atol=1e-5, rtol=1e-4)
                assert queries.mask_features is not None
                masks = masks_of(clip.mask_embeds[-1][b, t], queries.mask_features[b, t])
                torch.testing.assert_close(masks, frame.mask_logits, atol=1e-4, rtol=1e-4)


def masks_by_object(frames: list[TrackedFrame], first: Tensor) -> Tensor:
    """``(T, Q, h, w)`` masks of the tracks in the order of the objects of the first frame."""
    return torch.stack(
        [frame.mask_logits[first.argsort()] for frame in frames if frame.mask_logits is not None]
    )


def test_the_order_of_queries_does_not_matter() -> None:
    videos = make_videos(5)
    shuffled = videos.with_order(random_order(6, tuple(videos.objects.shape)))
    tracker = dvis()
    found = []
    for v in (videos, shuffled):
        with torch.no_grad():
            queries = tracker.describe(v.out)
            tracked = track_video(tracker, [queries[0, t] for t in range(6)])
        found.append(masks_by_object(tracked, v.objects[0, 0]))
    assert len(found[0]) == 6
    torch.testing.assert_close(found[0], found[1], atol=1e-4, rtol=1e-4)


def test_a_frame_refers_to_the_tracks_before_it() -> None:
    queries = dvis().describe(make_videos(7).out)
    tracker = dvis()
    with torch.no_grad():
        whole = track_video(tracker, [queries[0, t] for t in range(3)])
        later = track_video(tracker, [queries[0, t] for t in (1, 2)])
    alone = whole[2].logits[later[0].track_ids].sort(0).values
    assert not torch.allclose(alone, later[1].logits.sort(0).values, atol=1e-4)


def clip_of_two_tracks(visible: list[list[bool]], masks: list[list[list[bool]]]) -> tuple[ClipTargets, ...]:
    """One clip of frames with two pixels; instance n has class n."""
    shown = torch.tensor(visible)
    full = torch.tensor(masks)[:, :, None] & shown[:, :, None, None]  # (N, T, 1, 2)
    return (ClipTargets(torch.arange(len(shown)), shown, full),)


NO_MATCHES = Matches((torch.full((2, 2), -1),))


def certain(classes: list[list[int]]) -> Tensor:
    """``(1, T, Q, 3)`` logits that leave no doubt."""
    return SURE * nn.functional.one_hot(torch.tensor(classes), 3).float()[None]


@pytest.mark.parametrize("assigned_by", ["segmenter", "tracker"])
def test_losses_of_right_and_wrong_tracks(assigned_by: str) -> None:
    # Two tracks, exchanged in the second frame; each is a pixel. The predictions are right, all losses zero.
    embeds = torch.tensor([[[X, Y], [Y, X]]])
    masks = SURE * torch.tensor([[[[[1.0, -1.0]], [[-1.0, 1.0]]], [[[-1.0, 1.0]], [[1.0, -1.0]]]]])
    tracker = small(prediction="residual", assigned_by=assigned_by, importance=0.0)
    out = pixels_of_their_own(embeds, certain([[0, 1], [1, 0]]), masks)
    left, right = [True, False], [False, True]
    targets = clip_of_two_tracks([[True, True]] * 2, [[left, left], [right, right]])
    losses = tracker.losses(tracker.describe(out), targets, NO_MATCHES)
    assert losses.keys() == {"track_class", "track_mask", "track_dice"}
    assert losses["track_class"] < 1e-6
    # Points between the pixels have logits between 30 and -30: the mask losses are small, not zero.
    smallest = {name: losses[name].item() for name in ("track_mask", "track_dice")}

    # The instances exchange their pixels in the second frame, which the tracks do not: they keep what they
    # had. Class and masks are wrong in one frame of two. Cross-entropy is 30 for the two wrong ones of four
    # queries, so weight 2 * 30 / 2 = 30.
    targets = clip_of_two_tracks([[True, True]] * 2, [[left, right], [right, left]])
    wrong = pixels_of_their_own(embeds, certain([[0, 1], [0, 1]]), masks)
    losses = tracker.losses(tracker.describe(wrong), targets, NO_MATCHES)
    torch.testing.assert_close(losses["track_class"].item(), 2 * SURE / 2, atol=1e-4, rtol=0.0)
    for name, value in smallest.items():
        assert losses[name] > value + 1.0

    # The second instance leaves after the first frame: its track is to be "no object" there, and is not.
    # One of four queries is wrong, at the weight 0.1 of "no object": 2 * 0.1 * 30 / (3 + 0.1).
    targets = clip_of_two_tracks([[True, True], [True, False]], [[left, left], [right, right]])
    losses = tracker.losses(tracker.describe(out), targets, NO_MATCHES)
    torch.testing.assert_close(losses["track_class"].item(), 2 * 0.1 * SURE / 3.1, atol=1e-4, rtol=0.0)


def test_losses_of_every_layer_or_of_the_last() -> None:
    videos = make_videos(8, clips=2, frames=2)
    for every_layer, expected in ((True, {"", "_0", "_1"}), (False, {""})):
        tracker = dvis(layers=3, every_layer=every_layer)
        losses = tracker.losses(tracker.describe(videos.out), videos.targets, videos.matches)
        assert losses.keys() == {
            f"track_{name}{end}" for name in ("class", "mask", "dice") for end in expected
        }


def test_losses_of_a_batch_are_the_mean_of_its_clips() -> None:
    # Equal numbers of pairs and queries in both clips: sums over the batch by counts of the batch.
    videos = make_videos(9, clips=2, frames=3)
    tracker = dvis(layers=2)
    queries = tracker.describe(videos.out)
    both = tracker.losses(queries, videos.targets, videos.matches)
    alone = [
        tracker.losses(
            queries[b : b + 1], videos.targets[b : b + 1], Matches(videos.matches.query_index[b : b + 1])
        )
        for b in range(2)
    ]
    for name, value in both.items():
        torch.testing.assert_close(value, (alone[0][name] + alone[1][name]) / 2, atol=1e-5, rtol=1e-5)


def test_learns_to_follow_two_tracks() -> None:
    videos = make_videos(10, clips=2, frames=3)
    tracker = dvis(layers=2, num_points=128).train()
    optimizer = torch.optim.AdamW(tracker.parameters(), lr=3e-3)
    queries = tracker.describe(videos.out)
    seen = []
    for _ in range(40):
        losses = torch.stack(list(tracker.losses(queries, videos.targets, videos.matches).values())).sum()
        optimizer.zero_grad()
        losses.backward()
        optimizer.step()
        seen.append(losses.item())
    assert seen[-1] < 0.6 * seen[0]


@pytest.mark.parametrize(
    "fields",
    [
        {"prediction": "residual"},
        {"assigned_by": "tracker", "layers": 1, "heads": 4, "feedforward_dim": 7},
        {"every_layer": False},
    ],
)
def test_other_configs_keep_the_contract(fields: dict) -> None:
    check_tracker(DVIS, DVISConfig(num_points=32, **fields))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"heads": 5}, "DVIS: heads is 5, expected a divisor of the width 32"),
        ({"layers": 0}, "layers is 0"),
        ({"num_points": 0}, "num_points 0"),
        ({"feedforward_dim": 0}, "feedforward_dim is 0"),
        ({"prediction": "residul"}, "nearest is 'residual'"),
        ({"assigned_by": "matches"}, "assigned_by is 'matches'"),
    ],
)
def test_configs_that_cannot_be(fields: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dvis(**fields)


def test_frames_that_cannot_be() -> None:
    tracker = dvis()
    out = make_videos(11, frames=2).out
    with pytest.raises(ValueError, match="mask features have 31 channels, expected 32"):
        tracker.describe(replace(out, mask_features=out.mask_features[:, :, 1:]))
    queries = tracker.describe(out)[0, 0]
    with pytest.raises(ValueError, match="DVIS: the frame has no mask_features"):
        tracker.step(tracker.start(), replace(queries, mask_features=None))
    with pytest.raises(ValueError, match="DVIS: the frame has the vectors none, expected 'query'"):
        tracker.step(tracker.start(), FrameQueries(queries.logits, {}))
    state = tracker.start()
    tracker.step(state, queries)
    fewer = replace(
        queries, logits=queries.logits[1:], vectors={name: v[1:] for name, v in queries.vectors.items()}
    )
    with pytest.raises(ValueError, match="the frame has 6 queries and the video began with 7"):
        tracker.step(state, fewer)


def test_whole_inference() -> None:
    torch.manual_seed(0)
    segmenter = Segmenter(TinySegmenterConfig(), 3).eval()
    tracker = DVIS(
        DVISConfig(layers=2),
        embed_dim=segmenter.embed_dim,
        feature_channels=segmenter.feature_channels,
        num_classes=3,
    )
    frames = torch.randint(0, 256, (3, 3, 64, 96), dtype=torch.uint8)
    prediction = vistk.predict(segmenter, tracker, frames, output_size=(50, 70))
    assert prediction.tracklets
    for tracklet in prediction.tracklets:
        assert len(tracklet.segmentations) == 3
        assert all(rle is None or tuple(rle["size"]) == (50, 70) for rle in tracklet.segmentations)

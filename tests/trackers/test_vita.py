"""VITA: windows of frames, tubes matched to instances, similarity, the video said anew at its end."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

import vistk
from vistk.losses.matching import FrameLabels
from vistk.models.query_attention import WindowBlock, masks_of, xavier
from vistk.models.segmenter import Segmenter, TinySegmenterConfig
from vistk.ops.points import ClipPointSampler
from vistk.structures import ClipTargets, FrameQueries, Matches
from vistk.trackers.base import track_video
from vistk.trackers.contract import check_tracker
from vistk.trackers.contract_videos import (
    CLASSES,
    EMBED_DIM,
    FEATURE_CHANNELS,
    make_videos,
    random_order,
    without_instances,
    without_matches,
)
from vistk.trackers.minvis import MinVIS, MinVISConfig
from vistk.trackers.registry import get_tracker
from vistk.trackers.vita import VITA, Video, VITAConfig, similarity_loss

SIZES = {"embed_dim": EMBED_DIM, "feature_channels": FEATURE_CHANNELS, "num_classes": CLASSES}
SURE = 30.0  # a logit whose probability is 0 or 1 to all digits of the tests


def vita(sizes: dict = SIZES, **fields: object) -> VITA:
    torch.manual_seed(0)
    return VITA(VITAConfig(**({"num_points": 64, "queries": 9} | fields)), **sizes).eval()


def frames_of(tracker: VITA, videos) -> list[FrameQueries]:
    with torch.no_grad():
        queries = tracker.describe(videos.out)
    return [queries[0, t] for t in range(videos.objects.shape[1])]


@pytest.mark.parametrize(
    ("frames", "window", "shift", "groups"),
    [
        (8, 4, 0, [[0, 1, 2, 3], [4, 5, 6, 7]]),
        (8, 4, 2, [[0, 1], [2, 3, 4, 5], [6, 7]]),
        (5, 4, 0, [[0, 1, 2, 3], [4]]),
        (5, 4, 1, [[0], [1, 2, 3, 4]]),
        (7, 6, 3, [[0, 1, 2], [3, 4, 5, 6]]),
        (1, 6, 3, [[0]]),
        (3, 1, 0, [[0], [1], [2]]),
    ],
)
def test_frames_see_those_of_their_window(
    frames: int, window: int, shift: int, groups: list[list[int]]
) -> None:
    torch.manual_seed(0)
    block = WindowBlock(8, 2, 16).double().eval()
    xavier(block)
    x = torch.randn(2, frames, 3, 8, dtype=torch.float64)
    with torch.no_grad():
        before = block(x, window, shift)
        for group in groups:
            for t in group:
                other = x.clone()
                other[:, t, 1] += 1.0
                changed = (block(other, window, shift) != before).flatten(2).any(-1)  # (2, T)
                assert [i for i in range(frames) if changed[0, i]] == group
                assert torch.equal(changed[0], changed[1])
        # Padding is no frame: a window's result is that of its frames alone.
        for group in groups:
            alone = block(x[:, group], len(group), 0)
            torch.testing.assert_close(before[:, group], alone)


def tubes(*masks: list[list[float]]) -> Tensor:
    """``(T, C, 1, 2)`` mask features of two pixels whose channel c is tube c."""
    return torch.tensor(masks).transpose(0, 1)[:, :, None]


def test_video_queries_are_matched_by_whole_tubes() -> None:
    # The instance is the left pixel in all three frames. Query 0 has it in the first frame alone, query 1 in
    # the last two, query 2 in none. Classes say nothing. By any frame-wise rule that asks the first frame,
    # query 0 would win.
    on, off = [SURE, -SURE], [-SURE, SURE]
    features = tubes([on, off, off], [off, on, on], [off, off, off])[None]  # (1, T, 3, 1, 2)
    video = Video([torch.zeros(1, 3, 2)], [torch.eye(3)[None]], torch.zeros(1, 3, 3))
    left = torch.tensor([True, False]).expand(1, 3, 1, 2)
    targets = (ClipTargets(torch.tensor([0]), torch.ones(1, 3, dtype=torch.bool), left),)
    truth = FrameLabels.of(targets, 1, "kept")
    tracker = vita({"embed_dim": 3, "feature_channels": {}, "num_classes": 1}, heads=1, num_points=32)
    sampler = ClipPointSampler([0], features.device)
    assert [t.tolist() for t in tracker._match(video, 1, features, truth, sampler)[0]] == [[1]]
    # Where query 2 alone has the class (p = 1 against 1/2: cost less by 2 * 1/2 = 1), masks still decide.
    sure = torch.zeros(1, 3, 2)
    sure[0, 2, 0] = SURE
    chosen = tracker._match(video._replace(logits=[sure]), 1, features, truth, sampler)[0]
    assert [t.tolist() for t in chosen] == [[1]]
    # An instance that never appears has no query.
    hidden = (replace(targets[0], visible=torch.zeros(1, 3, dtype=torch.bool)),)
    chosen = tracker._match(video, 1, features, FrameLabels.of(hidden, 1, "kept"), sampler)[0]
    assert [t.tolist() for t in chosen] == [[-1]]


def test_losses_of_tubes(monkeypatch: pytest.MonkeyPatch) -> None:
    # Query 1 is the instance, left, left and gone, and says so; query 0 says "no object". All is right.
    on, off, none = [SURE, -SURE], [-SURE, SURE], [-SURE, -SURE]
    features = tubes([off, off, off], [on, on, none])[None]
    logits = SURE * torch.tensor([[[0.0, 1.0], [1.0, 0.0]]])
    video = Video([logits], [torch.eye(2)[None]], torch.zeros(1, 2, 3))
    tracker = vita(
        {"embed_dim": 2, "feature_channels": {}, "num_classes": 1}, heads=1, num_points=64, importance=0.0
    )
    monkeypatch.setattr(tracker, "_video", lambda query: video)
    visible = torch.tensor([[True, True, False]])
    left = torch.tensor([True, False]).expand(1, 3, 1, 2) & visible[:, :, None, None]
    targets = (ClipTargets(torch.tensor([0]), visible, left),)
    queries = FrameQueries(
        torch.zeros(1, 3, 1, 2), {"query": torch.zeros(1, 3, 1, 2)}, mask_features=features
    )
    matches = Matches((torch.tensor([[0, 0, -1]]),))
    right = tracker.losses(queries, targets, matches)
    assert right.keys() == {"video_class", "video_mask", "video_dice", "video_similarity"}
    assert right["video_class"] < 1e-6
    # The video query and either frame query are a pair of one instance, at logit 0: ln 2, times 1/2.
    torch.testing.assert_close(right["video_similarity"].item(), 0.5 * math.log(2))
    # The same tube where the instance stays in the third frame: there about half of the points are wrong, by
    # logits of 30 and, towards the border, less; weight 5, so somewhat less than 5 * 30 / 6 = 25.
    stays = torch.ones(1, 3, dtype=torch.bool)
    targets = (ClipTargets(torch.tensor([0]), stays, torch.tensor([True, False]).expand(1, 3, 1, 2)),)
    wrong = tracker.losses(queries, targets, matches)
    assert 8 < wrong["video_mask"] - right["video_mask"] < 25
    assert wrong["video_dice"] > right["video_dice"] + 0.2
    assert wrong["video_class"] < 1e-6
    # Without instances both queries are to be "no object", and query 1 is not: 2 * (0.1 * 30) / (0.1 + 0.1).
    nobody = (ClipTargets(torch.zeros(0, dtype=torch.int64), stays[:0], left[:0]),)
    losses = tracker.losses(queries, nobody, Matches((torch.zeros(0, 3, dtype=torch.int64),)))
    torch.testing.assert_close(losses["video_class"].item(), SURE, atol=1e-4, rtol=0.0)
    assert losses["video_mask"] == losses["video_dice"] == losses["video_similarity"] == 0


def test_similarity_loss() -> None:
    # Instance 0: video query 1 and frame query 0; instance 1: frame query 1 of that frame, no video query.
    # So two pairs count: (1, 0), the same, and (1, 1), not. At logits ln 3, p = 3/4: -ln(3/4) and -ln(1/4).
    similarity = torch.full((1, 2, 2), 100.0)
    similarity[0, 1] = math.log(3)
    loss = similarity_loss(similarity, [torch.tensor([1, -1])], [torch.tensor([[0], [1]])], 2)
    torch.testing.assert_close(loss.item(), (-math.log(3 / 4) - math.log(1 / 4)) / 2)
    # In the second frame of two, query 0 is token 2.
    similarity = torch.full((1, 1, 4), 100.0)
    similarity[0, 0, 2] = 0.0
    loss = similarity_loss(similarity, [torch.tensor([0])], [torch.tensor([[-1, 0]])], 2)
    torch.testing.assert_close(loss.item(), math.log(2))
    nothing = similarity_loss(similarity.requires_grad_(), [torch.tensor([0])], [torch.tensor([[-1, -1]])], 2)
    assert nothing == 0
    nothing.backward()
    assert similarity.grad is not None
    assert (similarity.grad == 0).all()


def test_online_it_is_minvis() -> None:
    videos = make_videos(0)
    tracker = vita()
    state = tracker.start()
    minvis = MinVIS(MinVISConfig(), **SIZES)
    frames = frames_of(tracker, videos)
    for ours, theirs in zip(
        [tracker.step(state, frame) for frame in frames], track_video(minvis, frames), strict=True
    ):
        assert torch.equal(ours.query_index, theirs.query_index)
        assert torch.equal(ours.logits, theirs.logits)


def test_the_video_at_its_end() -> None:
    tracker = vita()
    frames = frames_of(tracker, make_videos(1))
    with torch.no_grad():
        tracked = track_video(tracker, frames)
        video = tracker._video(torch.stack([frame.vectors["query"] for frame in frames])[None])
    assert len(tracked) == 6
    for frame, answer in zip(frames, tracked, strict=True):
        assert answer.track_ids.tolist() == list(range(9))
        assert answer.query_index.tolist() == [-1] * 9
        assert torch.equal(answer.logits, video.logits[0][0])
        assert frame.mask_features is not None
        by_hand = (video.mask_embeds[0][0] @ frame.mask_features.flatten(1)).view(
            9, *frame.mask_features.shape[1:]
        )
        torch.testing.assert_close(answer.mask_logits, by_hand)
    assert tracker.finish(tracker.start()) == []


def test_the_best_tracks_alone() -> None:
    frames = frames_of(vita(), make_videos(2))
    with torch.no_grad():
        whole = track_video(vita(), frames)
        some = track_video(vita(max_tracks=4), frames)
        more = track_video(vita(max_tracks=40), frames)
    score = whole[0].logits.softmax(-1)[:, :-1].amax(-1)
    best = sorted(range(9), key=lambda v: -score[v])[:4]
    assert some[3].track_ids.tolist() == sorted(best)
    assert whole[3].mask_logits is not None
    torch.testing.assert_close(some[3].mask_logits, whole[3].mask_logits[sorted(best)])
    assert more[3].track_ids.tolist() == list(range(9))


def test_features_kept_in_half() -> None:
    frames = frames_of(vita(), make_videos(3))
    tracker = vita(half_features=True)
    state = tracker.start()
    for frame in frames:
        tracker.step(state, frame)
    assert all(features.dtype == torch.bfloat16 for features in state.features)
    with torch.no_grad():
        half = tracker.finish(state)
        whole = track_video(vita(), frames)
    for a, b in zip(half, whole, strict=True):
        assert a.mask_logits is not None
        assert b.mask_logits is not None
        error = (a.mask_logits - b.mask_logits).abs().max() / b.mask_logits.abs().max()
        assert 0 < error < 2**-7  # 8 bits of mantissa, and errors of many channels that do not add up


def test_masks_of_frame_queries() -> None:
    cls, config = get_tracker("vita-frame-masks")
    assert (cls, config.masks) == (VITA, "queries")
    tracker = vita(masks="queries", queries=3)
    videos = make_videos(4, frames=2)
    # Video queries 0 and 2 are both most like frame query 4, and 2 has the higher class score, 1/2 against
    # 1/4, so that the sum is greatest if it gets the query. 0 takes its second choice, query 5, in the first
    # frame, where that is rather similar than not, and nothing in the second. Query 1 is like nothing.
    logits = torch.zeros(1, 3, CLASSES + 1)
    logits[0, 2, 0] = math.log(3)
    similarity = torch.full((1, 3, 2, 7), -5.0)
    similarity[0, [0, 2], :, 4] = 5.0
    similarity[0, 0, 0, 5] = 0.5
    similarity[0, 0, 1, 5] = -0.5
    video = Video([logits], [torch.zeros(1, 3, EMBED_DIM)], similarity.flatten(2))
    state = tracker.start()
    tracker._video = lambda query: video  # type: ignore[method-assign]
    for frame in frames_of(tracker, videos):
        tracker.step(state, replace(frame, mask_features=None))
    assert not state.features
    first, second = tracker.finish(state)
    assert (first.track_ids.tolist(), first.query_index.tolist()) == ([0, 2], [5, 4])
    assert (second.track_ids.tolist(), second.query_index.tolist()) == ([2], [4])
    assert first.mask_logits is None
    assert torch.equal(first.logits, logits[0, [0, 2]])


def test_the_order_of_queries_does_not_matter() -> None:
    videos = make_videos(5)
    shuffled = videos.with_order(random_order(6, tuple(videos.objects.shape)))
    tracker = vita()
    with torch.no_grad():
        found = [track_video(tracker, frames_of(tracker, v)) for v in (videos, shuffled)]
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a.logits, b.logits, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(a.mask_logits, b.mask_logits, atol=1e-4, rtol=1e-4)


def test_losses_of_every_layer_or_of_the_last() -> None:
    videos = make_videos(7, clips=2, frames=2)
    for every_layer, expected in ((True, {"", "_0", "_1"}), (False, {""})):
        tracker = vita(every_layer=every_layer)
        losses = tracker.losses(tracker.describe(videos.out), videos.targets, videos.matches)
        names = {f"video_{name}{end}" for name in ("class", "mask", "dice") for end in expected}
        assert losses.keys() == names | {"video_similarity"}


def test_losses_of_a_batch_are_the_mean_of_its_clips() -> None:
    # Equal numbers of pairs in both clips. "No object" queries too: as many in one as in the other.
    videos = make_videos(8, clips=2, frames=3)
    tracker = vita()
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


@pytest.mark.parametrize("change", [without_matches, without_instances])
def test_no_similarity_without_matches(change) -> None:
    videos = change(make_videos(9, clips=2, frames=2))
    tracker = vita()
    losses = tracker.losses(tracker.describe(videos.out), videos.targets, videos.matches)
    assert losses["video_similarity"] == 0
    assert losses["video_class"] > 0


def test_learns_two_videos() -> None:
    videos = make_videos(10, clips=2, frames=3)
    tracker = vita(encoder_layers=1, decoder_layers=2, num_points=128).train()
    optimizer = torch.optim.AdamW(tracker.parameters(), lr=3e-3)
    queries = tracker.describe(videos.out)
    seen = []
    for _ in range(40):
        losses = torch.stack(list(tracker.losses(queries, videos.targets, videos.matches).values())).sum()
        optimizer.zero_grad()
        losses.backward()
        optimizer.step()
        seen.append(losses.item())
    assert (
        seen[-1] < 0.75 * seen[0]
    )  # the mask features are noise: classes and similarity alone can be learned


@pytest.mark.parametrize(("window", "expected"), [(0, [(6, 0), (6, 0)]), (4, [(4, 0), (4, 2)])])
def test_windows_of_the_encoder_are_shifted_unless_there_is_one(window: int, expected: list) -> None:
    seen = []
    tracker = vita(window=window, encoder_layers=2)
    for layer in tracker.encoder:
        layer.register_forward_pre_hook(lambda _, given: seen.append(given[1:]))
    videos = make_videos(10, frames=6)
    tracker.losses(tracker.describe(videos.out), videos.targets, videos.matches)
    assert seen == expected


@pytest.mark.parametrize(
    "fields",
    [
        {"masks": "queries", "similarity_weight": 0.0},
        {"half_features": True, "max_tracks": 5, "hidden_dim": 16, "heads": 4},
        {"queries": 2, "window": 0, "decoder_layers": 1, "encoder_layers": 0, "every_layer": False},
        {"window": 1, "feedforward_dim": 3},
    ],
)
def test_other_configs_keep_the_contract(fields: dict) -> None:
    check_tracker(VITA, VITAConfig(**({"num_points": 32, "queries": 9} | fields)))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"heads": 5}, "VITA: heads is 5, expected a divisor of the width 32"),
        ({"hidden_dim": 12}, "expected a divisor of the width 12"),
        ({"queries": 0}, "queries is 0, expected 1 or more"),
        ({"window": -1}, "window is -1, expected 0 or more"),
        ({"decoder_layers": 0}, "decoder_layers is 0"),
        ({"max_tracks": 0}, "max_tracks is 0"),
        ({"masks": "query"}, "nearest is 'queries'"),
    ],
)
def test_configs_that_cannot_be(fields: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        vita(**fields)


def test_frames_that_cannot_be() -> None:
    tracker = vita()
    out = make_videos(11, frames=2).out
    with pytest.raises(ValueError, match="mask features have 31 channels, expected 32"):
        tracker.describe(replace(out, mask_features=out.mask_features[:, :, 1:]))
    queries = tracker.describe(out)[0, 0]
    with pytest.raises(ValueError, match="VITA: the frame has no mask_features"):
        tracker.step(tracker.start(), replace(queries, mask_features=None))


def test_masks_are_products() -> None:
    # (1, 2) with channels (1, 0) and (3, 10) over two pixels: 1 + 2 * 3 = 7 and 0 + 2 * 10 = 20.
    masks = masks_of(torch.tensor([[1.0, 2.0]]), torch.tensor([[[1.0, 0.0]], [[3.0, 10.0]]]))
    assert masks.tolist() == [[[7.0, 20.0]]]


@pytest.mark.parametrize("masks", ["features", "queries"])
def test_whole_inference(masks: str) -> None:
    torch.manual_seed(0)
    segmenter = Segmenter(TinySegmenterConfig(), 3).eval()
    tracker = VITA(
        VITAConfig(queries=5, masks=masks, decoder_layers=1, encoder_layers=2),
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

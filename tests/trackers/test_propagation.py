"""Query propagation: who keeps which query, what it costs, and where gradients go."""

from __future__ import annotations

import pytest
import torch

from vistk.models.segmenter import Segmenter, TinySegmenterConfig
from vistk.structures import ClipTargets, FrameQueries, Matches
from vistk.trackers.base import track_video
from vistk.trackers.propagation import Propagation, PropagationConfig

NO_MATCHES = Matches(())


def build(embed_dim: int = 2, **config: object) -> Propagation:
    return Propagation(
        PropagationConfig(num_points=64, **config), embed_dim=embed_dim, feature_channels={}, num_classes=1
    )


def clip_queries(*frames: tuple[bool, bool]) -> FrameQueries:
    """Two queries on 8x8 pixels, sure of themselves: each shows the left half, or (False) the right one.

    Class logits are 0 and 0: each class and "no object" cost log 2 everywhere.
    """
    left = torch.full((8, 8), -30.0)
    left[:, :4] = 30
    masks = torch.stack([torch.stack([left if on_left else -left for on_left in frame]) for frame in frames])
    return FrameQueries(
        torch.zeros(1, len(frames), 2, 2),
        {"query": torch.zeros(1, len(frames), 2, 2)},
        mask_logits=masks[None].requires_grad_(),
    )


def one_instance_on_the_left(*visible: bool) -> list[ClipTargets]:
    masks = torch.zeros(1, len(visible), 8, 8, dtype=torch.bool)
    masks[0, torch.tensor(visible), :, :4] = True
    return [ClipTargets(torch.tensor([0]), torch.tensor([visible]), masks)]


def queries_with_a_loss(queries: FrameQueries, targets: list[ClipTargets]) -> list[list[bool]]:
    """Frame by frame, which queries' masks are compared with an instance."""
    losses = build().losses(queries, targets, NO_MATCHES)
    (gradient,) = torch.autograd.grad(losses["track_mask"] + losses["track_dice"], queries.mask_logits)
    return (gradient[0].abs().amax((-1, -2)) > 1e-3).tolist()


def test_an_instance_keeps_the_query_of_its_first_appearance():
    # It appears in frame 1, where query 1 lies on it. In frame 2 query 0 does, and is not asked.
    queries = clip_queries((True, False), (False, True), (True, False))
    assert queries_with_a_loss(queries, one_instance_on_the_left(False, True, True)) == [
        [False, False],
        [False, True],
        [False, True],
    ]


def test_an_instance_that_left_is_no_object_and_returns_to_its_query():
    queries = clip_queries((True, False), (False, True), (False, True))
    targets = one_instance_on_the_left(True, False, True)
    assert queries_with_a_loss(queries, targets) == [[True, False], [False, False], [True, False]]
    # "No object" by a logit of 40 everywhere but where it is seen: nothing to pay.
    logits = torch.tensor([0.0, 40.0]).repeat(1, 3, 2, 1)
    logits[0, [0, 2], 0] = torch.tensor([40.0, 0.0])
    right = FrameQueries(logits, queries.vectors, queries.mask_logits)
    assert build().losses(right, targets, NO_MATCHES)["track_class"].item() == pytest.approx(0, abs=1e-6)
    # The same for query 1: of weights 1, 1 for the instance and 4 x 0.1 for "no object", all of the first
    # are wrong, by 40 each, and so are the two that query 1 has: (80 + 8) / 2.4, times 2.
    wrong = FrameQueries(logits.flip(2), queries.vectors, queries.mask_logits)
    loss = build().losses(wrong, targets, NO_MATCHES)["track_class"].item()
    assert loss == pytest.approx(2 * 88 / 2.4, rel=1e-6)


def test_association_is_the_number_of_the_query():
    frames = [FrameQueries(torch.randn(3, 2), {"query": torch.randn(3, 2)}) for _ in range(4)]
    for frame, tracked in zip(frames, track_video(build(), frames), strict=True):
        assert tracked.track_ids.tolist() == tracked.query_index.tolist() == [0, 1, 2]
        torch.testing.assert_close(tracked.logits, frame.logits, rtol=0, atol=0)


def test_propagated_is_an_affine_map_of_the_frame_before():
    tracker = build()
    tracker.load_state_dict(
        {"update.weight": torch.tensor([[0.0, 2.0], [1.0, 0.0]]), "update.bias": torch.tensor([0.5, 0.0])}
    )
    found = tracker.propagate(FrameQueries(torch.zeros(1, 1, 2), {"query": torch.tensor([[[3.0, 7.0]]])}))
    assert found.tolist() == [[[14.5, 3.0]]]


@pytest.mark.parametrize("truncated", [False, True])
def test_truncated_gradients_end_at_the_frame_before(truncated: bool):
    tracker = build(truncated=truncated)
    torch.nn.init.eye_(tracker.update.weight)
    query = torch.ones(1, 3, 2, requires_grad=True)
    tracker.propagate(FrameQueries(torch.zeros(1, 3, 2), {"query": query})).sum().backward()
    assert (query.grad is None) == truncated
    assert tracker.update.weight.grad.abs().min() > 0


def test_it_starts_as_the_segmenter_alone_and_learns_through_its_frozen_decoder(tolerance):
    torch.manual_seed(0)
    segmenter = Segmenter(TinySegmenterConfig(), 1).eval().requires_grad_(False)
    tracker = build(embed_dim=64)
    assert tracker.propagates
    images = torch.randint(0, 256, (1, 2, 3, 32, 32), dtype=torch.uint8)
    out = segmenter(images, None, tracker.propagate)
    torch.testing.assert_close(out.mask_logits, segmenter(images).mask_logits, **tolerance[torch.float32])
    masks = torch.zeros(1, 2, 32, 32, dtype=torch.bool)
    masks[..., 8:20, 5:12] = True
    targets = [ClipTargets(torch.tensor([0]), torch.ones(1, 2, dtype=torch.bool), masks)]
    sum(tracker.losses(tracker.describe(out), targets, NO_MATCHES).values()).backward()
    assert tracker.update.weight.grad.abs().max() > 0
    assert all(parameter.grad is None for parameter in segmenter.parameters())

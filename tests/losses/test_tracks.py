"""Ground truth that keeps one query throughout a clip, and losses of tubes."""

from __future__ import annotations

import math

import pytest
import torch

from vistk.losses.matching import FrameLabels, first_appearances, match_clips, pairs_of_tracks
from vistk.losses.segmentation import SetLoss, SetLossConfig, annotation_sampler
from vistk.ops.points import PointSampler
from vistk.structures import ClipTargets


def clip(visible: list[list[bool]], size: tuple[int, int] = (2, 3)) -> ClipTargets:
    shown = torch.tensor(visible, dtype=torch.bool).reshape(len(visible), -1)
    return ClipTargets(torch.arange(len(shown)), shown, shown[:, :, None, None].expand(-1, -1, *size).clone())


def test_the_first_appearance_counts() -> None:
    # Instance 0 is there from frame 0, instance 1 from frame 1 alone. Their costs there: (1, 2) and (0, 5)
    # for queries 0 and 1. Together 0 -> 1 and 1 -> 0 cost 2, the other way 6. The cost of instance 0 in
    # frame 1, which would say otherwise (9 against 100), is not asked, nor that of instance 1 in frame 0.
    truth = FrameLabels.of([clip([[True, True], [False, True]])], 3, "kept")
    costs = torch.tensor([[[1.0, -50.0], [2.0, 50.0]], [[9.0, 0.0], [100.0, 5.0]]])  # (F, Q, N)
    assert [row.tolist() for row in first_appearances(costs, truth)] == [[1, 0]]


def test_clips_have_their_own_first_appearances() -> None:
    # In the second clip the only instance appears in the second frame; the third clip has none.
    truth = FrameLabels.of([clip([[True, False]]), clip([[False, True]]), empty()], 3, "kept")
    costs = torch.tensor([[[0.0], [1.0]], [[1.0], [0.0]]] * 2 + [[[0.0], [0.0]]] * 2)  # (3 * 2, 2, 1)
    assert [row.tolist() for row in first_appearances(costs, truth)] == [[0], [1], []]


def empty(frames: int = 2) -> ClipTargets:
    nothing = torch.zeros(0, frames, dtype=torch.bool)
    return ClipTargets(
        torch.zeros(0, dtype=torch.int64), nothing, torch.zeros(0, frames, 2, 3, dtype=torch.bool)
    )


def test_instances_that_never_appear_or_have_no_query_left() -> None:
    costs = torch.tensor([[[5.0, 1.0, 3.0]], [[0.0, 7.0, 9.0]]])  # one query
    present = torch.tensor([[True, True, True], [False, True, True]])
    assert [row.tolist() for row in match_clips(costs, present, (3, 2))] == [[-1, 0, -1], [-1, 0]]


def test_costs_that_are_not_finite_name_clip_and_instance() -> None:
    costs = torch.zeros(2, 2, 3)
    costs[1, 0, 2] = math.nan
    present = torch.tensor([[True, True, True], [False, True, True]])
    with pytest.raises(FloatingPointError, match="clip 1 of the batch, instance 2"):
        match_clips(costs, present, (3, 3))
    assert len(match_clips(costs, present, (3, 2))) == 2  # padding may hold anything


def test_pairs_of_tracks() -> None:
    # Clip 0: instance 0 (query 4) in both frames, instance 1 (query 2) in the second, instance 2 unmatched.
    # Clip 1: instance 0 (query 0) in the first.
    truth = FrameLabels.of(
        [clip([[True, True], [False, True], [True, True]]), clip([[True, False]])], 3, "kept"
    )
    pairs = pairs_of_tracks([torch.tensor([4, 2, -1]), torch.tensor([0])], truth, torch.device("cpu"))
    triples = list(zip(pairs.frame.tolist(), pairs.query.tolist(), pairs.instance.tolist(), strict=True))
    assert triples == [(0, 4, 0), (1, 4, 0), (1, 2, 1), (2, 0, 0)]
    assert pairs.per_frame == (1, 2, 1, 0)
    assert pairs.per_clip == (3, 1)


class Corners(PointSampler):
    """Every point in the middle of the map."""

    def draw(self, rows, num_points, device):
        return torch.full((sum(rows), num_points, 2), 0.5)


def test_dice_is_of_the_tube() -> None:
    # One mask in two frames of one pixel, at logit 0: probability 1/2 at P = 4 points of each. It is there
    # in the first frame. Cross-entropy ln 2 everywhere. Dice of the tube: 1 - (4 + 1) / (4 + 4 + 1) = 4/9;
    # the mean over frames would be (1 - 5/7 + 1 - 1/3) / 2 = 0.476.
    loss = SetLoss(SetLossConfig(num_points=4, mask_weight=1.0, dice_weight=1.0), 1)
    masks = torch.tensor([True, False]).view(1, 2, 1, 1)
    found = loss.mask_losses(torch.zeros(1, 2, 1, 1), masks, [1], torch.tensor(1.0), Corners())
    torch.testing.assert_close(torch.stack(found), torch.tensor([math.log(2), 4 / 9]))
    # Frame by frame, as for a segmenter: two masks of one frame each, the sum over masks.
    found = loss.mask_losses(
        torch.zeros(2, 1, 1, 1), masks.transpose(0, 1), [2], torch.tensor(1.0), Corners()
    )
    torch.testing.assert_close(torch.stack(found), torch.tensor([2 * math.log(2), 2 / 7 + 2 / 3]))
    # Nothing matched, of no matter how many frames: zeros in the graph.
    mask_logits = torch.zeros(0, 3, 2, 2, requires_grad=True)
    found = loss.mask_losses(
        mask_logits, torch.zeros(0, 3, 4, 4, dtype=torch.bool), [0], torch.tensor(1.0), Corners()
    )
    assert [value.item() for value in found] == [0, 0]
    torch.stack(found).sum().backward()


def test_class_loss_of_clips() -> None:
    # Two clips of two queries, uniform logits over 1 class and "no object": every query costs ln 2. One is
    # matched, three weigh 0.5: the weighted mean is ln 2 whatever the weights; times 2.
    loss = SetLoss(SetLossConfig(no_object_weight=0.5), 1)
    pair = [torch.tensor([1]), torch.tensor([0]), torch.tensor([0])]
    logits = torch.zeros(2, 2, 2)
    torch.testing.assert_close(loss.class_loss(logits, *pair).item(), 2 * math.log(2))
    # The matched one is right beyond doubt, the others as before: 3 * 0.5 * ln 2 / (1 + 3 * 0.5), times 2.
    logits[1, 0, 0] = 50.0
    torch.testing.assert_close(loss.class_loss(logits, *pair).item(), 2 * 1.5 * math.log(2) / 2.5)


def test_points_follow_from_the_annotation_of_a_clip() -> None:
    a, b = clip([[True, True]]), clip([[True, False], [True, True]])
    both = annotation_sampler([a, b], torch.device("cpu")).draw([2, 3], 5, torch.device("cpu"))
    alone = annotation_sampler([b], torch.device("cpu")).draw([3], 5, torch.device("cpu"))
    assert torch.equal(both[2:], alone)
    assert not torch.equal(both[:2], alone[:2])
    padded = ClipTargets(b.labels, b.visible, torch.nn.functional.pad(b.masks, (0, 4, 0, 1)))
    assert torch.equal(
        annotation_sampler([padded], torch.device("cpu")).draw([3], 5, torch.device("cpu")), alone
    )
    # The same pixels in other frames are another annotation.
    other = ClipTargets(b.labels, b.visible.flip(1), b.masks.flip(1))
    assert not torch.equal(
        annotation_sampler([other], torch.device("cpu")).draw([3], 5, torch.device("cpu")), alone
    )
    assert annotation_sampler([empty()], torch.device("cpu")).draw([0], 5, torch.device("cpu")).shape == (
        0,
        5,
        2,
    )

"""Matching and the set criterion: published numbers, hand-made cases, absences, several processes."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from golden_losses import RecordedPoints, golden_targets
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from vistk.losses.matching import FrameLabels, Matcher
from vistk.losses.segmentation import SegmentationLoss, SegmentationLossConfig
from vistk.ops.points import ClipPointSampler, PointSampler
from vistk.schema import ConfigError
from vistk.structures import ClipTargets, FrameOutput, LayerOutput


def frame_output(logits, mask_logits, aux=(), dense=None, mask_features=None):
    """A FrameOutput with what the losses read."""
    nothing = torch.empty(0)
    features = nothing if mask_features is None else mask_features
    return FrameOutput(logits, mask_logits, nothing, features, {}, aux, dense)


def layers_with_masks(logits, masks, carrier):
    """Earlier layers whose masks are ``masks``, and their mask features; both exact, to the last bit.

    Args:
        logits: of every layer, (B, T, Q, K+1).
        masks: of every layer, (B, T, Q, h, w).
        carrier: what holds the masks: "embeds" (a feature channel for every pixel) or "features" (a
            feature channel for every layer's query).
    """
    b, t, q, h, w = masks[0].shape
    if carrier == "embeds":
        features = torch.eye(h * w).view(h * w, h, w).expand(b, t, -1, -1, -1)
        embeds = [mask.flatten(3) for mask in masks]
    else:
        features = torch.cat(masks, dim=2)
        rows = torch.eye(q * len(masks)).split(q)
        embeds = [row.expand(b, t, -1, -1) for row in rows]
    return tuple(map(LayerOutput, logits, embeds)), features


@pytest.fixture(scope="module")
def recorded(golden):
    z = np.load(golden / "losses" / "d_criterion.npz")
    targets = golden_targets(z)
    return z, targets


@pytest.mark.parametrize("carrier", ["embeds", "features"])
def test_equals_the_published_criterion(recorded, carrier):
    z, targets = recorded
    logits = [torch.from_numpy(z[f"pred_logits_{i}"].astype("f4")).requires_grad_() for i in range(3)]
    masks = [torch.from_numpy(z[f"pred_masks_{i}"].astype("f4")).requires_grad_() for i in range(3)]
    last, *earlier = [mask.transpose(1, 2) for mask in masks]
    aux, features = layers_with_masks(logits[1:], earlier, carrier)
    config = SegmentationLossConfig(num_points=int(z["num_points"]), absent_labels="released")
    criterion = SegmentationLoss(config, int(z["num_classes"]))
    out = frame_output(logits[0], last, aux, mask_features=features)
    losses, matches = criterion(out, targets, RecordedPoints(z, layers=3, frames=8))

    names = {"class": "ce", "mask": "mask", "dice": "dice"}
    for ours, theirs in names.items():
        for suffix in ("", "_0", "_1"):
            expected = z[f"raw_loss_{theirs}{suffix}"] * z[f"weight_loss_{theirs}{suffix}"]
            assert losses[ours + suffix].item() == pytest.approx(expected, rel=1e-6)

    for frame, query, instance in z["indices"][z["indices"][:, 0] == 0][:, 1:]:
        clip, t = divmod(int(frame), 4)
        assert matches.query_index[clip][instance, t] == query

    torch.stack(list(losses.values())).sum().backward()
    for i in range(3):
        np.testing.assert_allclose(logits[i].grad, z[f"grad_pred_logits_{i}"], rtol=1e-5, atol=1e-8)
        assert masks[i].grad.double().norm().item() == pytest.approx(
            z[f"grad_pred_masks_{i}_norm"].item(), rel=1e-6
        )
        np.testing.assert_allclose(
            masks[i].grad.flatten()[::11], z[f"grad_pred_masks_{i}_s11"], rtol=1e-4, atol=1e-8
        )


class PixelCentres(PointSampler):
    """Points on pixel centres of a 16x16 map, where a bilinear sample is the pixel itself."""

    def draw(self, rows, num_points, device):
        return (torch.randint(0, 16, (sum(rows), num_points, 2)) + 0.5) / 16


def two_squares(frames=2, size=16):
    """Two instances of classes 0 and 1; the second is absent from the last frame."""
    masks = torch.zeros(2, frames, size, size, dtype=torch.bool)
    masks[0, :, :8, :8] = True
    masks[1, :-1, 8:, 8:] = True
    return ClipTargets(torch.tensor([0, 1]), masks.flatten(2).any(-1), masks)


def perfect(targets, queries=(3, 1), num_queries=5, num_classes=2, confidence=20.0):
    """Predictions that put instance i on query ``queries[i]`` wherever it is visible."""
    n, frames = targets.visible.shape
    logits = torch.zeros(1, frames, num_queries, num_classes + 1)
    logits[..., -1] = confidence
    masks = torch.full((1, frames, num_queries, *targets.masks.shape[-2:]), -confidence)
    for i in range(n):
        for t in range(frames):
            if targets.visible[i, t]:
                logits[0, t, queries[i]] = torch.eye(num_classes + 1)[targets.labels[i]] * confidence
                masks[0, t, queries[i]] = torch.where(targets.masks[i, t], confidence, -confidence)
    return frame_output(logits, masks)


def test_perfect_predictions_are_matched_and_cost_nothing():
    targets = two_squares()
    losses, matches = SegmentationLoss(SegmentationLossConfig(num_points=83), 2)(
        perfect(targets), [targets], PixelCentres()
    )
    assert matches.query_index[0].tolist() == [[3, 3], [1, -1]]
    assert [losses[name].item() for name in ("class", "mask", "dice")] == pytest.approx([0, 0, 0], abs=1e-6)


def test_class_loss_by_hand():
    # one frame, two queries, one instance of class 0; uniform logits
    masks = torch.ones(1, 1, 16, 16, dtype=torch.bool)
    targets = ClipTargets(torch.tensor([0]), torch.ones(1, 1, dtype=torch.bool), masks)
    out = frame_output(torch.zeros(1, 1, 2, 3), torch.zeros(1, 1, 2, 16, 16))
    losses, _ = SegmentationLoss(SegmentationLossConfig(num_points=7, no_object_weight=0.1), 2)(
        out, [targets], PixelCentres()
    )
    # weights 1 and 0.1 of equal terms log 3, divided by 1.1; times the class weight 2
    assert losses["class"].item() == pytest.approx(2 * math.log(3), rel=1e-6)
    assert losses["mask"].item() == pytest.approx(5 * math.log(2), rel=1e-6)
    # probability 1/2, target 1 at 7 points: 1 - (2 * 3.5 + 1) / (3.5 + 7 + 1)
    assert losses["dice"].item() == pytest.approx(5 * (1 - 8 / 11.5), rel=1e-6)


def test_absent_instances():
    targets = two_squares(frames=3)
    kept = FrameLabels.of([targets], num_classes=2, absent_labels="kept")
    assert kept.taking_part.tolist() == [[True, True], [True, True], [True, False]]
    assert kept.labels.tolist() == [[0, 1]] * 3
    released = FrameLabels.of([targets], num_classes=2, absent_labels="released")
    assert released.taking_part.all()
    assert released.labels.tolist() == [[0, 2]] * 3  # "no object" in every frame, for one absence
    assert targets.labels.tolist() == [0, 1]  # what came in is unchanged


def test_clips_of_different_counts_and_a_clip_without_instances():
    targets = two_squares()
    nothing = ClipTargets(
        torch.zeros(0, dtype=torch.int64),
        torch.zeros(0, 2, dtype=torch.bool),
        torch.zeros(0, 2, 16, 16, dtype=torch.bool),
    )
    logits = torch.randn(2, 2, 5, 3, requires_grad=True)
    masks = torch.randn(2, 2, 5, 16, 16, requires_grad=True)
    criterion = SegmentationLoss(SegmentationLossConfig(num_points=23), 2)
    losses, matches = criterion(frame_output(logits, masks), [targets, nothing], PointSampler())
    assert [tuple(m.shape) for m in matches.query_index] == [(2, 2), (0, 2)]
    sum(losses.values()).backward()
    assert logits.grad.isfinite().all()
    assert masks.grad[1].eq(0).all()
    losses, _ = criterion(frame_output(logits[1:], masks[1:]), [nothing], PointSampler())
    assert losses["mask"].item() == 0
    assert losses["dice"].item() == 0
    assert losses["class"].item() > 0


def test_batch_of_two_matches_like_two_batches_of_one():
    targets = [two_squares(), two_squares()]
    logits, masks = torch.randn(2, 2, 5, 3), torch.randn(2, 2, 5, 16, 16)
    criterion = SegmentationLoss(SegmentationLossConfig(num_points=512), 2)

    def matched(rows):
        sampler = ClipPointSampler([100 + r for r in rows], torch.device("cpu"))
        out = frame_output(logits[rows], masks[rows])
        return [m.tolist() for m in criterion.match(out, [targets[r] for r in rows], sampler).query_index]

    assert matched([0, 1]) == matched([0]) + matched([1])


def test_one_matching_for_all_layers():
    targets = two_squares()
    good = perfect(targets)
    swapped = perfect(targets, queries=(1, 3))
    (noise,), features = layers_with_masks([torch.randn(1, 2, 5, 3)], [swapped.mask_logits], "features")
    out = frame_output(good.logits, good.mask_logits, (noise,), mask_features=features)
    shared = SegmentationLoss(SegmentationLossConfig(num_points=83, match_every_layer=False), 2)
    losses, _ = shared(out, [targets], PixelCentres())
    # the noisy layer is asked for the queries of the good one
    labels = torch.tensor([[2, 1, 2, 0, 2], [2, 2, 2, 0, 2]])
    weights = torch.tensor([1.0, 1.0, 0.1])
    expected = torch.nn.functional.cross_entropy(noise.logits[0].transpose(1, 2), labels, weights)
    assert losses["class_0"].item() == pytest.approx(2 * expected.item(), rel=1e-5)
    # half of the pixels are wrong by 20 in frame 0, a quarter in frame 1, where one instance is left
    assert losses["mask_0"].item() == pytest.approx(5 * (10 + 10 + 5) / 3, rel=0.2)
    own = SegmentationLoss(SegmentationLossConfig(num_points=83), 2)
    losses, _ = own(out, [targets], PixelCentres())
    assert losses["mask_0"].item() == pytest.approx(0, abs=1e-6)


class Replay(PointSampler):
    """Draws once, then gives the same points again in an order of the test's."""

    def __init__(self):
        self.drawn, self.queue = [], []

    def draw(self, rows, num_points, device):
        if self.queue:
            return self.queue.pop(0)
        self.drawn.append(super().draw(rows, num_points, device))
        return self.drawn[-1]


def two_clips(frames=2):
    """Clips with three instances, absences among them, and with none."""
    masks = torch.rand(3, frames, 29, 43) > 0.6
    masks[1, 0] = False
    one = ClipTargets(torch.tensor([0, 1, 0]), masks.flatten(2).any(-1), masks)
    return [one, ClipTargets(one.labels[:0], one.visible[:0], one.masks[:0])]


def random_layers(queries, channels, size, layers=3, dtype=torch.float32):
    """Leaves: logits and mask embeddings of every layer, the last one's masks made, and mask features."""
    made = {
        "logits": [torch.randn(2, 2, queries, 3, dtype=dtype) for _ in range(layers)],
        "embeds": [torch.randn(2, 2, queries, channels, dtype=dtype) for _ in range(layers)],
        "features": [torch.randn(2, 2, channels, *size, dtype=dtype)],
    }
    for leaf in tree_leaves(made):
        leaf.requires_grad_()
    return made


def test_masks_at_points_give_the_losses_and_gradients_of_whole_masks(tolerance):
    targets = two_clips()
    criterion = SegmentationLoss(SegmentationLossConfig(num_points=83), 2)
    made = random_layers(queries=5, channels=6, size=(7, 23), dtype=torch.float64)
    leaves = tree_leaves(made)
    whole = [
        LayerOutput(a, e).mask_logits(made["features"][0])
        for a, e in zip(made["logits"], made["embeds"], strict=True)
    ]
    sampler = Replay()
    aux = tuple(map(LayerOutput, made["logits"][1:], made["embeds"][1:]))
    out = frame_output(made["logits"][0], whole[0], aux, mask_features=made["features"][0])
    losses, _ = criterion(out, targets, sampler)
    gradients = torch.autograd.grad(sum(losses.values()), leaves, retain_graph=True)

    expected = {}
    for i, suffix in enumerate(("", "_0", "_1")):  # every layer as if it were the last: with its whole masks
        sampler.queue = [sampler.drawn[i], *sampler.drawn[3 + 2 * i : 5 + 2 * i]]
        alone, _ = criterion(frame_output(made["logits"][i], whole[i]), targets, sampler)
        expected |= {name + suffix: loss for name, loss in alone.items()}
    assert list(losses) == list(expected)
    torch.testing.assert_close(losses, expected, **tolerance[torch.float64])
    for found, wanted in zip(gradients, torch.autograd.grad(sum(expected.values()), leaves), strict=True):
        assert wanted.abs().max() > 1e-3
        torch.testing.assert_close(found, wanted, **tolerance[torch.float64])


class Largest(TorchDispatchMode):
    """The largest tensor that any operation makes, views of what was there before left out."""

    def __init__(self, known):
        super().__init__()
        self.known = {x.untyped_storage().data_ptr() for x in known}
        self.numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for x in tree_leaves(result):
            if isinstance(x, torch.Tensor) and x.untyped_storage().data_ptr() not in self.known:
                self.numel = max(self.numel, x.numel())
        return result


def test_no_masks_of_all_queries_in_earlier_layers():
    size, frames, queries = (40, 56), 4, 50
    made = random_layers(queries, channels=8, size=size)
    mask_logits = torch.randn(2, 2, queries, *size)
    aux = tuple(map(LayerOutput, made["logits"][1:], made["embeds"][1:]))
    out = frame_output(made["logits"][0], mask_logits, aux, mask_features=made["features"][0])
    criterion = SegmentationLoss(SegmentationLossConfig(num_points=23), 2)
    with Largest([*tree_leaves(made), mask_logits]) as largest:
        losses, _ = criterion(out, two_clips(), PointSampler())
        sum(losses.values()).backward()
    gradient_of_features, masks_of_a_frame = frames * 8 * math.prod(size), queries * math.prod(size)
    assert gradient_of_features <= largest.numel < masks_of_a_frame


def test_costs_are_those_of_float32_under_autocast(monkeypatch, tolerance):
    made = random_layers(queries=5, channels=6, size=(7, 23))
    whole = LayerOutput(made["logits"][0], made["embeds"][0]).mask_logits(made["features"][0])
    aux = tuple(map(LayerOutput, made["logits"][1:], made["embeds"][1:]))
    out = frame_output(made["logits"][0], whole, aux, mask_features=made["features"][0])
    out = out.map(lambda x: x.detach().bfloat16())
    targets = two_clips()
    costs, assign = [], Matcher.assign
    monkeypatch.setattr(
        Matcher, "assign", lambda self, found, truth: (costs.append(found), assign(self, found, truth))[1]
    )
    criterion = SegmentationLoss(SegmentationLossConfig(num_points=83), 2)
    for lowered in (True, False):
        with torch.autocast("cpu", torch.bfloat16, enabled=lowered):
            sampler = ClipPointSampler([1, 2], torch.device("cpu"))
            losses, _ = criterion(out if lowered else out.map(torch.Tensor.float), targets, sampler)
        assert all(loss.dtype == torch.float32 for loss in losses.values())
    assert costs[0].dtype == torch.float32
    # Not to the last bit: where an array lies in memory decides in which order MKL sums.
    torch.testing.assert_close(*costs, **tolerance[torch.float32])


def test_dense_loss_marks_the_pixels_of_visible_instances():
    targets = two_squares()
    dense = torch.zeros(1, 2, 3, 16, 16)
    dense[:, :, 2] = 20.0
    dense[0, :, :, :8, :8] = torch.tensor([20.0, 0, 0])[:, None, None]
    dense[0, 0, :, 8:, 8:] = torch.tensor([0, 20.0, 0])[:, None, None]
    config = SegmentationLossConfig(num_points=7, dense_weight=1.0)
    out = frame_output(torch.randn(1, 2, 5, 3), torch.randn(1, 2, 5, 16, 16), dense=dense)
    losses, _ = SegmentationLoss(config, 2)(out, [targets], PointSampler())
    assert losses["dense"].item() < 1e-6


def test_costs_that_are_not_finite_name_the_frame():
    targets = two_squares()
    out = perfect(targets)
    out.logits[0, 1, 2, 0] = float("nan")
    with pytest.raises(FloatingPointError, match="decoder layer 0, clip 0 of the batch, frame 1"):
        SegmentationLoss(SegmentationLossConfig(num_points=7), 2)(out, [targets], PointSampler())


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("class_weight", -1.0, "0 or more"),
        ("no_object_weight", math.nan, "0 or more"),
        ("dice_weight", math.inf, "a finite number"),
        ("oversample", math.inf, "a finite number"),
        ("oversample", 0.5, "1 or more"),
    ],
)
def test_weights_that_make_no_sense(field, value, expected):
    with pytest.raises(ConfigError, match=rf"train\.loss\.{field} is {value}, expected {expected}"):
        SegmentationLossConfig(**{field: value})


def test_unknown_choice_names_the_nearest():
    with pytest.raises(ValueError, match=r"train\.loss\.absent_labels='relesed'.*nearest: released"):
        SegmentationLoss(SegmentationLossConfig(absent_labels="relesed"), 2)

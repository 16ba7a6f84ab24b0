import math
import runpy
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from vistk.losses.contrastive import EmbeddingLosses, embedding_losses
from vistk.structures import ClipTargets, FrameOutput, FrameQueries, Matches
from vistk.trackers.visage import VISAGE, VISAGEConfig

GOLDEN = Path(__file__).parents[1] / "golden"
RTOL = {torch.float32: 1e-6}
GRADIENT_NORM_RTOL = 1e-3


def clip_targets(visible: Tensor) -> ClipTargets:
    n, frames = visible.shape
    return ClipTargets(torch.zeros(n, dtype=torch.int64), visible, torch.zeros(n, frames, 1, 1) > 0)


def losses_of(vectors: Tensor, visible: list[Tensor], query: list[Tensor]) -> EmbeddingLosses:
    return embedding_losses(vectors, [clip_targets(v) for v in visible], Matches(tuple(query)))


def by_loops(vectors: Tensor, visible: list[Tensor], query: list[Tensor]) -> tuple[Tensor, Tensor]:
    """The definition, one frame pair at a time."""
    contrast, auxiliary, count = vectors.sum() * 0, vectors.sum() * 0, 0
    for clip, seen, index in zip(vectors, visible, query, strict=True):
        for t in range(clip.shape[0] - 1):
            part = [n for n in range(len(seen)) if (seen[n, t : t + 2] & (index[n, t : t + 2] >= 0)).all()]
            if part:
                key, ref = clip[t, index[part, t]], clip[t + 1, index[part, t + 1]]
                contrast = contrast + F.cross_entropy(key @ ref.T, torch.arange(len(part)), reduction="sum")
                cosine = F.cosine_similarity(key[:, None], ref[None], dim=-1)
                auxiliary = auxiliary + ((cosine - torch.eye(len(part))) ** 2).mean(1).sum()
                count += len(part)
    return contrast / max(count, 1), auxiliary / max(count, 1)


def random_batch(
    seed: int, frames: int, queries: int, instances: tuple[int, ...]
) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    rng = torch.Generator().manual_seed(seed)
    vectors = torch.randn(len(instances), frames, queries, 6, generator=rng)
    visible = [torch.rand(n, frames, generator=rng) > 0.3 for n in instances]
    query = []
    for n in instances:
        index = torch.rand(frames, queries, generator=rng).argsort(1)[:, :n].T.clone()  # (n, T)
        index[torch.rand(n, frames, generator=rng) < 0.2] = -1
        query.append(index)
    return vectors, visible, query


def test_published_losses_and_gradients() -> None:
    golden = np.load(GOLDEN / "losses/c_appearance_losses.npz")
    golden_array = runpy.run_path(str(GOLDEN / "weights_recipe.py"))["golden_array"]
    tracker = VISAGE(
        VISAGEConfig(),
        embed_dim=256,
        feature_channels={"res2": 256, "res3": 512, "res4": 1024, "res5": 2048},
        num_classes=40,
    )
    tracker.load_state_dict(
        {n: torch.from_numpy(golden_array(n, tuple(v.shape))) for n, v in tracker.state_dict().items()}
    )
    ids = [torch.from_numpy(golden[name]) for name in ("ids_clip0", "ids_clip1")]  # (N, T), -1 = absent
    query = [torch.full_like(i, -1) for i in ids]
    for frame, q, n in golden["indices"].tolist():
        query[frame // 4][n, frame % 4] = q
    embeds = torch.from_numpy(golden["pred_embds"]).requires_grad_()
    queries = tracker.describe(
        FrameOutput(
            logits=torch.zeros(2, 4, 20, 41),
            mask_logits=torch.from_numpy(golden["pred_masks"]).squeeze(2).unflatten(0, (2, 4)),
            embeds=embeds,
            mask_features=torch.zeros(2, 4, 1, 8, 16),
            features={
                level: torch.from_numpy(golden[level]).unflatten(0, (2, 4))
                for level in ("res3", "res4", "res5")
            },
        )
    )
    losses = tracker.losses(queries, [clip_targets(i >= 0) for i in ids], Matches(tuple(query)))
    assert losses.keys() == {"reid_query", "aux_reid_query", "reid_appearance", "aux_reid_appearance"}
    for name, published in {
        "reid_query": "loss_reid",
        "aux_reid_query": "loss_aux_reid",
        "reid_appearance": "loss_reid_app",
        "aux_reid_appearance": "loss_aux_reid_app",
    }.items():
        assert losses[name].item() == pytest.approx(golden[published].item(), rel=RTOL[torch.float32]), name

    torch.stack(list(losses.values())).sum().backward()
    assert embeds.grad is not None
    stored = golden["grad_pred_embds_sample"]
    sample = embeds.grad.flatten()[::13].numpy()
    assert np.abs(sample - stored).max() < 1e-6 * max(1.0, np.abs(stored).max())
    assert ((sample != 0) == (stored != 0)).all()  # the same queries take part
    assert embeds.grad.norm().item() == pytest.approx(golden["grad_pred_embds_norm"].item(), rel=1e-6)
    parameters = dict(tracker.appearance_decoder.named_parameters())
    assert set(parameters) == set(golden["param_names"])
    for name, norm in zip(golden["param_names"], golden["param_grad_norms"], strict=True):
        gradient = parameters[name].grad
        assert gradient is not None
        assert gradient.norm().item() == pytest.approx(norm, rel=GRADIENT_NORM_RTOL), name


def test_by_hand() -> None:
    # Instances 0 and 1 are queries 2 and 0, then 1 and 2.
    frame0 = torch.tensor([[0.0, 3.0], [9.0, 9.0], [2.0, 0.0]])
    frame1 = torch.tensor([[9.0, 9.0], [1.0, 0.0], [1.0, 1.0]])
    found = losses_of(
        torch.stack([frame0, frame1])[None],
        [torch.ones(2, 2, dtype=torch.bool)],
        [torch.tensor([[2, 1], [0, 2]])],
    )
    # Dot products: 0 with (0, 1) = (2, 2), 1 with (0, 1) = (0, 3).
    assert found.contrast.item() == pytest.approx((math.log(2) + math.log(1 + math.exp(-3))) / 2)
    # Cosines: (1, 1/sqrt2) and (0, 1/sqrt2), targets (1, 0) and (0, 1).
    root = 1 / math.sqrt(2)
    assert found.auxiliary.item() == pytest.approx((root**2 / 2 + (1 - root) ** 2 / 2) / 2)


@pytest.mark.parametrize(
    ("frames", "queries", "instances"),
    [(2, 7, (3,)), (4, 23, (5, 1)), (5, 7, (7, 0, 2)), (3, 83, (1, 1))],
)
def test_equals_the_definition(frames: int, queries: int, instances: tuple[int, ...]) -> None:
    vectors, visible, query = random_batch(frames + queries, frames, queries, instances)
    batched, looped = vectors.clone().requires_grad_(), vectors.clone().requires_grad_()
    found, expected = losses_of(batched, visible, query), by_loops(looped, visible, query)
    torch.testing.assert_close(tuple(found), expected, atol=1e-6, rtol=1e-5)
    (found.contrast + 3 * found.auxiliary).backward()
    (expected[0] + 3 * expected[1]).backward()
    torch.testing.assert_close(batched.grad, looped.grad, atol=1e-6, rtol=1e-5)


def test_only_neighbouring_frames_are_compared() -> None:
    vectors, _, query = random_batch(0, 3, 7, (2,))
    query = [torch.tensor([[0, -1, 3], [1, 4, 2]])]
    visible = [torch.ones(2, 3, dtype=torch.bool)]
    # Instance 0 is never in two neighbouring frames: instance 1 alone has no rival.
    found = losses_of(vectors, visible, query)
    assert found.contrast.item() == pytest.approx(0.0, abs=1e-6)
    cosines = F.cosine_similarity(vectors[0, [0, 1], [1, 4]], vectors[0, [1, 2], [4, 2]], dim=-1)
    assert found.auxiliary.item() == pytest.approx(((cosines - 1) ** 2).mean().item(), rel=1e-5)


def test_absent_instances_are_left_out_even_where_matched() -> None:
    vectors, _, _ = random_batch(1, 2, 7, (2,))
    query = [torch.tensor([[0, 3], [1, 2]])]
    hidden = losses_of(vectors, [torch.tensor([[True, False], [True, True]])], query)
    alone = losses_of(vectors, [torch.ones(1, 2, dtype=torch.bool)], [query[0][1:]])
    assert hidden == alone


@pytest.mark.parametrize(
    ("frames", "instances", "unmatched"),
    [(1, (2, 3), False), (3, (0, 0), False), (3, (2, 1), True), (1, (0,), False)],
)
def test_nothing_to_compare_keeps_the_graph(frames: int, instances: tuple[int, ...], unmatched: bool) -> None:
    vectors, visible, query = random_batch(2, frames, 7, instances)
    if unmatched:
        query = [torch.full_like(q, -1) for q in query]
    vectors.requires_grad_()
    found = losses_of(vectors, visible, query)
    assert found.contrast.item() == found.auxiliary.item() == 0.0
    (found.contrast + found.auxiliary).backward()
    assert vectors.grad is not None
    assert torch.equal(vectors.grad, torch.zeros_like(vectors))


def test_large_vectors_stay_finite() -> None:
    vectors, visible, query = random_batch(3, 4, 7, (5, 2))
    vectors = (1e4 * vectors).requires_grad_()
    found = losses_of(vectors, visible, query)
    (found.contrast + found.auxiliary).backward()
    assert vectors.grad is not None
    assert vectors.grad.isfinite().all()
    assert found.contrast.isfinite()


def test_half_precision_input_is_computed_in_float32() -> None:
    vectors, visible, query = random_batch(4, 4, 7, (5, 2))
    half = vectors.bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = losses_of(half, visible, query)
    assert found == losses_of(half.float(), visible, query)
    assert found.contrast.dtype == torch.float32


def test_weights_of_the_tracker() -> None:
    vectors, visible, query = random_batch(5, 3, 7, (3,))
    queries = FrameQueries(torch.zeros(1, 3, 7, 4), {"query": vectors})
    targets = [clip_targets(v) for v in visible]
    plain = embedding_losses(vectors, targets, Matches(tuple(query)))
    tracker = VISAGE(
        VISAGEConfig(levels=[], appearance_weight=0.0, contrast_weight=5.0, auxiliary_weight=7.0),
        embed_dim=6,
        feature_channels={},
        num_classes=3,
    )
    losses = tracker.losses(queries, targets, Matches(tuple(query)))
    assert losses == {"reid_query": 5 * plain.contrast, "aux_reid_query": 7 * plain.auxiliary}

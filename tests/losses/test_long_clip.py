import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from vistk.losses.contrastive import EmbeddingLosses
from vistk.losses.long_clip import frame_pair_losses, long_clip_losses
from vistk.structures import ClipTargets, Matches


def clip_targets(visible: Tensor, size: int = 1) -> ClipTargets:
    n, frames = visible.shape
    masks = torch.ones(n, frames, size, size) > 0
    return ClipTargets(torch.zeros(n, dtype=torch.int64), visible, masks)


def one_instance(*frames: list[list[float]], query: list[int]) -> tuple[Tensor, list[ClipTargets], Matches]:
    """A clip whose instance is ``query[t]`` of the vectors of frame t; -1 = not there."""
    index = torch.tensor([query])
    return torch.tensor([frames]), [clip_targets(index >= 0)], Matches((index,))


def values(losses: EmbeddingLosses) -> list[float]:
    return [float(loss.detach()) for loss in losses]


def test_all_other_queries_of_the_frame_before_are_negatives() -> None:
    # Anchor (ln 2, 0): its products are ln 2 with the positive, 0 and -ln 2 with the negatives. So the
    # contrast is log(1 + exp(-ln 2) + exp(-2 ln 2)) = log(1 + 1/2 + 1/4). Cosines 1, 0, -1 should be 1, 0, 0.
    clip = one_instance(
        [[0.0, 1.0], [1.0, 0.0], [-1.0, 0.0]],
        [[math.log(2), 0.0], [9.0, 9.0], [9.0, 9.0]],
        query=[1, 0],
    )
    expected = pytest.approx([math.log(1.75), 1 / 3])
    assert values(frame_pair_losses(*clip)) == expected
    assert values(long_clip_losses(*clip)) == expected  # with one frame of past there is no difference


def test_memory_follows_what_resembles_it() -> None:
    # Memory: (1, 0), then beta = cos 45 degrees of the way to (1, 1), that is (1, beta).
    # Frame 1: anchor (1, 1) against memory (1, 0) and a zero vector: log(1 + exp(-1)).
    # Frame 2: anchor (0, ln 2) against memory (1, beta): log(1 + 2^-beta); the last vector: log(1 + 1/2).
    beta = math.sqrt(0.5)
    zero = [0.0, 0.0]
    clip = one_instance([[1.0, 0.0], zero], [zero, [1.0, 1.0]], [[0.0, math.log(2)], zero], query=[0, 1, 0])
    first, memory, last = math.log(1 + math.exp(-1)), math.log(1 + 2**-beta), math.log(1.5)
    for share in (1.0, 0.0, 0.25):
        contrast, auxiliary = long_clip_losses(*clip, memory_share=share)
        assert float(contrast) == pytest.approx((first + share * memory + (1 - share) * last) / 2)
        # Cosines with the positives: cos 45 degrees, then beta / |(1, beta)| or cos 45 degrees again.
        errors = [(1 - beta) ** 2 / 2, (1 - beta / math.sqrt(1.5)) ** 2 / 2, (1 - beta) ** 2 / 2]
        expected = (errors[0] + share * errors[1] + (1 - share) * errors[2]) / 2
        assert float(auxiliary) == pytest.approx(expected)
    assert float(frame_pair_losses(*clip).contrast) == pytest.approx((first + last) / 2)


def test_memory_ignores_the_opposite() -> None:
    # Frame 1 shows the opposite of the memory (2, 0), which stays. Frame 2: log(1 + exp(-2)) against it.
    # Frame 1 itself: the product with the memory is -4, with the zero vector 0: log(1 + exp(4)).
    clip = one_instance([[2.0], [0.0]], [[-2.0], [0.0]], [[1.0], [0.0]], query=[0, 0, 0])
    contrast = float(long_clip_losses(*clip, memory_share=1.0).contrast)
    assert contrast == pytest.approx((math.log(1 + math.exp(4)) + math.log(1 + math.exp(-2))) / 2)


def test_an_absence_is_bridged_by_the_clip_and_not_by_the_pair() -> None:
    # In frame 1 nobody is the instance, so both queries are negatives of the anchor (1, 0) of frame 2:
    # log(1 + exp(3 - 1) + exp(0 - 1)).
    clip = one_instance(
        [[1.0, 0.0], [5.0, 5.0]], [[3.0, 0.0], [0.0, 1.0]], [[1.0, 0.0], [5.0, 5.0]], query=[0, -1, 0]
    )
    expected = math.log(1 + math.exp(2) + math.exp(-1))
    assert float(long_clip_losses(*clip).contrast) == pytest.approx(expected)
    assert values(frame_pair_losses(*clip)) == [0.0, 0.0]


def test_noise_puts_a_wrong_vector_into_the_memory() -> None:
    # Whoever is drawn in frame 1 looks like (1, 1): memory (1, 0) + beta (0, 1), last vector (1, 1).
    beta = math.sqrt(0.5)
    wrong = [[1.0, 1.0], [1.0, 1.0]]
    clip = one_instance([[1.0, 0.0], [0.0, 0.0]], wrong, [[0.0, 1.0], [0.0, 0.0]], query=[0, -1, 0])
    # Anchor (0, 1) and two negatives of product 1.
    for share, positive in ((1.0, beta), (0.0, 1.0)):
        contrast = float(long_clip_losses(*clip, memory_share=share, noise=1.0).contrast)
        assert contrast == pytest.approx(math.log(1 + 2 * math.exp(1 - positive)))
    without = float(long_clip_losses(*clip, noise=0.0).contrast)
    assert without == pytest.approx(math.log(1 + 2 * math.exp(1)))


def test_noise_does_not_begin_a_memory() -> None:
    clip = one_instance([[1.0], [0.0]], [[1.0], [0.0]], query=[-1, 0])
    assert values(long_clip_losses(*clip, noise=1.0)) == [0.0, 0.0]


def by_loops(
    vectors: Tensor, visible: list[Tensor], query: list[Tensor], long: bool, share: float
) -> tuple[Tensor, Tensor]:
    """The definition, one anchor at a time."""
    contrast, auxiliary, count = vectors.sum() * 0, vectors.sum() * 0, 0
    for clip, seen, index in zip(vectors, visible, query, strict=True):
        for n in range(len(seen)):
            past: list[Tensor] = []
            memory = None
            for t in range(clip.shape[0]):
                here = bool(seen[n, t] and index[n, t] >= 0)
                before = t > 0 and bool(seen[n, t - 1] and index[n, t - 1] >= 0)
                if here and t > 0 and (past if long else before):
                    assert memory is not None
                    anchor = clip[t, index[n, t]]
                    others = [q for q in range(clip.shape[1]) if not (before and q == index[n, t - 1])]
                    negative = clip[t - 1, others]
                    for positive, weight in (
                        ((memory, share), (past[-1], 1 - share)) if long else ((past[-1], 1),)
                    ):
                        items = torch.cat([positive[None], negative])
                        target = F.one_hot(torch.tensor(0), len(items))
                        contrast = contrast + weight * F.cross_entropy(items @ anchor, torch.tensor(0))
                        cosine = F.cosine_similarity(items, anchor[None], dim=-1)
                        auxiliary = auxiliary + weight * ((cosine - target) ** 2).mean()
                    count += 1
                if here:
                    new = clip[t, index[n, t]]
                    if memory is None:
                        memory = new
                    else:
                        beta = (
                            torch.stack([F.cosine_similarity(p, new, dim=0) for p in past])
                            .mean()
                            .clamp(min=0)
                        )
                        memory = (1 - beta) * memory + beta * new
                    past.append(new)
    return contrast / max(count, 1), auxiliary / max(count, 1)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("long", [False, True])
def test_random_clips(seed: int, long: bool) -> None:
    frames, queries, instances = [(2, 1, (1, 1)), (5, 7, (3, 0, 2)), (7, 3, (3,)), (1, 4, (2, 1))][seed]
    rng = torch.Generator().manual_seed(seed)
    vectors = torch.randn(len(instances), frames, queries, 6, generator=rng).requires_grad_()
    visible = [torch.rand(n, frames, generator=rng) > 0.3 for n in instances]
    query = []
    for n in instances:
        index = torch.rand(frames, queries, generator=rng).argsort(1)[:, :n].T.clone()
        index[torch.rand(n, frames, generator=rng) < 0.2] = -1
        query.append(index)
    expected = by_loops(vectors, visible, query, long, 0.3)
    targets, matches = [clip_targets(v) for v in visible], Matches(tuple(query))
    found = (
        long_clip_losses(vectors, targets, matches, 0.3)
        if long
        else frame_pair_losses(vectors, targets, matches)
    )
    for a, b in zip(expected, found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)
    gradients = [torch.autograd.grad(sum(x), vectors)[0] for x in (expected, found)]
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-6)


def test_the_noise_of_a_clip_does_not_depend_on_its_batch() -> None:
    rng = torch.Generator().manual_seed(0)
    vectors = torch.randn(2, 6, 5, 4, generator=rng)
    visible = torch.rand(2, 3, 6, generator=rng) > 0.5
    visible[..., 0] = visible[..., -1] = True
    query = torch.arange(3)[:, None].expand(3, 6)
    targets = [clip_targets(v, size) for v, size in zip(visible, (3, 5), strict=True)]

    def loss(*clips: int) -> float:
        chosen = list(clips)
        matches = Matches(tuple(query for _ in chosen))
        return float(
            long_clip_losses(vectors[chosen], [targets[i] for i in chosen], matches, 0.5, 0.5).contrast
        )

    anchors = visible[..., 1:].sum((1, 2))
    together = (loss(0) * anchors[0] + loss(1) * anchors[1]) / anchors.sum()
    assert loss(0, 1) == pytest.approx(float(together), rel=1e-5)
    assert loss(1) != pytest.approx(
        float(long_clip_losses(vectors[1:], targets[1:], Matches((query,)), 0.5, 0.0).contrast), rel=1e-3
    )


@pytest.mark.parametrize("instances", [0, 2])
@pytest.mark.parametrize("frames", [1, 4])
def test_without_anchors_there_is_a_gradient_of_zero(instances: int, frames: int) -> None:
    vectors = torch.zeros(2, frames, 3, 4, requires_grad=True)
    absent = torch.full((instances, frames), -1)
    targets = [clip_targets(absent > 0)] * 2
    for losses in (
        frame_pair_losses(vectors, targets, Matches((absent, absent))),
        long_clip_losses(vectors, targets, Matches((absent, absent)), noise=0.5),
    ):
        assert values(losses) == [0.0, 0.0]
        (gradient,) = torch.autograd.grad(sum(losses), vectors)
        assert not gradient.any()

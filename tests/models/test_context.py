import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from vistk.models.context import context_features, mask_edges, prototypes

ATOL = {torch.float32: 1e-5}


def grid(*rows: str) -> Tensor:
    """``#`` is inside."""
    return torch.tensor([[c == "#" for c in row] for row in rows])


def random_logits(*shape: int) -> Tensor:
    """Blobs of a few pixels."""
    coarse = torch.randn(*shape[:-2], 5, 4, generator=torch.Generator().manual_seed(0))
    flat = F.interpolate(coarse.reshape(1, -1, 5, 4), size=shape[-2:], mode="bilinear")
    return flat.reshape(shape)


def test_edge_of_a_square() -> None:
    mask = grid("......", ".####.", ".####.", ".####.", ".####.", "......")
    assert torch.equal(mask_edges(mask), grid("......", ".####.", ".#..#.", ".#..#.", ".####.", "......"))


def test_corners_count_as_neighbours() -> None:
    mask = grid("#####", "#####", "#####", "#####", "####.")
    assert torch.equal(mask_edges(mask), grid(".....", ".....", ".....", "...##", "...#."))


def test_the_border_of_the_image_is_no_edge() -> None:
    assert not mask_edges(torch.ones(3, 4) > 0).any()
    assert torch.equal(mask_edges(grid("###..", "###..")), grid("..#..", "..#.."))
    assert not mask_edges(torch.zeros(2, 1, 1) > 0).any()


def test_edges_are_where_the_laplacian_is_positive() -> None:
    masks = random_logits(7, 23, 31) > 0.3
    kernel = -torch.ones(1, 1, 3, 3)
    kernel[..., 1, 1] = 8
    padded = F.pad(masks[:, None].float(), (1, 1, 1, 1), mode="replicate")
    assert torch.equal(mask_edges(masks), F.conv2d(padded, kernel)[:, 0] > 0)


def test_context_by_hand() -> None:
    # A row of five pixels, mask on the first three. Edge: pixel 2. Windows of three pixels: 1, 2, 3.
    features = torch.tensor([1.0, 2.0, 4.0, 9.0, 30.0]).reshape(1, 1, 1, 5)
    logits = torch.tensor([1.0, 1.0, 1.0, -1.0, -1.0]).reshape(1, 1, 1, 5)
    assert context_features(features, logits, 3).item() == pytest.approx((2 + 4 + 9) / 3)
    assert context_features(features, logits, 1).item() == pytest.approx(4.0)
    # Cut at the border: of a window of five around pixel 3, four are there. Edges of "..##.": 2 and 3.
    logits = torch.tensor([-1.0, -1.0, 1.0, 1.0, -1.0]).reshape(1, 1, 1, 5)
    mean_2, mean_3 = (1 + 2 + 4 + 9 + 30) / 5, (2 + 4 + 9 + 30) / 4
    assert context_features(features, logits, 5).item() == pytest.approx((mean_2 + mean_3) / 2)


def test_prototype_by_hand() -> None:
    features = torch.tensor([[1.0, 2.0, 4.0], [0.0, -6.0, 5.0]]).reshape(1, 2, 1, 3)
    logits = torch.tensor([[1.0, 1.0, -1.0], [-1.0, -1.0, -1.0]]).reshape(1, 2, 1, 3)
    assert prototypes(features, logits).tolist() == [[[1.5, -3.0], [0.0, 0.0]]]


@pytest.mark.parametrize(("filter_size", "size"), [(1, (7, 23)), (9, (18, 20)), (9, (23, 7)), (51, (7, 9))])
def test_context_is_the_pooled_filtered_map(filter_size: int, size: tuple[int, int]) -> None:
    features = torch.randn(2, 3, 6, *size, generator=torch.Generator().manual_seed(1))
    logits = random_logits(2, 3, 5, *size)
    logits[0, 0, 0] = -1.0  # an empty mask
    # The definition: filter the map, then the mean over the edge.
    filtered = F.avg_pool2d(
        features.flatten(0, 1), filter_size, 1, filter_size // 2, count_include_pad=False
    ).unflatten(0, (2, 3))
    edges = mask_edges(logits > 0).float()
    expected = torch.einsum("btqhw,btchw->btqc", edges, filtered)
    expected = expected / edges.sum((-1, -2))[..., None].clamp(min=1)
    found = context_features(features, logits, filter_size)
    torch.testing.assert_close(found, expected, atol=ATOL[torch.float32], rtol=1e-4)
    assert not found[0, 0, 0].any()
    assert found[0, 1].abs().sum() > 0
    alone = context_features(features[1, 2], logits[1, 2], filter_size)
    torch.testing.assert_close(alone, found[1, 2], atol=ATOL[torch.float32], rtol=1e-4)


def test_masks_are_resized_to_the_map() -> None:
    features = torch.randn(1, 4, 6, 8, generator=torch.Generator().manual_seed(2))
    logits = random_logits(1, 3, 24, 32)
    small = F.interpolate(logits, size=(6, 8), mode="bilinear", align_corners=False)
    for pool in (prototypes, lambda f, m: context_features(f, m, 3)):
        assert torch.equal(pool(features, logits), pool(features, small))


def test_gradients_reach_the_map_and_not_the_masks() -> None:
    features = torch.randn(1, 4, 6, 8, requires_grad=True)
    logits = random_logits(1, 3, 6, 8).requires_grad_()
    (context_features(features, logits, 3).sum() + prototypes(features, logits).sum()).backward()
    assert features.grad is not None
    assert features.grad.any()
    assert logits.grad is None

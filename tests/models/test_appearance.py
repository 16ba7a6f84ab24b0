import json
import runpy
from pathlib import Path

import numpy as np
import pytest
import torch

from vistk.models.appearance import AppearanceHead, mean_under_masks
from vistk.structures import FrameOutput

GOLDEN = Path(__file__).parents[1] / "golden"
CHANNELS = {"res2": 256, "res3": 512, "res4": 1024, "res5": 2048}
SMALL = {"res2": 5, "res3": 7, "res4": 11}
ATOL = {torch.float32: 2e-5}  # the published vectors, computed with other thread counts


def frame_output(lead: tuple[int, ...], queries: int, dim: int = 8, seed: int = 0) -> FrameOutput:
    rng = torch.Generator().manual_seed(seed)
    return FrameOutput(
        logits=torch.randn(*lead, queries, 4, generator=rng),
        mask_logits=torch.randn(*lead, queries, 9, 13, generator=rng),
        embeds=torch.randn(*lead, queries, dim, generator=rng),
        mask_features=torch.randn(*lead, dim, 9, 13, generator=rng),
        features={
            level: torch.randn(*lead, channels, 9 >> i, 13 >> i, generator=rng)
            for i, (level, channels) in enumerate(SMALL.items())
        },
    )


def test_published_names_and_shapes() -> None:
    names = json.loads((GOLDEN / "names/visage_r50_ytvis2019_state_dict.json").read_text())
    prefix = "appearance_decoder."
    published = {
        name.removeprefix(prefix): tuple(shape) for name, shape, _ in names if name.startswith(prefix)
    }
    head = AppearanceHead(CHANNELS, ["res3", "res4", "res5"], 256, 256)
    assert {name: tuple(value.shape) for name, value in head.state_dict().items()} == published
    assert len(published) == 24


def test_published_vectors() -> None:
    golden = np.load(GOLDEN / "losses/c_appearance_losses.npz")
    golden_array = runpy.run_path(str(GOLDEN / "weights_recipe.py"))["golden_array"]
    head = AppearanceHead(CHANNELS, ["res3", "res4", "res5"], 256, 256)
    head.load_state_dict(
        {
            name: torch.from_numpy(golden_array(f"appearance_decoder.{name}", tuple(value.shape)))
            for name, value in head.state_dict().items()
        }
    )
    masks = torch.from_numpy(golden["pred_masks"]).squeeze(2).unflatten(0, (2, 4))  # (2, 4, 20, 8, 16)
    vectors = head(
        FrameOutput(
            logits=torch.zeros(2, 4, 20, 1),
            mask_logits=masks,
            embeds=torch.from_numpy(golden["pred_embds"]),
            mask_features=torch.zeros(2, 4, 1, 8, 16),
            features={
                level: torch.from_numpy(golden[level]).unflatten(0, (2, 4))
                for level in ("res3", "res4", "res5")
            },
        )
    )
    assert vectors["query"].shape == vectors["appearance"].shape == (2, 4, 20, 256)
    for name, stored in (("query", "reid_queries_s7"), ("appearance", "appearance_queries_s7")):
        difference = np.abs(vectors[name].detach().flatten()[::7].numpy() - golden[stored])
        assert difference.max() < ATOL[torch.float32], name


def test_mean_under_masks_by_hand() -> None:
    features = torch.tensor([[[1.0, 2.0], [3.0, 4.0]], [[10.0, 20.0], [30.0, 40.0]]])[None]  # (1, 2, 2, 2)
    masks = torch.tensor(
        [
            [[1.0, -1.0], [-1.0, 1.0]],  # 1 and 4
            [[-1.0, -1.0], [5.0, -1.0]],  # 3
            [[0.0, -1.0], [-1.0, -1.0]],  # a logit of zero is a probability of one half: outside
            [[9.0, 9.0], [9.0, 9.0]],
        ]
    )[None]
    expected = torch.tensor([[[2.5, 25.0], [3.0, 30.0], [0.0, 0.0], [2.5, 25.0]]])
    assert torch.equal(mean_under_masks(features, masks), expected)


def test_masks_are_resized_before_they_are_thresholded() -> None:
    # Each 2x2 block becomes one pixel, the mean of its logits: +1 on the left, -1 on the right. A vote of
    # thresholded pixels (1 of 4, 3 of 4) would say the opposite.
    masks = torch.tensor([[7.0, -1.0, 1.0, 1.0], [-1.0, -1.0, 1.0, -7.0]])[None, None]
    features = torch.tensor([[3.0, 5.0]])[None, None]  # (1, 1, 1, 2)
    assert mean_under_masks(features, masks).item() == 3.0


@pytest.mark.parametrize("queries", [1, 7, 23])
@pytest.mark.parametrize("width", [7, 12, 64])
def test_leading_dims_and_widths(queries: int, width: int) -> None:
    torch.manual_seed(0)
    head = AppearanceHead(SMALL, ["res2", "res4"], 8, width)
    out = frame_output((2, 3), queries)
    vectors = head(out)
    for name, vector in vectors.items():
        assert vector.shape == (2, 3, queries, width)
        torch.testing.assert_close(head(out[1, 2])[name], vector[1, 2], atol=1e-5, rtol=1e-5)


def test_levels_are_used_in_the_given_order() -> None:
    head = AppearanceHead(SMALL, ["res4", "res2"], 8, 16)
    assert [projection[0].in_channels for projection in head.input_proj] == [11, 5]


def test_gradients_reach_embeddings_only() -> None:
    out = frame_output((2,), 5).map(lambda x: x.requires_grad_())
    vectors = AppearanceHead(SMALL, ["res2", "res3"], 8, 16)(out)
    (vectors["query"].sum() + vectors["appearance"].sum()).backward()
    assert out.embeds.grad is not None
    assert out.embeds.grad.abs().sum() > 0
    assert out.mask_logits.grad is None
    assert all(feature.grad is None for feature in out.features.values())


def test_parts_can_be_left_out() -> None:
    out = frame_output((2,), 5)
    head = AppearanceHead(SMALL, [], 8, 16, query_head=False)
    vectors = head(out)
    assert list(head.parameters()) == []
    assert list(vectors) == ["query"]
    assert torch.equal(vectors["query"], out.embeds)


def test_unknown_level() -> None:
    with pytest.raises(ValueError, match=r"no level 'res33'.*res2, res3, res4.*nearest is res3"):
        AppearanceHead(SMALL, ["res33"], 8, 16)

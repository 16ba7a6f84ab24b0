"""Swin as Mask2Former runs it: equal to an independent implementation, published names, training."""

from __future__ import annotations

import copy
import json
import re

import pytest
import timm
import torch
from torch import Tensor, nn
from transformers import SwinBackbone, SwinConfig

from vistk.models import swin
from vistk.models.backbone import LEVELS, Backbone
from vistk.models.segmenter import (
    Segmenter,
    SegmenterConfig,
    SwinBaseConfig,
    SwinLargeConfig,
    SwinSmallConfig,
    SwinTinyConfig,
)
from vistk.schema import cast, to_tree

SMALL = {"embed_dim": 24, "depths": [2, 2, 2, 2], "num_heads": [1, 2, 4, 8]}


def small(window: int = 7, checkpointing: bool = False, **options: object) -> Backbone:
    """Swin of width 24 with weights that leave no term small: biases, norms and tables count."""
    name = {7: "swin_tiny_patch4_window7_224", 12: "swin_base_patch4_window12_384"}[window]
    return with_random_weights(Backbone(name, {**SMALL, **options}, checkpointing=checkpointing))


def with_random_weights(backbone: Backbone) -> Backbone:
    with torch.no_grad():
        for name, parameter in backbone.named_parameters():
            if "bias_table" in name:
                parameter.normal_()
            elif parameter.dim() > 1:
                parameter.normal_(std=parameter[0].numel() ** -0.5)
            else:
                parameter.normal_(mean=float("norm" in name and "weight" in name), std=0.3)
    return backbone.eval()


def oracle(backbone: Backbone, window: int, depths: list[int], heads: list[int]) -> SwinBackbone:
    """The Swin backbone of transformers with the same weights."""
    config = SwinConfig(
        embed_dim=backbone.channels["res2"],
        depths=depths,
        num_heads=heads,
        window_size=window,
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )
    theirs = SwinBackbone(config).eval()
    renames = (
        (r"^body\.patch_embed\.proj", "swin.embeddings.patch_embeddings.projection"),
        (r"^body\.patch_embed\.norm", "swin.embeddings.norm"),
        (
            r"^body\.layers_(\d)\.downsample",
            lambda m: f"swin.encoder.layers.{int(m[1]) - 1}.downsample",
        ),
        (r"^body\.layers_(\d)\.", r"swin.encoder.layers.\1."),
        (r"\.norm1\.", ".layernorm_before."),
        (r"\.norm2\.", ".layernorm_after."),
        (
            r"\.attn\.relative_position_bias_table",
            ".attention.relative_position_bias.relative_position_bias_table",
        ),
        (r"\.attn\.proj", ".attention.o_proj"),
        (r"\.attn\.", ".attention."),
        (r"^norm(\d)\.", lambda m: f"hidden_states_norms.stage{int(m[1]) + 1}."),
    )
    state = {}
    for name, value in backbone.state_dict().items():
        for pattern, replacement in renames:
            name = re.sub(pattern, replacement, name)
        if ".qkv." in name:
            state |= {
                name.replace("qkv", f"{x}_proj"): part for x, part in zip("qkv", value.chunk(3), strict=True)
            }
        else:
            state[name] = value
    result = theirs.load_state_dict(state, strict=False)
    assert not result.unexpected_keys
    assert set(result.missing_keys) <= {"swin.layernorm.weight", "swin.layernorm.bias"}  # not in the outputs
    return theirs


@pytest.fixture(scope="module", params=[7, 12])
def pair(request: pytest.FixtureRequest) -> tuple[Backbone, SwinBackbone]:
    torch.manual_seed(0)
    ours = small(request.param)
    return ours, oracle(ours, request.param, SMALL["depths"], SMALL["num_heads"])


@pytest.mark.parametrize(
    "size",
    [(64, 96), (224, 224), (384, 640), (32, 32), (96, 64), (33, 95)],
    ids=lambda size: "x".join(map(str, size)),
)
def test_equals_the_other_implementation(pair, size, tolerance):
    ours, theirs = pair
    images = torch.randn(2 if max(size) < 100 else 1, 3, *size)
    with torch.inference_mode():
        maps, expected = ours(images), theirs(images).feature_maps
    assert list(maps) == list(LEVELS)
    for level, x, y in zip(LEVELS, maps.values(), expected, strict=True):
        assert x.is_contiguous()
        torch.testing.assert_close(
            x, y, **tolerance[torch.float32], msg=lambda text, at=level: f"{at}: {text}"
        )


def test_swin_tiny_equals_the_other_implementation():
    ours = with_random_weights(Backbone("swin_tiny_patch4_window7_224"))
    theirs = oracle(ours, 7, [2, 2, 6, 2], [3, 6, 12, 24])
    images = torch.randn(1, 3, 192, 320)
    with torch.inference_mode():
        for x, y in zip(ours(images).values(), theirs(images).feature_maps, strict=True):
            torch.testing.assert_close(x, y, rtol=1e-4, atol=1e-4)


def test_the_order_of_timm_is_another_network():
    ours = small()
    plain = timm.create_model(
        "swin_tiny_patch4_window7_224",
        features_only=True,
        **{k: tuple(v) if isinstance(v, list) else v for k, v in SMALL.items()},
        **swin.OPTIONS,
    ).eval()
    plain.load_state_dict(ours.body.state_dict())  # same names
    images = torch.randn(1, 3, 96, 160)
    with torch.inference_mode():
        rolled_first = ours.norm0(plain(images)[0]).permute(0, 3, 1, 2)
        assert (ours(images)["res2"] - rolled_first).abs().max() > 0.1
        whole_windows = torch.randn(1, 3, 224, 224)
        rolled_first = ours.norm3(plain(whole_windows)[3]).permute(0, 3, 1, 2)
        torch.testing.assert_close(ours(whole_windows)["res5"], rolled_first, rtol=1e-5, atol=1e-5)


def test_shift_mask_by_hand():
    # Two windows of 1x4 pixels in a row, rolled by one: the last pixel of the second came from the front.
    mask = swin.shift_mask((1, 2), (1, 4), (0, 1), torch.device("cpu"), torch.float32)
    assert not mask[0].any()
    assert mask[1].tolist() == [[0, 0, 0, -100]] * 3 + [[-100, -100, -100, 0]]
    # Rows and columns together: one window of 2x2, rolled by one both ways, leaves every pixel alone.
    mask = swin.shift_mask((1, 1), (2, 2), (1, 1), torch.device("cpu"), torch.float64)
    assert mask.dtype == torch.float64
    assert mask.tolist() == [[[0.0 if i == j else -100.0 for j in range(4)] for i in range(4)]]


def our_name(published: str) -> str:
    """The rule between the published names and ours: a stage merges patches at its start, not its end."""
    name = re.sub(
        r"^backbone\.layers\.(\d)\.downsample\.",
        lambda m: f"backbone.body.layers_{int(m[1]) + 1}.downsample.",
        published,
    )
    name = re.sub(r"^backbone\.layers\.(\d)\.", r"backbone.body.layers_\1.", name)
    return re.sub(r"^backbone\.patch_embed\.", "backbone.body.patch_embed.", name)


@pytest.mark.parametrize("file", ["visage_swinl_ytvis2019", "visage_swinl_ovis", "coco_m2f_swinl"])
def test_swin_large_has_every_published_parameter(golden, file):
    entries = json.loads((golden / "names" / f"{file}_state_dict.json").read_text())
    published = {
        our_name(name): tuple(shape)
        for name, shape, _ in entries
        if name.startswith("backbone.") and not name.endswith("relative_position_index")
    }
    with torch.device("meta"):
        segmenter = Segmenter(SwinLargeConfig(), 40)
    ours = {k: tuple(v.shape) for k, v in segmenter.state_dict().items() if k.startswith("backbone.")}
    assert len(published) == 4 + 24 * 13 + 3 * 3 + 4 * 2  # patches, blocks, merges, output norms
    assert ours == published


@pytest.mark.parametrize(
    ("config", "width", "window", "depths", "queries"),
    [
        (SwinTinyConfig(), 96, 7, [2, 2, 6, 2], 100),
        (SwinSmallConfig(), 96, 7, [2, 2, 18, 2], 100),
        (SwinBaseConfig(), 128, 12, [2, 2, 18, 2], 100),
        (SwinLargeConfig(), 192, 12, [2, 2, 18, 2], 200),
    ],
    ids=["tiny", "small", "base", "large"],
)
def test_published_sizes(config, width, window, depths, queries):
    with torch.device("meta"):
        segmenter = Segmenter(config, 40)
    backbone = segmenter.backbone
    stages = [backbone.body[f"layers_{i}"] for i in range(4)]
    assert list(backbone.channels.values()) == [width, 2 * width, 4 * width, 8 * width]
    assert list(backbone.strides.values()) == [4, 8, 16, 32]
    assert [len(stage.blocks) for stage in stages] == depths
    half = window // 2
    blocks = [block for stage in stages for block in stage.blocks]
    assert [b.window for b in blocks] == [(window, window)] * len(blocks)
    assert [b.shift for b in blocks] == [(0, 0), (half, half)] * (len(blocks) // 2)  # the last stage too
    rates = [getattr(block.drop_path1, "drop_prob", 0.0) for block in blocks]
    assert rates == pytest.approx([0.3 * i / (len(blocks) - 1) for i in range(len(blocks))])
    assert segmenter.transformer_decoder.query_feat.num_embeddings == queries
    assert [stage.grad_checkpointing for stage in stages] == [isinstance(config, SwinLargeConfig)] * 4


def gradients(backbone: Backbone, images: Tensor) -> dict[str, Tensor]:
    torch.manual_seed(3)  # stochastic depth draws the same samples
    sum((x * x.detach().sin()).sum() for x in backbone(images).values()).backward()
    return {name: p.grad for name, p in backbone.named_parameters()}


def test_recomputed_activations_give_the_same_gradients():
    kept = small(drop_path_rate=0.5).train()
    again = small(checkpointing=True, drop_path_rate=0.5).train()
    again.load_state_dict(kept.state_dict())
    calls = []
    again.body["layers_2"].blocks[1].norm1.register_forward_hook(lambda *_: calls.append(1))
    images = torch.randn(3, 3, 64, 96)
    expected, found = gradients(kept, images), gradients(again, images)
    assert len(calls) == 2  # once forward, once in the backward pass
    for name, grad in expected.items():
        assert grad is not None, name
        torch.testing.assert_close(found[name], grad, msg=lambda text, at=name: f"{at}: {text}")


def test_copies_and_compiled_graphs_keep_the_order():
    ours = small()
    images = torch.randn(1, 3, 64, 96)
    with torch.inference_mode():
        expected = ours(images)["res5"]
        torch.testing.assert_close(copy.deepcopy(ours)(images)["res5"], expected, rtol=0, atol=0)
    whole = torch.compile(ours.body["layers_0"].blocks, backend="eager", fullgraph=True)
    x = torch.randn(1, 16, 24, 24)
    with torch.no_grad():
        torch.testing.assert_close(whole(x), ours.body["layers_0"].blocks(x))


def test_runs_in_half_precision():
    ours = small().to(torch.bfloat16)
    maps = ours(torch.randn(1, 3, 64, 96, dtype=torch.bfloat16))
    assert {x.dtype for x in maps.values()} == {torch.bfloat16}
    assert all(x.isfinite().all() for x in maps.values())


def test_a_timm_of_other_parts_is_refused():
    body = timm.create_model(
        "swin_tiny_patch4_window7_224", features_only=True, embed_dim=24, depths=(1,) * 4
    )
    body["layers_3"].blocks[0].layer_scale = nn.Identity()
    with pytest.raises(ValueError, match=r"timm .* builds Swin of blocks of .*layer_scale.*published order"):
        swin.pad_before_roll(body)
    del body["layers_0"].blocks
    with pytest.raises(ValueError, match="stages without blocks"):
        swin.pad_before_roll(body)


def test_the_segmenter_pads_any_frame():
    config = SegmenterConfig(
        backbone="swin_tiny_patch4_window7_224",
        backbone_options=SMALL,
        hidden_dim=32,
        num_queries=3,
        encoder_layers=1,
        decoder_layers=1,
    )
    out = Segmenter(config, 2).eval()(torch.zeros(2, 3, 33, 96, dtype=torch.uint8))
    assert out.mask_logits.shape == (2, 3, 16, 24)
    assert {k: tuple(x.shape[1:]) for k, x in out.features.items()} == {
        "res2": (24, 16, 24),
        "res3": (48, 8, 12),
        "res4": (96, 4, 6),
        "res5": (192, 2, 3),
        "pixel3": (32, 8, 12),
        "pixel4": (32, 4, 6),
        "pixel5": (32, 2, 3),
    }


@pytest.mark.parametrize("config", [SwinTinyConfig, SwinSmallConfig, SwinBaseConfig, SwinLargeConfig])
def test_options_come_back_from_a_plain_tree(config):
    assert cast(config, json.loads(json.dumps(to_tree(config())))) == config()

"""Backbones of any kind: four aligned levels, gradients, recomputation, weights, and what is refused."""

from __future__ import annotations

import subprocess
import sys

import pytest
import timm
import torch
from torch import Tensor, nn

from vistk.models import vit
from vistk.models.backbone import LEVELS, Backbone, pretrained_pixels
from vistk.models.segmenter import Segmenter, SegmenterConfig

TINY_RESNET = {"layers": [1, 1, 1, 1], "channels": [8, 16, 24, 32]}
TINY_VIT = {"embed_dim": 32, "depth": 2, "num_heads": 2}
TINY_CONVNEXT = {"depths": [1, 1, 1, 1], "dims": [8, 16, 24, 32]}
PLAIN = ["vit_tiny_patch16_224", "vit_small_patch14_dinov2.lvd142m", "vit_small_patch16_dinov3.lvd1689m"]


def shapes(backbone: Backbone, height: int, width: int) -> dict[str, tuple[int, ...]]:
    with torch.inference_mode():
        return {k: tuple(x.shape[1:]) for k, x in backbone.eval()(torch.randn(1, 3, height, width)).items()}


@pytest.mark.parametrize("name", PLAIN)
@pytest.mark.parametrize("size", [(32, 32), (32, 96), (96, 160)], ids=str)
def test_a_plain_transformer_has_four_levels_of_exact_strides(name, size):
    backbone = Backbone(name, TINY_VIT)
    assert backbone.strides == {"res2": 4, "res3": 8, "res4": 16, "res5": 32}
    assert backbone.channels == {"res2": 8, "res3": 16, "res4": 32, "res5": 32}
    assert shapes(backbone, *size) == {
        level: (width, size[0] // stride, size[1] // stride)
        for level, width, stride in zip(LEVELS, (8, 16, 32, 32), (4, 8, 16, 32), strict=True)
    }
    assert {key.partition(".")[0] for key in backbone.state_dict()} == {"body", "pyramid"}


def test_patches_of_14_pixels_stay_aligned_with_the_frame():
    """A blob changes the features of its own place alone, also at the far end of a wide frame."""
    body = Backbone("vit_tiny_patch16_224", {**TINY_VIT, "patch_size": 14}).body.eval()
    body.blocks, body.norm = nn.Sequential(nn.Identity(), nn.Identity()), nn.Identity()  # patches alone
    empty = torch.zeros(1, 3, 64, 320)
    for row, column in [(0, 0), (3, 19), (2, 11)]:
        frame = empty.clone()
        frame[..., 16 * row + 4 : 16 * row + 12, 16 * column + 4 : 16 * column + 12] = 5.0
        with torch.inference_mode():
            change = vit.plain_features(body, frame, 14) - vit.plain_features(body, empty, 14)
        assert change.shape == (1, 32, 4, 20)
        moved = change.abs().amax(1)[0] > 1e-6
        assert moved.nonzero().tolist() == [[row, column]]


def test_patches_of_16_pixels_see_the_frame_as_it_is():
    backbone = Backbone("vit_tiny_patch16_224", TINY_VIT).eval()
    images = torch.randn(1, 3, 64, 96)
    with torch.inference_mode():
        maps = backbone(images)
        tokens = backbone.body.forward_features(images)[:, 1:]  # timm's own way, with its final norm
        torch.testing.assert_close(maps["res4"], tokens.transpose(1, 2).unflatten(2, (4, 6)))
        torch.testing.assert_close(maps["res5"], nn.functional.max_pool2d(maps["res4"], 2))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("resnet18", TINY_RESNET),
        ("convnext_atto", TINY_CONVNEXT),
        ("efficientnet_b0", {}),
        ("mambaout_femto", {}),  # timm gives it channels last
        *((name, TINY_VIT) for name in PLAIN),
        ("vit_base_patch16_siglip_224", TINY_VIT),  # its head pools by attention
        ("deit_tiny_distilled_patch16_224", TINY_VIT),  # two heads
    ],
)
def test_gradients_reach_every_parameter(name, options):
    backbone = Backbone(name, options)
    assert backbone.training
    maps = backbone(torch.randn(2, 3, 64, 64))
    assert {k: x.shape[1] for k, x in maps.items()} == backbone.channels
    sum(x.square().sum() for x in maps.values()).backward()
    assert [key for key, p in backbone.named_parameters() if p.grad is None] == []


def test_convnext_in_a_segmenter_on_an_awkward_frame():
    config = SegmenterConfig(
        backbone="convnext_atto", hidden_dim=32, num_queries=3, encoder_layers=1, decoder_layers=1
    )
    out = Segmenter(config, 2).eval()(torch.zeros(3, 23, 83, dtype=torch.uint8))
    assert {k: tuple(x.shape) for k, x in out.features.items()} == {
        "res2": (40, 8, 24),
        "res3": (80, 4, 12),
        "res4": (160, 2, 6),
        "res5": (320, 1, 3),
        "pixel3": (32, 4, 12),
        "pixel4": (32, 2, 6),
        "pixel5": (32, 1, 3),
    }
    assert out.mask_logits.shape == (3, 8, 24)


def test_only_batch_norms_are_frozen():
    frozen = Backbone("resnet18", TINY_RESNET)
    trained = Backbone("resnet18", TINY_RESNET, freeze_norm=False)
    assert not [key for key, _ in frozen.named_parameters() if "bn" in key]
    assert frozen.state_dict()["body.bn1.weight"].shape == (64,)  # still in the weights
    assert trained.body.bn1.weight.requires_grad
    before = frozen.body.bn1.running_mean.clone()
    frozen.train()(torch.randn(2, 3, 64, 64) + 3)
    assert torch.equal(frozen.body.bn1.running_mean, before)
    convnext = Backbone("convnext_atto", TINY_CONVNEXT, freeze_norm=True)
    norms = [m for m in convnext.modules() if isinstance(m, nn.LayerNorm)]
    assert norms
    assert all(m.weight.requires_grad for m in norms)


def test_building_leaves_statistics_and_random_numbers_alone():
    torch.manual_seed(7)
    backbone = Backbone("resnet18", TINY_RESNET, freeze_norm=False)
    after = torch.rand(3)
    torch.manual_seed(7)
    timm.create_model("resnet18", features_only=True, **{k: tuple(v) for k, v in TINY_RESNET.items()})
    assert torch.equal(after, torch.rand(3))
    assert backbone.body.bn1.num_batches_tracked == 0
    assert not backbone.body.bn1.running_mean.any()


def gradients(backbone: Backbone, images: Tensor) -> dict[str, Tensor]:
    torch.manual_seed(3)  # stochastic depth draws the same samples
    sum((x * x.detach().sin()).sum() for x in backbone(images).values()).backward()
    return {name: p.grad for name, p in backbone.named_parameters()}


@pytest.mark.parametrize(
    ("name", "options", "inside"),
    [
        ("resnet18", TINY_RESNET, "layer3.0.conv1"),
        ("convnext_atto", {**TINY_CONVNEXT, "drop_path_rate": 0.5}, "stages_2.blocks.0.conv_dw"),
        ("vit_tiny_patch16_224", {**TINY_VIT, "drop_path_rate": 0.5}, "blocks.1.norm1"),
        ("vit_small_patch16_dinov3", {**TINY_VIT, "drop_path_rate": 0.5}, "blocks.1.norm1"),
    ],
)
def test_recomputed_activations_give_the_same_gradients(name, options, inside):
    kept, again = Backbone(name, options), Backbone(name, options, checkpointing=True)
    again.load_state_dict(kept.state_dict())
    calls = []
    again.body.get_submodule(inside).register_forward_hook(lambda *_: calls.append(1))
    images = torch.randn(2, 3, 64, 96)
    expected, found = gradients(kept, images), gradients(again, images)
    assert len(calls) == 2  # once forward, once in the backward pass
    for key, grad in expected.items():
        torch.testing.assert_close(found[key], grad, msg=lambda text, at=key: f"{at}: {text}")


def test_recomputing_would_count_running_statistics_twice():
    with pytest.raises(
        ValueError, match=r"batch norms of resnet18 twice a step; say segmenter\.freeze_norm=true"
    ):
        Backbone("resnet18", TINY_RESNET, freeze_norm=False, checkpointing=True)


def test_a_backbone_that_cannot_recompute_says_so(monkeypatch):
    monkeypatch.delattr(timm.models.vision_transformer.VisionTransformer, "set_grad_checkpointing")
    with pytest.raises(ValueError, match="timm's vit_tiny_patch16_224 cannot recompute its activations"):
        Backbone("vit_tiny_patch16_224", TINY_VIT, checkpointing=True)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("resnet51", {}, r"'resnet51' is not a timm model; similar names: .*resnet"),
        ("swin_tiny", {}, r"'swin_tiny' is not a timm model; similar names: .*swin"),
        ("qqqqqqqq", {}, r"'qqqqqqqq' is not a timm model; similar names: none"),
        (
            "resnet18.nobody",
            {},
            r"cannot be built with four feature levels: Invalid pretrained tag \(nobody\)",
        ),
        ("resnet18", {"layer": 3}, r"backbone_options does not suit resnet18: .*'layer'"),
        ("resnet18", {"out_indices": [1]}, r"backbone_options\.out_indices cannot be set for resnet18"),
        (
            "vit_tiny_patch16_224",
            {"dynamic_img_size": False},
            r"backbone_options\.dynamic_img_size cannot be set",
        ),
        (
            "vit_tiny_patch16_224",
            {**TINY_VIT, "patch_size": 8},
            r"patches of 8x8 pixels, expected squares of 12 to 20",
        ),
        ("mixer_s16_224", {}, r"does not take frames of any size: one of 64x96 pixels fails \(Input height"),
        ("swinv2_cr_tiny_224", {}, r"does not take frames of any size"),
        ("visformer_tiny", {}, r"cannot be built with four feature levels"),
        ("xcit_nano_12_p16_224", {}, r"gives maps of 4x6, 4x6, 4x6, 4x6 for a frame of 64x96 pixels"),
    ],
)
def test_what_cannot_be_used_is_refused_in_one_sentence(name, options, message):
    with pytest.raises(ValueError, match=message) as caught:
        Backbone(name, options)
    assert "\n" not in str(caught.value)


def test_a_backbone_without_stem_pool_says_so():
    with pytest.raises(ValueError, match="stem_pool=false needs a backbone with a max pool"):
        Backbone("convnext_atto", TINY_CONVNEXT, stem_pool=False)


def test_pretrained_weights_are_asked_for_once_and_reach_the_segmenter(monkeypatch):
    asked = []
    create = timm.create_model

    def downloaded(name, pretrained=False, **settings):
        asked.append(pretrained)
        body = create(name, pretrained=False, **settings)
        nn.init.constant_(body["conv1"].weight, 0.125)
        return body

    monkeypatch.setattr(timm, "create_model", downloaded)
    small = {"hidden_dim": 32, "num_queries": 3, "encoder_layers": 1, "decoder_layers": 1}
    config = SegmenterConfig("resnet18", TINY_RESNET, backbone_pretrained=True, **small)
    segmenter = Segmenter(config, 2)
    Segmenter(SegmenterConfig("resnet18", TINY_RESNET, **small), 2)
    assert asked == [True, False]
    assert segmenter.state_dict()["backbone.body.conv1.weight"].unique().tolist() == [0.125]


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            FileNotFoundError("the Hub cannot be reached.\nTry again."),
            r"could not be fetched \(the Hub cannot be reached\. Try again\)$",
        ),
        (
            RuntimeError("Error(s) in loading state_dict:\n\tsize mismatch for conv1"),
            "loading state_dict: size mismatch for conv1",
        ),
    ],
    ids=["offline", "other sizes"],
)
def test_weights_that_do_not_come_are_one_sentence(monkeypatch, error, message):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(timm, "create_model", fail)
    with pytest.raises(ValueError, match=message) as caught:
        Backbone("resnet18", pretrained=True)
    assert "\n" not in str(caught.value)


def test_pixels_that_the_weights_do_not_expect_are_refused():
    assert pretrained_pixels("resnet50")[0] == pytest.approx([123.675, 116.28, 103.53])
    config = SegmenterConfig("vit_tiny_patch16_224", TINY_VIT, backbone_pretrained=True)
    expected = r"segmenter\.pixel_mean is \[123.*\], but .* expect \[127\.5, 127\.5, 127\.5\]"
    with pytest.raises(ValueError, match=expected):
        Segmenter(config, 2)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet18.nobody", r"'resnet18\.nobody': Invalid pretrained tag"),
        ("resnet51", "is not a timm model"),
        ("ecaresnet200d", "timm has no weights of ecaresnet200d; there are none under similar names"),
    ],
)
def test_weights_that_timm_does_not_have(name, message):
    with pytest.raises(ValueError, match=message):
        pretrained_pixels(name)


def test_importing_the_models_does_not_import_timm():
    code = "import sys, vistk.models.segmenter; print('timm' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"

"""Residual networks fused at inference on a CPU: timm's numbers, whatever the network holds or wears."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from vistk.models import resnet
from vistk.models.backbone import LEVELS, Backbone
from vistk.ops.onednn import missing_from_build

TINY = {"layers": [1, 2, 1, 1], "channels": [8, 16, 24, 32]}
# Of the largest value of a map: four stages of sums in another order.
SHARE = {torch.float32: 1e-5}

pytestmark = pytest.mark.skipif(bool(missing_from_build()), reason=f"no oneDNN: {missing_from_build()}")


@pytest.fixture(autouse=True)
def _fastest(monkeypatch):
    monkeypatch.delenv("VISTK_OPS", raising=False)


@pytest.fixture
def folded(monkeypatch):
    """Counts convolutions that took in their norm."""
    made = []
    fold = resnet._conv_norm

    def counted(conv, *args, **kwargs):
        made.append(conv)
        return fold(conv, *args, **kwargs)

    monkeypatch.setattr(resnet, "_conv_norm", counted)
    return made


def trained(name: str = "resnet18", options: dict | None = None, **settings) -> Backbone:
    """With norms that do something, as after training."""
    backbone = Backbone(name, TINY if options is None else options, **settings).eval()
    for module in backbone.modules():
        if "BatchNorm" in type(module).__name__:
            with torch.no_grad():
                module.weight.uniform_(0.5, 1.5)
                module.bias.normal_(0, 0.3)
                module.running_mean.normal_(0, 0.3)
                module.running_var.uniform_(0.5, 2)
    return backbone


def assert_as_timm(backbone: Backbone, images: torch.Tensor) -> None:
    with torch.inference_mode():
        found = backbone(images)
        expected = backbone.body(images)
    for level, theirs in zip(LEVELS, expected, strict=True):
        assert found[level].shape == theirs.shape
        assert (found[level] - theirs).abs().max() <= SHARE[torch.float32] * theirs.abs().max(), level


@pytest.mark.parametrize(
    ("name", "options", "convolutions"),
    [
        ("resnet18", TINY, 1 + 5 * 2 + 4),
        ("resnet50", {"layers": [1, 1, 1, 1]}, 1 + 4 * 3 + 4),
        ("resnext50_32x4d", {"layers": [1, 1, 1, 1]}, 1 + 4 * 3 + 4),  # groups
        ("resnet50d", {"layers": [1, 2, 1, 1]}, 3),  # another stem; pools in all shortcuts
        ("seresnet18", TINY, 1),  # every block has one part more
        ("resnetblur18", TINY, 1 + 2 * 2 + 1),  # blur pools where blocks stride
        ("resnet18", {**TINY, "drop_path_rate": 0.5, "drop_block_rate": 0.1}, 1 + 5 * 2 + 4),
        ("convnext_atto", {"depths": [1, 1, 1, 1], "dims": [8, 16, 24, 32]}, 0),
    ],
)
@pytest.mark.parametrize("size", [(64, 96), (33, 41)], ids=str)
def test_networks_give_what_timm_gives(folded, name, options, convolutions, size):
    backbone = trained(name, options)
    folded.clear()  # a frame is tried when it is built
    assert_as_timm(backbone, torch.randn(2, 3, *size))
    assert len(folded) == convolutions


@pytest.mark.parametrize("settings", [{"freeze_norm": False}, {"stem_pool": False}, {"checkpointing": True}])
def test_settings_of_the_backbone(folded, settings):
    backbone = trained(**settings)
    folded.clear()
    assert_as_timm(backbone, torch.randn(1, 3, 64, 96))
    assert len(folded) == 15


def test_maps_have_their_channels_last():
    with torch.inference_mode():
        maps = trained()(torch.randn(2, 3, 64, 96))
    assert all(x.is_contiguous(memory_format=torch.channels_last) for x in maps.values())


@pytest.mark.parametrize(
    "change",
    [
        lambda body: body.load_state_dict({k: v * 1.5 for k, v in body.state_dict().items()}),
        lambda body: body.layer2[0].conv1.weight.data.mul_(2),  # counts as no new version of the weight
        lambda body: body.layer3[0].bn1.running_var.mul_(2),
        lambda body: body.layer1[0].conv2.weight.data.copy_(torch.ones(())),
        lambda body: setattr(body.layer4[0].conv1, "weight", nn.Parameter(torch.ones(32, 24, 3, 3))),
        lambda body: setattr(body.layer4[0], "conv2", nn.Conv2d(32, 32, 3, padding=1)),
        lambda body: setattr(body.layer4[0], "act1", nn.GELU()),
    ],
    ids=["loaded", "data", "statistics", "copied", "another parameter", "another module", "another kind"],
)
def test_a_change_of_weights_or_parts_shows_at_once(change):
    backbone, images = trained(), torch.randn(1, 3, 64, 96)
    with torch.inference_mode():
        before = backbone(images)["res5"]
    change(backbone.body)
    with torch.inference_mode():
        after = backbone(images)["res5"]
    assert (after - before).abs().max() > 1e-2
    assert_as_timm(backbone, images)


def test_nothing_is_kept_or_moved():
    backbone = trained()
    weights = copy.deepcopy(backbone.state_dict())
    with torch.inference_mode():
        backbone(torch.randn(1, 3, 64, 96))
    for name, value in backbone.state_dict().items():
        assert torch.equal(value, weights[name])
        assert value.stride() == weights[name].stride()
        assert value.is_contiguous()


@pytest.mark.parametrize(
    "place",
    ["conv1", "bn1", "act1", "maxpool", "layer2", "layer2.1", "layer2.1.conv2", "layer2.0.downsample"],
)
@pytest.mark.parametrize("kind", ["register_forward_hook", "register_forward_pre_hook"])
def test_hooks_see_what_timm_would_show_them(place, kind):
    backbone, images, seen = trained(), torch.randn(1, 3, 64, 96), []
    getattr(backbone.body.get_submodule(place), kind)(lambda module, *tensors: seen.append(tensors[-1]))
    assert_as_timm(backbone, images)
    fused, plain = [x[0] if isinstance(x, tuple) else x for x in seen]
    torch.testing.assert_close(fused, plain, atol=1e-5, rtol=1e-5)


def test_hooks_on_all_modules_are_called():
    backbone, seen = trained(), []
    with nn.modules.module.register_module_forward_hook(lambda module, *_: seen.append(module)):
        assert_as_timm(backbone, torch.randn(1, 3, 64, 96))
    assert seen.count(backbone.body.layer2[1].conv2) == 2


def test_training_and_gradients_are_timms(folded):
    backbone, images = trained(freeze_norm=False), torch.randn(2, 3, 64, 96)
    folded.clear()
    backbone(images)["res5"].sum().backward()  # eval mode: the norms' statistics are fixed
    assert all(p.grad is not None for p in backbone.parameters())
    with torch.no_grad():
        before = backbone.body.bn1.running_mean.clone()
        backbone.train()(images)
    assert not torch.equal(backbone.body.bn1.running_mean, before)
    assert folded == []
    part = backbone.eval().body.layer2[0]
    part.train()  # a part that is trained, in a network that is not
    before = part.bn2.running_mean.clone()
    with torch.no_grad():
        backbone(images)
    assert not torch.equal(part.bn2.running_mean, before)


def test_gradients_of_frames_through_frozen_weights(folded):
    backbone = trained().requires_grad_(False)
    folded.clear()
    images = torch.randn(1, 3, 64, 96, requires_grad=True)
    backbone(images)["res5"].sum().backward()
    assert images.grad.abs().sum() > 0
    assert folded == []


def test_other_arithmetic_is_timms(folded, monkeypatch):
    backbone, images = trained(), torch.randn(1, 3, 64, 96)
    folded.clear()
    with torch.inference_mode():
        assert copy.deepcopy(backbone).double()(images.double())["res5"].dtype == torch.float64
        with torch.autocast("cpu"):
            backbone(images)
        monkeypatch.setenv("VISTK_OPS", "reference")
        assert torch.equal(backbone(images)["res5"], backbone.body(images)[3])
    assert folded == []


@pytest.mark.parametrize("place", ["layer2.1.conv2", "bn1", "layer2", "layer2.0.downsample"])
def test_a_forward_of_its_own_is_called(place):
    backbone, seen = trained(), []
    module = backbone.body.get_submodule(place)
    plain = module.forward
    module.forward = lambda x: seen.append(x) or plain(x)
    assert_as_timm(backbone, torch.randn(1, 3, 64, 96))
    assert len(seen) == 2


def test_a_hook_on_the_network_itself_is_called():
    backbone, seen = trained(), []
    backbone.body.register_forward_hook(lambda *_: seen.append(1))
    assert_as_timm(backbone, torch.randn(1, 3, 64, 96))
    assert len(seen) == 2

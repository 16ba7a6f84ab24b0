"""ResNets (arXiv 1512.03385) at inference on a CPU, on timm's modules.

Batch norms are folded into the convolutions before them, shortcuts are added inside the convolutions, and
maps lie in memory with channels last. Weights are folded anew in every call, which costs a few percent
of it: nothing is kept that could go stale.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn.modules import module as torch_module

from vistk.ops import choose_dense, conv2d

STEM = ("conv1", "bn1", "act1")
GLOBAL_HOOKS = tuple(
    f"_global_{when}_hooks" for when in ("forward_pre", "forward", "backward_pre", "backward")
)


def fused_features(body: Any, images: Tensor) -> list[Tensor] | None:
    """What ``body(images)`` gives, or ``None`` where nothing can be fused.

    Blocks that are more than convolutions, batch norms, ReLUs and a shortcut, and whatever bears a hook,
    run as timm runs them.

    Args:
        body: a ``features_only`` network of timm, of any kind.
        images: ``(B, 3, H, W)``.
    """
    # First the choice, which a tracer folds to a constant, so that it looks no further.
    if choose_dense(images, *body.parameters()).name != "onednn":
        return None
    if any(getattr(torch_module, name) for name in GLOBAL_HOOKS):
        return None
    parts: dict[str, Any] = dict(body.items()) if isinstance(body, nn.ModuleDict) else {}
    if not (_bare(body) and _is_residual(parts.get("layer1"))):
        return None
    x, maps = images, []
    stem = [parts.get(name) for name in STEM]
    if _folds(*stem[:2]) and _is_relu(stem[2]) and tuple(parts)[:3] == STEM:
        x = _conv_norm(stem[0], stem[1], x, relu=True)
        parts = {name: part for name, part in parts.items() if name not in STEM}
    for name, part in parts.items():
        if _is_residual(part):
            for block in part:
                x = _residual(block, x) if _is_plain(block) else block(x)
        else:
            x = part(x)
        if name in body.return_layers:
            maps.append(x)
    return maps


def _residual(block: Any, x: Tensor) -> Tensor:
    """A plain block: one pass for every convolution."""
    y = _conv_norm(block.conv1, block.bn1, x, relu=True)
    shortcut = x
    if block.downsample is not None:
        conv, norm = block.downsample
        shortcut = _conv_norm(conv, norm, x)
    if hasattr(block, "conv3"):
        y = _conv_norm(block.conv2, block.bn2, y, relu=True)
        return _conv_norm(block.conv3, block.bn3, y, relu=True, add=shortcut)
    return _conv_norm(block.conv2, block.bn2, y, relu=True, add=shortcut)


def _conv_norm(conv: Any, norm: Any, x: Tensor, relu: bool = False, add: Tensor | None = None) -> Tensor:
    scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
    weight = conv.weight * scale[:, None, None, None]
    bias = norm.bias - norm.running_mean * scale
    if conv.bias is not None:
        bias = bias + conv.bias * scale
    return conv2d(x, weight, bias, conv.stride, conv.padding, conv.dilation, conv.groups, relu, add)


def _is_residual(stage: Any) -> bool:
    """A stage of timm's own residual blocks, of any contents."""
    from timm.models.resnet import BasicBlock, Bottleneck

    blocks = (BasicBlock, Bottleneck)
    return type(stage) is nn.Sequential and _bare(stage) and all(type(block) in blocks for block in stage)


def _is_plain(block: Any) -> bool:
    """Whether :func:`_residual` does what timm's block does."""
    pairs = [(block.conv1, block.bn1), (block.conv2, block.bn2)]
    relus = [block.act1, block.act2]
    if hasattr(block, "conv3"):
        pairs.append((block.conv3, block.bn3))
        relus.append(block.act3)
    if block.downsample is not None:
        if type(block.downsample) is not nn.Sequential or len(block.downsample) != 2:
            return False
        pairs.append((block.downsample[0], block.downsample[1]))
    # Stochastic depth and DropBlock do nothing when they are not trained.
    idle = [m for m in (block.aa, block.drop_block, block.drop_path) if m is not None]
    return (
        block.se is None
        and type(block.aa) is nn.Identity
        and not any(m.training for m in idle)
        and all(_bare(m) for m in (block, block.downsample, *idle))
        and all(map(_is_relu, relus))
        and all(_folds(*pair) for pair in pairs)
    )


def _folds(conv: Any, norm: Any) -> bool:
    """A convolution padded with zeros and a batch norm with fixed statistics."""
    from timm.layers.norm_act import FrozenBatchNorm2d

    fixed = type(norm) is FrozenBatchNorm2d or (
        type(norm) is nn.BatchNorm2d and not norm.training and norm.running_mean is not None and norm.affine
    )
    zeros = type(conv) is nn.Conv2d and conv.padding_mode == "zeros" and isinstance(conv.padding, tuple)
    return fixed and zeros and _bare(conv) and _bare(norm)


def _is_relu(act: Any) -> bool:
    return type(act) is nn.ReLU and _bare(act)


def _bare(module: nn.Module | None) -> bool:
    """Nothing that would have to see what goes in or comes out: no hook, no ``forward`` of its own."""
    return module is None or not (
        module._forward_hooks
        or module._forward_pre_hooks
        or "forward" in vars(module)
        or module._compiled_call_impl is not None
    )

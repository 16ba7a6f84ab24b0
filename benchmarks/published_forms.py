"""Inference in the form in which Mask2Former, MinVIS and VISAGE were published: the baseline of timings.

The same weights as a :class:`vistk.models.segmenter.Segmenter` and its tracker, the same results, other
arithmetic: ``F.conv2d`` and ``F.linear`` on NCHW tensors, batch norms as layers of their own, deformable
attention by one ``grid_sample`` a level and a stack of all samples, masks of stride 4 at every decoder layer,
attention masks repeated for every head, all frames of a window in one pass, and masks of the whole video
resized at once. Written from the papers (arXiv 2010.04159, 2112.01527, 2208.02245, 2312.04885). Association
is the tracker's own ``step``.

Backbones without convolutional feature levels (Swin, plain transformers) run as the segmenter runs them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from pycocotools import mask as coco_mask
from torch import Tensor, nn

from vistk.models.backbone import LEVELS
from vistk.models.segmenter import SIZE_DIVISOR, Segmenter
from vistk.structures import RLE, FrameQueries, Tracklet
from vistk.trackers.visage import VISAGE


@dataclass(frozen=True)
class Decoded:
    """What the query decoder gives for T frames."""

    logits: Tensor  # (T, Q, K+1)
    mask_logits: Tensor  # (T, Q, h, w)
    embeds: Tensor  # (T, Q, C)
    states: tuple[Tensor, ...]  # (Q, T, C) queries before the first layer and after each one, not normed


class PublishedForm:
    """Runs a segmenter and VISAGE in their published form; shares their weights, reads them only once.

    Args:
        segmenter, tracker: in evaluation mode, on one device.
    """

    def __init__(self, segmenter: Segmenter, tracker: VISAGE) -> None:
        self.segmenter = segmenter
        self.tracker = tracker
        self.body = _plain_body(segmenter)

    def normalise(self, frames: Tensor) -> Tensor:
        """``(T, 3, H, W)`` uint8 -> float, padded with zeros to a multiple of 32."""
        x = (frames.float() - self.segmenter.pixel_mean) / self.segmenter.pixel_std
        height, width = x.shape[-2:]
        return F.pad(x, (0, -width % SIZE_DIVISOR, 0, -height % SIZE_DIVISOR))

    def backbone(self, x: Tensor) -> dict[str, Tensor]:
        if self.body is None:
            return self.segmenter.backbone(x)
        return dict(zip(LEVELS, self.body(x), strict=True))

    def project(self, features: Mapping[str, Tensor]) -> list[Tensor]:
        """The maps that enter the deformable encoder, coarsest first."""
        decoder = self.segmenter.pixel_decoder
        return [
            _group_norm(proj[1], _conv(proj[0], features[name]))
            for proj, name in zip(decoder.input_proj, decoder.levels, strict=True)
        ]

    def encoder(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Deformable encoder: maps ``(T, C, H_l, W_l)``, coarsest first -> the same shapes."""
        transformer = self.segmenter.pixel_decoder.transformer
        shapes = [(x.shape[-2], x.shape[-1]) for x in maps]
        position = torch.cat(
            [
                sine_position(x).flatten(2).transpose(1, 2) + transformer.level_embed[level]
                for level, x in enumerate(maps)
            ],
            1,
        )
        x = torch.cat([x.flatten(2).transpose(1, 2) for x in maps], 1)  # (T, S, C)
        padding = torch.zeros(x.shape[:2], dtype=torch.bool, device=x.device)
        reference = torch.cat([_centres(h, w, x.device) for h, w in shapes])  # (S, 2)
        reference = reference[None, :, None].repeat(len(x), 1, len(shapes), 1)
        for layer in transformer.encoder.layers:
            attended = _deformable_attention(layer.self_attn, x + position, reference, x, padding, shapes)
            x = _layer_norm(layer.norm1, x + attended)
            hidden = F.relu(_linear(layer.linear1, x))
            x = _layer_norm(layer.norm2, x + _linear(layer.linear2, hidden))
        levels = x.split([h * w for h, w in shapes], 1)
        return [
            level.transpose(1, 2).reshape(len(x), -1, h, w)
            for level, (h, w) in zip(levels, shapes, strict=True)
        ]

    def pixel_decoder(self, features: Mapping[str, Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Mask features ``(T, C, h, w)`` and the three maps of the encoder."""
        decoder = self.segmenter.pixel_decoder
        pyramid = self.encoder(self.project(features))
        lateral = _group_norm(decoder.adapter_1.norm, _conv(decoder.adapter_1, features["res2"]))
        y = lateral + F.interpolate(
            pyramid[-1], size=lateral.shape[-2:], mode="bilinear", align_corners=False
        )
        y = F.relu(_group_norm(decoder.layer_1.norm, _conv(decoder.layer_1, y)))
        if decoder.mask_position:
            y = y + sine_position(y)
        return _conv(decoder.mask_features, y), pyramid

    def predict_heads(
        self, state: Tensor, mask_features: Tensor, size: tuple[int, int]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Predictions from queries ``(Q, T, C)``, made after every layer.

        Returns:
            Class logits ``(T, Q, K+1)``, mask logits ``(T, Q, h, w)``, and what attention must not see at
            the next level's ``size``, ``(T*heads, Q, S_l)`` bool.
        """
        decoder = self.segmenter.transformer_decoder
        embeds = _layer_norm(decoder.decoder_norm, state).transpose(0, 1)
        logits = _linear(decoder.class_embed, embeds)
        mask_logits = torch.einsum("bqc,bchw->bqhw", _mlp(decoder.mask_embed, embeds), mask_features)
        small = F.interpolate(mask_logits, size=size, mode="bilinear", align_corners=False)
        heads = self.segmenter.config.heads
        blocked = small.sigmoid().flatten(2)[:, None].repeat(1, heads, 1, 1).flatten(0, 1) < 0.5
        return logits, mask_logits, blocked

    def decoder_masks(
        self, states: Sequence[Tensor], mask_features: Tensor, sizes: Sequence[tuple[int, int]]
    ) -> tuple[list[Tensor], Tensor]:
        """All masks that the decoder makes: those that attention needs, and the last mask logits."""
        blocked = []
        for i, state in enumerate(states):
            _, mask_logits, mask = self.predict_heads(state, mask_features, sizes[i % len(sizes)])
            blocked.append(_open_where_all_blocked(mask))
        return blocked[:-1], mask_logits

    def transformer_decoder(self, mask_features: Tensor, pyramid: Sequence[Tensor]) -> Decoded:
        decoder = self.segmenter.transformer_decoder
        sizes = [(x.shape[-2], x.shape[-1]) for x in pyramid]
        memory, position = [], []
        for level, x in enumerate(pyramid):
            position.append(sine_position(x).flatten(2).permute(2, 0, 1))  # (S_l, T, C)
            embed = decoder.level_embed.weight[level]
            memory.append((x.flatten(2) + embed[None, :, None]).permute(2, 0, 1))
        frames = len(mask_features)
        query_position = decoder.query_embed.weight[:, None].repeat(1, frames, 1)
        state = decoder.query_feat.weight[:, None].repeat(1, frames, 1)
        states = [state]
        predictions = [self.predict_heads(state, mask_features, sizes[0])]
        for i, (cross, itself, ffn) in enumerate(
            zip(
                decoder.transformer_cross_attention_layers,
                decoder.transformer_self_attention_layers,
                decoder.transformer_ffn_layers,
                strict=True,
            )
        ):
            level = i % len(sizes)
            blocked = _open_where_all_blocked(predictions[-1][2])
            attended = _attention(
                cross.multihead_attn,
                state + query_position,
                memory[level] + position[level],
                memory[level],
                blocked,
            )
            state = _layer_norm(cross.norm, state + attended)
            placed = state + query_position
            state = _layer_norm(itself.norm, state + _attention(itself.self_attn, placed, placed, state))
            hidden = F.relu(_linear(ffn.linear1, state))
            state = _layer_norm(ffn.norm, state + _linear(ffn.linear2, hidden))
            states.append(state)
            predictions.append(self.predict_heads(state, mask_features, sizes[(i + 1) % len(sizes)]))
        logits, mask_logits, _ = predictions[-1]
        embeds = _layer_norm(decoder.decoder_norm, state).transpose(0, 1)
        return Decoded(logits, mask_logits, embeds, tuple(states))

    def appearance(
        self, embeds: Tensor, mask_logits: Tensor, features: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """Query and appearance vectors ``(T, Q, C)`` of VISAGE."""
        head = self.tracker.appearance_decoder
        pooled = []
        for level, proj in zip(head.levels, head.input_proj, strict=True):
            x = _group_norm(proj[0].norm, _conv(proj[0], features[level]))
            small = F.interpolate(mask_logits, size=x.shape[-2:], mode="bilinear", align_corners=False)
            masks = (small.sigmoid() > 0.5).float()
            total = torch.einsum("tqhw,tchw->tqc", masks, x)
            pooled.append(total / masks.sum((-2, -1)).clamp(min=1)[..., None])
        return {
            "query": _mlp(head.reid_embd, embeds),
            "appearance": _mlp(head.appearance_embd, torch.cat(pooled, -1)),
        }

    def infer(self, frames: Tensor, output_size: tuple[int, int], keep_top: int) -> tuple[Tracklet, ...]:
        """Pixels of a video ``(T, 3, H, W)`` uint8 to scored tracklets, in one window."""
        x = self.normalise(frames)
        features = self.backbone(x)
        mask_features, pyramid = self.pixel_decoder(features)
        out = self.transformer_decoder(mask_features, pyramid)
        vectors = self.appearance(out.embeds, out.mask_logits, features)
        state = self.tracker.start()
        logits, masks = [], []
        for t in range(len(frames)):
            queries = FrameQueries(out.logits[t], {name: v[t] for name, v in vectors.items()})
            order = self.tracker.step(state, queries.to("cpu")).query_index.to(frames.device)
            logits.append(out.logits[t, order])
            masks.append(out.mask_logits[t, order])
        scores = torch.stack(logits).mean(0).softmax(-1)[:, :-1]
        best, index = scores.flatten().topk(min(keep_top, scores.numel()))
        tracks, labels = (index // scores.shape[1]).tolist(), (index % scores.shape[1]).tolist()
        rles, quality = post_process(
            torch.stack(masks, 1), index // scores.shape[1], x.shape[-2:], frames.shape[-2:], output_size
        )
        rescored = (best * quality).tolist()
        kept = [
            Tracklet(track, label, score, tuple(video))
            for track, label, score, video in zip(tracks, labels, rescored, rles, strict=True)
        ]
        return tuple(sorted(kept, key=lambda tracklet: -tracklet.score))


def post_process(
    mask_logits: Tensor,
    kept: Tensor,
    network: Sequence[int],
    resized: Sequence[int],
    output: Sequence[int],
) -> tuple[list[list[RLE]], Tensor]:
    """Masks of a whole video at output size.

    Args:
        mask_logits: ``(Q, T, h, w)``, the queries in the order of the tracks.
        kept: ``(N,)`` track of each prediction; a track may come several times.
        network, resized, output: height and width with padding, without, and of the masks asked for.

    Returns:
        N lists of T RLEs, and ``(N,)`` mean mask probabilities inside the masks of the video.
    """
    masks = mask_logits[kept]
    masks = F.interpolate(masks, size=tuple(network), mode="bilinear", align_corners=False)
    masks = masks[..., : resized[0], : resized[1]]
    inside = (masks > 0).float()
    quality = (masks.sigmoid() * inside).flatten(1).sum(1) / inside.flatten(1).sum(1).clamp(min=1)
    masks = F.interpolate(masks, size=tuple(output), mode="bilinear", align_corners=False)
    pixels = (masks > 0).cpu()
    rles: list[list[RLE]] = []
    for video in pixels:
        rles.append([])
        for mask in video.numpy():
            rle = coco_mask.encode(np.array(mask[:, :, None], order="F", dtype="uint8"))[0]
            rle["counts"] = rle["counts"].decode("utf-8")
            rles[-1].append(rle)
    return rles, quality


def sine_position(like: Tensor) -> Tensor:
    """Sine position code of maps ``(T, C, H, W)`` (DETR, arXiv 2005.12872), for every frame anew."""
    t, c, height, width = like.shape
    ones = torch.ones(t, height, width, device=like.device)
    index = torch.arange(c // 2, device=like.device, dtype=torch.float32)
    period = 10000 ** (2 * (index // 2) / (c // 2))
    codes = []
    for dim, size in ((1, height), (2, width)):
        angle = (ones.cumsum(dim) / (size + 1e-6) * 2 * math.pi)[..., None] / period  # (T, H, W, C/2)
        codes.append(torch.stack((angle[..., 0::2].sin(), angle[..., 1::2].cos()), 4).flatten(3))
    return torch.cat(codes, 3).permute(0, 3, 1, 2)


def _deformable_attention(
    attention: Any,
    query: Tensor,
    reference: Tensor,
    pixels: Tensor,
    padding: Tensor,
    shapes: Sequence[tuple[int, int]],
) -> Tensor:
    t, q, _ = query.shape
    heads, levels, points = attention.heads, attention.levels, attention.points
    value = _linear(attention.value_proj, pixels).masked_fill(padding[..., None], 0.0)
    value = value.view(t, pixels.shape[1], heads, -1)
    offsets = _linear(attention.sampling_offsets, query).view(t, q, heads, levels, points, 2)
    weights = _linear(attention.attention_weights, query).view(t, q, heads, levels * points).softmax(-1)
    sizes = torch.tensor([(w, h) for h, w in shapes], device=query.device)
    locations = reference[:, :, None, :, None] + offsets / sizes[:, None]
    return _linear(attention.output_proj, sampled_sum(value, shapes, locations, weights))


def sampled_sum(
    value: Tensor, shapes: Sequence[tuple[int, int]], locations: Tensor, weights: Tensor
) -> Tensor:
    """``(T, Q, M*D)`` from ``(T, S, M, D)``, ``(T, Q, M, L, P, 2)`` and ``(T, Q, M, L*P)``."""
    t, _, heads, dim = value.shape
    q, points = locations.shape[1], locations.shape[4]
    grids = 2 * locations - 1
    samples = []
    for level, pixels in enumerate(value.split([h * w for h, w in shapes], 1)):
        maps = pixels.flatten(2).transpose(1, 2).reshape(t * heads, dim, *shapes[level])
        grid = grids[:, :, :, level].transpose(1, 2).flatten(0, 1)  # (T*M, Q, P, 2)
        samples.append(F.grid_sample(maps, grid, mode="bilinear", padding_mode="zeros", align_corners=False))
    weights = weights.transpose(1, 2).reshape(t * heads, 1, q, len(shapes) * points)
    out = (torch.stack(samples, -2).flatten(-2) * weights).sum(-1)  # (T*M, D, Q)
    return out.view(t, heads * dim, q).transpose(1, 2).contiguous()


def _open_where_all_blocked(blocked: Tensor) -> Tensor:
    blocked[torch.where(blocked.sum(-1) == blocked.shape[-1])] = False
    return blocked


def _attention(module: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None) -> Tensor:
    """What :class:`torch.nn.MultiheadAttention` does with sequences first and its default arguments."""
    return F.multi_head_attention_forward(
        query,
        key,
        value,
        query.shape[-1],
        module.heads,
        module.in_proj_weight,
        module.in_proj_bias,
        None,
        None,
        False,
        0.0,
        module.out_proj.weight,
        module.out_proj.bias,
        training=False,
        attn_mask=mask,
    )[0]


def _linear(module: Any, x: Tensor) -> Tensor:
    return F.linear(x, module.weight, module.bias)


def _conv(module: Any, x: Tensor) -> Tensor:
    # A weight in channels_last would make the convolution run in that format.
    return F.conv2d(x, module.weight.contiguous(), module.bias, module.stride, module.padding)


def _group_norm(module: Any, x: Tensor) -> Tensor:
    return F.group_norm(x, module.num_groups, module.weight, module.bias, module.eps)


def _layer_norm(module: Any, x: Tensor) -> Tensor:
    return F.layer_norm(x, module.normalized_shape, module.weight, module.bias, module.eps)


def _mlp(module: Any, x: Tensor) -> Tensor:
    for layer in module.layers[:-1]:
        x = F.relu(_linear(layer, x))
    return _linear(module.layers[-1], x)


def _centres(height: int, width: int, device: torch.device) -> Tensor:
    """``(H*W, 2)`` x and y of pixel centres in [0, 1]."""
    y, x = torch.meshgrid(
        (torch.arange(height, device=device) + 0.5) / height,
        (torch.arange(width, device=device) + 0.5) / width,
        indexing="ij",
    )
    return torch.stack((x, y), -1).flatten(0, 1)


def _plain_body(segmenter: Segmenter) -> nn.Module | None:
    """timm's own network around the weights of a convolutional backbone; none for the other kinds."""
    import timm

    backbone, config = segmenter.backbone, segmenter.config
    if backbone.is_swin or backbone.pyramid is not None:
        return None
    options = {k: tuple(v) if isinstance(v, list) else v for k, v in config.backbone_options.items()}
    body = timm.create_model(config.backbone, features_only=True, out_indices=(-4, -3, -2, -1), **options)
    if not config.stem_pool:
        body.maxpool = nn.Identity()
    weights = {name: tensor.contiguous() for name, tensor in backbone.body.state_dict().items()}
    # Batch norms in evaluation mode need no counters, and the frozen ones of the segmenter have none.
    counters = {name for name in body.state_dict() if name.endswith("num_batches_tracked")}
    missing, unexpected = body.load_state_dict(weights, strict=False, assign=True)
    if not set(missing) <= counters or unexpected:
        raise ValueError(
            f"the backbone's weights do not fit timm's {config.backbone}: {missing} {unexpected}"
        )
    return body.eval().requires_grad_(False)

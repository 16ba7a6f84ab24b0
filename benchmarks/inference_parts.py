"""The parts of inference in both forms on equal inputs, and whether their results agree."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from published_forms import PublishedForm, post_process
from torch import Tensor, nn

import vistk
from vistk.engine.finishing import FrameSize, finish_masks
from vistk.models.segmenter import Segmenter
from vistk.ops.masks import areas
from vistk.structures import RLE, FrameOutput, ScoringProtocol, Tracklet
from vistk.trackers.visage import VISAGE

ALLOWED = {
    "feature": 2e-5,  # greatest error of features, relative to their greatest value
    "vector": 1e-4,  # the same of appearance and query vectors
    "typical": 1e-4,  # greatest error of a query's predictions, median over queries
    "mean": 1e-3,  # mean error of predictions
    "bits": 1e-3,  # share of mask and attention bits that differ
    "area": 1e-3,  # relative difference of the areas of RLEs
    "score": 1e-4,
}
"""Tolerances of the published numbers: the reference against itself on another number of threads."""


@dataclass(frozen=True)
class Part:
    """A part of inference in both forms, and how their results are compared."""

    name: str
    goal: float | None  # published time over ours
    published: Callable[[], Any]
    ours: Callable[[], Any]
    compare: Callable[[Any, Any], list[str]]  # what is wrong, in words


class Given(nn.Module):
    """Stands in for an attention or feed-forward layer: hands through, or gives what was recorded.

    Keeps the boolean mask that it is called with.
    """

    def __init__(self, state: Tensor | None = None) -> None:
        super().__init__()
        self.state = state
        self.blocked: Tensor | None = None

    def forward(self, x: Tensor, *rest: Any, **named: Any) -> Tensor:
        for value in (*rest, *named.values()):
            if isinstance(value, Tensor) and value.dtype == torch.bool:
                self.blocked = value
        return x if self.state is None else self.state


@dataclass(frozen=True)
class Call:
    """What the modules of our segmenter are called with for some frames, laid out as they have it."""

    rows: slice  # of the video
    inputs: dict[str, tuple[Any, ...]]
    out: FrameOutput  # leading dims (1, t)
    bare: nn.Module  # the query decoder with layers that give the recorded states

    def blocked(self, layer: int) -> Tensor:
        """The attention mask that a layer of :attr:`bare` was last called with."""
        layers: Any = self.bare.transformer_cross_attention_layers
        return layers[layer].blocked


class Recorded:
    """Intermediate results of the published form, for both forms to start from.

    Args:
        frames: ``(T, 3, H, W)`` uint8 on the device.
        per_pass: frames at a time of ours.
    """

    def __init__(self, published: PublishedForm, segmenter: Segmenter, frames: Tensor, per_pass: int) -> None:
        self.x = published.normalise(frames)
        self.features = published.backbone(self.x)
        self.maps = published.project(self.features)
        self.mask_features, self.pyramid = published.pixel_decoder(self.features)
        self.decoded = published.transformer_decoder(self.mask_features, self.pyramid)
        self.sizes = [(x.shape[-2], x.shape[-1]) for x in self.pyramid]
        self.calls = [
            self._call(segmenter, frames, slice(first, min(first + per_pass, len(frames))))
            for first in range(0, len(frames), per_pass)
        ]

    def _call(self, segmenter: Segmenter, frames: Tensor, rows: slice) -> Call:
        modules = {
            "backbone": segmenter.backbone,
            "pixel decoder": segmenter.pixel_decoder,
            "deformable encoder": segmenter.pixel_decoder.transformer,
            "transformer decoder": segmenter.transformer_decoder,
        }
        seen: dict[str, tuple[Any, ...]] = {}

        def watch(name: str) -> Any:
            def hook(module: nn.Module, args: tuple[Any, ...]) -> None:
                seen[name] = args

            return modules[name].register_forward_pre_hook(hook)

        hooks = [watch(name) for name in modules]
        out = segmenter(frames[rows][None])
        for hook in hooks:
            hook.remove()
        recorded: dict[str, tuple[Any, ...]] = {
            "backbone": (self.x,),
            "pixel decoder": (self.features,),
            "deformable encoder": (self.maps,),
            "transformer decoder": (self.mask_features, self.pyramid),
        }
        inputs = {
            name: tuple(_alike(mine, values, rows) for mine, values in zip(seen[name], given, strict=False))
            for name, given in recorded.items()
        }
        decoded = self.decoded
        out = replace(
            out,
            logits=_alike(out.logits, decoded.logits, rows),
            mask_logits=_alike(out.mask_logits, decoded.mask_logits, rows),
            embeds=_alike(out.embeds, decoded.embeds, rows),
            mask_features=_alike(out.mask_features, self.mask_features, rows),
            features=_alike({name: out.features[name] for name in self.features}, self.features, rows),
        )
        states = [state[:, rows].transpose(0, 1).contiguous() for state in decoded.states]
        return Call(rows, inputs, out, _without_layers(segmenter.transformer_decoder, states[1:]))


def _alike(mine: Any, values: Any, rows: slice) -> Any:
    """``values`` of some frames in the containers, shapes and strides that our modules were called with."""
    if isinstance(mine, Mapping):
        return {name: _alike(x, values[name], rows) for name, x in mine.items()}
    if isinstance(mine, list | tuple):
        return [_alike(x, y, rows) for x, y in zip(mine, values, strict=True)]
    return torch.empty_like(mine).copy_(values[rows].reshape(mine.shape))


def _without_layers(decoder: nn.Module, states: Sequence[Tensor]) -> nn.Module:
    """The decoder, sharing its weights, with states given in place of attention and feed-forward layers."""
    bare = copy.copy(decoder)
    bare._modules = dict(decoder._modules)
    for name in ("transformer_self_attention_layers", "transformer_cross_attention_layers"):
        setattr(bare, name, nn.ModuleList(Given() for _ in states))
    bare.transformer_ffn_layers = nn.ModuleList(Given(state) for state in states)
    return bare


def parts(
    published: PublishedForm,
    segmenter: Segmenter,
    tracker: VISAGE,
    frames: Tensor,
    output: tuple[int, int],
    keep: int,
    per_pass: int,
) -> Iterator[Part]:
    """All parts, in order; the inputs of both forms are equal."""
    made = Recorded(published, segmenter, frames, per_pass)
    decoded = made.decoded

    def ours(name: str, module: nn.Module, **named: Any) -> Callable[[], list[Any]]:
        return lambda: [module(*call.inputs[name], **named) for call in made.calls]

    yield Part(
        "backbone",
        None,
        lambda: published.backbone(made.x),
        ours("backbone", segmenter.backbone),
        lambda a, b: apart("backbone", a, _joined(b), "feature"),
    )
    yield Part(
        "pixel decoder",
        None,
        lambda: published.pixel_decoder(made.features),
        ours("pixel decoder", segmenter.pixel_decoder),
        lambda a, b: apart(
            "pixel decoder", _named([a[0], *a[1]]), _joined([_named([x, *y]) for x, y in b]), "feature"
        ),
    )
    yield Part(
        "deformable encoder",
        4.0,
        lambda: published.encoder(made.maps),
        ours("deformable encoder", segmenter.pixel_decoder.transformer),
        lambda a, b: apart("deformable encoder", _named(a), _joined([_named(x) for x in b]), "feature"),
    )
    yield Part(
        "transformer decoder",
        None,
        lambda: published.transformer_decoder(made.mask_features, made.pyramid),
        ours("transformer decoder", segmenter.transformer_decoder, with_aux=False),
        lambda a, b: predictions_apart(
            _predictions(a, a.mask_logits), _joined([_predictions(x, x.mask_logits) for x in b])
        ),
    )
    yield Part(
        "decoder masks",
        5.0,
        lambda: published.decoder_masks(decoded.states, made.mask_features, made.sizes),
        lambda: [
            (call.bare(*call.inputs["transformer decoder"], with_aux=False), call) for call in made.calls
        ],
        lambda a, b: decoder_masks_apart(a, b, segmenter.config.heads),
    )
    yield Part(
        "appearance",
        None,
        lambda: published.appearance(decoded.embeds, decoded.mask_logits, made.features),
        lambda: [tracker.describe(call.out).vectors for call in made.calls],
        lambda a, b: apart(
            "appearance", a, _joined([{name: v[0] for name, v in x.items()} for x in b]), "vector"
        ),
    )
    network, resized = made.x.shape[-2:], frames.shape[-2:]
    size = FrameSize((network[0], network[1]), (resized[0], resized[1]), output)
    scores = decoded.logits.mean(0).softmax(-1)[:, :-1]
    kept = scores.flatten().topk(keep).indices // scores.shape[-1]
    for name, logits in (
        ("post-processing", decoded.mask_logits),
        ("post-processing, smooth masks", F.avg_pool2d(decoded.mask_logits, 9, 1, 4)),
    ):
        by_track = logits.transpose(0, 1).contiguous()
        by_frame = logits.contiguous()
        yield Part(
            name,
            3.0,
            lambda x=by_track: post_process(x, kept, network, resized, output),  # type: ignore[misc]
            lambda x=by_frame: [finish_masks(frame[kept], size) for frame in x],  # type: ignore[misc]
            lambda a, b, name=name: finished_apart(name, a, b),  # type: ignore[misc]
        )
    protocol = ScoringProtocol(keep_top=keep)
    yield Part(
        "whole",
        3.0,
        lambda: published.infer(frames, output, keep),
        lambda: vistk.predict(segmenter, tracker, frames, output, protocol=protocol).tracklets,
        tracklets_apart,
    )


def _named(tensors: Sequence[Tensor]) -> dict[str, Tensor]:
    return {f"output {i}": tensor for i, tensor in enumerate(tensors)}


def _joined(pieces: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    return {name: torch.cat([piece[name] for piece in pieces]) for name in pieces[0]}


def _predictions(out: Any, mask_logits: Tensor) -> dict[str, Tensor]:
    return {"logits": out.logits, "mask_logits": mask_logits, "embeds": out.embeds}


def apart(part: str, a: Mapping[str, Tensor], b: Mapping[str, Tensor], kind: str) -> list[str]:
    """Tensors whose greatest difference, relative to the greatest value, is more than allowed."""
    wrong = []
    for name in a:
        error = ((a[name] - b[name]).abs().max() / a[name].abs().max()).item()
        if not error <= ALLOWED[kind]:
            wrong.append(f"{part}, {name}: relative error {error:.1e}, allowed {ALLOWED[kind]:.0e}")
    return wrong


def predictions_apart(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> list[str]:
    """Predictions ``(T, Q, ..)`` of a decoder that is not continuous: typical and mean errors, mask bits."""
    found = {}
    for name in a:
        error = (a[name] - b[name]).abs()
        found[name, "typical"] = error.flatten(2).amax(2).median().item()
        found[name, "mean"] = error.mean().item()
    found["mask_logits", "bits"] = ((a["mask_logits"] > 0) != (b["mask_logits"] > 0)).float().mean().item()
    return [
        f"transformer decoder, {name}: {kind} error {error:.1e}, allowed {ALLOWED[kind]:.0e}"
        for (name, kind), error in found.items()
        if not error <= ALLOWED[kind]
    ]


def decoder_masks_apart(a: tuple[list[Tensor], Tensor], b: list[tuple[Any, Call]], heads: int) -> list[str]:
    """Attention bits, layer by layer, and the mask logits at the end."""
    blocked, mask_logits = a
    mine = torch.cat([out.mask_logits for out, _ in b])
    wrong = apart("decoder masks", {"mask logits": mask_logits}, {"mask logits": mine}, "feature")
    for layer, theirs in enumerate(blocked):
        bits = [call.blocked(layer) for _, call in b]
        ours = torch.cat([x if x.ndim == 3 else x[:, 0] for x in bits])
        share = (theirs.unflatten(0, (-1, heads))[:, 0] != ours).float().mean().item()
        if not share <= ALLOWED["bits"]:
            wrong.append(
                f"decoder masks, layer {layer}: a share of {share:.1e} of the bits differs, "
                f"allowed {ALLOWED['bits']:.0e}"
            )
    return wrong


def finished_apart(part: str, a: tuple[list[list[RLE]], Tensor], b: Sequence[Any]) -> list[str]:
    """Areas of all masks at output size, and the mean probability inside each mask of the video."""
    rles, quality = a
    wrong = []
    for n, video in enumerate(rles):
        wrong += rles_apart(f"{part}, mask {n}", video, [frame.rles[n] for frame in b])
    total = torch.stack([frame.probability_sum for frame in b]).sum(0)
    area = torch.stack([frame.area for frame in b]).sum(0)
    error = (total / area.clamp(min=1) - quality.cpu()).abs().max().item()
    if not error <= ALLOWED["score"]:
        wrong.append(f"{part}: mean probabilities differ by {error:.1e}, allowed {ALLOWED['score']:.0e}")
    return wrong


def rles_apart(what: str, a: Sequence[RLE | None], b: Sequence[RLE | None]) -> list[str]:
    """One mask's RLEs over the frames: areas of each within the tolerance, or one pixel."""
    for t, (x, y) in enumerate(zip(areas(a), areas(b), strict=True)):
        if abs(x - y) > max(1.0, ALLOWED["area"] * x):
            return [f"{what}, frame {t}: {y:.0f} pixels, expected {x:.0f}"]
    return []


def tracklets_apart(a: Sequence[Tracklet], b: Sequence[Tracklet]) -> list[str]:
    """Kept tracks and labels, their scores and the areas of their masks over the video."""
    theirs, mine = ({(x.track_id, x.label): x for x in form} for form in (a, b))
    theirs = {key: x for key, x in theirs.items() if areas(x.segmentations).any()}
    if theirs.keys() != mine.keys():
        return [f"whole: other tracks and labels are kept, {sorted(theirs.keys() ^ mine.keys())[:6]}"]
    wrong = []
    for key, x in theirs.items():
        y = mine[key]
        if not abs(x.score - y.score) <= ALLOWED["score"]:
            wrong.append(f"whole, track and label {key}: score {y.score:.5f}, expected {x.score:.5f}")
        was, is_now = areas(x.segmentations).sum(), areas(y.segmentations).sum()
        if abs(was - is_now) > max(1.0, ALLOWED["area"] * was):
            wrong.append(f"whole, track and label {key}: {is_now:.0f} pixels, expected {was:.0f}")
    return wrong


def gate(part: Part) -> list[str]:
    """What is wrong with the results of a part; nothing is timed then."""
    return part.compare(part.published(), part.ours())

"""The segmenter's hook for query propagation: which frame begins with what, and whose gradient comes back."""

from __future__ import annotations

import pytest
import torch

from vistk.models.segmenter import Segmenter, TinySegmenterConfig
from vistk.structures import FrameQueries


@pytest.fixture(scope="module")
def tiny():
    torch.manual_seed(0)
    return Segmenter(TinySegmenterConfig(), 4).eval().requires_grad_(False)


def clips(b: int, t: int) -> torch.Tensor:
    return torch.randint(
        0, 256, (b, t, 3, 40, 56), dtype=torch.uint8, generator=torch.Generator().manual_seed(1)
    )


def with_learned_queries(segmenter: Segmenter, images: torch.Tensor, queries: torch.Tensor):
    """The frames (B, 3, H, W) by a segmenter that had learned these queries."""
    decoder = segmenter.transformer_decoder
    learned = decoder.query_feat.weight.data
    try:
        decoder.query_feat.weight.data = queries
        return segmenter(images[:, None])
    finally:
        decoder.query_feat.weight.data = learned


def test_every_frame_begins_with_the_learned_queries_and_what_the_one_before_gave(tiny, tolerance):
    images = clips(1, 3)
    propagated = tiny(images, None, lambda previous: 0.5 * previous.vectors["query"])
    assert propagated.logits.shape == (1, 3, 10, 5)

    learned = tiny.transformer_decoder.query_feat.weight.data
    first = tiny(images[:, :1])
    second = with_learned_queries(tiny, images[:, 1], learned + 0.5 * first.embeds[0, 0])
    third = with_learned_queries(tiny, images[:, 2], learned + 0.5 * second.embeds[0, 0])
    for t, expected in enumerate((first, second, third)):
        for name in ("logits", "mask_logits", "embeds"):
            found = getattr(propagated, name)[0, t]
            torch.testing.assert_close(found, getattr(expected, name)[0, 0], **tolerance[torch.float32])
    assert not torch.allclose(second.embeds, tiny(images[:, 1:2]).embeds, atol=1e-2)


def test_clips_do_not_mix_and_a_video_may_come_in_windows(tiny, tolerance):
    images = clips(2, 4)

    def propagate(previous: FrameQueries) -> torch.Tensor:
        return previous.vectors["query"] * previous.logits[..., :1].sigmoid()

    whole = tiny(images, None, propagate)
    for clip in range(2):
        start = tiny(images[clip : clip + 1, :3], None, propagate)
        previous = FrameQueries(start.logits[:, -1], {"query": start.embeds[:, -1]})
        rest = tiny(images[clip : clip + 1, 3:], None, propagate, previous)
        torch.testing.assert_close(
            start.mask_logits[0], whole.mask_logits[clip, :3], **tolerance[torch.float32]
        )
        torch.testing.assert_close(
            rest.mask_logits[0], whole.mask_logits[clip, 3:], **tolerance[torch.float32]
        )


def test_nothing_added_is_a_segmenter_without_the_hook(tiny, tolerance):
    images = clips(2, 3)
    found, expected = tiny(images, None, lambda previous: torch.zeros(())), tiny(images)
    torch.testing.assert_close(found.mask_logits, expected.mask_logits, **tolerance[torch.float32])


def test_earlier_layers_come_in_the_order_of_the_frames():
    torch.manual_seed(0)
    segmenter = Segmenter(TinySegmenterConfig(), 4).train()
    images = clips(2, 2)
    found, expected = segmenter(images, None, lambda previous: torch.zeros(())), segmenter(images)
    assert len(found.aux) == len(expected.aux) > 0
    for a, b in zip(found.aux, expected.aux, strict=True):
        assert a.logits.shape == (2, 2, 10, 5)
        # Before the first layer no frame has been looked at; after it, each has its own numbers.
        torch.testing.assert_close(a.mask_embeds, b.mask_embeds, rtol=1e-3, atol=1e-3)


def test_gradients_come_back_through_a_frozen_decoder_from_later_frames_alone(tiny):
    scale = torch.nn.Parameter(torch.full((64,), 0.1))
    out = tiny(clips(1, 3), None, lambda previous: scale * previous.vectors["query"])
    assert not out.logits[0, 0].sum().isnan()
    (none,) = torch.autograd.grad(out.logits[:, 0].sum() + 0 * scale.sum(), scale, retain_graph=True)
    (some,) = torch.autograd.grad(out.mask_logits[:, 2].square().mean(), scale)
    assert none.abs().max() == 0
    assert some.abs().min() > 0


def test_one_sentence_for_images_without_frames(tiny):
    with pytest.raises(ValueError, match=r"expected \(B, T, 3, H, W\), found 0 leading dims"):
        tiny(clips(1, 1)[0, 0], None, lambda previous: None)

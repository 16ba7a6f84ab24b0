"""Finished masks in a few tensors and back."""

from __future__ import annotations

import pytest
import torch

from vistk.engine.finishing import FrameSize
from vistk.engine.stored_masks import PackedMasks, join_packed, pack_masks
from vistk.ops.masks import encode
from vistk.structures import FinishedMasks

SIZE = FrameSize((8, 12), (7, 11), (23, 31))


def finished(*texts: str | None) -> FinishedMasks:
    rles = tuple(text and {"size": [23, 31], "counts": text} for text in texts)
    sums = torch.arange(len(texts), dtype=torch.float64) / 3
    return FinishedMasks(rles, sums, 10 * sums)


def same(packed: PackedMasks, frames: list[FinishedMasks]) -> bool:
    return len(packed) == len(frames) and all(
        a.rles == b.rles
        and torch.equal(a.probability_sum, b.probability_sum)
        and torch.equal(a.area, b.area)
        and [a[q] for q in range(len(a))] == [b[q] for q in range(len(b))]
        for a, b in zip(packed, frames, strict=True)
    )


def test_packed_by_hand():
    packed = pack_masks([finished("ab", None), finished(None, "c")])
    assert bytes(packed["counts"].tolist()) == b"abc"
    assert packed["ends"].tolist() == [[2, 2], [2, 3]]
    assert packed["probability_sum"].tolist() == [[0.0, 1 / 3]] * 2
    masks = PackedMasks(packed, SIZE)
    assert masks[1][0].rle is None
    assert masks[1][1].rle == {"size": [23, 31], "counts": "c"}
    assert masks[-1].rles == (None, {"size": [23, 31], "counts": "c"})
    assert masks[0].size == SIZE
    assert [len(frame) for frame in masks[0:2]] == [2, 2]


@pytest.mark.parametrize("queries", [1, 7, 83])
@pytest.mark.parametrize("empty", [0.0, 0.5, 1.0])
def test_nothing_is_lost(queries, empty):
    generator = torch.Generator().manual_seed(queries)
    frames = []
    for _ in range(5):
        masks = torch.rand(queries, 23, 31, generator=generator) < 0.3
        masks[torch.rand(queries, generator=generator) < empty] = False
        rles = tuple(r if m.any() else None for r, m in zip(encode(masks), masks, strict=True))
        sums = torch.rand(2, queries, generator=generator, dtype=torch.float64)
        frames.append(FinishedMasks(rles, *sums))
    together = pack_masks(frames)
    assert same(PackedMasks(together, SIZE), frames)
    apart = join_packed([pack_masks(frames[:1]), pack_masks(frames[1:4]), pack_masks(frames[4:])])
    assert apart.keys() == together.keys()
    assert all(torch.equal(apart[name], together[name]) for name in together)


def test_frames_without_queries():
    packed = pack_masks([finished(), finished()])
    assert same(PackedMasks(packed, SIZE), [finished(), finished()])


def test_masks_that_nobody_asks_for_are_not_read():
    masks = PackedMasks(pack_masks([finished("ab", "\x7f")]), SIZE)
    masks.counts = memoryview(b"ab\xff")  # no text
    assert masks[0][0].rle == {"size": [23, 31], "counts": "ab"}
    with pytest.raises(UnicodeDecodeError):
        masks[0][1]

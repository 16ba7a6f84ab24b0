"""Windows of frames: how long, what is read, and the way of their queries to the CPU."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from stub_segmenter import random_stub

from vistk.engine import windows
from vistk.engine.video_tracker import EvalConfig
from vistk.engine.windows import Clip, fast_window, read_clips, segment_together, segment_windows, to_cpu
from vistk.schema import ConfigError
from vistk.structures import FrameQueries
from vistk.trackers.identity import Identity

CPU = torch.device("cpu")


def test_a_pass_is_short_on_a_cpu_and_long_elsewhere():
    assert fast_window((720, 1280), CPU) == 1
    assert fast_window((360, 640), CPU) == 1
    assert fast_window((64, 96), CPU) > 5
    assert fast_window((1, 1), CPU) == 30
    assert fast_window((720, 1280), torch.device("cuda")) == 30


@pytest.mark.parametrize(
    ("window", "videos", "lengths"),
    [(3, 1, [3, 3, 1]), (3, 2, [3, 3, 1]), (None, 1, [7]), (None, 8, [3, 3, 1])],
)
def test_every_frame_is_read_once_a_clip_at_a_time(window, videos, lengths):
    read = []

    def reader(t):
        read.append(t)
        return torch.full((3, 5, 6), t, dtype=torch.uint8)

    frames = [partial(reader, t) for t in range(7)]
    clips = read_clips(frames, (9, 9), window, CPU, videos)
    done = 0
    for clip, length in zip(clips, lengths, strict=True):
        assert clip.start == done
        done += length
        assert read == list(range(done))
        assert clip.images[:, 0, 0, 0].tolist() == read[clip.start :]
    assert list(read_clips([], (9, 9), window, CPU, videos)) == []


def test_clips_of_one_size_pass_together_and_come_back_as_they_went():
    segmenter = random_stub(7)
    identity = Identity(Identity.Config(), embed_dim=8, feature_channels={}, num_classes=3)
    first, second = (torch.stack([read() for read in segmenter.frames()[part]]) for part in (
        slice(0, 2), slice(3, 6)))  # fmt: skip
    wide = torch.nn.functional.pad(second[:1], (0, 4))
    clips = [Clip(first, (9, 9)), Clip(wide, (8, 8), 5), Clip(second, (7, 7), 3)]
    found = segment_together(segmenter, {"a": identity}, clips)
    assert segmenter.passes == [[0, 1, 3, 4, 5], [3]]
    assert [window.start for window in found] == [0, 5, 3]
    assert [window.size.output for window in found] == [(9, 9), (8, 8), (7, 7)]
    assert [window.size.resized for window in found] == [(20, 28), (20, 32), (20, 28)]
    for window, numbers in zip(found, ([0, 1], [3], [3, 4, 5]), strict=True):
        assert len(window.frames) == len(numbers)
        assert window.num_bytes == len(numbers) * segmenter.mask_logits[0].nbytes
        for queries, masks, t in zip(window.frames, window.masks, numbers, strict=True):
            assert torch.equal(queries["a"].logits, segmenter.logits[t])
            assert torch.equal(masks.mask_logits, segmenter.mask_logits[t])
            assert queries["a"].masks is masks
    assert segment_together(segmenter, {"a": identity}, []) == []


def test_windows_in_order_with_their_frames():
    segmenter = random_stub(7)
    identity = Identity(Identity.Config(), embed_dim=8, feature_channels={}, num_classes=3)
    found = list(segment_windows(segmenter, {"a": identity}, segmenter.frames(), (9, 9), 3, CPU))
    assert segmenter.passes == [[0, 1, 2], [3, 4, 5], [6]]
    assert [window.start for window in found] == [0, 3, 6]
    for window in found:
        for t, (queries, masks) in enumerate(zip(window.frames, window.masks, strict=True), window.start):
            assert torch.equal(queries["a"].logits, segmenter.logits[t])
            assert torch.equal(queries["a"].vectors["query"], segmenter.embeds[t])
            assert queries["a"].masks is masks
            assert queries["a"].mask_logits is None
        assert window.num_bytes == len(window.masks) * segmenter.mask_logits[0].nbytes
        assert window.size.network == window.size.resized == (20, 28)


@pytest.mark.parametrize("window", [0, -3])
def test_windows_without_frames_are_refused(window):
    with pytest.raises(ConfigError, match=r"evaluation\.window is -?\d, expected 1 or more"):
        EvalConfig(window=window)


def test_one_transfer_carries_tensors_of_all_kinds():
    tensors = [
        torch.tensor([True, False, True]),
        torch.randn(3, 5).to(torch.bfloat16),
        torch.randn(7, 3).T,
        torch.randn(()),
        torch.zeros(0, 4),
        torch.randn(3, dtype=torch.float64),
        torch.tensor([[2**60]]),
        torch.tensor([float("nan"), -0.0]).half(),
    ]
    moved = windows._in_one_transfer(tensors)
    # Whoever keeps one of them keeps no other.
    assert all(x.untyped_storage().nbytes() == x.numel() * x.element_size() for x in moved)
    for before, after in zip(tensors, moved, strict=True):
        assert after.dtype == before.dtype
        assert after.shape == before.shape
        assert torch.equal(before.nan_to_num(7), after.nan_to_num(7))


def test_what_describers_share_is_moved_once(monkeypatch):
    moved = []

    def transfer(tensors):
        moved.extend(tensors)
        return [torch.zeros(tensor.shape) for tensor in tensors]

    monkeypatch.setattr(windows, "_in_one_transfer", transfer)
    logits = torch.zeros(2, 3, device="meta")
    described = {
        "a": FrameQueries(logits, {"query": torch.zeros(2, 5, device="meta")}),
        "b": FrameQueries(logits, {"query": torch.zeros(2, 6, device="meta")}),
    }
    found = to_cpu(described)
    assert [tuple(tensor.shape) for tensor in moved] == [(2, 3), (2, 5), (2, 6)]
    assert found["a"].logits is found["b"].logits
    assert found["b"].vectors["query"].shape == (2, 6)
    on_cpu = {"a": FrameQueries(torch.zeros(2, 3), {})}
    assert to_cpu(on_cpu)["a"] is on_cpu["a"]

"""Windows of frames: how long, what is read, and the way of their queries to the CPU."""

from __future__ import annotations

import pytest
import torch
from stub_segmenter import random_stub

from vistk.engine import windows
from vistk.engine.infer import EvalConfig
from vistk.engine.windows import fast_window, segment_windows, to_cpu
from vistk.schema import ConfigError
from vistk.structures import FrameQueries
from vistk.trackers.identity import Identity

CPU = torch.device("cpu")


def frames_of(height, width, count=50):
    return [lambda: torch.zeros(3, height, width, dtype=torch.uint8)] * count


def test_a_pass_is_short_on_a_cpu_and_long_elsewhere():
    assert fast_window(frames_of(720, 1280), CPU) == 1
    assert fast_window(frames_of(360, 640), CPU) == 1
    assert fast_window(frames_of(64, 96), CPU) > 5
    assert fast_window(frames_of(1, 1), CPU) == 30
    assert fast_window([], CPU) == 30
    assert fast_window(frames_of(720, 1280), torch.device("cuda")) == 30


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
    buffers = {tensor.untyped_storage().data_ptr() for tensor in moved if tensor.numel()}
    assert len(buffers) == 1
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

"""One video in memory: sizes, ids, what is refused, and what is left as it was."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import vistk
from vistk.models.segmenter import Segmenter, TinySegmenterConfig
from vistk.structures import ScoringProtocol
from vistk.trackers.minvis import MinVIS
from vistk.trackers.oracle import Oracle

CLASSES = 3


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    segmenter = Segmenter(TinySegmenterConfig(), CLASSES)
    tracker = MinVIS(
        MinVIS.Config(),
        embed_dim=segmenter.embed_dim,
        feature_channels=segmenter.feature_channels,
        num_classes=CLASSES,
    )
    return segmenter.eval(), tracker.eval()


def frames_of(count: int, height: int = 23, width: int = 83) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (count, 3, height, width), generator=generator, dtype=torch.uint8)


@pytest.mark.parametrize(("count", "height", "width"), [(1, 23, 83), (2, 1, 7), (3, 32, 32)])
def test_masks_have_the_size_and_number_of_the_frames(model, count, height, width):
    entries = vistk.predict(*model, frames_of(count, height, width), video_id=0).to_ytvis()
    assert entries
    for entry in entries:
        assert entry["video_id"] == 0
        assert len(entry["segmentations"]) == count
        assert {tuple(rle["size"]) for rle in entry["segmentations"] if rle} == {(height, width)}
    scores = [entry["score"] for entry in entries]
    assert scores == sorted(scores, reverse=True)


def test_masks_of_another_size(model):
    entries = vistk.predict(*model, frames_of(2), (7, 11)).to_ytvis()
    assert vistk.predict(*model, frames_of(2), np.array([7, 11])).to_ytvis() == entries
    assert {tuple(rle["size"]) for e in entries for rle in e["segmentations"] if rle} == {(7, 11)}


def test_no_frame_has_no_tracklet(model):
    assert vistk.predict(*model, frames_of(0)).to_ytvis() == []


def test_ids_of_classes_are_those_of_the_protocol_and_else_start_at_one(model):
    protocol = ScoringProtocol(keep_top=30, rescore=False, category_ids=(4, 90, 7))
    frames = frames_of(2)
    plain = vistk.predict(*model, frames, protocol=ScoringProtocol(30, False)).to_ytvis()
    named = vistk.predict(*model, frames, protocol=protocol).to_ytvis()
    assert {e["category_id"] for e in plain} == {1, 2, 3}
    assert [e["category_id"] for e in named] == [(4, 90, 7)[e["category_id"] - 1] for e in plain]


def test_windows_do_not_matter_and_nothing_is_changed(model):
    segmenter, tracker = model
    frames = frames_of(5)
    before = frames.clone()
    whole = vistk.predict(segmenter, tracker, frames).to_ytvis()
    segmenter.train()
    parts = vistk.predict(segmenter, tracker, frames, window=2).to_ytvis()
    assert segmenter.training  # left as found
    assert not tracker.training
    segmenter.eval()
    assert torch.equal(frames, before)
    assert [e["segmentations"] for e in parts] == [e["segmentations"] for e in whole]
    np.testing.assert_allclose([e["score"] for e in parts], [e["score"] for e in whole], atol=1e-5)


@pytest.mark.parametrize(
    ("frames", "error", "message"),
    [
        (frames_of(2).float(), TypeError, r"expected a uint8 tensor, found torch\.float32"),
        (frames_of(2).numpy(), TypeError, "expected a uint8 tensor, found ndarray"),
        (frames_of(2).permute(0, 2, 3, 1), ValueError, r"\(T, 3, H, W\), found \(2, 23, 83, 3\)"),
        (frames_of(1)[0], ValueError, r"\(T, 3, H, W\), found \(3, 23, 83\)"),
        (frames_of(2)[..., :0], ValueError, r"\(T, 3, H, W\), found \(2, 3, 23, 0\)"),
    ],
)
def test_other_frames_are_refused(model, frames, error, message):
    with pytest.raises(error, match=message):
        vistk.predict(*model, frames)


@pytest.mark.parametrize("size", [(0, 5), (-3, 5), (4.5, 5.0), (5,), 5])
def test_other_output_sizes_are_refused(model, size):
    with pytest.raises(ValueError, match="output_size: expected height and width in pixels, found"):
        vistk.predict(*model, frames_of(1), size)


def test_a_protocol_of_other_classes_is_refused(model):
    with pytest.raises(ValueError, match="expected 3 ids, one a class of the segmenter, found 2"):
        vistk.predict(*model, frames_of(1), protocol=ScoringProtocol(category_ids=(1, 2)))


def test_a_tracker_that_needs_the_truth_is_refused(model):
    segmenter, _ = model
    oracle = Oracle(Oracle.Config(), embed_dim=64, feature_channels={}, num_classes=CLASSES)
    with pytest.raises(ValueError, match="Oracle reads ground truth"):
        vistk.predict(segmenter, oracle, frames_of(1))

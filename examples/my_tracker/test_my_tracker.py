"""What every tracker must do, and what this one alone does."""

import pytest
import torch
from my_tracker import MyTracker, MyTrackerConfig

from vistk.structures import FrameQueries
from vistk.trackers.base import track_video
from vistk.trackers.contract import check_tracker


def test_contract():
    check_tracker(MyTracker)


def frame(*vectors: tuple[float, float]) -> FrameQueries:
    return FrameQueries(torch.zeros(len(vectors), 2), {"query": torch.tensor(vectors)})


@pytest.mark.parametrize(
    # Frames 1 and 2 put track 0 at (1, 0), then at (0.6, 0.8). With decay 0.5 it remembers (1.1, 0.8);
    # in frame 3 query 0 = (1, 0) is nearer to that than query 1 = (0, 1). MinVIS knows (0.6, 0.8) alone.
    ("decay", "expected"),
    [(0.5, [0, 1]), (0.0, [1, 0])],
)
def test_memory_fades(decay: float, expected: list[int]):
    video = [frame((1, 0), (-1, -1)), frame((0.6, 0.8), (-1, -1)), frame((1, 0), (0, 1))]
    tracker = MyTracker(MyTrackerConfig(decay), embed_dim=2, feature_channels={}, num_classes=1)
    assert track_video(tracker, video)[-1].query_index.tolist() == expected


def test_decay_out_of_range():
    with pytest.raises(ValueError, match="decay is 1, expected 0 or more and less than 1"):
        MyTrackerConfig(1)

"""cached = live: whether stored queries give the predictions of live ones, and how far they are if not.

::

    from vistk.engine.cache_check import check_cache

    def test_my_tracker(tmp_path):
        check_cache(MyTracker, tmp_path)
        print(check_cache(MyTracker, tmp_path, dtype="float16"))
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from vistk.engine.cache import CacheConfig, QueryCache
from vistk.engine.difference import Difference, difference
from vistk.engine.infer import track_video
from vistk.engine.video_tracker import EvalConfig
from vistk.structures import FrameOutput, VideoRecord
from vistk.trackers.base import Tracker
from vistk.trackers.contract_runs import Subject
from vistk.trackers.contract_videos import MASK_SIZE, make_videos


class _Recorded(nn.Module):
    """Stands for a segmenter: says of a frame, whose pixels are its number, what is recorded of it."""

    def __init__(self, out: FrameOutput) -> None:
        super().__init__()
        self.out = out  # leading dims (1, T)
        self.backbone = SimpleNamespace(strides={"res2": 4})

    def forward(self, images: Tensor) -> FrameOutput:
        return self.out[:, images[0, :, 0, 0, 0].long()]


def check_cache(
    tracker: type[Tracker[Any]] | str,
    folder: str | Path,
    config: Any = None,
    dtype: str = "float32",
    masks: str = "rle",
) -> Difference:
    """Track a made-up video live and from a cache, once where it is written and once where it is read.

    Args:
        tracker, config: as :func:`vistk.trackers.contract.check_tracker` takes them.
        folder: where to write the cache.
        dtype, masks: of :class:`CacheConfig`.

    Returns:
        How far the predictions from the cache are from live ones; not at all in float32.

    Raises:
        vistk.trackers.contract.ContractError: they differ in float32, or from one reading to the next; or the
            tracker propagates queries.
    """
    subject = Subject.of(tracker, config)
    subject.require(
        subject.cls.propagate is Tracker.propagate, "propagates queries, and so its frames are not stored"
    )
    videos = make_videos(15, frames=9)
    length = videos.objects.shape[1]
    segmenter: Any = _Recorded(videos.out)
    trackers = {"tracker": subject.build()}
    record = VideoRecord(1, tuple(f"{t}.jpg" for t in range(length)), *MASK_SIZE)
    size = (4 * MASK_SIZE[0], 4 * MASK_SIZE[1])
    frames = [partial(torch.full, (3, *size), t, dtype=torch.uint8) for t in range(length)]
    track = partial(
        track_video,
        segmenter,
        trackers,
        frames,
        MASK_SIZE,
        EvalConfig(window=4),
        torch.device("cpu"),
        targets=videos.frame_targets[0],
    )
    options = CacheConfig(dir=str(folder), dtype=dtype, masks=masks, mask_features=True)
    live = track()["tracker"].prediction
    cached = []
    for mode in ("write", "read"):
        cache = QueryCache(options, mode, segmenter, trackers, [record], {"data": "made up"})
        cached.append(track(source=partial(cache.windows, record))["tracker"].prediction)
    subject.require(cached[0] == cached[1], "the cache gives other predictions when it is read again")
    found = difference(live, cached[0])
    subject.require(
        dtype != "float32" or live == cached[0],
        f"cached queries give other predictions than live ones: {found}",
    )
    return found

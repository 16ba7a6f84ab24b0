"""How far predictions for a video are from others for the same video."""

from __future__ import annotations

from dataclasses import dataclass

from vistk.structures import VideoPrediction


@dataclass(frozen=True)
class Difference:
    """How far the predictions for a video are from others."""

    predictions: int  # the greater number of the two
    others: int  # of them: a (track, class) pair that only one has
    score: float  # greatest difference of the scores of a pair that both have
    masks: int  # of those pairs: frames whose masks are not the same
    frames: int  # of those pairs

    def __str__(self) -> str:
        return (
            f"{self.others} of {self.predictions} predictions are others, scores differ by up to "
            f"{self.score:.1e}, {self.masks} of {self.frames} masks differ"
        )


def difference(a: VideoPrediction, b: VideoPrediction) -> Difference:
    """Compares predictions by track and class."""
    left, right = ({(x.track_id, x.label): x for x in video.tracklets} for video in (a, b))
    both = [(left[pair], right[pair]) for pair in left if pair in right]
    masks = [m != n for x, y in both for m, n in zip(x.segmentations, y.segmentations, strict=True)]
    return Difference(
        max(len(left), len(right)),
        len(left.keys() ^ right.keys()),
        max((abs(x.score - y.score) for x, y in both), default=0.0),
        sum(masks),
        len(masks),
    )

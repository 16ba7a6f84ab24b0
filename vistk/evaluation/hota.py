"""HOTA, IDF1 and CLEAR of tracks with classes, from mask IoU.

- HOTA, DetA, AssA, LocA: Luiten et al., "HOTA: A Higher Order Metric for Evaluating Multi-Object
  Tracking", IJCV 2021.
- IDF1, IDP, IDR: Ristani et al., "Performance Measures and a Data Set for Multi-Target, Multi-Camera
  Tracking", ECCV Workshops 2016.
- MOTA, identity switches, mostly tracked and lost: Bernardin and Stiefelhagen, "Evaluating Multiple
  Object Tracking Performance: The CLEAR MOT Metrics", 2008.

A results file of video instance segmentation holds many entries of low score, all of which would count
in full here; so the entries below a score threshold are left out, and the threshold belongs to the
numbers. Several thresholds cost one reading of the masks (:func:`track_cell`). Matching is per class, as
in AP; over classes the counts are pooled, which is the "detection averaged" combination of TrackEval.
Crowd instances are instances like others, as in TrackEval. Where two assignments are equally good to the
last digit, the order of instances in the annotations and the scores of the predictions decide.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.optimize import linear_sum_assignment

from vistk.evaluation.clear import IOU_THRESHOLD, clear_counts
from vistk.evaluation.overlaps import Cell

ALPHAS = np.arange(0.05, 0.99, 0.05)  # IoU thresholds of HOTA; it and its parts are means over them
_EPS = np.finfo(np.float64).eps

HOTA_COUNTS = ("HOTA_TP", "HOTA_FN", "HOTA_FP", "association", "localization")  # one value an alpha
PLAIN_COUNTS = (
    *("IDTP", "IDFN", "IDFP", "CLR_TP", "CLR_FN", "CLR_FP", "MOTP_sum"),
    *("IDSW", "Frag", "MT", "PT", "ML"),
)

COUNTS = ("IDSW", "Frag", "MT", "PT", "ML")
"""Those that are reported as they are: identity switches, fragmentations, tracks mostly tracked, partly
tracked, mostly lost."""

Counts = dict[str, np.ndarray]
"""Additive counts: HOTA_COUNTS of shape ``(.., 19)`` and PLAIN_COUNTS of shape ``(..)``, float64.

``association`` is the sum over true positives of the association score A(c), ``localization`` that of
their IoU; so counts of videos and classes are pooled by adding them.
"""


@dataclass(frozen=True)
class InstanceCounts:
    """What the ``G`` instances of a sequence add to HOTA, one by one."""

    frames: np.ndarray  # (G,) frames with a mask
    true: np.ndarray  # (G, 19) true positives among them
    association: np.ndarray  # (G, 19) sum over these of A(c)


@dataclass(frozen=True)
class GroupCounts:
    """What groups of instances add to HOTA; ``N`` groups, each with the shape ``(..)`` before it."""

    instances: np.ndarray  # (.., N) without crowds
    frames: np.ndarray  # (.., N)
    true: np.ndarray  # (.., N, 19)
    association: np.ndarray  # (.., N, 19)

    @classmethod
    def none(cls, num_groups: int, instances: np.ndarray) -> GroupCounts:
        """No frame of that many instances."""
        return cls(instances, np.zeros(num_groups), *np.zeros((2, num_groups, len(ALPHAS))))

    def plus(self, found: InstanceCounts, members: np.ndarray) -> GroupCounts:
        """With the counts of instances, of which ``members`` ``(N, G)`` bool says who is in which group."""
        weights = members.astype(np.float64)
        return replace(
            self,
            frames=self.frames + weights @ found.frames,
            true=self.true + weights @ found.true,
            association=self.association + weights @ found.association,
        )

    @classmethod
    def stack(cls, videos: Sequence[GroupCounts], num_groups: int) -> GroupCounts:
        """One row a video."""
        shapes = {"instances": (), "frames": (), "true": (len(ALPHAS),), "association": (len(ALPHAS),)}
        return cls(
            **{
                name: np.array([getattr(video, name) for video in videos], dtype=np.float64).reshape(
                    len(videos), num_groups, *shape
                )
                for name, shape in shapes.items()
            }
        )


@dataclass(frozen=True)
class SequenceCounts:
    """The counts of one sequence of one class."""

    counts: Counts
    instances: InstanceCounts


@dataclass(frozen=True)
class TrackingCounts:
    """The counts of a results file: ``N`` cells, each of one category in one video."""

    score_threshold: float
    num_videos: int
    video: np.ndarray  # (N,) positions in GroundTruth.videos
    category: np.ndarray  # (N,) positions in GroundTruth.categories
    counts: Counts  # (N, 19) or (N,)

    @classmethod
    def stack(
        cls, cells: Sequence[tuple[int, int, Counts]], *, score_threshold: float, num_videos: int
    ) -> TrackingCounts:
        """From (video, category, counts) of each cell."""
        widths = dict.fromkeys(HOTA_COUNTS, (len(ALPHAS),)) | dict.fromkeys(PLAIN_COUNTS, ())
        return cls(
            score_threshold=score_threshold,
            num_videos=num_videos,
            video=np.array([video for video, _, _ in cells], dtype=np.int64),
            category=np.array([category for _, category, _ in cells], dtype=np.int64),
            counts={
                name: np.array([counts[name] for *_, counts in cells], dtype=np.float64).reshape(-1, *shape)
                for name, shape in widths.items()
            },
        )

    def pooled(self, category: int | None = None) -> Counts:
        """Counts summed over videos, and over classes unless one is given: ``(19,)`` or ``()``."""
        keep = slice(None) if category is None else self.category == category
        return {name: values[keep].sum(0) for name, values in self.counts.items()}


def track_cell(cell: Cell, score_thresholds: Sequence[float]) -> list[SequenceCounts]:
    """Counts of one class in one video at each threshold, of the predictions with at least that score."""
    similarity, instances, tracks = cell.frame_iou(), cell.instance_areas > 0, cell.areas > 0
    by_number: dict[int, SequenceCounts] = {}  # thresholds that keep as many predictions keep the same ones
    out = []
    for threshold in score_thresholds:
        kept = int((cell.scores >= threshold).sum())  # scores fall
        if kept not in by_number:
            by_number[kept] = count_sequence(
                similarity[:, :kept].transpose(0, 2, 1), instances, tracks[:, :kept]
            )
        out.append(by_number[kept])
    return out


def count_sequence(similarity: np.ndarray, instances: np.ndarray, tracks: np.ndarray) -> SequenceCounts:
    """Counts of one sequence of one class.

    Args:
        similarity: ``(T, G, D)`` IoU of ``G`` instances and ``D`` tracks, 0..1.
        instances, tracks: ``(T, G)`` and ``(T, D)`` bool, who is there in each frame.
    """
    instances, tracks = np.asarray(instances, dtype=bool), np.asarray(tracks, dtype=bool)
    similarity = np.where(instances[:, :, None] & tracks[:, None, :], similarity, 0.0)
    of_instances, localization = _hota_counts(similarity, instances, tracks)
    true = of_instances.true.sum(0)
    counts = {
        "HOTA_TP": true,
        "HOTA_FN": instances.sum() - true,
        "HOTA_FP": tracks.sum() - true,
        "association": of_instances.association.sum(0),
        "localization": localization,
        **_identity_counts(similarity, instances, tracks),
        **clear_counts(similarity, instances, tracks),
    }
    return SequenceCounts(counts, of_instances)


def _meetings(instances: np.ndarray, tracks: np.ndarray) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Frame, instances and tracks in it, for the frames that have both."""
    for t in np.flatnonzero(instances.any(1) & tracks.any(1)).tolist():
        yield t, instances[t].nonzero()[0], tracks[t].nonzero()[0]


def _hota_counts(
    similarity: np.ndarray, instances: np.ndarray, tracks: np.ndarray
) -> tuple[InstanceCounts, np.ndarray]:
    """The counts of each instance, and the sum of the IoU of all true positives ``(19,)``."""
    # Soft count of the frames in which a pair could match, for the alignment score A of each pair.
    union = similarity.sum(1, keepdims=True) + similarity.sum(2, keepdims=True) - similarity
    soft = np.divide(similarity, union, out=np.zeros_like(similarity), where=union > _EPS).sum(0)  # (G, D)
    frames = instances.sum(0)[:, None] + tracks.sum(0)[None, :].astype(np.float64)
    alignment = soft / np.maximum(frames - soft, _EPS)

    rows, cols, values = [], [], []
    for t, g, d in _meetings(instances, tracks):
        block = similarity[t, g[:, None], d]
        i, j = linear_sum_assignment(alignment[g[:, None], d] * block, maximize=True)
        rows.append(g[i])
        cols.append(d[j])
        values.append(block[i, j])
    pairs = np.concatenate(rows) * tracks.shape[1] + np.concatenate(cols) if rows else np.zeros(0, np.int64)
    iou = np.concatenate(values) if values else np.zeros(0)

    reached = iou[:, None] >= ALPHAS - _EPS  # (matches, 19)
    true, association = np.zeros((2, instances.shape[1], len(ALPHAS)))
    for a in range(len(ALPHAS)):
        together = np.bincount(pairs[reached[:, a]], minlength=frames.size).reshape(frames.shape)
        true[:, a] = together.sum(1)
        association[:, a] = (together * together / np.maximum(1, frames - together)).sum(1)
    localization = (iou[:, None] * reached).sum(0)
    return InstanceCounts(instances.sum(0), true, association), localization


def _identity_counts(similarity: np.ndarray, instances: np.ndarray, tracks: np.ndarray) -> Counts:
    together = (similarity >= IOU_THRESHOLD).sum(0)  # (G, D) frames
    rows, cols = linear_sum_assignment(together, maximize=True)
    true = float(together[rows, cols].sum())
    return {
        "IDTP": np.array(true),
        "IDFN": np.array(instances.sum() - true),
        "IDFP": np.array(tracks.sum() - true),
    }


def tracking_metrics(counts: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """HOTA, DetA, AssA, LocA, IDF1, IDP, IDR, MOTA and MOTP of pooled counts, each of the counts' shape.

    Ratios of 0..1 (MOTA may be negative), NaN where nothing is there to measure: no instance (MOTA,
    IDR), no track (IDP), neither (HOTA, DetA, AssA, IDF1), no match (MOTP), none at any alpha (LocA). At a
    single alpha without matches AssA is 0 and LocA 1, as in TrackEval.
    """
    true, missed, wrong = counts["HOTA_TP"], counts["HOTA_FN"], counts["HOTA_FP"]
    total = true + missed + wrong
    detection = true / np.maximum(1, total)
    association = counts["association"] / np.maximum(1, true)
    location = np.where(true > 0, counts["localization"] / np.maximum(1, true), 1.0)
    anything = total[..., 0] > 0
    id_true, id_missed, id_wrong = counts["IDTP"], counts["IDFN"], counts["IDFP"]
    clear_instances = counts["CLR_TP"] + counts["CLR_FN"]
    return {
        "HOTA": np.where(anything, np.sqrt(detection * association).mean(-1), np.nan),
        "DetA": np.where(anything, detection.mean(-1), np.nan),
        "AssA": np.where(anything, association.mean(-1), np.nan),
        "LocA": np.where((true > 0).any(-1), location.mean(-1), np.nan),
        "IDF1": _ratio(id_true, id_true + 0.5 * id_wrong + 0.5 * id_missed),
        "IDP": _ratio(id_true, id_true + id_wrong),
        "IDR": _ratio(id_true, id_true + id_missed),
        "MOTA": _ratio(counts["CLR_TP"] - counts["CLR_FP"] - counts["IDSW"], clear_instances),
        "MOTP": _ratio(counts["MOTP_sum"], counts["CLR_TP"]),
    }


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    return np.where(denominator > 0, numerator / np.maximum(denominator, _EPS), np.nan)


def group_metrics(counts: GroupCounts, draws: np.ndarray) -> dict[str, np.ndarray]:
    """AssA and DetRe of groups of instances.

    AssA is the mean A(c) of the true positives of the group's instances, DetRe the share of their frames
    that are true positives; both are means over alpha, NaN for a group that is in no frame.

    Args:
        counts: of ``V`` videos.
        draws: ``(B, V)``, how often each video counts.

    Returns:
        ``(B, N)`` each.
    """
    frames = draws @ counts.frames
    true, association = (
        np.einsum("bv,vna->bna", draws, values) for values in (counts.true, counts.association)
    )
    found = {
        "AssA": (association / np.maximum(1, true)).mean(-1),
        "DetRe": true.mean(-1) / np.maximum(1, frames),
    }
    return {name: np.where(frames > 0, values, np.nan) for name, values in found.items()}

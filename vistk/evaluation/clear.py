"""CLEAR: which track covers which instance in each frame, and the counts that follow.

Bernardin and Stiefelhagen, "Evaluating Multiple Object Tracking Performance: The CLEAR MOT Metrics", 2008;
counts as in TrackEval. :mod:`vistk.evaluation.association_errors` tells the causes of the same switches.
"""

from __future__ import annotations

import numpy as np
from scipy.optimize import linear_sum_assignment

IOU_THRESHOLD = 0.5  # from which a mask covers an instance
_EPS = np.finfo(np.float64).eps


def clear_matches(similarity: np.ndarray, instances: np.ndarray, tracks: np.ndarray) -> np.ndarray:
    """``(T, G)`` int64: the track that covers each instance in each frame, -1 for none.

    Args:
        similarity: ``(T, G, D)`` IoU.
        instances, tracks: ``(T, G)`` and ``(T, D)`` bool, who is there in each frame.
    """
    out = np.full(instances.shape, -1, dtype=np.int64)
    current = np.full(instances.shape[1], -1)  # of the last frame in which anything could match
    for t in _shared_frames(instances, tracks).tolist():
        g, d = instances[t].nonzero()[0], tracks[t].nonzero()[0]
        block = similarity[t, g[:, None], d]
        # Going on with a track outweighs any IoU.
        preference = np.where(block >= IOU_THRESHOLD - _EPS, 1000.0 * (d == current[g, None]) + block, 0.0)
        i, j = linear_sum_assignment(preference, maximize=True)
        hit = preference[i, j] > _EPS
        out[t, g[i[hit]]] = d[j[hit]]
        current = out[t]
    return out


def clear_counts(similarity: np.ndarray, instances: np.ndarray, tracks: np.ndarray) -> dict[str, np.ndarray]:
    """Counts of one sequence, float64 of shape ``()``: true positives and misses of CLEAR, the sum of the IoU
    of the former, identity switches, fragmentations, tracks mostly tracked, partly tracked, mostly lost.
    Arguments as for :func:`clear_matches`.
    """
    track = clear_matches(similarity, instances, tracks)
    matched = track >= 0
    switches = 0
    for g in range(track.shape[1]):
        own = track[matched[:, g], g]
        switches += int((own[1:] != own[:-1]).sum())
    # A fragment begins where the frame before had no match, of the frames in which anything could match.
    could = matched[_shared_frames(instances, tracks)]
    before = np.concatenate([np.zeros((1, could.shape[1]), dtype=bool), could])[:-1]
    fragments = (could & ~before).sum(0)
    present = instances.sum(0)
    seen = present > 0
    ratio = matched.sum(0)[seen] / present[seen]
    mostly_tracked, partly = (ratio > 0.8).sum(), (ratio >= 0.2).sum()
    counts = {
        "CLR_TP": matched.sum(),
        "CLR_FN": instances.sum() - matched.sum(),
        "CLR_FP": tracks.sum() - matched.sum(),
        "MOTP_sum": similarity[*matched.nonzero(), track[matched]].sum(),
        "IDSW": switches,
        "Frag": np.maximum(fragments - 1, 0).sum(),
        "MT": mostly_tracked,
        "PT": partly - mostly_tracked,
        "ML": seen.sum() - partly,
    }
    return {name: np.array(value, dtype=np.float64) for name, value in counts.items()}


def _shared_frames(instances: np.ndarray, tracks: np.ndarray) -> np.ndarray:
    """Frames that have instances and tracks."""
    return np.flatnonzero(instances.any(1) & tracks.any(1))

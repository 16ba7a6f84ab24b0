"""The predicted masks of a video, linked anew to its instances as well as they can be.

The oracle of "Mind the Gap: Disentangling Performance Bottlenecks in Video Instance Segmentation" (arXiv
2606.07394) assigns identities by an integer program over the whole video. Here the program is only solved
where something cheaper is not provably as good:

1. Frame by frame, masks are assigned to instances by frame IoU (Hungarian algorithm), as the oracle tracker
   does it.
2. Again and again frame by frame, but now by what a mask adds to the *tube* IoU of the instance, which is
   summed over frames: ``(shared - J * outside) / union`` for an instance at tube IoU ``J``. A mask that
   covers more of other things than it is worth is left out.
3. Were masks not to be shared, the best tube IoU of each instance would be easy to find (Dinkelbach,
   "On Nonlinear Fractional Programming", Management Science 13(7), 1967). If the assignment reaches as many
   IoU thresholds as that, nothing reaches more.
4. Otherwise (a mask over two instances, mostly) the integer program is solved, if it is small.

What is maximised is the number of IoU thresholds of AP that each instance reaches, summed over instances:
the mean recall of tracks with the right classes.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, linear_sum_assignment, milp
from scipy.sparse import csr_array

from vistk.evaluation.overlaps import VideoOverlaps
from vistk.evaluation.ytvis_ap import IOU_THRESHOLDS
from vistk.ops.masks import iou_from_counts

THRESHOLDS = np.minimum(IOU_THRESHOLDS, 1 - 1e-10)  # as AP has them
MOST_VARIABLES = 5000
"""Of an integer program; a larger one is not tried."""
MOST_NODES = 500
"""Of its search tree: a limit on time would make the numbers depend on the machine."""


@dataclass(frozen=True, eq=False)
class Links:
    """Which mask shows which instance: at most one each in a frame."""

    prediction: np.ndarray  # (T, G) int64, places in VideoOverlaps.predictions; -1 for none
    proven: bool  # no other links reach more IoU thresholds


def link(overlaps: VideoOverlaps, wanted: np.ndarray) -> Links:
    """The best links of a video.

    Args:
        overlaps: of all pairs.
        wanted: ``(G,)`` bool, the instances to be linked; the others get no masks.
    """
    columns = np.flatnonzero(wanted)
    problem = _Problem(
        shared=overlaps.intersections[:, :, columns],
        outside=overlaps.areas[:, :, None] - overlaps.intersections[:, :, columns],
        total=overlaps.instance_areas[:, columns].sum(0),
    )
    frame_iou = iou_from_counts(problem.shared, overlaps.areas, overlaps.instance_areas[:, columns])
    found = problem.improve(_assign_frames(frame_iou))
    most = problem.levels(problem.alone()).sum()
    proven = bool(problem.levels(problem.tube_iou(found)).sum() == most)
    if not proven:
        solved = problem.solve()
        if solved is not None:
            proven = True
            found = max(problem.improve(solved), found, key=problem.value)
    prediction = np.full(overlaps.instance_areas.shape, -1, dtype=np.int64)
    prediction[:, columns] = found
    return Links(prediction, proven)


@contextmanager
def _c_output_dropped() -> Iterator[None]:
    """Without what C code prints to standard output in the meantime (on POSIX systems).

    HiGHS 1.12, which SciPy 1.17 has, prints a line for debugging now and then, whatever its options; it would
    end up in tables that are printed to a file. The buffer of C is emptied before and after, that of Python
    is not touched; what other threads write to the file descriptor meanwhile is lost.
    """
    if os.name != "posix":
        yield
        return
    flush = ctypes.CDLL(None).fflush
    flush(None)
    kept, nowhere = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.close(nowhere)
    try:
        yield
    finally:
        flush(None)
        os.dup2(kept, 1)
        os.close(kept)


def _assign_frames(gain: np.ndarray) -> np.ndarray:
    """``(T, G)`` prediction of each instance in each frame with the greatest total of ``gain`` ``(T, D, G)``;
    pairs without gain are left out.
    """
    gain = np.maximum(gain, 0.0)
    out = np.full((gain.shape[0], gain.shape[2]), -1, dtype=np.int64)
    for t in np.flatnonzero(gain.any((1, 2))).tolist():
        d, g = linear_sum_assignment(gain[t], maximize=True)
        kept = gain[t, d, g] > 0
        out[t, g[kept]] = d[kept]
    return out


@dataclass(frozen=True, eq=False)
class _Problem:
    """Pixels of ``T`` frames, ``D`` predictions and ``G`` instances; links are ``(T, G)`` predictions."""

    shared: np.ndarray  # (T, D, G), of a prediction with an instance
    outside: np.ndarray  # (T, D, G), of a prediction outside an instance
    total: np.ndarray  # (G,), of the instance in all frames

    def tube_iou(self, links: np.ndarray) -> np.ndarray:
        """``(G,)``; 0 for an instance without pixels and links."""
        shared, union = self._sums(links)
        return np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)

    def levels(self, iou: np.ndarray) -> np.ndarray:
        """``(G,)``: how many IoU thresholds are reached."""
        return (iou[:, None] >= THRESHOLDS).sum(1)

    def value(self, links: np.ndarray) -> tuple[int, float]:
        """Greater is better: thresholds reached, then the sum of tube IoU."""
        iou = self.tube_iou(links)
        return int(self.levels(iou).sum()), float(iou.sum())

    def improve(self, links: np.ndarray) -> np.ndarray:
        """Links that are at least as good, from assignments by what each mask adds to the tube IoU."""
        best = links
        for _ in range(10):  # two or three do, mostly
            shared, union = self._sums(links)
            union = np.maximum(union, 1.0)
            links = _assign_frames((self.shared - shared / union * self.outside) / union)
            if self.value(links) <= self.value(best):
                return best
            best = links
        return best

    def alone(self) -> np.ndarray:
        """``(G,)``: the greatest tube IoU of each instance if it could have any mask."""
        iou = np.zeros(len(self.total))
        while self.shared.size:
            gain = self.shared - iou * self.outside
            best = gain.argmax(1)  # (T, G)
            better = self.tube_iou(np.where(gain.max(1) > 0, best, -1))
            if (better <= iou).all():
                break
            iou = np.maximum(better, iou)
        return iou

    def solve(self) -> np.ndarray | None:
        """Links that reach the most thresholds, by an integer program; None if it is too large or not solved.

        A variable for each useful pair in each frame, and one for each instance and threshold that it could
        reach alone. That an instance reaches ``h`` means that the sum of ``shared - h * outside`` over its
        masks is at least ``h * total``.
        """
        # At the lowest threshold already, a mask with less shared pixels is of no use.
        t, d, g = np.nonzero(self.shared > THRESHOLDS[0] * self.outside)
        possible = self.levels(self.alone())
        instance = np.arange(len(possible)).repeat(possible)
        level = np.concatenate([np.arange(n) for n in possible.tolist()]).astype(np.int64)
        n, m = len(t), len(level)
        if n + m > MOST_VARIABLES:
            return None
        size = np.maximum(self.total, 1.0)
        shared, outside = self.shared[t, d, g] / size[g], self.outside[t, d, g] / size[g]
        rows, slack = [], np.zeros(m)
        reached = np.zeros((m, n + m))
        for i, (own, h) in enumerate(zip(instance.tolist(), THRESHOLDS[level].tolist(), strict=True)):
            worth = np.where(g == own, shared - h * outside, 0.0)
            slack[i] = -np.minimum(worth, 0.0).sum()
            reached[i, :n], reached[i, n + i] = worth, -(h + slack[i])
        for first, second in ((t, d), (t, g)):  # each mask once a frame, each instance once
            key = first * (max(self.shared.shape[1:]) + 1) + second
            _, row = np.unique(key, return_inverse=True)
            rows.append(csr_array((np.ones(n), (row.reshape(-1), np.arange(n))), (row.max() + 1, n + m)))
        # Among links that reach as many thresholds, those that show more; worth less than one threshold.
        weights = np.append(-(shared - THRESHOLDS[0] * outside) * 0.5 / len(size), -np.ones(m))
        with _c_output_dropped():
            result = milp(
                weights,
                integrality=np.ones(n + m),
                bounds=Bounds(0, 1),
                constraints=[
                    LinearConstraint(csr_array(reached), -slack, np.inf),
                    *(LinearConstraint(row, -np.inf, 1.0) for row in rows),
                ],
                # Presolving takes longer than it saves. The gap is less than one threshold.
                options={"node_limit": MOST_NODES, "presolve": False, "mip_rel_gap": 0.4 / (m + 1)},
            )
        if result.status != 0:
            return None
        links = np.full((self.shared.shape[0], self.shared.shape[2]), -1, dtype=np.int64)
        used = result.x[:n] > 0.5
        links[t[used], g[used]] = d[used]
        found = self.levels(self.tube_iou(links)).sum()  # the solver allows for a millionth
        return links if found == round(result.x[n:].sum()) else None

    def _sums(self, links: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """``(G,)`` shared and united pixels of all frames."""
        t, g = np.nonzero(links >= 0)
        d = links[t, g]
        shared, outside = (
            np.bincount(g, values[t, d, g], len(self.total)).astype(np.float64)
            for values in (self.shared, self.outside)
        )
        return shared, self.total + outside

"""Figures of what a tracker decided by in one video, from :func:`vistk.inspection.associations.trace`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from vistk.inspection.associations import AssociationStep
from vistk.inspection.names import NOBODY
from vistk.inspection.run_view import VideoView
from vistk.viz.embeddings import embedding_map
from vistk.viz.memories import NO_ENTRY, memory_figure
from vistk.viz.similarities import similarity_maps, that_matter

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LEAST_SCORE = 0.3  # of queries of no instance in a map of vectors


def deciding_frames(view: VideoView, row: str) -> list[int]:
    """The frames in which a row went wrong: an instance lost its track, or got another one."""
    return sorted({t for failure in view.failures(row) for t in failure.frames})


def similarity_figure(view: VideoView, row: str, steps: Sequence[AssociationStep], t: int) -> Figure | None:
    """What the tracker compared in frame ``t``, what it chose, and what would have been right: that a track
    goes on with the instance that it was on last. None where it compared nothing.

    The tracks of a failure that was decided in this frame are always shown, whatever they were on.
    """
    step = steps[t]
    if not step.similarities:
        return None
    took = step.chosen()
    failed = {
        step.own_numbers[number]: number
        for failure in view.failures(row)
        if t in failure.frames
        for number in failure.track_ids
        if number in step.own_numbers
    }
    owners = instances_of_tracks(steps, t)
    query_of = {i: q for q, i in enumerate(step.truth_ids.tolist()) if i != NOBODY}
    chosen = np.array([took.get(r, -1) for r in step.rows.tolist()], dtype=np.int64)
    true = np.array([query_of.get(owners.get(r, NOBODY), -1) for r in step.rows.tolist()], dtype=np.int64)
    always = [r for r, own in enumerate(step.rows.tolist()) if own in failed]
    if not (true >= 0).any():  # nothing is known to be right
        always = [r for r, number in enumerate(step.row_numbers.tolist()) if number != NOBODY or r in always]
    rows, columns = that_matter(chosen, true, always)
    if not rows or not columns:
        return None
    labels = {one.id: one.label for one in view.truth}
    names = {q: f"{labels[i]} {i}" for i, q in query_of.items()}
    return similarity_maps(
        step.similarities,
        chosen,
        true,
        rows=rows,
        columns=columns,
        row_names=[
            _row_name(own, failed.get(own, number), owners.get(own, NOBODY))
            for own, number in zip(step.rows.tolist(), step.row_numbers.tolist(), strict=True)
        ],
        column_names=[names.get(q, f"query {q}") for q in range(len(step.scores))],
        title=f"{row}, frame {t} of {view.title}",
    )


def instances_of_tracks(steps: Sequence[AssociationStep], t: int) -> dict[int, int]:
    """The instance that each track was on last before frame ``t``, by the tracker's number."""
    owners = {}
    for step in steps[:t]:
        for track, query in step.chosen().items():
            if query >= 0 and step.truth_ids[query] != NOBODY:
                owners[track] = int(step.truth_ids[query])
    return owners


def _row_name(own: int, number: int, instance: int) -> str:
    name = f"({own})" if number == NOBODY else f"track {number}"
    return name if instance == NOBODY else f"{name}, was on {instance}"


def remembering_tracks(view: VideoView, row: str) -> list[int]:
    """The tracks whose memories are worth a look: those that failed, or all where none did."""
    failed = {number for failure in view.failures(row) for number in failure.track_ids}
    return [track.id for track in view.tracks(row) if not failed or track.id in failed]


def memory_of_track(
    view: VideoView, row: str, steps: Sequence[AssociationStep], number: int
) -> Figure | None:
    """What a track of the results remembers when each frame comes, and how like it is to what it takes then.

    None where the tracker has no memory that is known, or the track is not its own.
    """
    own = steps[0].own_numbers.get(number) if steps else None
    name = vector_names(steps)[-1:]  # what tells most of how a thing looks: "appearance" where there is one
    if own is None or not name or all(step.memory is None for step in steps):
        return None
    taken = [step.chosen().get(own, -1) for step in steps]
    unit = [_unit(step.vectors[name[0]]) for step in steps]
    entries: list[list[tuple[int, float]]] = [[]]
    for step in steps[:-1]:  # what is remembered after a frame is what the next one is compared with
        place = [] if step.memory is None else np.flatnonzero(step.memory.track_ids == own).tolist()
        pairs = (
            zip(step.memory.frames[place[0]].tolist(), step.memory.weights[place[0]].tolist(), strict=True)
            if step.memory is not None and place
            else ()
        )
        entries.append([(frame, weight) for frame, weight in pairs if frame != NOBODY])
    shape = len(steps), max(1, *map(len, entries))
    remembered = np.full(shape, NO_ENTRY, dtype=np.int64)
    weights, similarity = np.zeros(shape), np.full(shape, np.nan)
    for t, column in enumerate(entries):
        for i, (frame, weight) in enumerate(column):
            remembered[t, i], weights[t, i] = frame, weight
            if taken[t] >= 0 and taken[frame] >= 0:
                similarity[t, i] = unit[t][taken[t]] @ unit[frame][taken[frame]]
    scores = [float(step.scores[q]) if q >= 0 else np.nan for step, q in zip(steps, taken, strict=True)]
    failed = {t for failure in view.failures(row) if number in failure.track_ids for t in failure.frames}
    return memory_figure(
        remembered,
        weights,
        similarity,
        np.array(scores),
        marked=sorted(failed),
        title=f"{row}, track {number} in {view.title}; {name[0]} vectors",
    )


def vector_names(steps: Iterable[AssociationStep]) -> list[str]:
    """The vectors that the tracker compares, "query" first."""
    names = {name for step in steps for name in step.vectors if name == "query" or name in step.similarities}
    return sorted(names, key=lambda name: (name != "query", name))


def embedding_figure(view: VideoView, row: str, steps: Sequence[AssociationStep], name: str) -> Figure:
    """The vectors of all instances, frame by frame, and of confident queries of none; where the truth is
    hidden, of the tracks.
    """
    vectors, whose, frames = [], [], []
    for step in steps:
        ids = step.truth_ids
        if not view.split.has_truth:
            ids = np.full(len(step.scores), NOBODY, dtype=np.int64)
            there = step.query_index >= 0
            ids[step.query_index[there]] = step.track_numbers[there]
        shown = np.flatnonzero((ids != NOBODY) | (step.scores >= LEAST_SCORE))
        vectors.append(step.vectors[name][shown])
        whose.append(ids[shown])
        frames.append(np.full(len(shown), step.frame))
    tracks = view.truth if view.split.has_truth else view.tracks(row)
    return embedding_map(
        np.concatenate(vectors),
        np.concatenate(whose),
        np.concatenate(frames),
        {one.id: f"{one.label} {one.id}" for one in tracks},
        title=f"{row}, {name} vectors of {view.title}",
    )


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)

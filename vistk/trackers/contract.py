"""Does a tracker keep the contract? For our own trackers and, just as much, for those of others.

::

    from vistk.trackers.contract import check_tracker

    def test_my_tracker():
        check_tracker(MyTracker)

Every check is a function that takes a :class:`Subject`; :data:`CHECKS` lists them, for a test with one
case a check. They run on the CPU, in about a second together, on made-up videos without any data.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, is_dataclass, replace
from typing import Any

import torch

from vistk.structures import FrameQueries, TrackedFrame
from vistk.trackers.base import Tracker
from vistk.trackers.contract_fields import require_known_fields, require_same_training
from vistk.trackers.contract_runs import (
    ATOL,
    ContractError,
    Subject,
    copies,
    described,
    difference,
    frames_of,
    histories,
    losses_of,
    made_up,
    mutable_parts,
    near,
    require_equal,
    require_optimal,
    require_same,
    require_similarities,
    run,
    track,
    written_and_read,
)
from vistk.trackers.contract_videos import (
    make_videos,
    random_order,
    without_instances,
    without_matches,
    without_objects,
)

__all__ = ["CHECKS", "ContractError", "Subject", "check_tracker"]


def check_tracker(tracker: type[Tracker[Any]] | str, config: Any = None) -> None:
    """Run all checks.

    Args:
        tracker: a class, a registered name, or ``module:Class``.
        config: instance of its ``Config``; default: that of the name, or ``Config()``.

    Raises:
        ContractError: the first check that failed. Errors inside the tracker are passed on, with a note.
    """
    subject = Subject.of(tracker, config)
    for check in CHECKS:
        try:
            check(subject)
        except Exception as error:
            rule = (check.__doc__ or "").partition("\n")[0]
            error.add_note(f"in {check.__name__}({subject.name}): {rule}")
            raise


def check_frames(subject: Subject) -> None:
    """Every frame: unique track ids, each query at most once, indices and logits in shape."""
    run(subject, subject.build(), make_videos(0))


def check_streams_do_not_mix(subject: Subject) -> None:
    """Two videos tracked in turns by one tracker give what each gives alone, and again when repeated."""
    videos = make_videos(1, clips=2)
    tracker = subject.build()
    first, second = frames_of(subject, tracker, videos)
    alone = [track(subject, tracker, clip) for clip in (first, second)]
    states = [tracker.start(), tracker.start()]
    together: list[list[TrackedFrame]] = [[], []]
    for pair in zip(first, second, strict=True):
        for i, frame in enumerate(pair):
            together[i].append(tracker.step(states[i], frame))
    first_parts, second_parts = map(mutable_parts, states)
    shared = first_parts.keys() & second_parts.keys() - mutable_parts(tracker.config).keys()
    subject.require(
        not shared,
        f"the states of two videos share {', '.join(sorted(first_parts[i] for i in shared))}: start() is to "
        "make what a video needs anew",
    )
    for i in (0, 1):
        rewritten = tracker.finish(states[i])
        together[i] = together[i] if rewritten is None else rewritten
        require_same(subject, alone[i], together[i], "two interleaved streams mix: state is not in `state`")
    again = track(subject, tracker, first)
    require_same(subject, alone[0], again, "a second pass differs: start() does not begin a new video")


def check_input_unchanged(subject: Subject) -> None:
    """describe, losses and step write into nothing that they are given."""
    videos = make_videos(2)
    tracker = subject.build()
    before = copies(videos.out)
    queries = tracker.describe(videos.out).detach()
    require_equal(subject, before, copies(videos.out), "describe() changed its input")
    given = {"queries": queries, "targets": videos.targets, "matches": videos.matches}
    before = copies(given)
    tracker.losses(queries, videos.targets, videos.matches)
    require_equal(subject, before, copies(given), "losses() changed its input")
    frames = videos.with_targets(queries)[0]
    before = copies(frames, "frame")
    track(subject, tracker, frames)
    require_equal(subject, before, copies(frames, "frame"), "step() or finish() changed what it was given")


def check_query_order(subject: Subject) -> None:
    """The order of a frame's queries does not matter, up to the names of the tracks; or it is said to."""
    videos = make_videos(3)
    tracker = subject.build()
    shuffled = videos.with_order(random_order(4, tuple(videos.objects.shape)))
    tracked = [run(subject, tracker, v)[0] for v in (videos, shuffled)]
    found = [histories(frames, v.objects[0]) for frames, v in zip(tracked, (videos, shuffled), strict=True)]
    if subject.cls.query_order_matters:
        subject.require(
            found[0] != found[1],
            "query_order_matters is set, but the order of the queries made no difference",
        )
    else:
        lost = [history for history in found[0] if history not in found[1]]
        subject.require(
            found[0] == found[1],
            f"the order of the queries in a frame changed the tracks: {len(lost)} of {len(found[0])} are no "
            f"more, such as that of these (frame, object): {lost[0] if lost else found[1]}",
        )
        made = [made_up(frames) for frames in tracked]
        subject.require(
            len(made[0]) == len(made[1])
            and all(any(near(own, other) for other in made[1]) for own in made[0]),
            "the order of the queries in a frame changed tracks whose masks the tracker made up",
        )


def check_windows(subject: Subject) -> None:
    """Describing a video in windows of any size gives the same tracks."""
    videos = make_videos(5)
    tracker = subject.build()
    length = videos.objects.shape[1]
    whole = run(subject, tracker, videos)[0]
    for size in range(1, length):
        frames: list[FrameQueries] = []
        for start in range(0, length, size):
            window = slice(start, start + size)
            queries = described(subject, tracker, videos.out[:, window])
            targets = (videos.frame_targets[0][window],)
            frames += replace(videos, frame_targets=targets).with_targets(queries)[0]
        tracked = track(subject, tracker, frames)
        require_same(subject, whole, tracked, f"windows of {size} frames differ from one of {length}")


def check_leading_dims(subject: Subject) -> None:
    """describe() gives a frame the same vectors in a batch, in a clip, and alone without leading dims."""
    videos = make_videos(6, clips=2, frames=3)
    tracker = subject.build()
    with torch.no_grad():
        batch = tracker.describe(videos.out)
        for b, t in ((0, 0), (1, 2)):
            alone = tracker.describe(videos.out[b, t])
            for name, vector in alone.vectors.items():
                within = batch.vectors[name][b, t]
                subject.require(
                    vector.shape == within.shape and torch.allclose(vector, within, atol=ATOL),
                    f"describe() of one frame alone gives other {name!r} vectors than in a batch: "
                    f"{difference(within, vector)}",
                )


def check_cached_equals_live(subject: Subject) -> None:
    """Queries that were written and read, with finished masks, give the tracks of live ones."""
    tracker = subject.build()
    live = frames_of(subject, tracker, make_videos(7))[0]
    cached = [written_and_read(frame) for frame in live]
    require_same(
        subject,
        track(subject, tracker, live),
        track(subject, tracker, cached),
        "cached queries give other tracks than live ones",
    )


def check_similarities(subject: Subject) -> None:
    """similarities() changes nothing, and says what step() goes by: see :class:`Tracker`."""
    tracker = subject.build()
    frames = frames_of(subject, tracker, make_videos(15))[0]
    state, plain = tracker.start(), tracker.start()
    for t, frame in enumerate(frames):
        with torch.no_grad():
            before = copies(frame)
            found, ids = tracker.similarities(state, frame), tracker.tracks(state)
            require_equal(subject, before, copies(frame), "similarities() changed the frame it was given")
            tracked = tracker.step(state, frame)
            require_same(
                subject,
                [tracker.step(plain, frame)],
                [tracked],
                f"similarities() in frame {t} changed the tracks",
            )
        require_similarities(subject, found, ids, frame, f"in frame {t},")
        if ids is None and "mixed" in found:
            require_optimal(subject, found["mixed"], tracked, f"in frame {t},")


def check_empty_frames(subject: Subject) -> None:
    """Frames without any object, at the start, in between, and throughout."""
    for frames in (slice(0, 1), slice(2, 4), slice(None)):
        run(subject, subject.build(), without_objects(make_videos(8), frames))


def check_no_instance(subject: Subject) -> None:
    """Clips without annotated instances: finite losses, and association as ever."""
    videos = without_instances(make_videos(9, clips=2))
    tracker = subject.build()
    losses_of(subject, tracker, videos)
    run(subject, tracker, videos)


def check_one_frame_clip(subject: Subject) -> None:
    """Clips of one frame: finite losses, one tracked frame."""
    videos = make_videos(10, clips=2, frames=1)
    tracker = subject.build()
    losses_of(subject, tracker, videos)
    run(subject, tracker, videos)


def check_gradients(subject: Subject) -> None:
    """Every trainable parameter gets a finite gradient, even when nothing is matched or annotated.

    A data-parallel run waits forever for a parameter that is in the graph of one process only.
    """
    videos = make_videos(11, clips=2)
    cases = {
        "matched instances": videos,
        "no matched instance": without_matches(videos),
        "no instance": without_instances(videos),
        "one frame": make_videos(12, frames=1),
    }
    for case, clips in cases.items():
        tracker = subject.build().train()
        trainable = {name: p for name, p in tracker.named_parameters() if p.requires_grad}
        if not trainable:
            return
        losses = losses_of(subject, tracker, clips)
        subject.require(bool(losses), f"has {len(trainable)} trainable parameters but no losses()")
        total = torch.stack(list(losses.values())).sum()
        subject.require(total.requires_grad, f"with {case}, the losses are cut from the graph")
        total.backward()
        for name, parameter in trainable.items():
            subject.require(parameter.grad is not None, f"with {case}, {name} gets no gradient")
            assert parameter.grad is not None
            subject.require(
                bool(parameter.grad.isfinite().all()), f"with {case}, the gradient of {name} is not finite"
            )


def check_association_fields(subject: Subject) -> None:
    """What ``association_fields`` names changes no weights, vectors and losses, which such rows share."""
    require_known_fields(subject)
    require_same_training(subject, make_videos(16, clips=2, frames=3))


def check_config_round_trip(subject: Subject) -> None:
    """The config is a dataclass of plain values with defaults; as JSON and back it is the same."""
    subject.require(is_dataclass(subject.cls.Config), "Config is not a dataclass")
    subject.require(isinstance(subject.config, subject.cls.Config), "the config is not an instance of Config")
    subject.require(is_dataclass(subject.cls.Config()), "Config() needs arguments: a field has no default")
    try:
        text = json.dumps(asdict(subject.config))
    except TypeError as error:
        raise ContractError(f"{subject.name}: a field of the config is no plain value: {error}") from error
    again = subject.cls.Config(**json.loads(text))
    subject.require(json.dumps(asdict(again)) == text, f"the config {text} came back as {again}")
    tracker = replace(subject, config=again).build()
    subject.require(json.dumps(asdict(again)) == text, "the constructor changed the config it was given")
    run(subject, tracker, make_videos(13, frames=2))


def check_state_dict_round_trip(subject: Subject) -> None:
    """Weights, and nothing but weights: another tracker with the same state dict tracks the same."""
    videos = make_videos(14)
    tracker, other = subject.build(seed=0), subject.build(seed=1)
    before = copies(dict(tracker.state_dict()))
    expected = run(subject, tracker, videos)[0]
    after = dict(tracker.state_dict())
    require_equal(
        subject,
        before,
        copies(after),
        "tracking a video changed the state dict, but what a tracker remembers belongs in `state`",
    )
    other.load_state_dict(after)
    require_same(subject, expected, run(subject, other, videos)[0], "a tracker with the same weights differs")


CHECKS: tuple[Callable[[Subject], None], ...] = (
    check_frames,
    check_streams_do_not_mix,
    check_input_unchanged,
    check_query_order,
    check_windows,
    check_leading_dims,
    check_cached_equals_live,
    check_similarities,
    check_empty_frames,
    check_no_instance,
    check_one_frame_clip,
    check_gradients,
    check_association_fields,
    check_config_round_trip,
    check_state_dict_round_trip,
)
"""All checks, in the order in which :func:`check_tracker` runs them."""

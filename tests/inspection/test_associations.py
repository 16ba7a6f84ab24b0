"""A video tracked again: the tracks are those of the results, and what they were decided by is right."""

from __future__ import annotations

import json
import shutil
from itertools import pairwise

import numpy as np
import pytest
import torch

from vistk.inspection import decisions
from vistk.inspection.associations import trace
from vistk.inspection.failures import Failure
from vistk.inspection.run_view import NOBODY, InspectionError, RunView
from vistk.inspection.show import Asked, show
from vistk.models.checkpoints import CheckpointError, load_weights, save_weights
from vistk.ops.assignment import best_assignment
from vistk.ops.masks import frame_iou

ROWS = (
    "identity",
    "mask-iou",
    "minvis",
    "visage",
    "visage-no-memory",
    "gated-memory",
    "tracklet-linking",
    "oracle",
)
WORDS = (
    *("tracker=visage", "data.num_train=4", "data.num_val=2", "data.frames=8", "data.num_workers=0"),
    *("train.steps=1", "train.batch_size=1", "train.num_frames=2", f"evaluation.rows=[{','.join(ROWS)}]"),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("traced")


@pytest.fixture
def make_run(folder, run_experiment):
    """Runs words, once; gives the run directory."""

    def call(name, *words):
        run_dir = folder / name
        if not (run_dir / "metrics.json").exists():
            given = (f"data.root={folder / 'data'}", f"run_dir={run_dir}", f"cache.dir={folder / 'cache'}")
            code, _, err = run_experiment(*WORDS, *given, *words)
            assert code == 0, err
        return run_dir

    return call


@pytest.fixture
def run(make_run):
    return RunView(make_run("run", "data.eval_splits=[swap,reenter]"))


@pytest.fixture
def video(run):
    return run.split("swap").video(1)


@pytest.mark.parametrize("row", ROWS)
def test_traced_tracks_are_those_of_the_results(run, row):
    for split in run.splits:
        for video_id in run.split(split).video_ids:
            video = run.split(split).video(video_id)
            steps = trace(video, row)
            assert [step.frame for step in steps] == list(range(len(video)))
            traced = {}
            for step in steps:
                for number, query in zip(step.track_numbers.tolist(), step.query_index.tolist(), strict=True):
                    traced.setdefault(number, [None] * len(video))[step.frame] = step.masks[query]
            seen = set()
            for track in video.tracks(row, min_score=0):
                # A track that came under two classes is one, and has the number of the better scored one.
                masks = json.dumps(track.rles)
                if masks not in seen:
                    assert json.dumps(traced[track.id]) == masks, (split, video_id, track.id)
                seen.add(masks)
            assert {track.id for track in video.tracks(row)} & set(traced)


def test_switches_are_where_the_track_that_covers_an_instance_changes(run):
    found = 0
    for row in run.rows:
        for split in run.splits:
            for video_id in run.split(split).video_ids:
                video = run.split(split).video(video_id)
                changes = set()
                for instance, tracks in enumerate(video.covering(row).T, start=1):
                    frames = np.flatnonzero(tracks != NOBODY).tolist()
                    changes |= {
                        (b, instance, int(tracks[a]), int(tracks[b]))
                        for a, b in pairwise(frames)
                        if tracks[a] != tracks[b]
                    }
                switches = [f for f in video.failures(row) if f.change == "switch"]
                assert {(f.frame, f.truth_ids[0], *f.track_ids) for f in switches} == changes
                found += len(changes)
    assert found


def test_slots_take_what_is_most_similar_in_sum(video):
    for row in ("mask-iou", "minvis", "visage", "gated-memory"):
        first, *rest = trace(video, row)
        assert dict(first.similarities) == {}
        for step in rest:
            mixed = step.similarities["mixed"]
            assert mixed.shape == (10, 10)
            assert step.rows.tolist() == list(range(10))
            slots, queries = best_assignment(torch.from_numpy(mixed))
            most = mixed[slots.numpy(), queries.numpy()].sum()
            assert mixed[step.track_ids, step.query_index].sum() == pytest.approx(most, abs=1e-4)


def test_visage_mixes_query_and_appearance(video):
    for step in trace(video, "visage")[1:]:
        found = step.similarities
        assert np.abs(0.25 * found["query"] + 0.75 * found["appearance"] - found["mixed"]).max() < 1e-6


def test_minvis_compares_with_the_frame_before(video):
    steps = trace(video, "minvis")
    for before, step in pairwise(steps):
        tracks = before.vectors["query"][before.query_index]
        a, b = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (tracks, step.vectors["query"]))
        assert np.abs(a @ b.T - step.similarities["query"]).max() < 1e-5
        assert step.memory.frames.tolist() == [[step.frame]] * 10


def test_queries_are_named_after_the_instances_that_they_cover(video):
    for step in trace(video, "minvis"):
        named = step.truth_ids[step.truth_ids != NOBODY].tolist()
        assert len(named) == len(set(named))
        shown = [track.rles[step.frame] for track in video.truth]
        iou = frame_iou(step.masks, shown)
        for query, instance in enumerate(step.truth_ids.tolist()):
            assert instance == NOBODY or iou[query, instance - 1] >= 0.5
        # Every instance that a confident query covers is some query's.
        covered = (iou[step.scores > 0.5] >= 0.5).any(0)
        assert {g + 1 for g in np.flatnonzero(covered)} <= set(named)
    assert named


def test_the_oracle_goes_on_with_the_instances(video):
    for step in trace(video, "oracle"):
        owner = {n: int(step.truth_ids[q]) for n, q in zip(step.track_numbers, step.query_index, strict=True)}
        assert all(number in (NOBODY, instance) for number, instance in owner.items() if instance != NOBODY)


def test_the_true_query_is_that_of_the_instance_before(video):
    steps = trace(video, "minvis")
    owners = decisions.instances_of_tracks(steps, 3)
    for track, query in steps[2].chosen().items():
        if steps[2].truth_ids[query] != NOBODY:
            assert owners[track] == steps[2].truth_ids[query]
    assert decisions.instances_of_tracks(steps, 0) == {}


def test_a_run_with_a_cache_is_read_from_it(make_run, monkeypatch):
    words = ("data.eval_splits=[swap]", "cache=write")
    live = RunView(make_run("run", "data.eval_splits=[swap,reenter]")).split("swap").video(1)
    view = RunView(make_run("cached", *words))
    expected = trace(live, "visage")

    def nothing(*_):
        raise AssertionError("segmented, though it is in the cache")

    with monkeypatch.context() as patch:
        patch.setattr("vistk.inspection.associations.segment_windows", nothing)
        steps = trace(view.split("swap").video(1), "visage")
        for step, other in zip(steps, expected, strict=True):
            assert step.masks == other.masks
            for name, found in step.similarities.items():
                assert np.array_equal(found, other.similarities[name])
    shutil.rmtree(view.config.cache.dir)  # gone: segmented again, and not stored
    assert len(trace(view.split("swap").video(1), "visage")) == 8
    assert not (view.run_dir.parent / "cache").exists()


def test_start_weights_are_taken_where_nothing_was_trained(make_run):
    run_dir = make_run(
        "start", "tracker=minvis", "eval_only=true", "data.eval_splits=[swap]", "evaluation.rows=[minvis]"
    )
    view = RunView(run_dir)
    assert not (run_dir / "weights.safetensors").exists()
    video = view.split("swap").video(2)
    numbers = {n for step in trace(video, "minvis") for n in step.track_numbers.tolist()}
    assert {track.id for track in video.tracks("minvis")} <= numbers


def test_other_weights_are_noticed(run, tmp_path):
    copied = shutil.copytree(run.run_dir, tmp_path / "run")
    weights = copied / "weights.safetensors"
    state, facts = load_weights(weights)
    other = {name: -value if "mask_embed" in name else value for name, value in state.items()}
    assert any("mask_embed" in name for name in other)
    save_weights(weights, other, facts)
    with pytest.raises(
        InspectionError, match=r"tracking video 1 of swap again, visage does not make the track"
    ):
        trace(RunView(copied).split("swap").video(1), "visage")
    weights.unlink()
    with pytest.raises((CheckpointError, FileNotFoundError), match=r"weights\.safetensors"):
        trace(RunView(copied).split("swap").video(1), "visage")


def _without_the_best(own, _):
    own.pop(0)


def _without_any(own, _):
    own.clear()


def _with_half_the_score(own, _):
    own[0]["score"] /= 2


def _with_one_more(own, _):
    own.append(json.loads(json.dumps(own[0])))


def _exchanged_in_the_last_frame(own, frames):
    masks = [own[place]["segmentations"] for place in (0, 1)]
    masks[0][frames - 1], masks[1][frames - 1] = masks[1][frames - 1], masks[0][frames - 1]


def _without_a_mask(own, _):
    shown = next(t for t, rle in enumerate(own[0]["segmentations"]) if rle is not None)
    own[0]["segmentations"][shown] = None


def _of_another_class(own, _):
    own[0]["category_id"] = own[0]["category_id"] % 4 + 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_without_the_best, "makes a track of score"),
        (_without_any, "makes a track of score"),
        (_with_half_the_score, "does not make the track of score"),
        (_with_one_more, "does not make the track of score"),
        (_exchanged_in_the_last_frame, "does not make the track of score"),
        (_without_a_mask, "does not make the track of score"),
        (_of_another_class, "does not make the track of score"),
    ],
)
def test_other_results_are_noticed(make_run, tmp_path, change, message):
    copied = shutil.copytree(make_run("run", "data.eval_splits=[swap,reenter]"), tmp_path / "run")
    path = copied / "rows/oracle/swap/results.json"
    entries = json.loads(path.read_text())
    own = sorted((e for e in entries if e["video_id"] == 1), key=lambda e: -e["score"])
    assert own[1]["score"] > 0.9
    change(own, 8)
    path.write_text(json.dumps([e for e in entries if e["video_id"] != 1] + own))
    with pytest.raises(InspectionError, match=f"tracking video 1 of swap again, oracle {message}") as error:
        trace(RunView(copied).split("swap").video(1), "oracle")
    assert "\n" not in str(error.value)


def test_a_track_next_to_the_limit_may_be_on_one_side(make_run, tmp_path):
    copied = shutil.copytree(make_run("run", "data.eval_splits=[swap,reenter]"), tmp_path / "run")
    path = copied / "rows/minvis/swap/results.json"
    entries = json.loads(path.read_text())
    own = sorted((e for e in entries if e["video_id"] == 1), key=lambda e: -e["score"])
    path.write_text(json.dumps([e for e in entries if e["video_id"] != 1] + own[1:]))
    for distance, fine in ((-0.01, True), (-0.03, False)):
        view = RunView(copied, (f"evaluation.track_score={own[0]['score'] + distance}",))
        if fine:
            assert len(trace(view.split("swap").video(1), "minvis")) == 8
        else:
            with pytest.raises(InspectionError, match="makes a track"):
                trace(view.split("swap").video(1), "minvis")


def test_a_track_under_several_classes_is_one(run):
    several = 0
    for row in ("minvis", "visage"):
        for video_id in run.split("swap").video_ids:
            video = run.split("swap").video(video_id)
            step = trace(video, row)[3]
            number_of = dict(zip(step.track_ids.tolist(), step.track_numbers.tolist(), strict=True))
            assert set(step.own_numbers) == {track.id for track in video.tracks(row, min_score=0)}
            for number, own in step.own_numbers.items():
                several += number != number_of[own]
    assert several


def test_all_pictures_of_a_traced_video(run, tmp_path):
    pytest.importorskip("matplotlib")
    pytest.importorskip("sklearn")
    said = []
    asked = Asked("1", "swap", rows=("visage", "identity"), frames=(0, 3), out=tmp_path, say=said.append)
    names = [path.name for path in show(run, asked)]
    assert names[:3] == ["strip.png", "timeline-visage.png", "timeline-identity.png"]
    assert "similarities-visage-00003.png" in names
    assert "similarities-visage-00000.png" not in names  # there was nothing to compare with
    assert "embedding-visage-query.png" in names
    assert "embedding-visage-appearance.png" in names
    assert any(name.startswith("memory-visage-track-") for name in names)
    assert not any(name.startswith(("similarities-identity", "memory-identity")) for name in names)
    assert [line.partition(":")[0] for line in said if not line.endswith(".png")] == [
        "no similarities of identity",
        "no memory of identity",
    ]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names)


def test_figures_show_what_was_chosen_and_what_is_right(run):
    from vistk.viz.similarities import CHOSEN, TRUE

    split = run.split("swap")
    for video_id in split.video_ids:
        video = split.video(video_id)
        steps = trace(video, "minvis")
        for t in decisions.deciding_frames(video, "minvis"):
            figure = decisions.similarity_figure(video, "minvis", steps, t)
            gids = [patch.get_gid() for patch in figure.axes[0].patches]
            assert CHOSEN in gids
            if any(f.frame == t and f.change == "switch" for f in video.failures("minvis")):
                assert TRUE in gids, (video_id, t)


@pytest.mark.parametrize("row", ["minvis", "visage", "gated-memory"])
def test_figures_show_the_tracks_that_failed(run, row):
    shown = 0
    for split in map(run.split, run.splits):
        for video_id in split.video_ids:
            video = split.video(video_id)
            steps = trace(video, row) if video.failures(row) else []
            for failure in video.failures(row):
                for t in failure.frames:
                    figure = decisions.similarity_figure(video, row, steps, t)
                    names = [label.get_text().partition(",")[0] for label in figure.axes[0].get_yticklabels()]
                    assert {f"track {number}" for number in failure.track_ids} <= set(names), str(failure)
                    old = steps[t].chosen()[steps[t].own_numbers[failure.track_ids[0]]]
                    columns = [label.get_text() for label in figure.axes[0].get_xticklabels()]
                    instance = steps[t].truth_ids[old]
                    assert any(name == f"query {old}" or name.endswith(f" {instance}") for name in columns)
                    shown += failure.change != "start"
    assert shown


def test_memories_are_marked_where_their_track_failed(run, monkeypatch):
    video = run.split("swap").video(1)
    steps = trace(video, "visage")
    number = video.tracks("visage")[0].id
    planned = (
        Failure("switch: occlusion", 3, (1,), (number, number + 1), last_frame=0),
        Failure("start: merge", 6, (2,), (number,)),
        Failure("switch: split", 5, (2,), (number + 1, number + 2), last_frame=4),
    )
    monkeypatch.setattr(video, "failures", lambda row: planned)
    found = []
    monkeypatch.setattr(decisions, "memory_figure", lambda *_, marked, **__: found.extend(marked))
    decisions.memory_of_track(video, "visage", steps, number)
    assert found == [1, 3, 6]
    assert decisions.deciding_frames(video, "visage") == [1, 3, 5, 6]


def test_generated_data_that_are_gone_are_not_generated_again(make_run, tmp_path):
    run_dir = make_run("run", "data.eval_splits=[swap,reenter]")
    gone = tmp_path / "gone"
    message = f"{run_dir}: its data are not where they were ({{}} does not exist); say where they are: "
    with pytest.raises(InspectionError) as error:
        RunView(run_dir, (f"data.root={gone}",)).split("swap")
    assert str(error.value) == message.format(f"data folder {gone}") + "data.root=DIR"
    assert not gone.exists()
    shutil.copytree(run_dir.parent / "data/swap", gone / "swap")
    view = RunView(run_dir, (f"data.root={gone}",))
    assert len(view.split("swap").video(1)) == 8
    with pytest.raises(InspectionError) as error:
        view.split("reenter")
    assert str(error.value) == message.format(gone / "reenter/instances.json") + "data.root=DIR"
    assert [path.name for path in gone.iterdir()] == ["swap"]

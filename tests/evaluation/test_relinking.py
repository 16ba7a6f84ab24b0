"""The best links of masks to instances, against trying all of them."""

import ctypes
import itertools
import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vistk.evaluation import relinking
from vistk.evaluation.files import load_ground_truth, load_results
from vistk.evaluation.overlaps import video_overlaps
from vistk.evaluation.relinking import link

THRESHOLDS = np.arange(50, 100, 5) / 100


def overlaps_of(scene):
    ground_truth = load_ground_truth(scene.ground_truth)
    (video,) = video_overlaps(ground_truth, load_results(scene.results, ground_truth), all_pairs=True)
    return video


def one_video(new_scene, instances, tracks):
    """Tubes ``(T, H, W)``; every track is of another class than every instance."""
    scene = new_scene(*instances[0].shape)
    scene.video(0)
    scene.category(0, "cat")
    scene.category(1, "dog")
    for i, tube in enumerate(instances):
        scene.annotate(i, 0, 0, tube)
    for i, tube in enumerate(tracks):
        scene.predict(0, 1, 0.9 - i / 10, tube)
    return scene


def reached(instances, tracks, links):
    """How many thresholds the linked tubes reach, counted on pixels."""
    total = 0
    for g, instance in enumerate(instances):
        tube = np.zeros_like(instance)
        for t, d in enumerate(links[:, g].tolist()):
            if d >= 0:
                tube[t] = tracks[d][t]
        union = (tube | instance).sum()
        total += int(((tube & instance).sum() / union + 1e-9 >= THRESHOLDS).sum()) if union else 0
    return total


def all_links(num_frames, num_tracks, num_instances):
    frame = [
        choice
        for choice in itertools.product(range(-1, num_tracks), repeat=num_instances)
        if len({d for d in choice if d >= 0}) == sum(d >= 0 for d in choice)
    ]
    return (np.array(links) for links in itertools.product(frame, repeat=num_frames))


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 2**32 - 1), num_tracks=st.integers(0, 3), num_instances=st.integers(1, 2))
def test_no_links_reach_more(new_scene, seed, num_tracks, num_instances):
    rng = np.random.default_rng(seed)
    shape = (2, 3, 4)
    instances = [rng.random(shape) < 0.6 for _ in range(num_instances)]
    tracks = []
    for d in range(num_tracks):
        source = instances[rng.integers(num_instances)] | (instances[0] if d % 2 else False)
        tracks.append(source ^ (rng.random(shape) < 0.15))
    found = link(overlaps_of(one_video(new_scene, instances, tracks)), np.ones(num_instances, dtype=bool))
    most = max(reached(instances, tracks, links) for links in all_links(2, num_tracks, num_instances))
    assert found.proven
    assert reached(instances, tracks, found.prediction) == most
    for row in found.prediction.tolist():
        used = [d for d in row if d >= 0]
        assert len(set(used)) == len(used)


@pytest.fixture
def contested(new_scene):
    """Two instances and two masks, pixels of a frame in a row. The first mask shows the first instance by
    18/20 and the second by 12/18, the second mask by 11/20 and 5/18: the greatest sum is 12/18 + 11/20,
    which reaches 4 + 2 thresholds, but the first mask alone reaches 9 on the first instance.
    """

    def strip(first, end):
        return np.tile(np.isin(np.arange(24), np.arange(first, end)).reshape(1, 4, 6), (3, 1, 1))

    instances, tracks = [strip(0, 20), strip(6, 18)], [strip(0, 18), strip(0, 11)]
    return one_video(new_scene, instances, tracks), instances, tracks


def test_a_program_is_solved_where_masks_are_contested(contested, monkeypatch):
    scene, instances, tracks = contested
    overlaps, wanted = overlaps_of(scene), np.ones(2, dtype=bool)
    found = link(overlaps, wanted)
    assert found.proven
    assert found.prediction.tolist() == [[0, 1]] * 3
    assert reached(instances, tracks, found.prediction) == 9
    monkeypatch.setattr(relinking, "MOST_VARIABLES", 0)
    cheap = link(overlaps, wanted)
    assert not cheap.proven
    assert reached(instances, tracks, cheap.prediction) == 6


def test_instances_that_are_not_wanted_get_nothing(contested):
    scene, instances, tracks = contested
    found = link(overlaps_of(scene), np.array([False, True]))
    assert (found.prediction[:, 0] == -1).all()
    assert reached(instances[1:], tracks, found.prediction[:, 1:]) == 4
    assert (link(overlaps_of(scene), np.zeros(2, dtype=bool)).prediction == -1).all()


def test_a_mask_that_does_harm_is_left_out(new_scene):
    """Right in two frames, and in the third four times as large as its object."""
    instance, track = np.zeros((2, 3, 8, 8), dtype=bool)
    instance[:, :4, :4] = track[:2, :4, :4] = True
    track[2] = True
    scene = one_video(new_scene, [instance], [track])
    found = link(overlaps_of(scene), np.ones(1, dtype=bool))
    assert found.prediction[:, 0].tolist() == [0, 0, -1]  # 2/3 rather than 48/96


@pytest.mark.skipif(os.name != "posix", reason="libc by its handle")
def test_the_solver_prints_nothing(capfd):
    """The solver leaves a line for debugging in the buffer of C, which comes out whenever that is emptied."""
    libc = ctypes.CDLL(None)
    libc.puts(b"before")
    with relinking._c_output_dropped():
        libc.puts(b"from C")
    libc.puts(b"after")
    libc.fflush(None)
    assert capfd.readouterr().out == "before\nafter\n"


def test_output_comes_back_after_an_error(capfd):
    with pytest.raises(KeyError), relinking._c_output_dropped():
        raise KeyError
    os.write(1, b"here")
    assert capfd.readouterr().out == "here"

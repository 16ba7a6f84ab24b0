"""The published trackers, step by step: the same queries in, the same permutations out."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from vistk.structures import FrameQueries, TrackedFrame
from vistk.trackers.base import track_video
from vistk.trackers.minvis import MinVIS, MinVISConfig
from vistk.trackers.visage import VISAGE, VISAGEConfig

GOLDEN = Path(__file__).parents[1] / "golden"
SYNTHETIC = ["mild", "occlusion", "drift", "chaos", "single_frame"]
MODELS = ["r50_ytvis19", "r50_ytvis19_pad", "r50_ytvis19_robust"]
ATOL = {torch.float32: 1e-6}
SIZES = {"embed_dim": 8, "feature_channels": {"res3": 4, "res4": 4, "res5": 4}, "num_classes": 40}


def released(appearance_weight: float = 0.75, memory_frames: int = 5) -> VISAGE:
    config = VISAGEConfig(
        appearance_weight=appearance_weight, memory_frames=memory_frames, memory_weighting="released"
    )
    return VISAGE(config, **SIZES)  # type: ignore[arg-type]


def minvis() -> MinVIS:
    return MinVIS(MinVISConfig(), **SIZES)  # type: ignore[arg-type]


def frames_of(logits: np.ndarray, **vectors: np.ndarray) -> list[FrameQueries]:
    """Frames of ``(T, Q, ..)`` arrays."""
    return [
        FrameQueries(
            torch.from_numpy(logits[t]), {name: torch.from_numpy(v[t]) for name, v in vectors.items()}
        )
        for t in range(len(logits))
    ]


def permutations(tracked: list[TrackedFrame]) -> np.ndarray:
    assert all(torch.equal(t.track_ids, torch.arange(len(t.track_ids))) for t in tracked)
    return torch.stack([t.query_index for t in tracked]).numpy()


def assert_mean_logits(tracked: list[TrackedFrame], stored: np.ndarray) -> None:
    mean = torch.stack([t.logits for t in tracked]).mean(0)
    np.testing.assert_allclose(mean.numpy(), stored[0], rtol=0, atol=ATOL[torch.float32])


def synthetic_frames(name: str) -> tuple[dict[str, np.ndarray], list[FrameQueries]]:
    golden = dict(np.load(GOLDEN / f"tracker_synth/{name}.npz"))
    frames = frames_of(
        golden["pred_logits"], query=golden["reid_queries"], appearance=golden["appearance_queries"]
    )
    return golden, frames


@pytest.mark.parametrize("name", SYNTHETIC)
def test_visage_permutations_of_every_weight_and_memory(name: str) -> None:
    golden, frames = synthetic_frames(name)
    settings = [key for key in golden if key.startswith("visage_perms")]
    assert len(settings) == (1 if name == "single_frame" else 16)
    for key in settings:
        weight, memory = key.removeprefix("visage_perms_w").split("_bank")
        tracked = track_video(released(float(weight), int(memory)), frames)
        np.testing.assert_array_equal(permutations(tracked), golden[key], err_msg=key)


@pytest.mark.parametrize("name", SYNTHETIC)
def test_visage_logits_and_final_memory(name: str) -> None:
    golden, frames = synthetic_frames(name)
    tracker = released()
    state = tracker.start()
    tracked = [tracker.step(state, frame) for frame in frames]
    assert_mean_logits(tracked, golden["visage_out_logits"])

    filled = min(len(frames), 5)
    assert len(state.memory) == filled
    newest_first = [entry["query"] for entry in state.memory.vectors][::-1]
    np.testing.assert_array_equal(torch.stack(newest_first), golden["visage_final_bank"][:filled])
    scores = torch.stack(list(state.memory.scores)[::-1])
    np.testing.assert_allclose(scores, golden["visage_final_scores"][:filled], rtol=0, atol=1e-6)
    read = state.memory.read()["query"]
    np.testing.assert_allclose(read, golden["visage_final_get"], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", SYNTHETIC)
def test_minvis_synthetic(name: str) -> None:
    golden, frames = synthetic_frames(name)
    tracked = track_video(minvis(), frames)
    np.testing.assert_array_equal(permutations(tracked), golden["minvis_perms"])
    assert_mean_logits(tracked, golden["minvis_out_logits"])


def test_weights_of_the_memory_make_a_difference_where_tracking_is_hard() -> None:
    golden, frames = synthetic_frames("chaos")
    recent = VISAGE(VISAGEConfig(), **SIZES)  # type: ignore[arg-type]
    found = permutations(track_video(recent, frames))
    assert (found != golden["visage_perms_w0.75_bank5"]).any()


def model_frames(case: str, order: np.ndarray | None = None) -> tuple[list[FrameQueries], list[FrameQueries]]:
    """Frames for VISAGE and for MinVIS from the stored outputs of the published model."""
    outputs = {key: value[0] for key, value in np.load(GOLDEN / case / "outputs.npz").items()}  # (T, Q, ..)
    if order is not None:
        outputs = {
            key: np.take_along_axis(value, order[..., None].astype(np.int64), axis=1)
            for key, value in outputs.items()
        }
    return (
        frames_of(
            outputs["pred_logits"], query=outputs["reid_queries"], appearance=outputs["appearance_queries"]
        ),
        frames_of(outputs["pred_logits"], query=outputs["pred_embds"]),
    )


@pytest.mark.parametrize("case", MODELS)
def test_model_queries(case: str) -> None:
    for_visage, for_minvis = model_frames(case)
    for tracker, frames, stored in (
        (released(), for_visage, "tracker_visage"),
        (minvis(), for_minvis, "tracker_minvis"),
    ):
        golden = np.load(GOLDEN / case / f"{stored}.npz")
        tracked = track_video(tracker, frames)
        np.testing.assert_array_equal(permutations(tracked), golden["perms"], err_msg=stored)
        assert_mean_logits(tracked, golden["out_logits"])


@pytest.mark.parametrize("case", MODELS)
def test_shuffled_model_queries(case: str) -> None:
    golden = np.load(GOLDEN / case / "tracker_shuffled.npz")
    for_visage, for_minvis = model_frames(case, golden["order"])
    for tracker, frames, stored in ((released(), for_visage, "visage"), (minvis(), for_minvis, "minvis")):
        tracked = track_video(tracker, frames)
        np.testing.assert_array_equal(permutations(tracked), golden[f"{stored}_perms"], err_msg=stored)
        assert_mean_logits(tracked, golden[f"{stored}_out_logits"])


@pytest.mark.parametrize("case", MODELS)
def test_memory_that_each_model_frame_was_compared_with(case: str) -> None:
    golden = np.load(GOLDEN / case / "tracker_visage.npz")
    tracker = released()
    state = tracker.start()
    frames, _ = model_frames(case)
    tracker.step(state, frames[0])
    for t, frame in enumerate(frames[1:]):
        read: dict[str, Tensor] = state.memory.read()
        for name, stored in (("query", "bank_embd"), ("appearance", "bank_app")):
            np.testing.assert_allclose(read[name][::5], golden[stored][t], rtol=1e-6, atol=1e-6)
        tracker.step(state, frame)

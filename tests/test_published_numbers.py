"""A published checkpoint through the public door: the numbers of the published implementation."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from golden_weights import published_state

import vistk
from vistk.ops.masks import decode

CASES = ["r50_ytvis19", "r50_ytvis19_pad", "r50_ytvis19_robust"]


@pytest.fixture(scope="module")
def checkpoint() -> dict[str, Any]:
    """A file of the R50 model on YouTube-VIS 2019 as it would be read: official names, recipe's values."""
    return {"model": published_state("visage_r50_ytvis2019"), "iteration": 19999}


@pytest.fixture(scope="module")
def visage(checkpoint):
    return vistk.load_published(checkpoint, "visage-r50-ytvis2019")


@pytest.fixture(scope="module")
def minvis(checkpoint):
    return vistk.load_published(checkpoint, "minvis-r50-ytvis2019")


def frames_of(golden, case: str) -> torch.Tensor:
    return torch.from_numpy(np.load(golden / case / "inputs.npz")["images"])


@pytest.fixture(scope="module", params=CASES)
def outputs(request, visage, golden):
    """Name, what our model computes from the pixels, and the published numbers."""
    segmenter, tracker = visage
    with torch.inference_mode():
        out = segmenter(frames_of(golden, request.param)[None])
        vectors = tracker.describe(out).vectors
    ours = {
        "pred_logits": out.logits,
        "pred_embds": out.embeds,
        "reid_queries": vectors["query"],
        "appearance_queries": vectors["appearance"],
        "pred_masks": out.mask_logits.transpose(1, 2),
    }
    published = dict(np.load(golden / request.param / "outputs.npz"))
    published |= dict(np.load(golden / request.param / "masks.npz"))
    return request.param, {name: value.numpy() for name, value in ours.items()}, published


def test_network_outputs(outputs) -> None:
    case, ours, published = outputs
    for name, values in ours.items():
        assert values.shape == published[name].shape
        if case == "r50_ytvis19_robust":  # no attention bit is near its threshold
            np.testing.assert_allclose(values, published[name], atol=1e-4, rtol=0, err_msg=name)
        else:
            assert np.abs(values - published[name]).mean() < 1e-3, name


def test_masks_have_the_published_signs(outputs) -> None:
    _, ours, published = outputs
    bits = np.unpackbits(published["sign_bits"])[: ours["pred_masks"].size]
    assert (bits == (ours["pred_masks"] > 0).ravel()).mean() >= 0.999


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", ["visage", "minvis"])
def test_results_from_pixels_to_entries(request, golden, case, name) -> None:
    segmenter, tracker = request.getfixturevalue(name)
    height, width = np.load(golden / case / "inputs.npz")["out_size"].tolist()
    prediction = vistk.predict(segmenter, tracker, frames_of(golden, case), (height, width), video_id=7)
    entries = prediction.to_ytvis()
    published = json.loads((golden / case / f"result_{name}.json").read_text())
    # A track without a mask in any frame is no prediction in a results file.
    shown = [i for i, rles in enumerate(published["masks"]) if any(decode(rle).any() for rle in rles)]
    assert len(entries) == len(shown)
    assert sorted(e["category_id"] - 1 for e in entries) == sorted(published["labels"][i] for i in shown)
    left = set(shown)
    for entry in entries:
        assert set(entry) == {"video_id", "score", "category_id", "segmentations"}
        assert entry["video_id"] == 7
        ours = dense(entry["segmentations"], height, width)
        apart = {
            i: (ours != dense(published["masks"][i], height, width)).mean()
            for i in left
            if published["labels"][i] == entry["category_id"] - 1
            and abs(published["scores"][i] - entry["score"]) < 1e-4
        }
        assert apart, f"no published prediction of category {entry['category_id']} scores {entry['score']}"
        nearest = min(apart, key=lambda i: apart[i])
        assert apart[nearest] <= 1e-3
        left.remove(nearest)


def dense(rles, height: int, width: int) -> np.ndarray:
    """``(T, H, W)`` bool of the masks of a prediction."""
    return np.stack([np.zeros((height, width), bool) if rle is None else decode(rle) for rle in rles])

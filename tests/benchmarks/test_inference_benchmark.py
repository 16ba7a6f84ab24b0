"""The timing of inference, on the tiny segmenter: its gate, its baseline, its rows, its memory curve."""

from __future__ import annotations

import copy
import csv
import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))  # a folder of scripts, not a package

import inference  # noqa: E402
import inference_memory  # noqa: E402
import inference_parts  # noqa: E402
from inference_cases import Frames, build  # noqa: E402
from published_forms import PublishedForm, post_process, sampled_sum  # noqa: E402

from vistk.ops import ms_deform_attn  # noqa: E402
from vistk.ops.masks import decode, encode  # noqa: E402

SIZE, OUTPUT, KEEP = (60, 90), (75, 100), 8
PARTS = [
    "backbone",
    "pixel decoder",
    "deformable encoder",
    "transformer decoder",
    "decoder masks",
    "appearance",
    "post-processing",
    "post-processing, smooth masks",
    "whole",
]
WORDS = [
    *("--segmenter", "tiny", "--size", "60x90", "--output", "75x100"),
    *("--threads", "1", "--keep", str(KEEP)),
]


@pytest.fixture(scope="module")
def models():
    return build("tiny", torch.device("cpu"))


def wrong_parts(published, segmenter, tracker, per_pass=2):
    """Names of the parts whose gate refuses, and everything that the gates say."""
    with torch.inference_mode():
        frames = Frames(*SIZE).video(3)
        found = inference_parts.parts(published, segmenter, tracker, frames, OUTPUT, KEEP, per_pass)
        said = {part.name: inference_parts.gate(part) for part in found}
    assert list(said) == PARTS
    return {name for name, wrong in said.items() if wrong}, [
        line for wrong in said.values() for line in wrong
    ]


@pytest.mark.parametrize("per_pass", [1, 2, 3])
def test_both_forms_agree(models, per_pass) -> None:
    assert wrong_parts(PublishedForm(*models), *models, per_pass)[1] == []


@pytest.mark.parametrize(
    ("weight", "refused"),
    [
        ("backbone.body.layer1.0.conv1.weight", {"backbone"}),
        ("pixel_decoder.mask_features.weight", {"pixel decoder"}),
        (
            "pixel_decoder.transformer.encoder.layers.0.self_attn.sampling_offsets.bias",
            {"pixel decoder", "deformable encoder"},
        ),
        ("transformer_decoder.mask_embed.layers.2.weight", {"transformer decoder", "decoder masks"}),
        ("transformer_decoder.class_embed.bias", {"transformer decoder"}),
    ],
)
def test_a_changed_weight_is_refused(models, weight, refused) -> None:
    segmenter, tracker = models
    other = copy.deepcopy(segmenter)
    state = other.state_dict()
    state[weight].mul_(1.05)
    other.load_state_dict(state)
    found, said = wrong_parts(PublishedForm(segmenter, tracker), other, tracker)
    assert found - {"whole"} == refused
    assert all("allowed" in line or "expected" in line or "whole" in line for line in said)


def test_a_changed_appearance_is_refused(models) -> None:
    segmenter, tracker = models
    other = copy.deepcopy(tracker)
    state = other.state_dict()
    state["appearance_decoder.appearance_embd.layers.0.weight"].mul_(1.05)
    other.load_state_dict(state)
    found, _ = wrong_parts(PublishedForm(segmenter, tracker), segmenter, other)
    assert "appearance" in found
    assert not found & set(PARTS[:5])


@pytest.mark.parametrize("change", ["area", "probability"])
def test_changed_masks_are_refused(models, monkeypatch, change) -> None:
    real = inference_parts.finish_masks

    def changed(logits, size):
        done = real(logits - 0.05 if change == "area" else logits, size)
        return done if change == "area" else replace(done, probability_sum=done.probability_sum * 1.001)

    monkeypatch.setattr(inference_parts, "finish_masks", changed)
    assert wrong_parts(PublishedForm(*models), *models)[0] == {
        "post-processing",
        "post-processing, smooth masks",
    }


def test_other_tracks_labels_scores_and_areas_are_refused(models) -> None:
    with torch.inference_mode():
        kept = PublishedForm(*models).infer(Frames(*SIZE).video(2), OUTPUT, KEEP)
    assert inference_parts.tracklets_apart(kept, kept) == []
    first, *rest = kept
    (empty,) = encode(torch.zeros(1, *OUTPUT, dtype=torch.bool))
    for other in (
        replace(first, track_id=99),
        replace(first, label=(first.label + 1) % 40, track_id=99),
        replace(first, score=first.score + 2e-4),
        replace(first, segmentations=(empty, first.segmentations[1])),
    ):
        assert len(inference_parts.tracklets_apart(kept, (other, *rest))) == 1


def test_published_sampling_is_the_operator() -> None:
    shapes = ((3, 5), (6, 7))
    value = torch.randn(2, 57, 2, 4, dtype=torch.float64)
    locations = torch.rand(2, 11, 2, 2, 3, 2, dtype=torch.float64) * 1.4 - 0.2
    weights = torch.rand(2, 11, 2, 6, dtype=torch.float64)
    found = sampled_sum(value, shapes, locations, weights)
    expected = ms_deform_attn(value, shapes, locations, weights.unflatten(-1, (2, 3)), "reference")
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


def test_published_post_processing_by_hand() -> None:
    logits = torch.full((2, 1, 2, 2), -1.0)
    logits[1, 0] = 1.0  # query 1 marks everything
    rles, quality = post_process(logits, torch.tensor([1, 0, 1]), (4, 4), (3, 4), (6, 8))
    assert [int(decode(video[0]).sum()) for video in rles] == [48, 0, 48]
    assert quality.tolist() == pytest.approx([torch.tensor(1.0).sigmoid().item(), 0.0, 0.731059], abs=1e-6)


def test_rows_of_all_parts(tmp_path, capsys) -> None:
    out = tmp_path / "rows.csv"
    words = [*WORDS, "--frames", "2", "3", "--turns", "2", "--no-peaks", "--out", str(out)]
    assert inference.main(words) == 0
    with out.open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["frames"], row["part"]) for row in rows] == [(n, part) for n in "23" for part in PARTS]
    for row in rows:
        assert list(row) == inference.COLUMNS
        assert float(row["ours_s"]) >= float(row["ours_min_s"]) > 0
        assert float(row["published_s"]) >= float(row["published_min_s"]) > 0
        assert row["torch"] == torch.__version__
    assert "whole" in capsys.readouterr().out


def test_nothing_is_timed_where_results_are_wrong(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setitem(inference_parts.ALLOWED, "feature", 0.0)
    monkeypatch.setattr(inference, "timed", lambda *_: pytest.fail("timed"))
    out = tmp_path / "rows.csv"
    assert inference.main([*WORDS, "--frames", "2", "--no-peaks", "--out", str(out)]) == 1
    assert "not timed, results are wrong" in capsys.readouterr().out
    assert not out.exists()


@pytest.mark.parametrize("form", ["published", "ours"])
def test_a_peak_is_no_less_than_the_model(capsys, form) -> None:
    assert inference.main([*WORDS, "--frames", "2", "--peak", form]) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found["peak_mib"] >= found["model_mib"] > 100


def test_a_point_of_the_memory_curve(capsys) -> None:
    assert inference.main([*WORDS, "--frames", "21", "--window", "2", "--length"]) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert list(found) == inference_memory.COLUMNS[len(inference_memory.KEY) :]
    assert found["peak_mib"] >= found["model_mib"] > 100
    assert isinstance(found["retained_kib_per_frame"], float)
    assert 0 < found["rle_kib_per_mask"] < 10


def test_growth_is_the_slope_after_the_first_quarter() -> None:
    memory = [1000.0 * (t >= 5) + 0.1 * t for t in range(20)]
    assert inference_memory.growth(memory) == pytest.approx(102.4)
    assert inference_memory.growth(memory[:19]) == ""


def test_the_memory_curve_resumes(tmp_path, monkeypatch, capsys) -> None:
    ran = []

    def child(options, count, *words):
        ran.append((options.segmenter, count))
        if len(ran) == 3:
            raise RuntimeError("stopped")
        return dict.fromkeys(inference_memory.COLUMNS[len(inference_memory.KEY) :], count)

    monkeypatch.setattr(inference_memory, "_child", child)
    out = tmp_path / "memory.csv"
    words = ["--memory", "--threads", "1", "--out", str(out)]
    with pytest.raises(RuntimeError, match="stopped"):
        inference.main(words)
    assert inference.main(words) == 0
    assert inference.main(words) == 0
    lengths = [("small", 50), ("small", 200), ("small", 1000), ("r50", 10), ("r50", 50)]
    assert ran == [*lengths[:3], *lengths[2:]]
    with out.open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["segmenter"], int(row["frames"])) for row in rows] == lengths
    assert {row["size"] for row in rows} == {"720x1280"}
    assert "already" in capsys.readouterr().out


def test_another_table_is_not_overwritten(tmp_path) -> None:
    out = tmp_path / "memory.csv"
    out.write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match=r"memory\.csv: has the columns \['a', 'b'\], expected"):
        inference.main(["--memory", "--out", str(out)])
    assert out.read_text() == "a,b\n1,2\n"


@pytest.mark.parametrize("words", [["--size", "60"], ["--size", "0x9"], ["--turns", "0"], ["--frames", "-1"]])
def test_bad_words_are_refused(words, capsys) -> None:
    with pytest.raises(SystemExit):
        inference.main(words)
    assert "expected" in capsys.readouterr().err


def test_generated_frames_move() -> None:
    frames = Frames(37, 53)
    assert torch.equal(frames(4), Frames(37, 53)(4))
    assert frames.video(2).shape == (2, 3, 37, 53)
    assert (frames(0) != frames(1)).float().mean() > 0.2

"""Experiments that store queries and experiments that read them: the same numbers, or one sentence."""

from __future__ import annotations

import json
import shutil

import pytest
import torch

from vistk.config import compose, config_hash
from vistk.models.checkpoints import load_weights, save_weights

WORDS = (
    *("tracker=visage", "data.num_train=4", "data.num_val=2", "data.frames=8", "data.num_workers=0"),
    *("data.eval_splits=[track,reenter]", "train.steps=1", "train.batch_size=1", "train.num_frames=2"),
    "evaluation.rows=[mask-iou,minvis,visage-no-memory,oracle]",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("cached")


@pytest.fixture
def evaluate(folder, run_experiment):
    """Runs an evaluation of the weights in ``folder``, named after its words."""

    def call(name, *words):
        if not (folder / "trained" / "weights.safetensors").exists():
            run_dir = f"run_dir={folder / 'trained'}"
            code, _, err = run_experiment(*WORDS, f"data.root={folder / 'data'}", run_dir)
            assert code == 0, err
        weights = folder / "trained" / "weights.safetensors"
        given = (f"data.root={folder / 'data'}", f"weights={weights}", f"cache.dir={folder / 'cache'}")
        run_dir = f"run_dir={folder / name}"
        return run_experiment(*WORDS, *given, run_dir, "eval_only=true", "resume=false", *words)

    return call


def results(folder, name):
    paths = sorted((folder / name / "rows").glob("*/*/results.json"))
    return {str(path.relative_to(folder / name)): path.read_text() for path in paths}


def card(folder, name):
    return json.loads((folder / name / "metrics.json").read_text())["card"]


def shards(folder):
    return {path: path.stat().st_mtime_ns for path in (folder / "cache").rglob("*.safetensors")}


def test_a_run_from_the_cache_has_the_results_of_a_live_one(folder, evaluate):
    shutil.rmtree(folder / "cache", ignore_errors=True)
    for name, words in {"live": (), "written": ("cache=write",), "read": ("cache=read",)}.items():
        code, out, err = evaluate(name, *words)
        assert code == 0, err
        if name == "written":
            assert "reading the queries of 0 of 2 videos of track from cache" in out
            assert "segmenting and storing 2" in out
            before = shards(folder)
            assert len(before) == 2 * 2 * 3  # splits, videos, parts
    assert "reading the queries of 2 of 2 videos of reenter from cache" in out
    assert "storing" not in out
    assert shards(folder) == before
    live = results(folder, "live")
    assert len(live) == 5 * 2
    assert results(folder, "written") == live
    assert results(folder, "read") == live
    assert card(folder, "live")["frames/s"].endswith("(segmenter and visage)")
    assert card(folder, "written")["frames/s"].endswith("(segmenter and visage)")
    assert card(folder, "read")["frames/s"].endswith("(visage, 100 % of the queries from a cache)")
    assert card(folder, "read")["config hash"] == card(folder, "live")["config hash"]


def test_what_is_missing_is_filled_in(folder, evaluate):
    code, _, err = evaluate("filled", "cache=auto")
    assert code == 0, err
    before = shards(folder)
    gone = sorted(before)[0]
    gone.unlink()
    code, out, err = evaluate("filled", "cache=auto")
    assert code == 0, err
    assert "reading the queries of 1 of 2 videos of" in out
    after = shards(folder)
    assert {path for path in after if after[path] != before[path]} == {gone}
    assert results(folder, "filled") == results(folder, "trained")


def test_float16_says_what_it_changes(folder, evaluate):
    code, out, err = evaluate("half", "cache=write", "cache.dtype=float16")
    assert code == 0, err
    said = [line for line in out.splitlines() if line.startswith("float16 against live on video ")]
    assert len(said) == 2  # splits
    assert all("which changed most" in line and "scores differ by up to" in line for line in said)
    assert card(folder, "half")["queries stored as"] == "float16"
    _, again, _ = evaluate("half again", "cache=read", "cache.dtype=float16")
    assert "against live" not in again
    assert results(folder, "half again") == results(folder, "half")


def test_reading_what_is_not_there(folder, evaluate, tmp_path):
    code, _, err = evaluate("nothing", "cache=read", f"cache.dir={tmp_path / 'none'}")
    assert code == 2
    assert err.strip() == (
        f"error: cache=read, but {tmp_path / 'none'} holds no queries; "
        "cache=auto segments and stores the videos"
    )


def test_wrong_weights_are_refused(folder, evaluate, tmp_path):
    assert evaluate("right", "cache=auto")[0] == 0
    state, facts = load_weights(folder / "trained" / "weights.safetensors")
    changes = {
        "segmenter.transformer_decoder.query_feat.weight": r"are of another kind: weights of the segmenter (",
        "tracker.appearance_decoder": "has the parts masks, query, visage-",
    }
    for name, said in changes.items():
        (key,) = [key for key in state if key.startswith(name) and state[key].ndim > 1][:1]
        other = {**state, key: state[key] + torch.full_like(state[key], 1e-3)}
        save_weights(tmp_path / "other.safetensors", other, facts)
        code, _, err = evaluate("wrong", "cache=read", f"weights={tmp_path / 'other.safetensors'}")
        assert code == 2
        assert said in err
        assert err.count("\n") <= 2


def test_a_budget_that_is_too_small(folder, evaluate, tmp_path):
    small = (f"cache.dir={tmp_path}", "cache.max_gb=1e-6")
    code, _, err = evaluate("small", "cache=write", *small)
    assert code == 2
    assert "would take about" in err
    code, out, err = evaluate("small", "cache=auto", *small)
    assert code == 0, err
    assert out.count("is segmented, and not stored") == 2
    assert results(folder, "small") == results(folder, "trained")


def test_where_queries_lie_does_not_name_a_run():
    plain = compose(["tracker=visage"])
    for words in (["cache=auto"], ["cache=read", "cache.dir=elsewhere", "cache.max_gb=3"]):
        cached = compose(["tracker=visage", *words])
        assert cached.run_dir == plain.run_dir
        assert config_hash(cached.config) == config_hash(plain.config)
    half = compose(["tracker=visage", "cache=auto", "cache.dtype=float16"])
    assert half.run_dir != plain.run_dir
    assert config_hash(half.config) != config_hash(plain.config)

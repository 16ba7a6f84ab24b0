"""``vistk weights``: what it prints, and its exit codes."""

from __future__ import annotations

import argparse
import json
import math

import pytest
import torch
from golden_weights import GOLDEN, published_state

from vistk.models.checkpoints import save_weights
from vistk.weights_commands import add_arguments, inspect, run


@pytest.fixture(scope="module")
def official(tmp_path_factory):
    path = tmp_path_factory.mktemp("official") / "model_final.pth"
    torch.save({"model": published_state("visage_r50_ytvis2019"), "iteration": 19999}, path)
    return path


def weights(*words) -> int:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return run(parser.parse_args([str(word) for word in words]))


def test_inspect_an_official_file(official, capsys):
    assert weights("inspect", official) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == str(official)
    names = json.loads((GOLDEN / "names" / "visage_r50_ytvis2019_state_dict.json").read_text())
    numbers = sum(math.prod(shape) for name, shape, _ in names if name != "criterion.empty_weight")
    assert dict(line.split(maxsplit=1) for line in lines[1:8]) == {
        "format": "PyTorch",
        "entries": "581",
        "numbers": f"{numbers:,}",
        "types": "float32 (581)",
        "holds": "a VISAGE with ResNet-50, 100 queries and 40 classes",
        "names": "Detectron2",
        "segmenter": "segmenter=r50",
    }
    assert lines[8].split() == [
        "presets",
        "visage-r50-ytvis2019,",
        "visage-r50-ytvis2021,",
        "visage-r50-ytvis2022,",
        "minvis-r50-ytvis2019,",
        "minvis-r50-ytvis2021,",
        "minvis-r50-ytvis2022",
    ]
    assert lines[9].split() == ["says", "iteration", "19999"]


def test_inspect_what_is_not_known(tmp_path):
    torch.save({"stem.weight": torch.ones(2, 3), "stem.bias": torch.ones(2).half()}, tmp_path / "w.pth")
    text = inspect(tmp_path / "w.pth")
    assert "holds    names that are not known here: stem.weight, stem.bias" in text
    assert "types    float32 (1), float16 (1)" in text
    assert "numbers  8" in text
    assert "presets" not in text


def test_inspect_a_run(tmp_path):
    state = {"segmenter.transformer_decoder.query_feat.weight": torch.ones(10, 64)}
    save_weights(tmp_path / "weights.safetensors", state, {"words": ["x" * 200], "tracker": "visage"})
    text = inspect(tmp_path)
    assert "a Mask2Former of width 64 with another backbone, 10 queries and no classes" in text
    assert "segmenter     no option of segmenter= fits" in text
    assert "presets       none fits" in text
    assert "says tracker  visage" in text
    assert max(map(len, text.splitlines()[1:])) < 130


def test_convert(official, tmp_path, capsys):
    target = tmp_path / "w.safetensors"
    assert weights("convert", official, target, "--preset", "visage-r50-ytvis2019") == 0
    out = capsys.readouterr().out
    assert out.startswith(
        f"{official}: a VISAGE with ResNet-50, 100 queries and 40 classes, in the names of Det"
    )
    assert out.endswith(f"written: {target}\n")
    assert "presets          visage-r50-ytvis2019, minvis-r50-ytvis2019\n" in inspect(target)
    assert "says preset      visage-r50-ytvis2019" in inspect(target)
    assert weights("convert", target, tmp_path / "w.pkl", "--preset", "minvis-r50-ytvis2019") == 0
    assert "left out, the tracker has no heads: 24" in capsys.readouterr().out
    assert "minvis-r50-ytvis2019" in inspect(tmp_path / "w.pkl")
    assert "visage" not in inspect(tmp_path / "w.pkl").partition("\n")[2]


def test_a_preset_must_be_named(official, tmp_path, capsys):
    with pytest.raises(SystemExit) as caught:
        weights("convert", official, tmp_path / "w.safetensors")
    assert caught.value.code == 2
    assert "--preset" in capsys.readouterr().err

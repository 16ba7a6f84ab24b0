"""Rows of benchmarks: their card, and the file."""

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))  # a folder of scripts, not a package

import ms_deform_attn
import precision
import training
from rows import CARD, card, write_rows


def test_rows_are_written_with_their_card(tmp_path):
    told = card("cpu")
    assert tuple(told) == CARD
    assert told["torch"] == torch.__version__
    assert told["device"]
    path = tmp_path / "deep" / "rows.csv"
    assert write_rows(path, [*CARD, "a", "b"], [told | {"a": 1.5}]) == path.read_text()
    header, row = path.read_text().splitlines()
    assert header == "device,torch,commit,a,b"
    assert row.endswith(",1.5,")
    with pytest.raises(ValueError, match="'c'"):
        write_rows(path, ["a"], [{"c": 1}])
    assert path.read_text().startswith(header)


@pytest.mark.parametrize("script", [ms_deform_attn, precision, training])
def test_scripts_say_where_they_ran(script):
    assert set(CARD) <= set(script.COLUMNS)

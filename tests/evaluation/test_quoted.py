"""The published numbers: what they are of, where they stand."""

import numpy as np
import pytest

from vistk.data.categories import OVIS, YTVIS2019
from vistk.evaluation.files import EvaluationFileError, load_ground_truth
from vistk.evaluation.number_table import COLUMNS
from vistk.evaluation.quoted import METRICS, data_sets, quoted, recognised


def truth_with(categories):
    entries = [{"id": key, "name": name} for key, name in categories.items()]
    return load_ground_truth({"videos": [], "categories": entries, "annotations": []})


@pytest.mark.parametrize("data", data_sets())
def test_every_row_has_a_source_and_fractions(data):
    frame = quoted(data, shown_as=("x", "y"))
    assert list(frame.columns) == list(COLUMNS)
    assert frame["source"].str.fullmatch(r".+ \(arXiv \d{4}\.\d{5}\)").all()
    assert frame["value"].between(0.05, 0.95).all()
    assert set(frame["metric"]) <= set(METRICS)
    assert (frame["data_set"] == "x").all()
    assert (frame["split"] == "y").all()
    assert not frame.duplicated(["results", "metric"]).any()
    wide = frame.pivot_table(index="results", columns="metric", values="value")
    if "AP50" in wide:
        ordered = wide.dropna(subset=["AP50", "AP75"])
        assert (ordered["AP50"] > ordered["AP"]).all()


def test_known_numbers():
    frame = quoted("ytvis2019", shown_as=("ytvis2019", "valid"))
    visage = frame[frame["results"] == "VISAGE, R50, online"].set_index("metric")["value"]
    np.testing.assert_allclose(visage[list(METRICS)], [0.551, 0.781, 0.606, 0.510, 0.623])
    frame = quoted("ovis", shown_as=("ovis", "valid")).set_index(["results", "metric"])["value"]
    assert frame["DVIS-DAQ, ViT-Adapter-L (DINOv2), offline", "AP50"] == pytest.approx(0.838)
    assert frame["GenVIS, Swin-L, semi-online", "AR10"] == pytest.approx(0.49)
    assert frame["CTVIS, Swin-L, online", "AR1"] == pytest.approx(0.191)


def test_recognised_by_categories():
    assert recognised(truth_with(OVIS)) == "ovis"
    assert recognised(truth_with({key: name.upper() for key, name in YTVIS2019.items()})) == "ytvis2019"
    assert recognised(truth_with({0: "cat"})) is None


def test_unknown_data_set():
    with pytest.raises(EvaluationFileError, match="no published numbers of 'coco', expected one of"):
        quoted("coco", shown_as=("x", "y"))

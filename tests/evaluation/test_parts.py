"""Two parts scored apart: their numbers are those of separate evaluations, and no video is lost."""

import json

import pytest

from vistk.evaluation.files import EvaluationFileError
from vistk.evaluation.parts import evaluate_parts, find_parts
from vistk.evaluation.scores import score

SHORT, LONG = (0, 1, 3), (2, 4)


def part_of(content, video_ids):
    return content | {
        "videos": [v for v in content["videos"] if v["id"] in video_ids],
        "annotations": [a for a in content["annotations"] if a["video_id"] in video_ids],
    }


@pytest.fixture
def random_scene(make_random_scene):
    return make_random_scene(7)


@pytest.fixture
def parts(random_scene):
    truth = random_scene.ground_truth
    return {"S": part_of(truth, SHORT), "L": part_of(truth, LONG)}


def test_parts_are_scored_as_if_alone(random_scene, parts):
    found = evaluate_parts(random_scene.ground_truth, parts, random_scene.results, score_threshold=0.4)
    for suffix, ids in (("S", SHORT), ("L", LONG)):
        own = [entry for entry in random_scene.results if entry["video_id"] in ids]
        alone = score(parts[suffix], own, score_threshold=0.4).metrics
        assert {name: found[f"{name}_{suffix}"] for name in alone} == alone
    for name in ("AP", "AP50", "AP75", "AR1", "AR10", "AssA"):
        assert found[name] == pytest.approx((found[f"{name}_S"] + found[f"{name}_L"]) / 2, abs=1e-15)
        assert found[f"{name}_S"] != found[f"{name}_L"]
    assert found["AP"] != pytest.approx(score(random_scene.ground_truth, random_scene.results).metrics["AP"])
    assert evaluate_parts(None, parts, random_scene.results, score_threshold=0.4) == found


def test_means_by_hand(scene):
    """Video 0 is predicted exactly; in video 1 the cat is missed, so 0 and 1 over two classes."""
    results = [e for e in scene.results if (e["video_id"], e["category_id"]) != (1, 0)]
    parts = {"S": part_of(scene.ground_truth, {0}), "L": part_of(scene.ground_truth, {1})}
    found = evaluate_parts(scene.ground_truth, parts, results)
    for name in ("AP", "AP50", "AP75", "AR1", "AR10"):
        assert (found[f"{name}_S"], found[f"{name}_L"], found[name]) == pytest.approx((1.0, 0.5, 0.75))
    assert found["APm"] is found["APm_S"] is None  # no object is that large


def test_a_number_that_one_part_lacks_has_no_mean(scene):
    large = scene.ground_truth["annotations"][-1]
    large["areas"] = [None, 200**2, 200**2]
    parts = {"S": part_of(scene.ground_truth, {0}), "L": part_of(scene.ground_truth, {1})}
    found = evaluate_parts(None, parts, scene.results)
    assert found["APm_L"] is not None
    assert found["APm_S"] is found["APm"] is None


def test_occlusion_in_one_part_only_is_left_out(scene):
    scene.ground_truth["annotations"][-1]["occlusion"] = ["no_occlusion"] * 3
    parts = {"S": part_of(scene.ground_truth, {0}), "L": part_of(scene.ground_truth, {1})}
    assert not [name for name in evaluate_parts(None, parts, scene.results) if name.startswith("APso")]


def test_every_video_is_in_one_part(random_scene, parts, tmp_path):
    whole, results = random_scene.ground_truth, random_scene.results
    both = {"S": part_of(whole, (0, 1, 2, 3)), "L": parts["L"]}
    with pytest.raises(
        EvaluationFileError, match=r"video 2 is in another part too, expected every video in one"
    ):
        evaluate_parts(whole, both, results)
    neither = {"S": part_of(whole, (3,)), "L": parts["L"]}
    path = tmp_path / "gt.json"
    path.write_text(json.dumps(whole))
    with pytest.raises(
        EvaluationFileError, match=r"gt.json: 2 videos \(the first: 0\) are in no part, expected"
    ):
        evaluate_parts(path, neither, results)
    with pytest.raises(EvaluationFileError, match="2 of 5 video ids are unknown"):  # without the whole file
        evaluate_parts(None, neither, results)
    with pytest.raises(
        EvaluationFileError, match="video 4 is not in ground truth, expected its videos alone"
    ):
        evaluate_parts(part_of(whole, (0, 1, 2, 3)), parts, [])
    renamed = parts["L"] | {"categories": [*whole["categories"][:-1], {"id": 83, "name": "other"}]}
    renamed["annotations"] = [a for a in renamed["annotations"] if a["category_id"] != 2]
    with pytest.raises(
        EvaluationFileError, match="have different categories, expected the same in all parts"
    ):
        evaluate_parts(None, parts | {"L": renamed}, [])


@pytest.mark.parametrize(
    ("split_file", "stem"),
    [
        ("valid.json", "gt"),
        ("valid.json", "valid"),
        ("valid.json", "valid/gt"),
        ("valid/instances.json", "valid/gt"),
        ("valid/instances.json", "valid/valid"),
        ("valid/instances.json", "valid/instances"),
        ("valid/instances.json", "gt"),
    ],
)
def test_parts_beside_the_ground_truth(tmp_path, split_file, stem):
    (tmp_path / "valid").mkdir()
    (tmp_path / split_file).write_text("{}")
    assert find_parts(tmp_path / split_file) == {}
    paths = {key: tmp_path / f"{stem}_{word}.json" for key, word in (("S", "short"), ("L", "long"))}
    paths["S"].write_text("{}")
    with pytest.raises(FileNotFoundError, match=r"_short.json is there but .*_long.json is not"):
        find_parts(tmp_path / split_file)
    paths["L"].write_text("{}")
    assert find_parts(tmp_path / split_file) == paths
    assert find_parts(paths["L"]) == {}  # a part, asked for alone


def test_parts_in_published_files(tmp_path, random_scene, parts):
    """From what lies on disk to the numbers."""
    (tmp_path / "valid").mkdir()
    hidden = {k: v for k, v in random_scene.ground_truth.items() if k != "annotations"}
    files = {
        "instances": hidden,
        "gt": random_scene.ground_truth,
        "gt_short": parts["S"],
        "gt_long": parts["L"],
    }
    for name, content in files.items():
        (tmp_path / "valid" / f"{name}.json").write_text(json.dumps(content))
    found = find_parts(tmp_path / "valid" / "instances.json")
    metrics = evaluate_parts(tmp_path / "valid" / "gt.json", found, random_scene.results)
    assert metrics == evaluate_parts(None, parts, random_scene.results)

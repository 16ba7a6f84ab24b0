"""The study over runs that a stub makes: nothing is trained."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from vistk.config import Composed, compose, save
from vistk.data.config import SyntheticConfig
from vistk.data.sprites import CLASSES
from vistk.data.synthetic import ensure
from vistk.data.ytvis import YTVIS, DataError
from vistk.engine.video_tracker import EvalConfig
from vistk.models.checkpoints import CheckpointError, save_weights
from vistk.models.segmenter import Segmenter
from vistk.ops.masks import encode
from vistk.schema import ConfigError
from vistk.structures import FrameOutput, InstanceAnnotation, VideoRecord
from vistk.trackers.minvis import MinVIS, MinVISConfig
from vistk.trackers.visage import VISAGE

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
sys.path.insert(0, str(EXPERIMENTS))  # scripts, not a package

import study  # noqa: E402
import study_findings  # noqa: E402
import study_report  # noqa: E402

SPLITS = ("static", "track", "swap", "reenter")
ROWS = ("identity", "minvis", "visage", "oracle")
# AP in the stub's metrics.json: hand-made, and not those of its results.json.
AP = {"identity": 0.1, "minvis": 0.2, "visage": 0.4, "oracle": 0.7}
PROBES = {
    "embedding": {"position": 0.7, "colour given class": -3.0},
    "slot": {"position": 0.25, "colour given class": float("nan")},
}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("study") / "synthetic"
    config = SyntheticConfig(root=str(folder), num_val=2, frames=8)
    ensure(config, SPLITS, progress=False)
    return folder


@pytest.fixture
def words(root: Path) -> list[str]:
    return [f"data.root={root}", "data.num_val=2", "data.frames=8", f"evaluation.rows=[{','.join(ROWS)}]"]


def truth_as_results(root: Path, split: str) -> list[dict[str, Any]]:
    content = json.loads((root / split / "instances.json").read_text())
    return [
        {key: a[key] for key in ("video_id", "category_id", "segmentations")} | {"score": 1.0}
        for a in content["annotations"]
    ]


class Stub:
    """In the place of a child process: VISAGE is right everywhere, MinVIS finds nothing on swap, reenter."""

    def __init__(self, fail: Sequence[str] = ()) -> None:
        self.commands: list[list[str]] = []
        self.fail = fail

    def __call__(self, command: Sequence[str]) -> int:
        self.commands.append(list(command))
        said = command[command.index(str(study.RUN)) + 1 :]
        if any(word in said for word in self.fail):
            return 3
        composed = compose(said)
        run_dir, seed = composed.run_dir, composed.config.seed
        save(composed)
        for row in ("minvis", "visage"):
            for split in SPLITS:
                wrong = row == "minvis" and split in ("swap", "reenter")
                results = [] if wrong else truth_as_results(Path(composed.config.data.root), split)
                path = run_dir / "rows" / row / split / "results.json"
                path.parent.mkdir(parents=True)
                path.write_text(json.dumps(results))
        metrics = {
            row: {
                split: {
                    "AP": AP[row] + 0.1 * seed,
                    "AssA": 0.5,
                    "IDF1": None,
                    "identity_permutations": 0.25 * (seed + (row == "minvis")),
                }
                for split in SPLITS
            }
            for row in ROWS
        }
        card = {"commit": "abc", "weights hash": f"w{seed}", "command": "x"}
        (run_dir / "metrics.json").write_text(json.dumps({"rows": metrics, "card": card}))
        return 0


def probes(composed: Composed) -> Mapping[str, Mapping[str, float]]:
    assert (composed.run_dir / "metrics.json").is_file()
    return PROBES


def test_commands_of_the_children(tmp_path: Path, words: list[str]) -> None:
    out = tmp_path / "with, comma"
    cells = study.plan({"twins": "default", "no-twins": "a b.safetensors"}, [0, 2], out, words)
    assert [(c.name, c.seed) for c in cells] == [("twins", 0), ("twins", 2), ("no-twins", 0), ("no-twins", 2)]
    last = cells[-1]
    assert last.command[:2] == [sys.executable, str(study.RUN)]
    assert last.command[2:] == [
        "tracker=visage",
        "seed=2",
        'weights="a b.safetensors"',
        f'run_dir="{out}/no-twins/seed2"',
        *words,
    ]
    assert last.run_dir == out / "no-twins" / "seed2"
    assert last.composed.config.weights == "a b.safetensors"
    assert not out.exists()


def test_a_study(tmp_path: Path, root: Path, words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    control = tmp_path / "control.safetensors"
    control.touch()
    stub, out = Stub(), tmp_path / "out"
    said = [*words, "--seeds", "0", "1", "--weights", "twins=default", f"no-twins={control}"]
    said += ["--out", str(out)]
    assert study.main(said, stub, probes) == 0
    assert len(stub.commands) == 4
    assert "[4/4] no-twins, seed 1: runs in" in capsys.readouterr().out

    content = json.loads((out / "study.json").read_text())
    twins = content["sets"]["twins"]
    assert content["failed"] == []
    assert twins["seeds"] == [0, 1]
    assert [run["visage"]["swap"]["AP"] for run in twins["runs"]] == [0.4, 0.5]
    # The differences come from the results files: 0 on static and track, 1 on swap and reenter.
    difference = twins["visage - minvis"]["AP"]
    assert difference["track"] == {"value": 0, "low": 0, "high": 0}
    assert difference["swap"] == pytest.approx({"value": 1, "low": 1, "high": 1})
    assert difference["hard - easy"] == pytest.approx({"value": 1, "low": 1, "high": 1})
    assert twins["probes"][1]["slot"] == {"position": 0.25, "colour given class": None}
    assert twins["card"]["weights hash"] == "w0, w1"
    holds = {check["what"]: (check["found"], check["holds"]) for check in content["checks"]}
    assert holds["twins: oracle AP on track is at least 60"] == ("75.0", True)
    assert holds["twins: identity AP on swap is below 20"] == ("15.0", True)
    assert holds["no-twins: VISAGE - MinVIS on swap is within 1 AP"] == ("100.0", False)

    text = (out / "study.md").read_text()
    assert text.startswith("```bash\npython experiments/study.py ")
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()]
    assert ["visage", *["45.0 ± 7.1", "50.0 ± 0.0", "-"] * 4] in lines
    assert ["twins", "AP", *["0.0 [0.0, 0.0]"] * 2, *["100.0 [100.0, 100.0]"] * 3] in lines
    assert ["twins", "minvis", *["37.5"] * 4] in lines  # mean of 25 and 50 %
    assert ["no-twins", "embedding", "0.70", "-1.00"] in lines
    assert ["no-twins", "slot", "0.25", "-"] in lines
    table = json.loads((out / "no-twins" / "table.json").read_text())
    assert table["rows"]["oracle"]["reenter"]["AP"] == pytest.approx(0.75)
    assert table["card"]["seeds"] == "0, 1"


def test_finished_runs_are_kept(tmp_path: Path, words: list[str]) -> None:
    said = [*words, "--out", str(tmp_path), "--seeds"]
    assert study.main([*said, "0"], Stub(), probes) == 0
    again = Stub()
    assert study.main([*said, "0", "1", "0"], again, probes) == 0
    assert [c[3] for c in again.commands] == ["seed=1"]


def test_it_goes_on_after_a_failed_run(
    tmp_path: Path, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    stub = Stub(fail=["seed=1"])
    assert study.main([*words, "--out", str(tmp_path), "--seeds", "0", "1", "2"], stub, probes) == 1
    assert len(stub.commands) == 3
    sentence = f"twins, seed 1, in {tmp_path / 'twins' / 'seed1'}: exit code 3, no result"
    assert f"failed: {sentence}" in capsys.readouterr().err
    content = json.loads((tmp_path / "study.json").read_text())
    assert content["failed"] == [sentence]
    assert content["sets"]["twins"]["seeds"] == [0, 2]
    assert f"Missing: {sentence}." in (tmp_path / "study.md").read_text()


def test_without_any_result_nothing_is_written(tmp_path: Path, words: list[str]) -> None:
    # A child that ends well and leaves no metrics has failed as well.
    assert study.main([*words, "--out", str(tmp_path / "out")], lambda command: 0, probes) == 1
    assert not (tmp_path / "out").exists()


def test_an_interrupt_goes_through(tmp_path: Path, words: list[str]) -> None:
    def interrupted(command: Sequence[str]) -> int:
        raise KeyboardInterrupt

    assert study.main([*words, "--out", str(tmp_path)], interrupted, probes) == 130


def test_a_child_hands_back_its_exit_code() -> None:
    assert study.launch([sys.executable, "-c", "raise SystemExit(5)"]) == 5


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        (["--weights", "default"], r"--weights: found 'default', expected NAME=FILE or NAME=default"),
        (["--weights", "a=default", "train.steps=3"], r"found 'train\.steps=3'.*before the options"),
        (["--weights", "a=default", "a=default"], r"a is named twice"),
        (["--weights", "a=none.safetensors"], r"there is no file none\.safetensors"),
        (["seed=3"], r"cannot use 'seed=3': the study says seed= itself"),
        (["run_dir=x"], r"cannot use 'run_dir=x'"),
        (["train.stepz=3"], r"stepz"),
        (["data.eval_splits=[static]"], r"eval_splits=\['static'\]; expected data=synthetic with static, "),
        (["data=ytvis"], r"data=ytvis with .* expected data=synthetic"),
        (["evaluation.rows=[minvis]"], r"evaluation\.rows is \['minvis'\], expected identity, "),
    ],
)
def test_bad_input_is_one_sentence(
    said: list[str], sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stub = Stub()
    words = [word for word in said if not said[0].startswith("--")]
    options = [] if words else said
    assert study.main([*words, "--out", str(tmp_path / "out"), *options], stub, probes) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert re.search(sentence, error)
    assert not stub.commands


def test_runs_of_other_words_are_refused(
    tmp_path: Path, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert study.main([*words, "--out", str(tmp_path), "--seeds", "0"], Stub(), probes) == 0
    assert study.main([*words, "train.steps=7", "--out", str(tmp_path), "--seeds", "0"], Stub(), probes) == 2
    assert "holds another configuration: train.steps is 1000 there and 7 here" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("{", "is not what experiments/run.py writes"),
        ('{"rows": [1]}', "is not what experiments/run.py writes"),
        ('{"rows": {"identity": {"swap": {}}}}', "row identity has the splits swap, expected static, track"),
    ],
)
def test_broken_metrics_are_named(tmp_path: Path, words: list[str], content: str, sentence: str) -> None:
    run = compose([*words, f"run_dir={tmp_path}"])
    (tmp_path / "metrics.json").write_text(content)
    with pytest.raises(DataError, match=rf"{tmp_path}/metrics.json.*{sentence}"):
        study_findings.collect("default", {0: run}, probes)


def test_seeds_are_averaged_before_percentiles(monkeypatch: pytest.MonkeyPatch) -> None:
    # Two seeds whose resampled differences cancel: their mean does not vary, though each of them does.
    draws_seen: list[np.ndarray] = []

    def resampled(report: Any, draws: np.ndarray) -> dict[str, np.ndarray]:
        draws_seen.append(draws)
        return dict.fromkeys(study_findings.METRICS, 0.25 * abs(report.sign) + report.sign * draws[:, 0])

    zero, plus, minus = (
        SimpleNamespace(sign=sign, ground_truth=SimpleNamespace(videos=range(5))) for sign in (0, 1, -1)
    )

    monkeypatch.setattr(study_findings, "resampled_metrics", resampled)
    pairs: Any = [(zero, plus), (zero, minus)]
    found = study_findings.difference_intervals(dict.fromkeys(SPLITS, pairs), resamples=50)
    interval = found["AssA"]["swap"]
    assert (interval.value, interval.low, interval.high) == pytest.approx((0.25, 0.25, 0.25))
    one: Any = [(zero, plus)]
    alone = study_findings.difference_intervals(dict.fromkeys(SPLITS, one), resamples=50)["AP"]
    assert alone["swap"].low < alone["swap"].high
    assert alone["hard - easy"].value == 0
    same = [np.array_equal(draws_seen[0], d) for d in draws_seen[:5]]
    assert same == [True, True, True, True, False]  # all of a split, then the next split


class ColourSegmenter(nn.Module):
    """Query 0 is everything red, query 1 everything green, query 2 nothing; embeddings tell the frame."""

    embed_dim, num_classes, feature_channels = 2, 1, {"res2": 1}
    backbone = SimpleNamespace(strides={"res2": 1})

    def forward(self, images: Tensor) -> FrameOutput:
        x = images.float()  # (1, T, 3, H, W)
        masks = torch.stack([x[:, :, 0] - 127, x[:, :, 1] - 127, x[:, :, 2] * 0 - 1], 2)
        embeds = torch.stack([masks.amax((3, 4)), masks.amin((3, 4))], -1)
        return FrameOutput(torch.zeros(*masks.shape[:3], 2), masks, embeds, masks, {})


def test_samples_are_matched_queries(tmp_path: Path) -> None:
    masks = torch.zeros(2, 4, 32, 32, dtype=torch.bool)
    frames = np.zeros((4, 32, 32, 3), dtype=np.uint8)
    for t in range(4):
        masks[0, t, 4:8, 2 * t : 2 * t + 4] = True
        masks[1, t, 20:24, 10:18] = True
        frames[t][masks[0, t].numpy()] = [0, 255, 51]
        frames[t][masks[1, t].numpy()] = [204, 0, 0]
        Image.fromarray(frames[t]).save(tmp_path / f"{t}.png")
    annotations = [InstanceAnnotation(k, 1, False, tuple(encode(masks[k])), (1.0,) * 4) for k in range(2)]
    names = tuple(f"{t}.png" for t in range(4))
    video = VideoRecord(23, names, 32, 32, tuple(annotations))
    source = YTVIS(tmp_path / "x.json", tmp_path, (video,), {1: "thing"}, True)
    segmenter: Any = ColourSegmenter()
    tracker = MinVIS(MinVISConfig(), embed_dim=2, feature_channels={}, num_classes=1)
    config = SimpleNamespace(data=SyntheticConfig(), evaluation=EvalConfig(window=1))
    samples = study_findings.probe_samples(segmenter, tracker, source, "swap", config, torch.device("cpu"))
    assert len(samples) == 4  # frames 0 and 3, two objects each
    green = [s for s in samples if s.colour[1] == 1]
    assert [s.position.tolist() for s in green] == [[2 / 32, 6 / 32], [8 / 32, 6 / 32]]
    assert green[0].colour == pytest.approx([0, 1, 0.2])
    assert {s.video for s in samples} == {"swap 23"}
    assert green[0].vectors["slot"].tolist() == [0, 1, 0]
    assert green[0].vectors["embedding"].tolist() == [128, -127]
    assert set(green[0].vectors) == {"embedding", "query head", "slot"}


def test_r2_of_samples() -> None:
    rng = np.random.default_rng(0)
    samples = []
    for i in range(60):
        where, colour = rng.random(2), rng.random(3)
        vectors = {"embedding": where, "appearance head": colour, "slot": np.eye(4)[i % 4]}
        samples.append(study_findings.Sample(f"v{i // 4}", i % 2, where, colour, vectors))
    found = study_findings.probe_r2(samples)
    assert found["embedding"]["position"] > 0.99
    assert found["embedding"]["colour given class"] < 0.1
    assert found["appearance head"]["colour given class"] > 0.9
    assert found["slot"]["position"] < 0.1
    nothing = study_findings.probe_r2([])
    assert set(nothing) == {"embedding", "query head", "appearance head", "slot"}
    assert np.isnan(nothing["slot"]["position"])


def test_weights_of_a_run_are_probed(tmp_path: Path, words: list[str]) -> None:
    run = compose([*words, f"run_dir={tmp_path}", "segmenter.num_queries=4"])
    with pytest.raises(CheckpointError, match=r"weights\.safetensors: no such file"):
        study_findings.probe_run(run)
    classes = len(CLASSES)
    segmenter = Segmenter(run.config.segmenter, classes)
    tracker = VISAGE(
        run.config.tracker,
        embed_dim=segmenter.embed_dim,
        feature_channels=segmenter.feature_channels,
        num_classes=classes,
    )
    state = {f"segmenter.{k}": v for k, v in segmenter.state_dict().items()}
    state |= {f"tracker.{k}": v for k, v in tracker.state_dict().items()}
    save_weights(tmp_path / "weights.safetensors", state, {})
    found = study_findings.probe_run(run)
    assert set(found) == {"embedding", "query head", "appearance head", "slot"}


def findings(ap: Callable[[str, str], float], gap: Mapping[str, float]) -> study_findings.Findings:
    cells = {row: {split: [{"AP": ap(row, split)}] for split in SPLITS} for row in ROWS}
    mean, spread = study_findings.comparison_table(cells, metrics=["AP"])
    difference = {"AP": {k: study_findings.Interval(v, v - 0.05, v + 0.05) for k, v in gap.items()}}
    return study_findings.Findings("default", (0,), (), mean, spread, {}, difference, ())


def test_expectations_at_their_bounds() -> None:
    good = {"static": -0.009, "track": 0.1, "swap": 0.06, "reenter": 0.1, "hard - easy": 0.051}
    bad = {"static": 0.011, "track": 0.1, "swap": 0.04, "reenter": 0.1, "hard - easy": 0.04}
    low = findings(lambda row, split: {"oracle": 0.6, "identity": 0.199}.get(row, 0.0), good)
    assert [c.holds for c in study_report.checks({"a": low})] == [True] * 5
    high = findings(lambda row, split: {"oracle": 0.599, "identity": 0.2}.get(row, 0.0), bad)
    assert [c.holds for c in study_report.checks({"a": high})] == [False] * 5
    control = findings(lambda row, split: 0.0, dict.fromkeys(good, 0.009))
    assert [c.holds for c in study_report.checks({"a": low, "control": control})] == [True] * 7


def test_plan_needs_words_that_can_be_read() -> None:
    with pytest.raises(ConfigError, match="cannot read"):
        study.plan({"a": "default"}, [0], Path("out"), ["=="])

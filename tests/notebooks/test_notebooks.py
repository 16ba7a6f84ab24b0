"""Every notebook is executed, and what it found is compared with the library's own numbers."""

from __future__ import annotations

import ast
import importlib.util
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

EXTRA = 'the extra "notebooks" is missing: pip install -e ".[notebooks]"'
jupytext = pytest.importorskip("jupytext", reason=EXTRA)
nbformat = pytest.importorskip("nbformat", reason=EXTRA)
pytest.importorskip("nbclient", reason=EXTRA)
pytest.importorskip("ipykernel", reason=EXTRA)
pytest.importorskip("matplotlib", reason=EXTRA)
pytest.importorskip("sklearn", reason=EXTRA)

FOLDER = Path(__file__).resolve().parents[2] / "notebooks"
_spec = importlib.util.spec_from_file_location("notebook_runner", FOLDER / "execute.py")
assert _spec is not None
assert _spec.loader is not None
runner = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(runner)

SHARED_RUN = Path("runs/notebooks/visage")


def test_every_notebook_is_known():
    assert sorted(runner.NAMES) == sorted(path.stem for path in FOLDER.glob("*.ipynb"))
    assert {path.stem for path in FOLDER.glob("*.py")} == {*runner.NAMES, "execute"}


@pytest.mark.parametrize("name", runner.NAMES)
def test_twins_agree_and_hold_no_output(name: str):
    notebook = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)
    nbformat.validate(notebook)
    assert jupytext.writes(notebook, fmt="py:percent") == (FOLDER / f"{name}.py").read_text()
    assert notebook == runner.read_source(FOLDER / f"{name}.py"), "run: python notebooks/execute.py --pair"
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert code
    assert all(cell.outputs == [] and cell.execution_count is None for cell in code)
    assert notebook.metadata["kernelspec"]["name"] == "python3"
    assert "language_info" not in notebook.metadata  # says whose Python wrote it


def test_writing_the_twin_changes_nothing(tmp_path: Path):
    shutil.copy(FOLDER / "where_ap_goes.py", tmp_path)
    twin = runner.write_pair(tmp_path / "where_ap_goes.py")
    assert twin.read_bytes() == (FOLDER / "where_ap_goes.ipynb").read_bytes()


def test_links_between_notebooks_and_to_the_project():
    for name in runner.NAMES:
        text = (FOLDER / f"{name}.py").read_text()
        for target in [part.partition(")")[0] for part in text.split("](")[1:]]:
            assert (FOLDER / target).is_file(), f"{name}: {target}"


def test_a_name_that_is_none(capsys: pytest.CaptureFixture[str]):
    assert runner.main(["where_ap_went"]) == 2
    assert "no notebook 'where_ap_went'; there are association_failures" in capsys.readouterr().err


def test_a_notebook_that_fails(tmp_path: Path, monkeypatch, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "where_ap_goes.py").write_text("# %%\nprint('so far')\n\n# %%\n1 / 0\n")
    monkeypatch.setattr(runner, "FOLDER", tmp_path)
    assert runner.main(["where_ap_goes", "-o", str(tmp_path / "out")]) == 1
    assert "ZeroDivisionError" in capsys.readouterr().err
    kept = nbformat.read(tmp_path / "out" / "where_ap_goes.ipynb", as_version=4)
    assert kept.cells[0].outputs[0].text == "so far\n"


class Workplace:
    """A checkout of the notebooks alone, with runs and data of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        shutil.copytree(FOLDER, folder / "notebooks")

    def execute(self, name: str, wanted: str) -> tuple[Any, Any]:
        """The executed notebook, and the value of an expression (json) after its last cell."""
        notebook = runner.read_source(self.folder / "notebooks" / f"{name}.py")
        probe = nbformat.v4.new_code_cell(f"import json\nprint(json.dumps({wanted}, default=str))")
        notebook.cells.append(probe)
        runner.execute(notebook, self.folder / "notebooks", name)
        (output,) = probe["outputs"]
        return notebook, json.loads(output["text"])

    def metrics(self, run_dir: Path) -> dict[str, Any]:
        return json.loads((self.folder / run_dir / "metrics.json").read_text())["rows"]


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    yield from _workplace(tmp_path, monkeypatch)


@pytest.fixture(scope="module")
def shared_workplace(tmp_path_factory: pytest.TempPathFactory):
    with pytest.MonkeyPatch.context() as monkeypatch:
        yield from _workplace(tmp_path_factory.mktemp("notebooks"), monkeypatch)


def _workplace(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("IPYTHONDIR", str(folder / "ipython"))  # a reader's settings are not tested
    monkeypatch.delenv("VISTK_WEIGHTS", raising=False)
    yield Workplace(folder)
    shutil.rmtree(folder)  # data and weights of 400 MB


def pictures(notebook: Any) -> int:
    return sum(
        "image/png" in output.get("data", {}) for cell in notebook.cells for output in cell.get("outputs", [])
    )


def said(notebook: Any) -> str:
    """Everything that code wrote as text."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return "\n".join(o.get("text", "") + str(o.get("data", {}).get("text/markdown", "")) for o in outputs)


@pytest.mark.xdist_group("notebooks")  # these two look at one run, which the first of them makes
@pytest.mark.timeout(900)
def test_association_failures(shared_workplace: Workplace):
    notebook, (counted, kept, margins, parts) = shared_workplace.execute(
        "association_failures",
        "[switches.groupby(['split', 'tracker']).size().reset_index().values.tolist(), "
        "found['kept'].tolist(), found[['query', 'appearance', 'verdict']].values.tolist(), "
        "[len(helped), len(misled), len(blind)]]",
    )
    report = evaluated(shared_workplace, metrics=("errors",))
    switches = report.query("metric == 'events' and group.str.startswith('switch')")
    expected = switches.groupby(["data_set", "results"])["value"].sum()
    assert {(split, row): n for split, row, n in counted} == {key: n for key, n in expected.items() if n}
    assert len(counted) >= 4

    assert len(kept) > 20
    assert all((query > 0, appearance > 0) == RIGHT[verdict] for query, appearance, verdict in margins)
    # Where both vectors are right VISAGE hardly fails, where both are wrong it can hardly keep.
    rate = {
        name: [k for k, (*_, verdict) in zip(kept, margins, strict=True) if verdict == name] for name in RIGHT
    }
    assert sum(rate["both right"]) / len(rate["both right"]) > 0.5
    assert sum(rate["both wrong"]) / len(rate["both wrong"]) < 0.5
    assert pictures(notebook) >= 12
    helped, misled, blind = parts
    assert sum(kept) + misled + blind == len(kept)  # each switch is told of once
    assert blind == sum(
        not k and appearance <= 0 for k, (_, appearance, _) in zip(kept, margins, strict=True)
    )
    assert helped <= sum(kept)
    text = said(notebook)
    assert f"VISAGE keeps {sum(kept)}, in the frame where another track took it." in text
    assert f"In {misled} others" in text
    assert f"In the other {blind} appearance" in text
    assert "IProgress" not in text


RIGHT = {
    "both right": (True, True),
    "appearance alone right": (False, True),
    "query alone right": (True, False),
    "both wrong": (False, False),
}


@pytest.mark.xdist_group("notebooks")
@pytest.mark.timeout(900)
def test_where_ap_goes(shared_workplace: Workplace):
    notebook, (parts, changes) = shared_workplace.execute(
        "where_ap_goes",
        "[parts.reset_index().to_dict('records'), "
        "paired['value'].unstack().reset_index().to_dict('records')]",
    )
    metrics = shared_workplace.metrics(SHARED_RUN)
    assert {(part["data_set"], part["results"]) for part in parts} == {
        (split, row) for row, splits in metrics.items() for split in splits
    }
    gaps = ("association", "classification", "mask", "missing")
    for part in parts:
        assert part["AP"] == pytest.approx(100 * metrics[part["results"]][part["data_set"]]["AP"], abs=1e-9)
        assert part["AP"] + sum(part[gap] for gap in gaps) == pytest.approx(100)
    for change in changes:
        split = change["data_set"]
        gained = 100 * (metrics["visage"][split]["AP"] - metrics["minvis"][split]["AP"])
        assert change["AP"] == pytest.approx(gained, abs=1e-5)
        assert change["AP"] == pytest.approx(-sum(change[gap] for gap in gaps), abs=1e-5)
    assert pictures(notebook) == 3
    assert f"**swap**: visage has {100 * metrics['visage']['swap']['AP']:.1f} AP" in said(notebook)


@pytest.mark.timeout(900)
def test_write_a_tracker(workplace: Workplace):
    notebook, (ap, minvis) = workplace.execute(
        "write_a_tracker", "[ap.reset_index().to_dict('records'), minvis.to_dict()]"
    )
    runs = Path("runs/notebooks/texture")
    rows = workplace.metrics(runs / "table")
    assert list(rows) == ["minvis", "identity", "mask-iou", "oracle", "__main__:Texture"]
    table = (workplace.folder / runs / "table" / "table.md").read_text()
    assert "| __main__:Texture |" in table
    assert rows["__main__:Texture"]["swap"]["AP"] > rows["minvis"]["swap"]["AP"] + 0.3

    settings = {(row["texture_weight"], row["keep"]): row for row in ap}
    for split, expected in minvis.items():
        assert settings[0, 0][split] == pytest.approx(expected, abs=1e-9)
        assert settings[0.9, 0.8][split] == pytest.approx(100 * rows["__main__:Texture"][split]["AP"])
    assert workplace.metrics(runs / "weight=1,keep=0.8").keys() == {"__main__:Texture"}
    assert "Careless: " in said(notebook)  # the contract names who breaks it
    assert pictures(notebook) == 1


def test_the_tracker_of_the_notebook_is_forty_lines():
    tree = ast.parse((FOLDER / "write_a_tracker.py").read_text())
    classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    lines = sum(classes[name].end_lineno - classes[name].lineno + 1 for name in ("TextureConfig", "Texture"))
    assert 30 <= lines <= 45


@pytest.mark.timeout(900)
def test_use_published_weights(workplace: Workplace):
    notebook, (ap, own, same, count) = workplace.execute(
        "use_published_weights",
        "[report.metrics['AP'], own.metrics['AP'], again == prediction, len(prediction.tracklets)]",
    )
    assert own == 1
    assert same
    assert count == 40  # as VISAGE keeps on YouTube-VIS 2019
    assert 0 <= ap < 0.5
    text = said(notebook)
    assert "holds      a VISAGE with ResNet-50, 100 queries and 40 classes" in text
    assert "which is not visage-swinl-ovis; presets that fit: visage-r50-ytvis2019" in text
    assert "loaded: 581 entries" in text
    assert pictures(notebook) == 1


def evaluated(workplace: Workplace, **options: Any) -> Any:
    """The numbers of the shared run, of both trackers on every split, as the evaluator has them."""
    from vistk.evaluation import evaluate

    run_dir = workplace.folder / SHARED_RUN
    splits = sorted(path.name for path in (run_dir / "rows" / "minvis").iterdir())
    (data,) = (workplace.folder / "datasets" / "synthetic").iterdir()
    given = {
        split: (
            data / split / "instances.json",
            {row: run_dir / "rows" / row / split / "results.json" for row in ("minvis", "visage")},
        )
        for split in splits
    }
    return evaluate(given, score_threshold=0.1, **options).frame.query("`class` == 'all'")

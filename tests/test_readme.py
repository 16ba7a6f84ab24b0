"""The commands that the README and the pages of docs/ give a reader can be said."""

from __future__ import annotations

import ast
import dataclasses
import re
import subprocess
from pathlib import Path

import pytest
import torch
from golden_weights import published_state

from vistk import cli
from vistk.config import compose
from vistk.data.config import SyntheticConfig
from vistk.data.synthetic import config_hash
from vistk.structures import VideoPrediction
from vistk.trackers.minvis import MinVIS

ROOT = Path(__file__).parent.parent
BLOCK = re.compile(r"^```(?:bash|sh)\n(.+?)^```", re.MULTILINE | re.DOTALL)
OPTIONAL = re.compile(r" \[[^\]]*\.\.\]")  # as in [MORE.json ..]


def commands(page: Path) -> list[str]:
    """The lines of all shell blocks: continued ones joined, comments left out, variables replaced."""
    found = []
    for block in BLOCK.findall(page.read_text(encoding="utf-8")):
        variables: dict[str, str] = {}
        for line in block.replace("\\\n", " ").splitlines():
            if assigned := re.match(r"([A-Z]+)=(\S+|\"[^\"]*\")\s*(#|$)", line):
                variables[assigned[1]] = assigned[2].strip('"')
                continue
            line = re.sub(r"\$([A-Z]+)", lambda name, known=variables: known.get(name[1], name[0]), line)
            line = re.sub(r"\s#.*", "", OPTIONAL.sub("", line))
            found += [command.strip() for command in re.split(r"&&|\|\|", line) if command.strip()]
    return found


# Not that of examples/my_tracker, whose tracker has to be installed.
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), ROOT / "examples/real_video/README.md"]
SAID = sorted({(str(page.relative_to(ROOT)), line) for page in PAGES for line in commands(page)})


def expanded(line: str) -> list[str]:
    """The words that a shell makes of a line: quotes and braces, but no names of files."""
    script = f"set -f; printf '%s\\0' {line}"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    return done.stdout.split("\0")[:-1]


def words_of(line: str) -> tuple[str, list[str]]:
    """The program of ours that a line starts, and its words."""
    given = expanded(line)
    for at, word in enumerate(given):
        if word == "vistk" or word.endswith(".py"):
            return word, given[at + 1 :]
        if "=" not in word and word not in ("python", "accelerate", "launch") and not word.startswith("-"):
            if given[at - 1].startswith("--"):  # the value of an option of the launcher
                continue
            break
    return "", []


OURS = [(page, line) for page, line in SAID if re.search(r"(^|\s)(vistk|\S+\.py)\s", f"{line} ")]


def test_there_are_commands() -> None:
    pages = {page for page, _ in OURS}
    assert {"README.md", "docs/sweeps.md", "docs/tuning.md"} <= pages
    assert {words_of(line)[0] for page, line in OURS if page == "README.md"} >= {
        "vistk",
        "experiments/run.py",
    }


@pytest.mark.parametrize(("page", "line"), OURS, ids=[f"{page}: {line}" for page, line in OURS])
def test_a_command_can_be_said(
    page: str, line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    program, words = words_of(line)
    if program == "vistk":
        for name, command in cli.COMMANDS.items():
            monkeypatch.setitem(cli.COMMANDS, name, dataclasses.replace(command, run=lambda _: 0))
        assert _code(words) == 0, capsys.readouterr().err
        return
    path = next((p for p in (ROOT / program, (ROOT / page).parent / program) if p.is_file()), None)
    assert path is not None, f"{program}: no such file"
    if program == "experiments/run.py" and not {"-m", "--runs", "--help"} & set(words):
        compose([word for word in words if not word.startswith("-") and word not in ("", "job")])
        return
    options = {word.split("=")[0] for word in words if re.match(r"--?[a-z]", word)} - {"--help", "-m"}
    assert options <= _options(path), f"{program} has {', '.join(sorted(_options(path)))}"


def test_the_folder_of_the_benchmark_is_its_own() -> None:
    """A glob would find every benchmark that somebody drew since."""
    named = set(re.findall(r"datasets/synthetic/([^/\s]+)", (ROOT / "README.md").read_text(encoding="utf-8")))
    assert named == {config_hash(SyntheticConfig())}


def test_the_programs_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All Python of the README, with the names that it takes for granted."""
    torch.save({"model": published_state("visage_r50_ytvis2019")}, tmp_path / "visage_r50_ytvis19.pth")
    monkeypatch.chdir(tmp_path)
    frames = torch.randint(0, 255, (2, 3, 32, 64), dtype=torch.uint8)
    known = {
        "frames": frames,
        "camera": [f.permute(1, 2, 0).numpy() for f in frames],
        "MyTracker": MinVIS,
    }
    programs = re.findall(r"^```python\n(.+?)^```", (ROOT / "README.md").read_text("utf-8"), re.M | re.DOTALL)
    assert len(programs) == 3
    programs.sort(key=lambda program: "load_published" not in program)  # the others take its segmenter
    for program in programs:
        exec(program.replace("short_side=360", "short_side=32"), known)
        if "predict(" in program:
            predicted = known["prediction"]
    streamed = known["prediction"]
    assert isinstance(predicted, VideoPrediction)
    assert isinstance(streamed, VideoPrediction)
    assert len(streamed.tracklets) == len(predicted.tracklets) > 0
    assert known["frame"].masks.shape[1:] == (32, 64)


def _code(words: list[str]) -> object:
    try:
        return cli.main(words)
    except SystemExit as stop:  # --help, or words that it does not know
        return stop.code


def _options(path: Path) -> set[str]:
    """The options of a script, as its text and that of the modules of ours that it imports name them."""
    texts, pending, seen = [], [path], set()
    while pending:
        file = pending.pop()
        if file in seen or not file.is_file():
            continue
        seen.add(file)
        tree = ast.parse(file.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "add_argument":
                texts += [a.value for a in node.args if isinstance(a, ast.Constant)]
            if isinstance(node, ast.ImportFrom) and node.module and node.module.endswith("commands"):
                pending.append(ROOT / f"{node.module.replace('.', '/')}.py")
    return {text for text in texts if text.startswith("-")}

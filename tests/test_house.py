"""Rules of the house that no linter holds."""

from __future__ import annotations

import ast
import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parent.parent
MODULES = sorted((ROOT / "vistk").rglob("*.py"))
TEXTS = [".py", ".md", ".toml", ".yaml", ".yml", ".json", ".sh", ".txt", ".ipynb", ""]
FOLDERS = ["vistk", "experiments", "benchmarks", "notebooks", "examples", "tests", "docs", ".ci"]


@pytest.fixture(scope="module")
def readme_commands() -> ModuleType:
    spec = importlib.util.spec_from_file_location("readme_commands", ROOT / ".ci" / "readme_commands.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def imported_by(code: str) -> set[str]:
    """Top-level packages that a fresh interpreter has imported after ``code``."""
    probe = f"import sys\n{code}\nprint(*sorted(name.partition('.')[0] for name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, cwd=ROOT, check=True)
    return set(done.stdout.splitlines()[-1].split())


def test_import_is_light() -> None:
    loaded = imported_by("import vistk, vistk.structures")
    assert "vistk" in loaded
    assert not loaded & {"torchvision", "timm", "transformers", "matplotlib", "hydra"}


def test_help_of_the_command_is_light() -> None:
    code = "from vistk.cli import main\ntry: main(['--help'])\nexcept SystemExit: pass"
    assert not imported_by(code) & {"torch", "numpy", "pandas", "hydra"}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_modules_say_what_they_are(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    assert not source or ast.get_docstring(ast.parse(source)), f"{path} has no docstring"


@pytest.mark.parametrize("name", ["run", "look", "test"])
def test_readme_commands_are_found(readme_commands: ModuleType, name: str) -> None:
    found = readme_commands.command((ROOT / "README.md").read_text(encoding="utf-8"), name)
    assert {"run": "experiments/run.py", "look": "vistk show", "test": "pytest"}[name] in found


def test_all_other_readme_commands_run_too(readme_commands: ModuleType) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    found = readme_commands.rest(readme)
    marked = [readme_commands.command(readme, name) for name in ("run", "look", "test")]
    assert not any(command in found for command in marked)
    lines = len(found.splitlines()) + sum(len(command.splitlines()) for command in marked)
    blocks = re.findall(r"^```bash\n(.+?)^```$", readme, re.MULTILINE | re.DOTALL)
    assert lines == sum(len(block.splitlines()) for block in blocks)
    more = readme + "\n```bash\nvistk show RUN \\\n    worst\n```\n"
    with pytest.raises(ValueError, match="nothing stands for RUN in 'vistk show RUN"):
        readme_commands.rest(more)
    assert readme_commands.rest(more.replace("show RUN", "show runs/a")).endswith("show runs/a      worst")
    with pytest.raises(ValueError, match=r"expected 'vistk data check DIR' once in its commands, found 0"):
        readme_commands.rest(readme.replace("check DIR", "check"))


def test_readme_command_is_taken_verbatim(readme_commands: ModuleType) -> None:
    text = "# A\n\n<!-- ci: run -->\n\n```bash\na && \\\n  b 'c'\n```\n\n```bash\nno\n```\n"
    assert readme_commands.command(text, "run") == "a && \\\n  b 'c'"


@pytest.mark.parametrize(
    "text",
    [
        "```bash\na\n```\n",
        "<!-- ci: run -->\n\nprose\n\n```bash\na\n```\n",
        "<!-- ci: run -->\n```bash\na\n```\n<!-- ci: run -->\n```bash\nb\n```\n",
        "<!-- ci: run -->\n```python\na\n```\n",
    ],
    ids=["no mark", "not right after", "twice", "not bash"],
)
def test_readme_command_is_found_exactly_once_or_not_at_all(readme_commands: ModuleType, text: str) -> None:
    with pytest.raises(ValueError, match=r"README\.md: expected '<!-- ci: run -->' once"):
        readme_commands.command(text, "run")


def test_ci_is_executable() -> None:
    assert os.access(ROOT / ".ci" / "run", os.X_OK)


def test_no_path_of_a_machine() -> None:
    # A path below somebody's home or mount says that a file was not written for its readers.
    machine_path = re.compile(r"(?<![\w.<>)}*/-])/(?:home|root|Users|mnt|work|workspace|scratch)/\w")
    own = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*")]
    files = [p for p in (*own, *ROOT.glob("*.*")) if p.is_file() and p.suffix in TEXTS]
    hits = []
    for path in files:
        if "__pycache__" not in path.parts and path.stat().st_size < 1_000_000:
            text = path.read_text(encoding="utf-8", errors="replace")
            hits += [f"{path.relative_to(ROOT)}: {match.group()}" for match in machine_path.finditer(text)]
    assert len(files) > len(MODULES)
    assert not hits


def test_the_readme_is_filled_in() -> None:
    for page in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        assert not re.findall(r"__[A-Z]+__", page.read_text(encoding="utf-8")), page

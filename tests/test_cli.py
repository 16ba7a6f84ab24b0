"""The ``vistk`` command: subcommands, exit codes, messages."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from vistk import cli
from vistk.config import compose
from vistk.schema import ConfigError
from vistk.trackers.visage import VISAGEConfig


def failing(error: BaseException) -> cli.Command:
    def run(arguments: argparse.Namespace) -> int:
        raise error

    return cli.Command("fails", lambda parser: None, run)


def test_help_names_the_subcommands(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        cli.main(["--help"])
    assert left.value.code == 0
    text = capsys.readouterr().out
    for name, command in cli.COMMANDS.items():
        assert name in text
        assert command.help in text


@pytest.mark.parametrize("words", [[], ["evalaute"], ["trackers", "--what"]])
def test_wrong_words(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        cli.main(words)
    assert left.value.code == 2
    assert "usage: vistk" in capsys.readouterr().err


@pytest.mark.parametrize(
    "error",
    [ConfigError("a: wrong"), FileNotFoundError("no a"), OSError("a: full"), BrokenPipeError("of a worker")],
)
def test_bad_input_is_one_sentence(
    error: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(cli.COMMANDS, "fail", failing(error))
    assert cli.main(["fail"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == f"vistk fail: {error}\n"


def test_a_reader_that_has_seen_enough() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer) as nobody:
        command = [sys.executable, "-m", "vistk.cli", "trackers"]
        done = subprocess.run(command, stdout=nobody, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "")


def test_an_interrupt_is_no_trace(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(cli.COMMANDS, "wait", failing(KeyboardInterrupt()))
    assert cli.main(["wait"]) == 130
    assert capsys.readouterr().err == "vistk wait: interrupted\n"


@pytest.mark.parametrize("error", [ValueError("shapes differ"), KeyError("a"), RuntimeError("a")])
def test_a_bug_keeps_its_trace(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(cli.COMMANDS, "fail", failing(error))
    with pytest.raises(type(error), match=str(error.args[0])):
        cli.main(["fail"])


def test_only_the_called_subcommand_declares_its_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    declared: list[str] = []

    def declare(name: str) -> Callable[[argparse.ArgumentParser], None]:
        return lambda parser: declared.append(name)

    for name in ("one", "two"):
        monkeypatch.setitem(cli.COMMANDS, name, cli.Command(name, declare(name), lambda arguments: 7))
    assert cli.main(["one"]) == 7
    assert declared == ["one"]


def test_evaluate_of_a_missing_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["evaluate", str(tmp_path / "gt.json"), str(tmp_path / "results.json")]) == 2
    captured = capsys.readouterr()
    assert "gt.json" in captured.err
    assert captured.err.count("\n") == 1


def test_trackers_lists_names_origins_and_knobs(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["trackers"]) == 0
    paragraphs = dict(text.split("\n", 1) for text in capsys.readouterr().out.strip().split("\n\n"))
    assert {
        "identity (vistk)",
        "visage (vistk)",
        "visage-no-memory (ablation of visage)",
    } <= paragraphs.keys()
    assert all(text.splitlines()[0].endswith(".") for text in paragraphs.values())
    visage = [line.split() for line in paragraphs["visage (vistk)"].splitlines()[1:]]
    assert ["tracker.appearance_weight=0.75", "float"] in visage
    assert ["tracker.levels=[res3,res4,res5]", "list[str]"] in visage
    assert ["tracker.hidden_dim=null", "int", "|", "None"] in visage
    (knob,) = paragraphs["visage-no-memory (ablation of visage)"].splitlines()[1:]
    assert knob.split() == ["tracker.memory_frames=1", "int"]


def test_the_words_of_a_listing_are_words_of_a_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["trackers", "visage"]) == 0
    words = [line.split()[0] for line in capsys.readouterr().out.splitlines()[2:]]
    assert compose(["tracker=visage", *words]).config.tracker == VISAGEConfig()


def test_trackers_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["trackers", "vistk.trackers.minvis:MinVIS"]) == 0
    assert capsys.readouterr().out.startswith("vistk.trackers.minvis:MinVIS (vistk.trackers.minvis)\n")
    assert cli.main(["trackers", "visag"]) == 2
    assert "nearest is 'visage'" in capsys.readouterr().err

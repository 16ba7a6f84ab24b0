"""``vistk trackers NAME --check``: whether a tracker keeps the contract, without a test of one's own."""

from pathlib import Path

import pytest

from vistk import cli
from vistk.trackers import listing

BROKEN = """
from dataclasses import replace

from vistk.trackers.minvis import MinVIS


class SameIds(MinVIS):
    '''One track for everybody.'''

    def step(self, state, frame):
        tracked = super().step(state, frame)
        return replace(tracked, track_ids=tracked.track_ids * 0)


class ReadsLiveMasks(MinVIS):
    def step(self, state, frame):
        (frame.mask_logits > 0).sum()
        return super().step(state, frame)
"""


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    (tmp_path / "broken_trackers.py").write_text(BROKEN)
    monkeypatch.syspath_prepend(str(tmp_path))
    return "broken_trackers"


def test_a_tracker_that_keeps_the_contract(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["trackers", "minvis", "--check"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "  keeps the contract"


def test_a_tracker_that_breaks_a_rule(module: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["trackers", f"{module}:SameIds", "minvis", "--check"]) == 1
    first, second = capsys.readouterr().out.split("\n\n")
    name, about, message, note = first.splitlines()
    assert (name, about) == (f"{module}:SameIds ({module})", "  One track for everybody.")
    assert message.startswith(
        f"  breaks the contract: {module}:SameIds: in frame 0, track ids are not unique"
    )
    assert note.startswith("  in check_frames(")
    assert second.endswith("  keeps the contract\n")


def test_an_error_inside_a_tracker_has_its_type_and_the_rule(
    module: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["trackers", f"{module}:ReadsLiveMasks", "--check"]) == 1
    _, message, note = capsys.readouterr().out.splitlines()  # the class says nothing of itself
    assert message.startswith("  breaks the contract: TypeError: ")
    assert "with finished masks, give the tracks of live ones" in note


def test_without_asking_nothing_is_run(module: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["trackers", f"{module}:SameIds"]) == 0
    assert "contract" not in capsys.readouterr().out


def test_of_all_names_one_that_cannot_be_loaded_is_no_success(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(listing, "tracker_names", lambda: ("identity", "no_such_module:Tracker"))
    assert cli.main(["trackers"]) == 0
    assert cli.main(["trackers", "--check"]) == 1
    assert "cannot be loaded: TrackerNameError" in capsys.readouterr().out

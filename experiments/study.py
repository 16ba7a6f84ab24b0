"""Does the embedded benchmark tell trackers apart, and for the right reason?

``python experiments/study.py [WORDS] --seeds 0 1 2 --weights twins=default no-twins=FILE``

Trains and evaluates VISAGE from every named set of start weights with every seed: one
``experiments/run.py`` after another, with WORDS added; runs that are finished are kept. The first set is
the benchmark, the others are controls: a segmenter that never saw twins tells objects apart by colour, so
that every tracker should do equally well. All are trained and evaluated on the data that WORDS name; the
twins are in the stills of the start weights alone. Writes ``study.md`` and ``study.json`` into ``--out``,
and a comparison table for each set beside its runs.

Exit code: 0 done, 1 a run failed (what there is, is written), 2 bad input, 130 interrupted (the same
command resumes).
"""

from __future__ import annotations

import argparse
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from study_findings import NEEDED_ROWS, SPLITS, Findings, collect, probe_run
from study_report import checks, render

from vistk.composer import parse_word, readable
from vistk.config import Composed, compose, save
from vistk.evaluation.tables import write_table
from vistk.files import write_text
from vistk.schema import ConfigError

RUN = Path(__file__).with_name("run.py")
OWN_KEYS = ("tracker", "seed", "weights", "run_dir", "resume", "eval_only")


@dataclass(frozen=True)
class Cell:
    """One run of the study."""

    name: str  # of the start weights
    seed: int
    words: tuple[str, ...]  # for experiments/run.py
    composed: Composed

    @property
    def run_dir(self) -> Path:
        return self.composed.run_dir

    @property
    def finished(self) -> bool:
        return (self.run_dir / "metrics.json").is_file()

    @property
    def command(self) -> list[str]:
        return [sys.executable, str(RUN), *self.words]


def parse_weights(entries: Sequence[str]) -> dict[str, str]:
    """``["twins=default", "no-twins=FILE"]`` as ``{name: weights}``.

    Raises:
        ConfigError: an entry is not NAME=FILE, or a name comes twice.
        FileNotFoundError: there is no such file.
    """
    weights: dict[str, str] = {}
    for entry in entries:
        name, equals, value = entry.partition("=")
        if not equals or not value or not re.fullmatch(r"[A-Za-z0-9_-]+", name):
            raise ConfigError(
                f"--weights: found {entry!r}, expected NAME=FILE or NAME=default, the name of letters, "
                "digits, - and _; words for the runs go before the options"
            )
        if name in weights:
            raise ConfigError(f"--weights: {name} is named twice")
        if value != "default" and not Path(value).is_file():
            raise FileNotFoundError(
                f"--weights {entry}: there is no file {value}; expected a .safetensors file, or 'default'"
            )
        weights[name] = value
    return weights


def plan(weights: Mapping[str, str], seeds: Sequence[int], out: Path, words: Sequence[str]) -> list[Cell]:
    """The runs of a study, in order; nothing is started.

    Raises:
        ConfigError: a word is wrong or the study's own, what the tables need is switched off, or a
            directory holds a run with another configuration.
    """
    for word in words:
        key = parse_word(readable(word)).key_or_group
        if key in OWN_KEYS:
            raise ConfigError(f"cannot use {word!r}: the study says {key}= itself", key)
    cells = []
    for name, file in weights.items():
        for seed in seeds:
            own = ["tracker=visage", f"seed={seed}", f"weights={_quoted(file)}"]
            said = (*own, f"run_dir={_quoted(str(out / name / f'seed{seed}'))}", *words)
            cells.append(Cell(name, seed, said, compose(said)))
    config = cells[0].composed.config
    if config.choices["data"] != "synthetic" or not set(SPLITS) <= set(config.data.eval_splits):
        raise ConfigError(
            f"data={config.choices['data']} with data.eval_splits={config.data.eval_splits}; expected "
            f"data=synthetic with {', '.join(SPLITS)}"
        )
    if not set(NEEDED_ROWS) <= {"visage", *config.evaluation.rows}:
        raise ConfigError(
            f"evaluation.rows is {config.evaluation.rows}, expected {', '.join(NEEDED_ROWS)} among them"
        )
    for cell in cells:
        if cell.run_dir.exists():
            save(cell.composed)  # refuses a run of other words
    return cells


def _quoted(text: str) -> str:
    """A path as the value of a word; Hydra's grammar takes odd characters in quotes."""
    return text if re.fullmatch(r"[\w./+-]+", text) else json.dumps(text, ensure_ascii=False)


def launch(command: Sequence[str]) -> int:
    """Runs a command to its end and returns its exit code."""
    with subprocess.Popen(list(command)) as process:
        try:
            return process.wait()
        except KeyboardInterrupt:
            process.wait()  # Ctrl-C reached it as well; it writes a checkpoint
            raise


def run_all(cells: Sequence[Cell], runner: Callable[[Sequence[str]], int]) -> list[str]:
    """Starts every unfinished run, one after another.

    Returns:
        A sentence for each run that left no metrics.
    """
    failed = []
    for number, cell in enumerate(cells, 1):
        here = f"[{number}/{len(cells)}] {cell.name}, seed {cell.seed}"
        if cell.finished:
            print(f"{here}: finished before, {cell.run_dir}", flush=True)
            continue
        print(f"{here}: runs in {cell.run_dir}", flush=True)
        code = runner(cell.command)
        if code or not cell.finished:
            failed.append(f"{cell.name}, seed {cell.seed}, in {cell.run_dir}: exit code {code}, no result")
            print(f"{here}: failed with exit code {code}", flush=True)
    return failed


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Train and evaluate over seeds and start weights.")
    parser.add_argument("words", nargs="*", help="key=value for every run, before the options")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], metavar="S")
    parser.add_argument(
        "--weights",
        nargs="+",
        default=["twins=default"],
        metavar="NAME=FILE",
        help="start weights; the first set is the benchmark, the others are controls (default %(default)s)",
    )
    parser.add_argument("--out", type=Path, default=Path("runs/study"), help="folder (default %(default)s)")
    return parser


def main(
    argv: Sequence[str] | None = None,
    runner: Callable[[Sequence[str]], int] = launch,
    probe: Callable[[Composed], Mapping[str, Mapping[str, float]]] = probe_run,
) -> int:
    """The command; ``runner`` runs a child, ``probe`` measures R2 of one run (see ``probe_run``)."""
    said = list(sys.argv[1:] if argv is None else argv)
    args = _parser().parse_intermixed_args(said)
    command = shlex.join(["python", "experiments/study.py", *said])
    try:
        weights = parse_weights(args.weights)
        cells = plan(weights, list(dict.fromkeys(args.seeds)), args.out, args.words)
        failed = run_all(cells, runner)
        findings = {}
        for name in weights:
            runs = {c.seed: c.composed for c in cells if c.name == name and c.finished}
            if runs:
                print(f"{name}: collects {len(runs)} runs", flush=True)
                findings[name] = collect(weights[name], runs, probe)
        if findings:
            _write(args.out, command, findings, failed)
    except KeyboardInterrupt:
        print("interrupted: the same command goes on with what is missing", file=sys.stderr)
        return 130
    except (ValueError, OSError) as error:
        if type(error) is ValueError:  # not raised for a reader: a bug, which keeps its trace
            raise
        print(f"error: {error}", file=sys.stderr)
        return 2
    for sentence in failed:
        print(f"failed: {sentence}", file=sys.stderr)
    return 1 if failed else 0


def _write(out: Path, command: str, findings: Mapping[str, Findings], failed: Sequence[str]) -> None:
    for name, found in findings.items():
        write_table(found.mean, found.card | {"command": command}, out / name, spread=found.spread)
    text = render(command, findings, failed)
    content: dict[str, Any] = {
        "command": command,
        "failed": list(failed),
        "checks": [vars(check) for check in checks(findings)],
        "sets": {name: found.as_dict() for name, found in findings.items()},
    }
    write_text(out / "study.json", json.dumps(content, indent=2, allow_nan=False) + "\n")
    print("\n" + text + f"\nwritten to {write_text(out / 'study.md', text)}")


if __name__ == "__main__":
    sys.exit(main())

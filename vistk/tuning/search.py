"""The search itself: values are proposed, tried and written down, one trial after the other.

What is proposed for a trial is a function of the seed, its number and the trials before it. So a search that
was stopped goes on as if it had not been, and may be made longer. Only where so many trials are asked for
that all combinations of values can be tried, they are, in turn.
"""

from __future__ import annotations

import itertools
import json
import math
import warnings
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

from vistk.engine.journal import JsonLines
from vistk.files import write_text
from vistk.schema import ConfigError
from vistk.tuning.knobs import Knob, TuningError

TRIALS, SETTINGS = "trials.jsonl", "search.json"
STARTUP = 20  # trials at random, before there is anything to learn from
ATTEMPTS = 5  # at a proposal that has not been tried


@dataclass(frozen=True)
class Trial:
    """Values that were tried; the first trial has those of the words."""

    step: int
    values: Mapping[str, Any]
    score: float | None  # mean over the tuning splits; None: the values do not go together
    splits: Mapping[str, float]

    @property
    def rank(self) -> tuple[float, int]:
        """The greater, the better; of equal ones the first is."""
        return (-math.inf if self.score is None else self.score, -self.step)


def require_optuna() -> ModuleType:
    """The library that proposes values.

    Raises:
        TuningError: it is not installed.
    """
    try:
        import optuna
    except ImportError as error:
        raise TuningError(f'vistk tune needs optuna ({error}): pip install -e ".[tune]"') from error
    return optuna


class Journal:
    """The trials of a search in a folder: one line each, written when it is finished.

    Args:
        settings: all that trials depend on, as plain values.

    Raises:
        TuningError: the folder holds the trials of another search.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        path, self._path = folder / SETTINGS, folder / TRIALS
        settings = json.loads(json.dumps(settings))
        begun = self._path.is_file() and self._path.stat().st_size > 0
        if begun and path.is_file():
            there = json.loads(path.read_text(encoding="utf-8"))
            for key in {**there, **settings}:
                if there.get(key) != settings.get(key):
                    raise TuningError(
                        f"{folder} holds another search: {key} is {there.get(key)} there and "
                        f"{settings.get(key)} here; remove it, or say --out DIR"
                    )
        write_text(path, json.dumps(settings, indent=2) + "\n")
        self._lines = JsonLines(self._path, keep_below=2**62)

    def read(self) -> list[Trial]:
        """The trials so far."""
        return [Trial(**json.loads(line)) for line in self._path.read_text(encoding="utf-8").splitlines()]

    def write(self, trial: Trial) -> None:
        self._lines.write(asdict(trial))


class Sampler:
    """Proposes values that have not been tried, where values that were like them did well.

    A tree-structured Parzen estimator (Bergstra et al., NeurIPS 2011), of all knobs together; the first
    :data:`STARTUP` trials are drawn at random. No more combinations than trials: all in turn.
    """

    def __init__(self, knobs: Sequence[Knob], trials: int, seed: int) -> None:
        self._optuna = require_optuna()
        self._knobs, self._seed = knobs, seed
        self._all = math.prod(knob.count for knob in knobs) <= trials
        self._distributions = {knob.name: self._distribution(knob) for knob in knobs}
        with _quiet(self._optuna):
            self._study = self._optuna.create_study(direction="maximize")

    def add(self, trial: Trial) -> None:
        """Learn from a trial."""
        if trial.score is not None and all(knob.holds(trial.values[knob.name]) for knob in self._knobs):
            self._study.add_trial(
                self._optuna.trial.create_trial(
                    params={knob.name: _encoded(knob, trial.values[knob.name]) for knob in self._knobs},
                    distributions=self._distributions,
                    value=trial.score,
                )
            )

    def propose(self, step: int, tried: Collection[str]) -> dict[str, Any] | None:
        """Values for a trial; None where all have been tried.

        Args:
            tried: as :func:`key_of` has them.
        """
        if self._all:
            lists = [knob.listed() for knob in self._knobs]
            combinations = (self._named(values) for values in itertools.product(*lists))
            return next((values for values in combinations if key_of(values) not in tried), None)
        for attempt in range(ATTEMPTS):  # values that were tried before say nothing
            values = self._drawn(zlib.crc32(f"{self._seed} {step} {attempt}".encode()))
            if key_of(values) not in tried:
                break
        return values

    def _drawn(self, seed: int) -> dict[str, Any]:
        """A function of the seed and the trials so far."""
        samplers = self._optuna.samplers
        with warnings.catch_warnings(), _quiet(self._optuna):
            warnings.simplefilter("ignore", self._optuna.exceptions.ExperimentalWarning)
            self._study.sampler = samplers.TPESampler(seed=seed, n_startup_trials=STARTUP, multivariate=True)
            asked = self._study.ask(self._distributions)
            # What is tried is rounded, and comes by `add`. Failed trials are not learned from.
            self._study.tell(asked, state=self._optuna.trial.TrialState.FAIL)
        return self._named([_decoded(knob, asked.params[knob.name]) for knob in self._knobs])

    def _named(self, values: Sequence[Any]) -> dict[str, Any]:
        return {knob.name: value for knob, value in zip(self._knobs, values, strict=True)}

    def _distribution(self, knob: Knob) -> Any:
        distributions = self._optuna.distributions
        if isinstance(knob.values, tuple):  # by position: values may be anything
            return distributions.CategoricalDistribution(range(len(knob.values)))
        low, high, log = knob.values.low, knob.values.high, knob.values.log
        if knob.whole:
            return distributions.IntDistribution(knob.listed()[0], knob.listed()[-1], log=log)
        return distributions.FloatDistribution(low, high, log=log)


def search(
    knobs: Sequence[Knob],
    tried: Callable[[Mapping[str, Any]], Mapping[str, float]],
    trials: int,
    sampler: Sampler,
    journal: Journal,
    done: Callable[[Trial], object] = lambda trial: None,
) -> list[Trial]:
    """Trials up to a number of them, those of the journal first. The first one has the values of the words.

    Args:
        tried: the metric on every tuning split with these values; the mean is what is maximised. Raises
            ``ConfigError`` where values do not go together.
        trials: at most so many; fewer, where there are no more values.
        done: called after each trial, also for those of the journal.

    Raises:
        ConfigError: the values of the words do not go together.
    """
    history = journal.read()[:trials]
    known = {key_of(trial.values): trial for trial in history}
    for trial in history:
        sampler.add(trial)
        done(trial)
    for step in range(len(history), trials):
        values = sampler.propose(step, known) if step else {knob.name: knob.default for knob in knobs}
        if values is None:
            break
        again = known.get(key_of(values))
        trial = _trial(step, values, tried) if again is None else replace(again, step=step)
        journal.write(trial)
        history.append(trial)
        known.setdefault(key_of(values), trial)
        sampler.add(trial)
        done(trial)
    return history


def simplified(
    knobs: Sequence[Knob], history: Sequence[Trial], tried: Callable[[Mapping[str, Any]], Mapping[str, float]]
) -> tuple[Trial, dict[str, float | None]]:
    """The best trial, less what it owes nothing to: a knob goes back to the value of the words where that
    costs nothing.

    Args:
        history, tried: as of :func:`search`.

    Returns:
        The trial, and what it would lose if a knob that differs went back alone; None: it could not.
    """
    known = {key_of(trial.values): trial for trial in history}
    best = max(history, key=lambda trial: trial.rank)
    losses: dict[str, float | None] = {}
    changed = True
    while changed:
        changed = False
        losses = {}
        for knob in knobs:
            if best.values[knob.name] == knob.default:
                continue
            values = {**best.values, knob.name: knob.default}
            key = key_of(values)
            if key not in known:
                known[key] = _trial(best.step, values, tried)
            back = known[key]
            assert best.score is not None
            losses[knob.name] = None if back.score is None else best.score - back.score
            if back.score is not None and back.score >= best.score:
                best, changed = back, True
                break
    return best, losses


def key_of(values: Mapping[str, Any]) -> str:
    """Text that is equal for equal values."""
    return json.dumps(dict(values))


def _trial(step: int, values: Mapping[str, Any], tried: Callable[..., Mapping[str, float]]) -> Trial:
    try:
        splits = tried(values)
    except ConfigError:
        if not step:  # the values of the words
            raise
        return Trial(step, values, None, {})
    return Trial(step, values, math.fsum(splits.values()) / len(splits), splits)


def _encoded(knob: Knob, value: Any) -> Any:
    return knob.values.index(value) if isinstance(knob.values, tuple) else value


def _decoded(knob: Knob, value: Any) -> Any:
    return knob.values[value] if isinstance(knob.values, tuple) else knob.near(value)


@contextmanager
def _quiet(optuna: ModuleType) -> Iterator[None]:
    """Without the library's own lines about every study."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)

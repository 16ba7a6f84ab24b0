"""Which run trains for which others, and what each child process is told."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vistk.config import LEFT_BEHIND
from vistk.runs import RunError
from vistk.schema import ConfigError
from vistk.sweeps.cells import Cell, tracker_key, training_key

WEIGHTLESS = "no weights"


@dataclass(frozen=True)
class Job:
    """Cells that one child process runs, one after the other.

    Attributes:
        cells: one that trains, or several that are evaluated on equal weights.
        after: the job whose weights they are evaluated on; None: each does as its words say.
        cache: folder of the queries that the cells share.
    """

    cells: tuple[Cell, ...]
    after: Job | None
    cache: Path

    @property
    def trains(self) -> bool:
        return self.after is None and not self.cells[0].config.eval_only

    def words(self, cell: Cell) -> list[str]:
        """What ``experiments/run.py`` is told of a cell."""
        said = [*cell.words, "evaluation.rows=[]", f"run_dir={_quoted(cell.run_dir)}"]
        if self.after is not None:
            said += [f"weights={_quoted(self.after.cells[0].weights)}", "eval_only=true"]
        # What another kind of run, or one on other weights, has left is begun anew. A directory without
        # anything is not: should another sweep finish it meanwhile, its numbers are these.
        strange = self.after is not None or (self.trains and not _begun(cell))
        if strange and any((cell.run_dir / name).exists() for name in LEFT_BEHIND):
            said.append("resume=false")
        return [*said, *_cache_words(cell, self.cache)]

    def finished(self, cell: Cell) -> bool:
        """Whether the cell's numbers are there, and of the weights that they are to be of."""
        if not cell.metrics.is_file():
            return False
        if self.after is None:  # a row that was evaluated on another's weights has none for others
            return not self.trains or cell.weights.is_file()
        trainer = self.after.cells[0]
        if not self.after.finished(trainer):
            return False
        own = _weights_hash(cell.metrics)
        return own is not None and own == _weights_hash(trainer.metrics)

    def unfinished(self) -> list[Cell]:
        return [cell for cell in self.cells if not self.finished(cell)]


def make_jobs(cells: Sequence[Cell], cache: Path) -> list[Job]:
    """All cells in jobs, in an order in which they can run.

    Rows of one data set and seed that train the same are trained once, by the first of them that has begun,
    or the first. Trackers without weights are evaluated on what the first of the others trains.

    Raises:
        ConfigError: a row is to have weights of one that trains nothing.
    """
    jobs = []
    place = {cell.run_dir: i for i, cell in enumerate(cells)}
    for able, others in sorted(_groups(cells), key=lambda group: place[group[0][0].run_dir]):
        if able[0].config.eval_only:
            jobs.append(Job((*able, *others), None, cache))
            continue
        trainer = next((cell for cell in able if _begun(cell)), able[0])
        jobs.append(Job((trainer,), None, cache))
        if rest := [cell for cell in (*able, *others) if cell is not trainer]:
            in_order = sorted(rest, key=lambda cell: place[cell.run_dir])
            jobs.append(Job(tuple(in_order), jobs[-1], cache))
    return jobs


def _groups(cells: Sequence[Cell]) -> list[tuple[list[Cell], list[Cell]]]:
    """Cells that train the same, and those that are evaluated on their weights without training the same."""
    groups: list[tuple[list[Cell], list[Cell]]] = []
    common: dict[tuple[str, int, str], dict[str, list[Cell]]] = {}
    for cell in cells:
        if cell.weights_of is not None and not cell.config.eval_only:
            continue
        if cell.retrain and not cell.config.eval_only:
            groups.append(([cell], []))
            continue
        alike = common.setdefault((cell.data, cell.seed, training_key(cell.config)), {})
        key = "" if cell.config.eval_only else tracker_key(cell.config) if cell.has_weights else WEIGHTLESS
        alike.setdefault(key, []).append(cell)
    for alike in common.values():
        weightless = alike.pop(WEIGHTLESS, [])
        if not alike:
            groups.append((weightless, []))
        for able in alike.values():
            groups.append((able, weightless))
            weightless = []
    group_of = {(c.data, c.seed, c.row): group for group in groups for own in group for c in own}
    for cell in cells:
        if cell.weights_of is not None and not cell.config.eval_only:
            able, others = group_of[cell.data, cell.seed, cell.weights_of]
            if able[0].config.eval_only:
                raise ConfigError(
                    f"row {cell.row!r}: weights_of names {cell.weights_of!r}, which trains nothing"
                )
            others.append(cell)
    return groups


def _begun(cell: Cell) -> bool:
    return cell.weights.is_file() or (cell.run_dir / "checkpoints").is_dir()


def _weights_hash(metrics: Path) -> str | None:
    """None where the run has been begun anew since somebody looked.

    Raises:
        RunError: the file is not what a run writes.
    """
    try:
        return json.loads(metrics.read_text(encoding="utf-8"))["card"].get("weights hash")
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RunError(f"{metrics}: not what a run writes ({error!r}); remove it to run it again") from error


def _cache_words(cell: Cell, folder: Path) -> list[str]:
    """Words by which every video is segmented once for all cells; a row may say otherwise."""
    said = {word.partition("=")[0] for word in cell.words}
    if "cache" in said:
        return []
    return ["cache=auto", *([] if "cache.dir" in said else [f"cache.dir={_quoted(folder)}"])]


def _quoted(path: Path) -> str:
    """A path as the value of a word; Hydra's grammar takes odd characters in quotes."""
    text = str(path)
    return text if re.fullmatch(r"[\w./+-]+", text) else json.dumps(text, ensure_ascii=False)

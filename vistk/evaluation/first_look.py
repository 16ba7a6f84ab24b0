"""A look at a results file that costs no more for a large one: is it what its name says?

Of several results files the last is read after the others were scored. What is wrong with one as a whole (no
such file, another kind of file, cut off, of another data set) is seen before.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from vistk.evaluation.files import EvaluationFileError, GroundTruth, load_results
from vistk.evaluation.scores import Predicted

_LONGEST_ENTRY = 1 << 26  # bytes; a longer one is not looked at
_END = 64  # bytes at the end of a file, for the bracket that closes the list
_SPACE = " \t\r\n"


def look_at(results: Predicted, ground_truth: GroundTruth, *, lenient: bool = False) -> None:
    """Raises what :func:`load_results` would, where a glance at the file tells that it would."""
    if isinstance(results, str | Path) and not _seems_right(Path(results), ground_truth, lenient):
        load_results(results, ground_truth, lenient=lenient)  # says what is wrong, if anything is


def _seems_right(path: Path, ground_truth: GroundTruth, lenient: bool) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - _END))
        if not file.read().decode("utf-8", "replace").rstrip(_SPACE).endswith("]"):
            return False
        file.seek(0)
        if lenient:
            return file.read(_END).decode("utf-8-sig", "replace").lstrip(_SPACE).startswith("[")
        length = 1 << 16
        while True:
            file.seek(0)
            text = file.read(length).decode("utf-8-sig", "replace").lstrip(_SPACE)
            if not text.startswith("["):
                return False
            text = text[1:].lstrip(_SPACE)
            try:
                entry: Any = json.JSONDecoder().raw_decode(text)[0]
                break
            except ValueError:  # the entry goes on, or there is none
                if length >= min(size, _LONGEST_ENTRY):
                    return text.startswith("]") or size > _LONGEST_ENTRY
                length *= 8
    try:
        load_results([entry], ground_truth)
    except EvaluationFileError:
        return False
    return True

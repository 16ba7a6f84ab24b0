"""The log of a run: one json object a line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from vistk.files import write_text


class JsonLines:
    """A log of one json object a line. Lines of steps after ``keep_below`` are dropped on resume."""

    def __init__(self, path: Path, keep_below: int) -> None:
        kept = []
        if path.exists():
            for line in path.read_text().splitlines():
                try:
                    row = json.loads(line)
                except json.JSONDecodeError:  # the last line of a killed run
                    break
                if row["step"] <= keep_below:
                    kept.append(line)
        write_text(path, "".join(line + "\n" for line in kept))
        self.path = path

    def write(self, row: dict[str, Any]) -> None:
        with self.path.open("a") as file:
            file.write(json.dumps(row) + "\n")

"""The log of a run: one json object a line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


class JsonLines:
    """A log of one json object a line. Lines of steps after ``keep_below`` are dropped on resume."""

    def __init__(self, path: Path, keep_below: int) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        kept = []
        if path.exists():
            for line in path.read_text().splitlines():
                try:
                    row = json.loads(line)
                except json.JSONDecodeError:  # the last line of a killed run
                    break
                if row["step"] <= keep_below:
                    kept.append(line)
        path.write_text("".join(line + "\n" for line in kept))
        self.path = path

    def write(self, row: dict[str, Any]) -> None:
        with self.path.open("a") as file:
            file.write(json.dumps(row) + "\n")

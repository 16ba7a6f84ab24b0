"""How numbers are printed: percent, in GitHub tables and in booktabs tables."""

from __future__ import annotations

import json
import math
from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from tabulate import tabulate

from vistk.files import write_text

_LATEX = {
    "\\": r"\textbackslash{}",
    **{character: f"\\{character}" for character in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",  # these three are other characters in LaTeX's default encoding of fonts
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "±": r"$\pm$",
    "≥": r"$\ge$",
    "Δ": r"$\Delta$",
}


@dataclass(frozen=True)
class Table:
    """A table of finished cells, with a line above and one below it; both may be empty."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    left: int = 1  # columns aligned to the left
    italic: Collection[int] = ()  # positions of rows that are quoted, not measured
    note: str = ""

    def to_markdown(self) -> str:
        """A GitHub table; empty lines between title, table and note."""
        rows = [
            [f"*{cell}*" if i in self.italic and cell not in ("", "-") else cell for cell in row]
            for i, row in enumerate(self.rows)
        ]
        title = f"**{self.title}**" if self.title else ""
        table = markdown_table(self.header, rows, self.left) if self.header else ""
        return "\n\n".join(block for block in (title, table, self.note) if block)

    def to_latex(self) -> str:
        r"""A booktabs table for ``\usepackage{booktabs}``; title and note are comments."""
        comments = [f"% {line}" for text in (self.title, self.note) for line in text.splitlines()]
        if not self.header:
            return "\n".join(comments) + "\n"
        above = len(self.title.splitlines())
        text = latex_table(self.header, self.rows, self.left, italic=self.italic)
        return "\n".join([*comments[:above], text, *comments[above:]]) + "\n"


class Printable(ABC):
    """Numbers with tables of them, to be written in any of four forms."""

    frame: pd.DataFrame  # one number a row

    @property
    @abstractmethod
    def tables(self) -> list[Table]:
        """The tables that are printed."""

    @abstractmethod
    def as_dict(self) -> dict[str, Any]:
        """Everything, for json: undefined numbers are None."""

    def to_json(self, path: str | Path | None = None) -> str:
        """:meth:`as_dict` in full precision; written to ``path`` if there is one, as all of these are."""
        return _written(json.dumps(self.as_dict(), indent=2, allow_nan=False) + "\n", path)

    def to_markdown(self, path: str | Path | None = None) -> str:
        """GitHub tables in percent, one decimal."""
        return _written("\n\n".join(table.to_markdown() for table in self.tables) + "\n", path)

    def to_latex(self, path: str | Path | None = None) -> str:
        """Booktabs tables in percent, one decimal."""
        return _written("\n".join(table.to_latex() for table in self.tables), path)

    def to_csv(self, path: str | Path | None = None) -> str:
        """The frame in full precision."""
        return _written(self.frame.to_csv(index=False), path)


def _written(text: str, path: str | Path | None) -> str:
    if path is None:
        return text
    if Path(path).is_dir():
        raise IsADirectoryError(f"{path}: found a folder, expected the name of a file to write")
    try:
        write_text(path, text)
    except OSError as error:  # which may name the temporary file beside it
        raise OSError(f"{path}: cannot be written ({error.strerror or error})") from error
    return text


def plural(count: int, noun: str) -> str:
    """``1 video``, ``2 videos``."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def percent(value: float | None) -> str:
    """``0.3618`` as ``"36.2"``; ``"-"`` where undefined. What rounds to zero has no sign."""
    return "-" if value is None or math.isnan(value) else f"{100 * value:z.1f}"


def latex_escape(text: str) -> str:
    """Text as LaTeX prints it."""
    return "".join(_LATEX.get(character, character) for character in text)


def latex_table(
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    left: int = 1,
    *,
    italic: Collection[int] = (),
    above: Sequence[tuple[str, int]] = (),
) -> str:
    r"""A booktabs table of finished cells, which are escaped. A row does not begin with a bracket or star:
    LaTeX would take these for arguments of the ``\\`` before it.

    Args:
        left: columns aligned to the left, the others are to the right.
        italic: positions of rows.
        above: headings over several columns each, and how many; over all columns but the first ``left``.
    """
    escaped = [[latex_escape(cell) for cell in row] for row in rows]
    for i in italic:
        escaped[i] = [rf"\emph{{{cell}}}" if cell not in ("", "-") else cell for cell in escaped[i]]
    joined = [" & ".join(row) for row in ([latex_escape(name) for name in header], *escaped)]
    lines = [("{}" if row.startswith(("[", "*")) else "") + row + r" \\" for row in joined]
    groups = []
    if above:
        named = [rf"\multicolumn{{{count}}}{{c}}{{{latex_escape(name)}}}" for name, count in above]
        groups.append(" & ".join([*[""] * left, *named]).strip() + r" \\")
    alignment = "l" * left + "r" * (len(header) - left)
    text = [rf"\begin{{tabular}}{{{alignment}}}", r"\toprule", *groups, lines[0], r"\midrule", *lines[1:]]
    return "\n".join([*text, r"\bottomrule", r"\end{tabular}"])


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]], left: int = 0) -> str:
    """A GitHub table of finished cells; all but the first ``left`` columns are aligned to the right. A bar
    in a cell is escaped.
    """
    align = ["left" if i < left else "right" for i in range(len(header))]
    header, *rows = [[cell.replace("|", r"\|") for cell in row] for row in (header, *rows)]
    # tabulate counts columns by the rows, so without any there is nothing to align.
    return tabulate(rows, header, tablefmt="github", colalign=align if rows else None, disable_numparse=True)

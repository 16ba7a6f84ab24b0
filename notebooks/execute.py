"""Runs the notebooks from their plain-text sources, and writes their ``.ipynb`` twins.

``python notebooks/execute.py [NAME ..]`` executes notebooks (all of them by default) in this checkout, as
a reader would, and says how long each took; ``-o DIR`` keeps them with their output.
``python notebooks/execute.py --pair`` writes ``NAME.ipynb`` from ``NAME.py``, without output.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent
NAMES = ("association_failures", "where_ap_goes", "write_a_tracker", "use_published_weights")
TIMEOUT = 600  # seconds a cell; a whole notebook takes a fraction of it
MISSING = 'notebooks need jupytext, nbclient and ipykernel: pip install -e ".[notebooks]"'


def read_source(path: Path) -> Any:
    """The notebook of a ``.py`` source, without output, and always the same: its cells are numbered."""
    import jupytext

    notebook = jupytext.read(path, fmt="py:percent")
    for number, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{number}"
        kept = {"lines_to_next_cell"} & set(cell["metadata"])  # blank lines of the source
        cell["metadata"] = {name: cell["metadata"][name] for name in kept}
    text = notebook.metadata["jupytext"]["text_representation"]
    text.pop("jupytext_version", None)  # of whoever writes the twin
    return notebook


def write_pair(path: Path) -> Path:
    """The ``.ipynb`` of a ``.py`` source."""
    import nbformat

    twin = path.with_suffix(".ipynb")
    nbformat.write(read_source(path), twin)
    return twin


def execute(notebook: Any, folder: Path, name: str = "notebook") -> float:
    """Executes a notebook in place, in ``folder``; returns the seconds that it took.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell failed; the message has its code and its trace.
    """
    from nbclient import NotebookClient

    started = time.perf_counter()
    resources = {"metadata": {"path": str(folder), "name": name}}
    NotebookClient(notebook, timeout=TIMEOUT, resources=resources).execute()
    return time.perf_counter() - started


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code: 0 done, 1 a notebook failed, 2 bad input (one sentence on stderr)."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"some of {', '.join(NAMES)} (default: all)")
    parser.add_argument("--pair", action="store_true", help="write the .ipynb twins, execute nothing")
    parser.add_argument("-o", "--out", type=Path, metavar="DIR", help="keep the executed notebooks there")
    given = parser.parse_args(arguments)
    names = [Path(name).stem for name in given.names] or list(NAMES)
    if unknown := [name for name in names if name not in NAMES]:
        print(f"error: no notebook {unknown[0]!r}; there are {', '.join(NAMES)}", file=sys.stderr)
        return 2
    try:
        import ipykernel  # noqa: F401
        import jupytext  # noqa: F401
        import nbformat
        from nbclient.exceptions import CellExecutionError
    except ModuleNotFoundError as error:
        print(f"error: {MISSING} ({error})", file=sys.stderr)
        return 2
    if given.pair:
        for name in names:
            print(write_pair(FOLDER / f"{name}.py"))
        return 0
    for name in names:
        notebook = read_source(FOLDER / f"{name}.py")
        try:
            print(f"{execute(notebook, FOLDER, name):6.1f} s  {name}", flush=True)
        except CellExecutionError as error:
            print(f"{name} failed:\n{error}", file=sys.stderr)
            return 1
        finally:
            if given.out is not None:
                given.out.mkdir(parents=True, exist_ok=True)
                nbformat.write(notebook, given.out / f"{name}.ipynb")
    return 0


if __name__ == "__main__":
    sys.exit(main())

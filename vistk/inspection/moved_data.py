"""Data that are not where a run found them."""

from __future__ import annotations

from vistk.data.config import SyntheticConfig
from vistk.data.synthetic import dataset_root


def require_written(data: SyntheticConfig, train_split: str | None) -> None:
    """Refuse generated data that are gone: opening them would write others, which is not for a look.

    Raises:
        FileNotFoundError: a split that would be opened is not there.
    """
    root = dataset_root(data)
    if not root.is_dir():
        raise FileNotFoundError(f"data folder {root} does not exist")
    local = [] if data.local_split is None else [train_split or data.train_split]
    for split in [*data.eval_splits, *local]:
        file = root / split / "instances.json"
        if not file.is_file():
            raise FileNotFoundError(f"{file} does not exist")


def moved(error: Exception) -> str:
    """Where data were looked for, and how to say where they are."""
    return f"its data are not where they were ({error}); say where they are: data.root=DIR"

"""Published numbers, to stand beside measured ones: ``quoted.csv``, one row a method and data set.

They are quoted, not measured here: of the official validation splits, with each paper's own number of kept
predictions and test size. So they are marked in every table and take part in no test.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pandas as pd

from vistk.data.categories import TABLES
from vistk.evaluation.files import EvaluationFileError, GroundTruth
from vistk.evaluation.number_table import COLUMNS, MEASURED, empty_frame

METRICS = ("AP", "AP50", "AP75", "AR1", "AR10")
NOTE = (
    "*Italic rows are quoted from the source named beside them, for the official validation split, with "
    "other numbers of kept predictions and other test sizes: no test compares them.*"
)


@cache
def _published() -> pd.DataFrame:
    return pd.read_csv(Path(__file__).with_name("quoted.csv"), dtype={"arxiv": str}, keep_default_na=True)


def data_sets() -> tuple[str, ...]:
    """The data sets that there are published numbers of."""
    return tuple(dict.fromkeys(_published()["data"]))


def quoted(data: str, *, shown_as: tuple[str, str]) -> pd.DataFrame:
    """The published numbers of a data set as rows of a report's frame, fractions.

    Args:
        data: one of :func:`data_sets`.
        shown_as: the data set and split beside whose measured rows they stand.

    Raises:
        EvaluationFileError: there are none of that data set.
    """
    if data not in data_sets():
        raise EvaluationFileError(
            f"no published numbers of {data!r}, expected one of {', '.join(data_sets())}"
        )
    rows = []
    for row in _published().query("data == @data").itertuples():
        found = {metric: getattr(row, metric) for metric in METRICS}
        rows += [
            {
                "data_set": shown_as[0],
                "split": shown_as[1],
                "results": f"{row.method}, {row.backbone}, {row.mode}",
                "metric": metric,
                "value": value / 100,
                "source": f"{row.source} (arXiv {row.arxiv})",
            }
            for metric, value in found.items()
            if not pd.isna(value)
        ]
    frame = pd.DataFrame(rows).reindex(columns=list(COLUMNS))
    assert MEASURED not in set(frame["source"])
    return pd.concat([empty_frame(), frame.assign(**{"class": "all", "by": "all", "group": "all"})])


def recognised(ground_truth: GroundTruth) -> str | None:
    """The data set whose categories, ids and names, a ground truth has; None for one of one's own.

    YouTube-VIS 2022 has the categories of 2021 and is taken for it.
    """
    found = {key: name.lower() for key, name in ground_truth.categories.items()}
    for data in data_sets():
        if found == {key: name.lower() for key, name in TABLES[data].items()}:
            return data
    return None

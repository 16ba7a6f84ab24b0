"""Where the vectors of a video's objects lie: are those of one object nearer than those of two?"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from vistk.viz.colors import hex_of
from vistk.viz.figures import FAINT, INK, new_figure, plain
from vistk.viz.figures import NOBODY as NOBODYS_COLOR

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NOBODY = -1
"""In place of an instance."""

PARTS = (("early", "o"), ("middle", "s"), ("late", "^"))
"""Thirds of the video, and how they are marked."""


def principal_components(vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """``(n, 2)`` coordinates along the two directions of greatest variance, and their shares of it ``(2,)``.

    Zeros where there are not as many directions.

    Args:
        vectors: ``(n, C)``; compared at length 1, as by a cosine.

    Raises:
        ImportError: scikit-learn is not installed.
    """
    unit = _unit(vectors)
    points, shares = np.zeros((len(unit), 2)), np.zeros(2)
    if len(unit) > 1 and np.ptp(unit, axis=0).any():
        PCA = _sklearn("decomposition").PCA
        count = min(2, len(unit), unit.shape[1])
        fitted = PCA(count, svd_solver="full").fit(unit)
        points[:, :count] = fitted.transform(unit)
        shares[:count] = fitted.explained_variance_ratio_
    return points, shares


def neighbour_map(vectors: np.ndarray, perplexity: float = 30.0, seed: int = 0) -> np.ndarray:
    """``(n, 2)`` t-SNE of ``(n, C)`` vectors by their cosine; begins with :func:`principal_components`.

    The perplexity is at most a third of the other points. Fewer than three points, or equal ones, stay where
    the principal components have them. On one machine the result is always the same.

    Raises:
        ImportError: scikit-learn is not installed.
    """
    points, _ = principal_components(vectors)
    spread = points[:, 0].std() if len(points) > 2 else 0.0
    if not spread:
        return points
    TSNE = _sklearn("manifold").TSNE
    return TSNE(
        perplexity=min(perplexity, (len(points) - 1) / 3),
        init=(1e-4 / spread * points).astype(np.float32),  # the size that scikit-learn begins with
        random_state=seed,
        method="exact" if len(points) < 500 else "barnes_hut",
    ).fit_transform(_unit(vectors).astype(np.float32))


def embedding_map(
    vectors: np.ndarray,
    instances: np.ndarray,
    frames: np.ndarray,
    names: Mapping[int, str] | None = None,
    *,
    title: str = "",
) -> Figure:
    """Vectors of all instances of a video in two dimensions: principal components, and t-SNE beside them.

    The colour is the instance, the marker tells early frames from late ones, and a line leads from frame to
    frame.

    Args:
        vectors: ``(n, C)``.
        instances: ``(n,)`` int64, :data:`NOBODY` for vectors of no instance, which are grey.
        frames: ``(n,)`` int64.
        names: of instances; default: their numbers.

    Raises:
        ValueError: the lengths differ, or a vector is not finite.
        ImportError: matplotlib or scikit-learn is not installed.
    """
    if vectors.ndim != 2 or not len(vectors) == len(instances) == len(frames):
        raise ValueError(
            f"vectors has shape {vectors.shape}, with {len(instances)} instances and {len(frames)} frames; "
            "expected (n, C) and n of both"
        )
    if not np.isfinite(vectors).all():
        raise ValueError(
            f"vector {int((~np.isfinite(vectors)).any(1).argmax())} has a number that is not finite"
        )
    figure = new_figure(10.4, 4.6)
    left, right = figure.subplots(1, 2)
    points, shares = principal_components(vectors)
    for axes, where, name in ((left, points, "PCA"), (right, neighbour_map(vectors), "t-SNE")):
        _scatter(axes, where, instances, frames, names or {})
        axes.set_title(name, fontsize=10)
        axes.set_xticks([])
        axes.set_yticks([])
        plain(axes)
        axes.set_facecolor("#f6f6f6")
        if axes is right:
            _limit(axes, where[instances != NOBODY])
    if shares.any():
        left.set_xlabel(f"{shares[0]:.0%} of the variance")
        left.set_ylabel(f"{shares[1]:.0%}")
    _legend(figure, right)
    if title:
        figure.suptitle(title, fontsize=10, x=0.01, ha="left")
    return figure


def _scatter(
    axes: Axes, points: np.ndarray, instances: np.ndarray, frames: np.ndarray, names: Mapping[int, str]
) -> None:
    """One collection of markers for each instance and part of the video, labelled by the first of them."""
    if not len(points):
        axes.text(0.5, 0.5, "no vectors", ha="center", va="center", color=FAINT, transform=axes.transAxes)
        return
    part = 3 * (frames - frames.min()) // (np.ptp(frames) + 1)
    for instance in np.unique(instances):  # NOBODY comes first, below the others
        own = np.flatnonzero(instances == instance)
        own = own[np.argsort(frames[own], kind="stable")]
        nobody = instance == NOBODY
        color = NOBODYS_COLOR if nobody else hex_of(int(instance))
        label = "nobody" if nobody else names.get(int(instance), str(instance))
        if not nobody:
            axes.plot(*points[own].T, color=color, linewidth=0.8, alpha=0.5)
        for third, (_, marker) in enumerate(PARTS):
            x, y = points[own[part[own] == third]].T
            if len(x):
                size = 14 if nobody else 34
                axes.scatter(
                    x, y, s=size, color=color, marker=marker, edgecolors="none" if nobody else INK,
                    linewidths=0.5, label=label, gid=f"instance {instance}", zorder=1 if nobody else 3,
                )  # fmt: skip
                label = f"_{label}"


def _limit(axes: Axes, points: np.ndarray) -> None:
    """Show the 1st to the 99th percentile: t-SNE throws some vectors so far that all else would be a dot."""
    if not len(points):
        return
    low, high = np.percentile(points, (1, 99), axis=0)
    margin = 0.1 * (high - low)
    if (margin > 0).all():
        axes.set_xlim(low[0] - margin[0], high[0] + margin[0])
        axes.set_ylim(low[1] - margin[1], high[1] + margin[1])


def _legend(figure: Figure, axes: Axes) -> None:
    from matplotlib.lines import Line2D

    handles, labels = axes.get_legend_handles_labels()
    if handles:
        for name, marker in PARTS:
            handles.append(Line2D([], [], color=FAINT, marker=marker, linestyle="none"))
            labels.append(name)
        figure.legend(handles, labels, loc="outside right upper", fontsize=8, frameon=False)


def _unit(vectors: np.ndarray) -> np.ndarray:
    """``(n, C)`` float64 at length 1; zeros stay."""
    vectors = vectors.astype(np.float64)
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)


def _sklearn(module: str) -> Any:
    try:
        return importlib.import_module(f"sklearn.{module}")
    except ImportError as error:
        raise ImportError(
            'maps of embeddings need scikit-learn, which is missing: pip install -e ".[viz]"'
        ) from error

"""Embedding maps: objects far apart stay so, and few vectors are no error."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from matplotlib.colors import to_hex

from vistk.viz.colors import hex_of
from vistk.viz.embeddings import NOBODY, embedding_map, neighbour_map, principal_components
from vistk.viz.figures import png


def clusters(count: int, frames: int, channels: int = 16) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Vectors of ``count`` objects with looks of their own, in the order of the frames."""
    rng = np.random.default_rng(0)
    looks = rng.standard_normal((count, channels))
    instances = np.tile(np.arange(count), frames)
    vectors = looks[instances] + 0.1 * rng.standard_normal((count * frames, channels))
    return vectors * rng.uniform(0.5, 2, (len(vectors), 1)), instances, np.arange(frames).repeat(count)


def purity(points: np.ndarray, instances: np.ndarray) -> float:
    """Share of points whose nearest neighbour is of the same instance."""
    distance = np.linalg.norm(points[:, None] - points, axis=-1) + 1e9 * np.eye(len(points))
    return float((instances[distance.argmin(1)] == instances).mean())


def test_principal_components_by_hand() -> None:
    # Unit vectors at 0, 90 and 45 degrees, whatever their lengths: most variance lies along (1, -1).
    points, shares = principal_components(np.array([[2.0, 0.0], [0.0, 5.0], [3.0, 3.0]]))
    np.testing.assert_allclose(np.abs(points[:, 0]), [0.5**0.5, 0.5**0.5, 0], atol=1e-12)
    # Along (1, 1) they are at 0.7071, 0.7071 and 1: about their mean -0.0976, -0.0976, 0.1953.
    np.testing.assert_allclose(np.abs(points[:, 1]), [0.0976, 0.0976, 0.1953], atol=1e-4)
    assert shares.sum() == pytest.approx(1)
    assert shares[0] == pytest.approx(1 / (1 + 0.0572), abs=1e-3)


@pytest.mark.parametrize(("count", "frames"), [(5, 12), (2, 3), (3, 200)])
def test_objects_stay_together(count: int, frames: int) -> None:
    vectors, instances, _ = clusters(count, frames)
    first = neighbour_map(vectors)
    assert purity(first, instances) == 1
    assert np.array_equal(first, neighbour_map(vectors))


@pytest.mark.parametrize("count", [0, 1, 2, 3, 4])
@pytest.mark.parametrize("channels", [1, 7])
def test_few_vectors(count: int, channels: int) -> None:
    vectors = np.random.default_rng(count).standard_normal((count, channels))
    for points in (principal_components(vectors)[0], neighbour_map(vectors)):
        assert points.shape == (count, 2)
        assert np.isfinite(points).all()
    assert png(embedding_map(vectors, np.arange(count), np.zeros(count, int))).startswith(b"\x89PNG")


@pytest.mark.parametrize("value", [0.0, 2.0])
def test_equal_vectors(value: float) -> None:
    vectors = np.full((9, 5), value)
    assert (neighbour_map(vectors) == 0).all()
    assert png(embedding_map(vectors, np.arange(9), np.arange(9)))


def test_colours_and_markers() -> None:
    vectors, instances, frames = clusters(3, 9)
    instances = np.where(instances == 2, NOBODY, instances)
    figure = embedding_map(vectors, instances, frames, {0: "cat 0"})
    for axes in figure.axes:
        found = {}
        for marks in axes.collections:
            found.setdefault(marks.get_gid(), []).append(marks)
        assert found.keys() == {"instance -1", "instance 0", "instance 1"}
        for name, marks in found.items():
            assert [len(m.get_offsets()) for m in marks] == [3, 3, 3]  # early, middle, late
            assert len({len(m.get_paths()[0].vertices) for m in marks}) == 3  # circle, square, triangle
            if name != "instance -1":
                assert {to_hex(m.get_facecolor()[0]) for m in marks} == {hex_of(int(name[-1]))}
        assert len(axes.lines) == 2  # nobody goes nowhere
        early = found["instance 1"][0].get_offsets()
        line = next(line for line in axes.lines if line.get_color() == hex_of(1))
        np.testing.assert_allclose(np.stack(line.get_data(), 1)[:3], early)
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [
        "nobody", "cat 0", "1", "early", "middle", "late"
    ]  # fmt: skip


def test_one_vector_far_away_leaves_the_others_room(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors, instances, frames = clusters(4, 50)
    where = np.stack([np.arange(len(vectors)) % 11, np.arange(len(vectors)) % 7], 1).astype(float)
    where[5] = 1e4, -1e4
    where[7] = 500.0  # nobody's, which does not count
    instances[7] = NOBODY
    monkeypatch.setattr("vistk.viz.embeddings.neighbour_map", lambda _: where)
    figure = embedding_map(vectors, instances, frames)
    (axes,) = (axes for axes in figure.axes if axes.get_title() == "t-SNE")
    assert axes.get_xlim() == pytest.approx((-1, 11))  # 0 to 10, and a tenth more on each side
    assert axes.get_ylim() == pytest.approx((-0.6, 6.6))


def test_nothing_says_so() -> None:
    figure = embedding_map(np.zeros((0, 4)), np.zeros(0, int), np.zeros(0, int))
    assert [text.get_text() for axes in figure.axes for text in axes.texts] == ["no vectors", "no vectors"]


def test_wrong_input() -> None:
    with pytest.raises(ValueError, match=r"vectors has shape \(3, 4\), with 2 instances and 3 frames"):
        embedding_map(np.zeros((3, 4)), np.zeros(2, int), np.zeros(3, int))
    with pytest.raises(ValueError, match="vector 1 has a number that is not finite"):
        embedding_map(np.array([[1.0], [np.nan]]), np.zeros(2, int), np.zeros(2, int))


@pytest.mark.parametrize(
    ("missing", "call", "extra"),
    [
        ("matplotlib", "from vistk.viz.timelines import track_timeline; track_timeline({})", "figures need"),
        (
            "matplotlib",
            "import numpy as np; from vistk.viz.memories import memory_figure; "
            "memory_figure(np.zeros((0, 1), int), np.zeros((0, 1)))",
            "figures need",
        ),
        (
            "sklearn",
            "import numpy as np; from vistk.viz.embeddings import neighbour_map; neighbour_map(np.eye(4))",
            "maps of embeddings need scikit-learn",
        ),
    ],
)
def test_a_missing_extra_is_named(missing: str, call: str, extra: str) -> None:
    code = f"import sys; sys.modules[{missing!r}] = None; {call}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith(f"ImportError: {extra}")
    assert 'pip install -e ".[viz]"' in last


def test_no_pyplot() -> None:
    code = (
        "import sys, numpy as np; from vistk.viz.figures import png; "
        "from vistk.viz.embeddings import embedding_map; "
        "png(embedding_map(np.eye(4), np.arange(4), np.arange(4))); "
        "sys.exit('matplotlib.pyplot' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0

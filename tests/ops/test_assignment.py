import itertools

import pytest
import torch

from vistk.ops.assignment import best_assignment


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (3, 3), (2, 5), (5, 2), (4, 6)])
def test_total_is_the_greatest_of_all_assignments(rows: int, columns: int) -> None:
    similarity = torch.randn(rows, columns, generator=torch.Generator().manual_seed(rows * columns))
    small, large = sorted((rows, columns))
    wide = similarity if rows <= columns else similarity.T
    best = max(
        sum(wide[i, j].item() for i, j in enumerate(choice))
        for choice in itertools.permutations(range(large), small)
    )
    r, c = best_assignment(similarity)
    assert similarity[r, c].sum().item() == pytest.approx(best)
    assert len(r.unique()) == len(c.unique()) == small
    assert r.tolist() == sorted(r.tolist())


def test_greedy_would_be_wrong() -> None:
    rows, columns = best_assignment(torch.tensor([[0.9, 0.8], [0.8, 0.1]]))
    assert (rows.tolist(), columns.tolist()) == ([0, 1], [1, 0])


@pytest.mark.parametrize("shape", [(0, 0), (0, 3), (3, 0)])
def test_nothing_to_assign(shape: tuple[int, int]) -> None:
    rows, columns = best_assignment(torch.zeros(shape))
    assert rows.tolist() == columns.tolist() == []
    assert rows.dtype == columns.dtype == torch.int64


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_not_finite(value: float) -> None:
    similarity = torch.zeros(2, 3)
    similarity[1, 2] = value
    with pytest.raises(ValueError, match="row 1 and column 2"):
        best_assignment(similarity)


def test_not_a_matrix() -> None:
    with pytest.raises(ValueError, match=r"\(2,\)"):
        best_assignment(torch.zeros(2))

import pytest
import torch

from vistk.trackers.memory import TrackMemory, entry_weights


@pytest.mark.parametrize(
    ("weighting", "expected"),
    [
        ("recent", [1 / 3, 1 / 2, 1.0]),
        ("released", [1.0, 2 / 3, 1 / 3]),
        ("uniform", [1.0, 1.0, 1.0]),
    ],
)
def test_weights_of_age_oldest_first(weighting: str, expected: list[float]) -> None:
    scores = torch.tensor([[0.1], [0.2], [0.3]])
    assert entry_weights(scores, weighting, False)[:, 0].tolist() == pytest.approx(expected)


@pytest.mark.parametrize(
    ("weighting", "expected"),
    [
        ("recent", [[0.5 / 2, 0.8 / 2], [1.0, 0.25]]),  # scores multiply
        ("released", [[1.0 + 0.5, 1.0 + 0.8], [0.5 + 1.0, 0.5 + 0.25]]),  # scores are added
        ("uniform", [[0.5, 0.8], [1.0, 0.25]]),
    ],
)
def test_weights_with_scores(weighting: str, expected: list[list[float]]) -> None:
    scores = torch.tensor([[0.5, 0.8], [1.0, 0.25]])
    torch.testing.assert_close(entry_weights(scores, weighting, True), torch.tensor(expected))


def remember(weighting: str, values: list[float], frames: int = 5, scores: bool = False) -> float:
    memory = TrackMemory(frames, weighting, scores)
    for value in values:
        memory.add({"query": torch.tensor([[value]])}, torch.tensor([0.5]))
    return memory.read()["query"].item()


def test_order_of_the_memory() -> None:
    # 0 is the oldest, 4 the newest frame. The weights are 1/5 .. 1 (recent), 1 .. 1/5 (released).
    values = [0.0, 1.0, 2.0, 3.0, 4.0]
    harmonic = 1 + 1 / 2 + 1 / 3 + 1 / 4 + 1 / 5
    assert remember("uniform", values) == pytest.approx(2.0)
    assert remember("recent", values) == pytest.approx((4 + 3 / 2 + 2 / 3 + 1 / 4) / harmonic)
    assert remember("released", values) == pytest.approx(4 / 3)
    assert remember("released", values) < remember("uniform", values) < remember("recent", values)


def test_the_oldest_frame_leaves() -> None:
    assert remember("uniform", [100.0, 1.0, 2.0, 6.0], frames=3) == pytest.approx(3.0)
    assert remember("released", [100.0, 100.0, 7.0], frames=1, scores=True) == 7.0


@pytest.mark.parametrize("weighting", ["recent", "released", "uniform"])
@pytest.mark.parametrize("scores", [True, False])
def test_one_remembered_frame_is_itself_to_the_last_digit(weighting: str, scores: bool) -> None:
    vectors = torch.randn(23, 7, generator=torch.Generator().manual_seed(0))
    memory = TrackMemory(5, weighting, scores)
    memory.add({"query": vectors}, torch.rand(23, generator=torch.Generator().manual_seed(1)))
    assert torch.equal(memory.read()["query"], vectors)


def test_scores_of_zero_leave_a_finite_memory() -> None:
    memory = TrackMemory(5, "recent", True)
    for value in (2.0, 5.0):
        memory.add({"query": torch.tensor([[value]])}, torch.zeros(1))
    assert memory.read()["query"].item() == pytest.approx((5 + 2 / 2) / (1 + 1 / 2))


def test_every_vector_has_the_same_weights() -> None:
    memory = TrackMemory(5, "recent", True)
    for i in range(3):
        x = torch.tensor([[float(i), 2.0 * i]])
        memory.add({"query": x, "appearance": 10 * x}, torch.tensor([0.1 + 0.4 * i]))
    read = memory.read()
    torch.testing.assert_close(read["appearance"], 10 * read["query"])

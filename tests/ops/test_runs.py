"""RLEs read in bulk against pixels and against pycocotools, however they are cut into chunks."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from vistk.ops import runs as bulk
from vistk.ops.masks import to_rle
from vistk.ops.runs import count_pixels, first_broken, run_ends, run_lengths


def compressed(lengths):
    return to_rle({"size": [1, sum(lengths)], "counts": lengths}, 1, sum(lengths))["counts"]


def digits(number, more=0):
    """A number as COCO writes it, with ``more`` superfluous digits in front."""
    text = ""
    while True:
        low, number = number & 31, number >> 5
        last = number == (-1 if low & 16 else 0)
        if last and not more:
            return text + chr(low + 48)
        more -= last
        text += chr((low | 32) + 48)


LENGTHS = st.tuples(
    st.integers(0, 50),
    st.lists(st.one_of(st.integers(1, 40), st.integers(1, 70_000)), max_size=9),
).map(lambda parts: [parts[0], *parts[1]] if sum(parts[1]) + parts[0] else [1])


@settings(max_examples=200, deadline=None)
@given(st.lists(LENGTHS, min_size=1, max_size=7), st.sampled_from([1, 5, 23, 250_000]))
def test_any_runs_in_chunks_of_any_size(masks, chunk):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bulk, "CHUNK", chunk)
        texts = [compressed(lengths) for lengths in masks]
        covered, inside, canonical = count_pixels(texts)
    assert canonical.all()
    assert covered.tolist() == [sum(lengths) for lengths in masks]
    assert inside.tolist() == [sum(lengths[1::2]) for lengths in masks]
    for text, lengths in zip(texts, masks, strict=True):
        area = coco_mask.area({"size": [1, sum(lengths)], "counts": text})
        assert area == sum(lengths[1::2])
        assert run_lengths(text).tolist() == lengths
    ends, bounds = run_ends(texts)
    assert ends.tolist() == [end for lengths in masks for end in np.cumsum(lengths).tolist()]
    assert bounds.tolist() == np.cumsum([0, *map(len, masks)]).tolist()


@pytest.mark.parametrize("number", [0, 1, -1, 15, 16, -16, -17, 511, 512, 921600, 2**32, 2**34 - 1])
def test_numbers_of_one_to_seven_digits(number):
    first = digits(number)
    covered, inside, _ = count_pixels([first, "3", "5" + first])
    if 0 <= number <= 2**32:
        assert (covered.tolist(), inside.tolist()) == ([number, 3, 5 + number], [0, 0, number])
    else:
        assert (covered.tolist(), inside.tolist()) == ([-1, 3, -1], [-1, 0, -1])


def test_eight_digits_are_too_many():
    assert count_pixels([digits(3, more=6), digits(3, more=7), digits(3)])[0].tolist() == [3, -1, 3]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.text(st.characters(min_codepoint=40, max_codepoint=125), max_size=12), max_size=6))
def test_broken_ones_do_not_touch_their_neighbours(texts):
    alone = [tuple(int(part[0]) for part in count_pixels([text])[:2]) for text in texts]
    good = compressed([3, 4, 5])
    mixed = [text for pair in zip(texts, [good] * len(texts), strict=True) for text in pair]
    found = list(zip(*(part.tolist() for part in count_pixels(mixed)[:2]), strict=True))
    assert found[::2] == alone
    assert found[1::2] == [(12, 4)] * len(texts)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(-40, 40), min_size=1, max_size=8))
def test_a_negative_run_is_found_wherever_it_is(lengths):
    deltas = [n - (lengths[i - 2] if i > 2 else 0) for i, n in enumerate(lengths)]
    covered, inside, _ = count_pixels(["".join(map(digits, deltas))])
    sound = min(lengths) >= 0
    assert covered.item() == (sum(lengths) if sound else -1)
    assert inside.item() == (sum(lengths[1::2]) if sound else -1)


def test_empty_runs_are_found():
    good = digits(0) + digits(5)
    empty = [digits(5) + digits(0) + digits(3), good + digits(0), "".join(map(digits, (2, 3, 4, -3)))]
    found = count_pixels([good, *empty, good])
    assert found.canonical.tolist() == [True, False, False, False, True]
    assert found.covered.tolist() == [5, 8, 5, 9, 5]


def test_nothing():
    assert [part.tolist() for part in count_pixels([])] == [[], [], []]
    ends, bounds = run_ends([])
    assert (ends.tolist(), bounds.tolist()) == ([], [0])
    assert first_broken([]) is None

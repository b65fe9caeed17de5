"""The held-out split is stratified, stable, and never empties a class."""

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagesets import ImageIndex, ImageRef, ImagesetError, draw_shots, split


def index_of(counts: list[int]) -> ImageIndex:
    """An index with so many training images in each class."""
    refs = [
        ImageRef(Path(f"/images/{label}-{n}.png"), label, f"{label}/{n}.png")
        for label, count in enumerate(counts)
        for n in range(count)
    ]
    return ImageIndex(tuple(f"class {label}" for label in range(len(counts))), tuple(refs), ())


@given(
    counts=st.lists(st.integers(1, 40), min_size=2, max_size=6),
    test_fraction=st.floats(0.01, 0.99),
    seed=st.integers(0, 2**31),
)
def test_every_image_lands_in_one_part_and_every_class_keeps_training_images(counts, test_fraction, seed):
    index = index_of(counts)
    drawn = split(index, test_fraction=test_fraction, seed=seed)
    assert sorted(ref.name for ref in (*drawn.train, *drawn.test)) == sorted(ref.name for ref in index.train)
    train, test = Counter(ref.label for ref in drawn.train), Counter(ref.label for ref in drawn.test)
    for label, count in enumerate(counts):
        assert train[label] >= 1
        assert test[label] == min(max(round(test_fraction * count), 1), count - 1)


def test_the_same_seed_draws_the_same_images_and_another_seed_others():
    index = index_of([50, 50])
    first = split(index, test_fraction=0.2, seed=1)
    assert split(index, test_fraction=0.2, seed=1) == first
    assert split(index, test_fraction=0.2, seed=2) != first
    assert [ref.name for ref in first.test][:3] == ["0/12.png", "0/13.png", "0/16.png"]


def test_a_given_split_is_kept():
    index = index_of([3, 3])
    given_split = ImageIndex(index.classes, index.train[:4], index.train[4:])
    assert split(given_split, test_fraction=0.5, seed=1) is given_split


def test_a_fraction_of_zero_holds_nothing_out():
    assert split(index_of([3, 3]), test_fraction=0.0, seed=1).test == ()


@pytest.mark.parametrize("fraction", [-0.1, 1.0, float("nan")])
def test_a_fraction_outside_its_range_is_refused(fraction):
    with pytest.raises(ImagesetError, match="test_fraction"):
        split(index_of([3, 3]), test_fraction=fraction, seed=1)


@given(counts=st.lists(st.integers(1, 20), min_size=2, max_size=6), shots=st.integers(1, 25))
def test_shots_are_so_many_a_class_and_at_most_all_of_it(counts, shots):
    few = draw_shots(index_of(counts), shots, seed=3)
    drawn = Counter(ref.label for ref in few.train)
    assert [drawn[label] for label in range(len(counts))] == [min(count, shots) for count in counts]


def test_more_shots_hold_the_fewer_and_leave_the_held_out_part_alone():
    parted = split(index_of([50, 50]), test_fraction=0.2, seed=1)
    five, ten = (draw_shots(parted, shots, seed=1) for shots in (5, 10))
    assert set(five.train) < set(ten.train) < set(parted.train)
    assert five.test == ten.test == parted.test
    assert draw_shots(parted, 5, seed=1) == five
    assert set(draw_shots(parted, 5, seed=2).train) != set(five.train)


def test_shots_are_not_the_images_that_just_missed_being_held_out():
    parted = split(index_of([50, 50]), test_fraction=0.2, seed=1)
    next_ones = set(split(index_of([50, 50]), test_fraction=0.3, seed=1).test) - set(parted.test)
    assert set(draw_shots(parted, 5, seed=1).train) != next_ones

"""The held-out split is stratified, stable, and never empties a class."""

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagesets import ImageIndex, ImageRef, ImagesetError, split


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

"""The laws of the method as properties of the store's fusion, whatever the deltas are."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from store.codecs.floats import DTYPES as STORED_DTYPES
from tests.store.folding import Model, aligned_starts, scattered
from tests.store.reference import Textbook, closed_form, norm

SIZES = [37, 1, 300, 90]
TOTAL = aligned_starts(SIZES)[1]

VALUES = st.one_of(
    st.just(0.0),
    st.floats(-1.0, 1.0, width=32).filter(lambda x: abs(x) > 1e-30 or x == 0),
    st.sampled_from([0.5, -0.5, 0.25]),
)
DELTAS = st.lists(
    hnp.arrays(np.float32, sum(SIZES), elements=VALUES, fill=VALUES)
    .filter(np.any)
    .map(lambda values: scattered(values, SIZES)),
    min_size=2,
    max_size=4,
)
NORMS = st.sampled_from(["global_l1", "tensor_mean_l1"])
DTYPES = st.sampled_from(STORED_DTYPES)


def delta_of(*values):
    return scattered(np.array(values, np.float32), [len(values)])


def seeded_deltas(num_tasks, *, sizes, seed=0, zeros=0.3):
    rng = np.random.default_rng(seed)
    size = sum(sizes)
    shared = rng.standard_normal(size)
    deltas = []
    for _ in range(num_tasks):
        delta = (0.5 * shared + rng.standard_normal(size)) * 1e-3
        deltas.append(scattered(np.where(rng.random(size) < zeros, 0, delta).astype(np.float32), sizes))
    return deltas


@given(deltas=DELTAS, norm=NORMS, dtype=DTYPES)
def test_a_mask_bit_never_goes_from_zero_to_one(deltas, norm, dtype):
    model = Model(SIZES, norm, dtype)
    for delta in deltas:
        before = model.masks
        model.learn(delta)
        for old, new in zip(before, model.masks, strict=False):
            assert not (new & ~old).any()


@given(deltas=DELTAS, kind=NORMS, dtype=DTYPES)
def test_the_norm_of_every_task_is_that_of_its_original_delta_for_ever(deltas, kind, dtype):
    model = Model(SIZES, kind, dtype)
    for delta in deltas:
        model.learn(delta)
    for original, task, mask in zip(deltas, model.tasks, model.masks, strict=True):
        expected = norm(original, model.starts, SIZES, kind)
        assert task.l1_norm == pytest.approx(expected, rel=1e-12)
        if mask.any():
            served = task.rescaler * norm(np.where(mask, model.unified, 0), model.starts, SIZES, kind)
            assert served == pytest.approx(expected, rel=1e-12)


@given(deltas=DELTAS, dtype=DTYPES)
def test_a_served_delta_has_the_sign_of_its_original_or_is_zero(deltas, dtype):
    model = Model(SIZES, dtype=dtype)
    for delta in deltas:
        model.learn(delta)
    for index, original in enumerate(deltas):
        served = model.delta(index)
        assert (np.sign(served)[served != 0] == np.sign(original)[served != 0]).all()


@given(deltas=DELTAS, kind=NORMS)
def test_one_task_alone_comes_back_exactly(deltas, kind):
    model = Model(SIZES, kind).learn(deltas[0])
    task = model.tasks[0]
    assert task.rescaler == 1.0
    assert np.array_equal(model.delta(0), deltas[0])
    assert np.array_equal(model.masks[0], deltas[0] != 0)
    assert (task.relative_l2, task.bits_cleared) == (0.0, 0)
    assert task.cosine == pytest.approx(1.0)


@given(deltas=DELTAS)
def test_streaming_equals_the_slow_closed_form_bit_for_bit(deltas):
    model = Model(SIZES)
    for delta in deltas:
        unified = np.zeros(TOTAL, np.float32) if model.unified is None else model.unified
        expected, masks = closed_form(unified, model.masks, [task.rescaler for task in model.tasks], delta)
        model.learn(delta)
        assert np.array_equal(model.unified, expected)
        assert not np.signbit(model.unified[model.unified == 0]).any()
        assert np.array_equal(model.masks, masks)


@pytest.mark.parametrize("kind", ["global_l1", "tensor_mean_l1"])
def test_eleven_tasks_equal_the_slow_closed_form_bit_for_bit_and_the_textbook_but_at_ties(kind):
    sizes = [3000, 5, 1000]
    starts, total = aligned_starts(sizes)
    model, textbook = Model(sizes, kind), Textbook(starts, sizes, kind)
    released = Textbook(starts, sizes, kind, keeps_norms=False)
    ties = 0
    for delta in seeded_deltas(11, sizes=sizes, seed=7):
        unified = np.zeros(total, np.float32) if model.unified is None else model.unified
        expected, masks = closed_form(unified, model.masks, [task.rescaler for task in model.tasks], delta)
        scale = np.abs(unified) * len(model.tasks) + np.abs(delta)
        model.learn(delta)
        votes = textbook.learn(delta)
        assert np.array_equal(model.unified, expected)
        assert np.array_equal(model.masks, masks)
        is_tie = np.abs(votes) <= 16 * np.finfo(np.float32).eps * scale
        differs = (model.unified != textbook.unified) | np.any(
            np.array(model.masks) != np.array(textbook.masks), axis=0
        )
        assert not (differs & ~is_tie).any()
        ties += int((differs & is_tie).sum())
        assert [task.rescaler for task in model.tasks] == pytest.approx(textbook.rescalers, rel=1e-12)
        released.learn(delta)
        assert [task.rescaler for task in model.tasks] == pytest.approx(released.rescalers, rel=1e-6)
    print(f"{kind}: {ties} of {11 * sum(sizes)} entries lay at a tie")  # noqa: T201 - the count is part of what is shown
    assert ties <= 5


def test_three_parameters_worked_by_hand():
    model = Model([3]).learn(delta_of(2.0, -1.0, 0.0)).learn(delta_of(-1.0, -3.0, 4.0))
    # votes: 2 - 1 = +1, -1 - 3 = -4, 0 + 4 = +4; so u = (2, -3, 4)
    assert model.unified[:3].tolist() == [2.0, -3.0, 4.0]
    assert [mask[:3].tolist() for mask in model.masks] == [[True, True, False], [False, True, True]]
    # N = 3 and 8; ||M u|| = 2 + 3 and 3 + 4
    assert [task.rescaler for task in model.tasks] == [3 / 5, 8 / 7]
    assert [task.bits_cleared for task in model.tasks] == [0, 1]


def test_a_tie_in_the_vote_is_negative():
    model = Model([1]).learn(delta_of(1.0)).learn(delta_of(-1.0))
    assert model.unified[:1].tolist() == [-1.0]
    assert [mask[:1].tolist() for mask in model.masks] == [[False], [True]]


def test_a_mask_that_loses_every_vote_gets_rescaler_zero_and_no_nan():
    model = Model([2]).learn(delta_of(1.0, 1.0)).learn(delta_of(-2.0, -2.0))
    assert model.tasks[0].rescaler == 0.0
    assert model.tasks[0].bits_set == 0
    assert model.tasks[0].relative_l2 == 1.0
    model.learn(delta_of(1.0, 3.0))
    assert np.isfinite(model.unified).all()
    assert not model.delta(0).any()


def test_fusion_of_sequential_tasks_depends_on_their_order_and_favours_the_early_ones():
    size = 20_032
    rng = np.random.default_rng(3)
    deltas = [rng.standard_normal(size).astype(np.float32) for _ in range(8)]
    forward, backward = Model([size]), Model([size])
    for delta in deltas:
        forward.learn(delta)
    for delta in reversed(deltas):
        backward.learn(delta)
    cosine = [
        np.dot(forward.delta(i), deltas[i]) / np.linalg.norm(forward.delta(i)) / np.linalg.norm(deltas[i])
        for i in (0, 7)
    ]
    assert cosine[0] > cosine[1] + 0.05
    assert not np.array_equal(forward.unified, backward.unified)


def test_measures_of_a_fusion_are_those_of_the_arrays():
    deltas = seeded_deltas(3, sizes=SIZES, seed=5)
    model = Model(SIZES).learn(deltas[0]).learn(deltas[1])
    before = [model.delta(i) for i in range(2)]
    bits_before = [int(mask.sum()) for mask in model.masks]
    model.learn(deltas[2])
    for index, reference in enumerate([*before, deltas[2]]):
        served, task = model.delta(index).astype(np.float64), model.tasks[index]
        distance = np.linalg.norm(served - reference) / np.linalg.norm(reference)
        assert task.relative_l2 == pytest.approx(distance, rel=1e-5)
        cosine = served @ reference / np.linalg.norm(served) / np.linalg.norm(reference)
        assert task.cosine == pytest.approx(cosine, rel=1e-6)
        assert task.bits_set == int(model.masks[index].sum())
    for task, bits in zip(model.tasks, bits_before, strict=False):
        assert task.bits_cleared == bits - task.bits_set


def test_repeating_the_fusion_without_a_new_task_converges_as_the_theorem_says():
    """Theorem F.3, on the reference: an all-zero delta plays the pass without a task (the store refuses
    it)."""
    deltas = seeded_deltas(4, sizes=[2000], seed=11)
    book = Textbook([0], [2000], "global_l1", keeps_norms=False)
    for delta in deltas:
        book.learn(delta)
    masks_after_first = None
    previous = None
    for step in range(6):
        with np.errstate(invalid="ignore"):
            book.learn(np.zeros_like(deltas[0]))
        book.masks, book.rescalers = book.masks[:4], book.rescalers[:4]
        if step == 0:
            masks_after_first = book.masks
        else:
            assert np.array_equal(book.masks, masks_after_first)
            assert max(book.rescalers) <= 1 + 1e-6
        if step > 1:
            assert all(new >= old - 1e-6 for new, old in zip(book.rescalers, previous, strict=True))
        previous = book.rescalers

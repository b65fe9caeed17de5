"""The arithmetic of the baselines, by hand and against the store's own."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bench.continual.distilling import distance
from bench.continual.meter import Meter
from bench.continual.methods import METHODS, chosen_methods, tuning_of
from bench.continual.methods.experts import rescaled, unify
from bench.continual.methods.one_model import merged_by_ties, trimmed
from bench.errors import BenchError
from bench.textbook import unify as textbook_unify
from tests.house.sources import ROOT

deltas = st.lists(
    st.lists(st.sampled_from([-2.0, -1.0, -0.5, 0.0, 0.25, 1.0, 3.0]), min_size=6, max_size=6),
    min_size=1,
    max_size=5,
)


@given(deltas)
def test_one_shot_unification_is_the_textbooks(rows):
    tensors = [torch.tensor(row) for row in rows]

    expected, masks = textbook_unify([{"all": tensor} for tensor in tensors])

    unified = unify(tensors)
    assert torch.equal(unified, expected["all"])
    for tensor, mask in zip(tensors, masks, strict=True):
        assert torch.equal(tensor * unified > 0, mask["all"])


@given(deltas)
def test_a_rescaled_expert_keeps_the_l1_norm_of_its_delta_or_is_nothing(rows):
    tensors = [torch.tensor(row) for row in rows]
    unified = unify(tensors)

    for tensor in tensors:
        mask = tensor * unified > 0
        served = rescaled(tensor, unified, mask)
        wanted = float(tensor.abs().sum()) if mask.any() else 0.0
        assert float(served.abs().sum()) == pytest.approx(wanted, rel=1e-6)


def test_trimming_keeps_the_largest_magnitudes():
    assert trimmed(torch.tensor([1.0, -5.0, 2.0, 0.5, -3.0]), 0.4).tolist() == [0, -5, 0, 0, -3]


def test_ties_means_the_values_that_agree_with_the_elected_sign():
    merged = merged_by_ties(
        [torch.tensor([3.0, -1.0, 0.0]), torch.tensor([1.0, 4.0, 0.0]), torch.tensor([-2.0, 2.0, 0.0])]
    )

    assert merged.tolist() == [2.0, 3.0, 0.0]


def test_a_student_that_answers_as_its_teacher_has_the_least_distance():
    wanted = torch.tensor([[0.9, 0.1, 0.2], [0.1, 0.4, 0.8]])
    scale = torch.tensor(10.0)
    same = wanted.clone().requires_grad_()

    least = distance(same, wanted, scale=scale)
    (gradient,) = torch.autograd.grad(least, same)

    assert gradient.abs().max() < 1e-6
    assert distance(wanted.flip(1), wanted, scale=scale) > least


def test_all_stands_for_every_method_that_can_run():
    assert chosen_methods(["all"], has_reference=True) == tuple(METHODS)
    assert "zscl" not in chosen_methods(["all"], has_reference=False)
    assert chosen_methods(["condu", "condu"], has_reference=False) == ("condu",)


def test_an_unknown_method_is_named_with_those_there_are():
    with pytest.raises(BenchError, match=r"'magic'.*condu-lora"):
        chosen_methods(["magic"], has_reference=False)


def test_methods_named_after_lora_tune_adapters_in_every_run():
    assert tuning_of("condu-lora", "full") == "lora"
    assert tuning_of("condu", "full") == "full"
    assert tuning_of("emr", "lora") == "lora"


def test_progress_never_passes_what_was_planned():
    told = []
    meter = Meter(lambda done, total, words: told.append((done, total, words)))
    meter.plan(10)
    meter.words = "first"

    meter.done(4)
    meter.plan(-5)
    meter.done(4)

    assert told == [(4, 10, "first"), (8, 8, "first")]


def test_every_method_is_told_of_in_the_documentation():
    page = (ROOT / "docs/continual.md").read_text()

    assert [name for name in METHODS if f"| `{name}` |" not in page] == []

"""The store's fusion against the formulas on fine-tunes of a tiny CLIP; a difference would be seen."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from bench.errors import BenchError
from bench.parity.agreement import Comparison, compare_chain, compare_step
from bench.parity.checkpoints import Checkpoints
from bench.parity.formulas import NORMS, Learned, decouple, learn, norm_of, unify, unify_again
from bench.parity.plots import draw_parity
from bench.parity.summary import disagreement, parity_tables
from store.safefile import write_safetensors
from tests.bench.parity.conftest import TASKS, write_fine_tunes
from tests.tiny_clip import TINY_CONFIG, tiny_tensors


def _delta(*values):
    return {"w": np.array(values, dtype=np.float32)}


def test_three_parameters_come_out_as_worked_by_hand():
    learned = unify([_delta(0.3, -0.2, 0.0), _delta(0.1, 0.4, 0.0)], "global_l1")

    # Signs agree at the first; at the second 0.4 wins over -0.2; nothing moved the third.
    assert learned.unified["w"].tolist() == pytest.approx([0.3, 0.4, 0.0])
    assert [mask["w"].tolist() for mask in learned.masks] == [[True, False, False], [True, True, False]]
    assert learned.rescalers == pytest.approx((0.5 / 0.3, 0.5 / 0.7))
    assert decouple(learned, 1)["w"].tolist() == pytest.approx([0.3 * 5 / 7, 0.4 * 5 / 7, 0.0])


def test_a_zero_sum_of_votes_is_negative():
    learned = unify([_delta(0.5), _delta(-0.5)], "global_l1")

    assert learned.unified["w"].tolist() == [-0.5]
    assert [mask["w"].tolist() for mask in learned.masks] == [[False], [True]]
    assert learned.rescalers == (0.0, 1.0)  # an emptied mask has no ratio


def test_the_two_norms_are_a_sum_and_a_sum_of_means():
    delta = {"a": np.array([1, -1], dtype=np.float32), "b": np.array([4], dtype=np.float32)}
    nothing = {"c": np.array([], dtype=np.float32)}

    assert norm_of(delta | nothing, "global_l1") == 6
    assert norm_of(delta | nothing, "tensor_mean_l1") == 5


def test_the_first_task_is_exact():
    learned = learn(None, _delta(0.3, -0.2, 0.0), "tensor_mean_l1")

    assert learned.rescalers == (1.0,)
    assert np.array_equal(decouple(learned, 0)["w"], _delta(0.3, -0.2, 0.0)["w"])


def test_an_extra_pass_moves_an_expert_whose_rescaler_is_not_the_largest():
    learned = unify([_delta(0.3, -0.2, 0.0), _delta(0.1, 0.4, 0.0)], "global_l1")

    after = unify_again(learned, "global_l1")

    assert not np.allclose(decouple(after, 1)["w"], decouple(learned, 1)["w"])


@pytest.mark.parametrize("norm", NORMS)
def test_the_store_computes_the_formulas_bit_for_bit_but_near_ties(document, norm):
    found = document["norms"][norm]

    assert [step["task"] for step in found["steps"]] == list(TASKS)
    for step in found["steps"]:
        assert step["entries"] == document["base"]["parameters"]
        assert (step["unified_differs"], step["masks_differ"]) == (0, 0)
        assert step["decided_otherwise"] <= step["near_ties"] < 100
        assert step["rescaler_error"] <= 1e-6
    assert found["agrees"]


@pytest.mark.parametrize("norm", NORMS)
def test_a_whole_chain_of_folds_stays_with_the_formulas(document, norm):
    end = document["norms"][norm]["chain"][-1]

    assert end["masks_differ"] == 0
    assert max(end["largest_unified_error"], end["rescaler_error"]) <= 1e-6


def test_every_claim_of_the_convergence_theorem_holds(document):
    passes = document["passes"]

    assert passes["masks_are_fixed"]
    assert passes["rescalers_are_at_most_one"]
    assert passes["rescalers_never_fall"]
    assert passes["unified_never_grows"]
    assert len(passes["rescalers"]) == len(passes["moved"]) == 7


def test_every_extra_pass_moves_the_experts_further(document):
    moved = np.array(document["passes"]["moved"]).max(axis=1)

    assert moved[0] == 0
    assert (np.diff(moved) > 0).all()


def test_tasks_learned_early_stay_nearer_to_their_originals(document):
    cosine = np.array(document["orders"]["cosine"]).mean(axis=1)

    assert cosine[0] > np.mean(document["orders"]["one_shot"]["cosine"]) > cosine[-1]


def test_a_model_without_buffers_is_compared_as_well(tmp_path):
    base, folder = write_fine_tunes(tmp_path, config=TINY_CONFIG, tasks=("one", "two"))

    checkpoints = Checkpoints.open(base, folder)

    assert checkpoints.names == ("one", "two")
    assert set(checkpoints.delta("one")) == {spec.name for spec in checkpoints.base.space.fused}


@pytest.fixture
def pair():
    """The formulas' revision of two tasks, and where its votes are near a tie: the second entry."""
    learned = unify([_delta(0.3, -0.2, 0.1), _delta(0.1, 0.4, 0.2)], "global_l1")
    return learned, {"w": np.array([False, True, False])}


def _changed(learned, place, value):
    unified = learned.unified["w"].copy()
    unified[place] = value
    return replace(learned, unified={"w": unified})


def test_one_other_bit_in_the_unified_delta_is_seen(pair):
    learned, ties = pair
    other = _changed(learned, 0, np.nextafter(learned.unified["w"][0], np.float32(1)))

    found = compare_step("t", other, learned, ties=ties)

    assert (found.unified_differs, found.decided_otherwise, found.agrees) == (1, 0, False)


def test_a_vote_near_a_tie_may_fall_otherwise_and_is_counted(pair):
    learned, ties = pair

    found = compare_step("t", _changed(learned, 1, -0.2), learned, ties=ties)

    assert (found.unified_differs, found.decided_otherwise, found.near_ties, found.agrees) == (0, 1, 1, True)


def test_one_other_mask_bit_is_seen_in_a_step_and_in_the_chain(pair):
    learned, ties = pair
    flipped = ({"w": ~learned.masks[0]["w"]}, learned.masks[1])
    other = Learned(learned.unified, flipped, learned.rescalers)

    assert compare_step("t", other, learned, ties=ties).masks_differ == 2
    assert not compare_chain("t", other, learned, undecided=ties)["agrees"]


def test_another_rescaler_is_seen(pair):
    learned, ties = pair
    other = replace(learned, rescalers=(learned.rescalers[0] * 1.00001, learned.rescalers[1]))

    assert not compare_step("t", other, learned, ties=ties).agrees
    assert Comparison("t", 3, 0, 0, 0, 0, rescaler_error=1e-7).agrees


def test_the_tables_say_what_was_compared_and_what_came_out(document):
    tables = parity_tables(document)

    assert [len(table.rows) for table in tables] == [2 * len(TASKS), 2, 6, len(TASKS) + 1]
    assert all(len(row) == len(table.headings) for table in tables for row in table.rows)
    assert {row[1] for row in tables[2].rows[:4]} == {"holds"}
    assert disagreement(document) is None


def test_the_figures_show_the_numbers(document, tmp_path):
    files = draw_parity(document, tmp_path / "figures", stem="tiny")

    assert [path.name for path in files] == ["tiny.agreement.png", "tiny.passes.png", "tiny.orders.png"]
    for path in files:
        with Image.open(path) as image:
            assert min(image.size) > 300


def test_files_that_cannot_be_compared_are_named_with_the_remedy(files, tmp_path):
    base, folder = files

    for wrong, said in (
        ((base, tmp_path / "nowhere"), "nowhere is no folder"),
        ((base, tmp_path), r"holds 0 files named \*\.safetensors"),
        ((tmp_path / "none.safetensors", folder), r"the base .*none\.safetensors cannot be used"),
    ):
        with pytest.raises(BenchError, match=said) as caught:
            Checkpoints.open(*wrong)
        assert caught.value.remedy


def test_a_checkpoint_of_another_model_is_named(files, tmp_path):
    base, folder = files
    for name in ("a", "b"):
        (tmp_path / f"{name}.safetensors").write_bytes((folder / "birds.safetensors").read_bytes())
    write_safetensors(tmp_path / "c.safetensors", tiny_tensors())

    with pytest.raises(BenchError, match=r"c\.safetensors is no fine-tuned checkpoint of the base"):
        Checkpoints.open(base, tmp_path)


def test_a_checkpoint_that_learned_nothing_is_named(files, tmp_path):
    base, _ = files
    for name in ("a", "b"):
        (tmp_path / f"{name}.safetensors").write_bytes(base.read_bytes())

    with pytest.raises(BenchError, match=r"a\.safetensors is no fine-tuned checkpoint .* equal the base's"):
        Checkpoints.open(base, tmp_path).delta("a")

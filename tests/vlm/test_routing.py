import math

import pytest
import torch

from vlm.routing import choose, similarities

SCORES = torch.tensor([[0.9, 0.1, 0.5], [-0.2, 0.3, 0.3]])


def test_a_similarity_is_the_cosine_to_the_nearest_class():
    features = torch.tensor([[1.0, 0.0], [0.6, 0.8]])
    pets, flowers = torch.tensor([[0.0, 1.0], [1.0, 0.0]]), torch.tensor([[-1.0, 0.0]])
    torch.testing.assert_close(
        similarities(features, [pets, flowers]), torch.tensor([[1.0, -1.0], [0.8, -0.6]])
    )


def test_the_released_default_is_the_base_and_the_k_nearest_with_equal_weights():
    route = choose(SCORES, k=2, include_base=True)
    third = 1 / 3
    torch.testing.assert_close(
        route.weights, torch.tensor([[third, third, 0, third], [third, 0, third, third]])
    )
    assert torch.equal(route.chosen, route.weights > 0)


def test_without_the_base_only_experts_answer():
    route = choose(SCORES, k=1, include_base=False)
    # The second picture is as near to the second task as to the third: the earlier one answers.
    assert route.weights.tolist() == [[0, 1, 0, 0], [0, 0, 1, 0]]


def test_more_experts_than_there_are_means_all():
    assert choose(SCORES, k=99, include_base=False).chosen.sum(dim=1).tolist() == [3, 3]


def test_no_experts_means_the_base():
    for weighting in ("uniform", "similarity", "softmax"):
        route = choose(SCORES, k=0, include_base=True, weighting=weighting)
        assert route.weights.tolist() == [[1, 0, 0, 0]] * 2


def test_similarity_weights_are_in_proportion_and_the_base_counts_as_the_best():
    route = choose(SCORES, k=2, include_base=True, weighting="similarity")
    expected = torch.tensor([[0.9, 0.9, 0, 0.5], [0.3, 0, 0.3, 0.3]])
    torch.testing.assert_close(route.weights, expected / expected.sum(dim=1, keepdim=True))


def test_a_negative_similarity_has_no_weight_and_all_negative_ones_have_equal():
    scores = torch.tensor([[0.4, -0.1], [-0.3, -0.1]])
    route = choose(scores, k=2, include_base=False, weighting="similarity")
    torch.testing.assert_close(route.weights, torch.tensor([[0, 1.0, 0], [0, 0.5, 0.5]]))


def test_softmax_weights_follow_the_temperature():
    route = choose(SCORES[:1], k=2, include_base=False, weighting="softmax", temperature=0.2)
    low = math.exp((0.5 - 0.9) / 0.2)
    torch.testing.assert_close(route.weights, torch.tensor([[0, 1 / (1 + low), 0, low / (1 + low)]]))


def test_softmax_gives_the_base_the_weight_of_the_best():
    weights = choose(SCORES, k=3, include_base=True, weighting="softmax", temperature=0.1).weights
    torch.testing.assert_close(weights[:, 0], weights[:, 1:].amax(dim=1))


@pytest.mark.parametrize("temperature", [1e-30, 1e30])
@pytest.mark.parametrize("include_base", [True, False])
def test_extreme_temperatures_still_give_weights(temperature, include_base):
    weights = choose(
        SCORES, k=3, include_base=include_base, weighting="softmax", temperature=temperature
    ).weights
    assert weights.isfinite().all()
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(2))


@pytest.mark.parametrize("weighting", ["uniform", "similarity", "softmax"])
@pytest.mark.parametrize("include_base", [True, False])
@pytest.mark.parametrize("k", [1, 2, 5])
def test_weights_always_sum_to_one_over_the_chosen(weighting, include_base, k):
    scores = torch.rand(40, 5, generator=torch.Generator().manual_seed(0)) * 2 - 1
    route = choose(scores, k=k, include_base=include_base, weighting=weighting, temperature=0.05)
    torch.testing.assert_close(route.weights.sum(dim=1), torch.ones(40))
    assert bool((route.weights[~route.chosen] == 0).all())
    assert route.chosen[:, 1:].sum(dim=1).tolist() == [k] * 40
    assert bool((route.chosen[:, 0] == include_base).all())

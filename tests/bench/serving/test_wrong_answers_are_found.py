"""The check of the mixed run can fail: each way to answer wrongly is seen, a right answer is not."""

from dataclasses import asdict

import pytest

from bench.serving.checking import Asked, Offline, Told, Verdicts, told_apart
from bench.serving.mixed import Heads
from vlm.experts import ExpertPool
from vlm.prediction import Predictor

ASKED = Asked("task-0", "foreign", (3, 1))


@pytest.fixture(scope="module")
def offline(installation):
    return Offline(
        Predictor(ExpertPool(installation.store)),
        installation.ref,
        installation.revisions,
        pictures=installation.pictures,
        foreign_labels=("petal", "roof", "cloud"),
    )


@pytest.fixture
def judged(offline, installation):
    """What is found wrong with an answer."""

    def judge(body, *, asked=ASKED, status=200, heads=None):
        verdicts = Verdicts()
        told = Told(status, body, [installation.head] if heads is None else heads)
        verdicts.judge(asked, told, offline)
        assert verdicts.checked == 1
        assert verdicts.num_wrong == len(verdicts.examples)
        return list(verdicts.wrong)

    return judge


@pytest.fixture
def answer(offline, installation):
    """The right answer of an expert, as the service would write it."""

    def answered(task="task-0", asked=ASKED, revision=None):
        number = revision or installation.head
        kind = "union" if asked.task is None else asked.kind
        results = offline.results(number, task, kind)
        return {"revision": number, "results": [asdict(results[image]) for image in asked.images]}

    return answered


def test_a_right_answer_is_not_found_wrong(judged, answer):
    aggregated = Asked(None, "own", (0, 5))

    assert judged(answer()) == []
    assert judged(answer(task=None, asked=aggregated), asked=aggregated) == []


def test_a_service_that_answers_with_another_expert_is_found_out(judged, answer):
    assert judged(answer(task="task-1")) == ["experts"]


def test_another_experts_numbers_under_the_right_digest_are_found_out(judged, answer):
    swapped = answer(task="task-1")
    for result, right in zip(swapped["results"], answer()["results"], strict=True):
        result["experts"] = right["experts"]

    assert judged(swapped) == ["logits"]


def test_answers_of_one_request_in_the_wrong_order_are_found_out(judged, answer):
    swapped = answer()
    swapped["results"].reverse()

    assert judged(swapped) == ["logits"]


def test_an_answer_from_a_revision_that_was_not_the_head_is_found_out(judged, answer, installation):
    old = answer(revision=1)

    assert judged(old) == ["revision"]
    assert judged(old, heads=[1, installation.head]) == []
    assert judged(old, asked=Asked("task-0", "foreign", (3, 1), revision=1)) == []
    assert judged({**answer(), "revision": 99}) == ["revision"]


def test_missing_or_unsorted_labels_are_found_out(judged, answer):
    short, unsorted = answer(), answer()
    short["results"][0]["predictions"] = short["results"][0]["predictions"][:-1]
    unsorted["results"][1]["predictions"] = unsorted["results"][1]["predictions"][::-1]

    assert judged(short) == ["labels"]
    assert judged(unsorted) == ["labels"]


def test_a_refusal_is_right_only_while_the_task_was_not_there(judged):
    early = Asked("task-1", "own", (0,))

    assert judged({}, asked=early, status=404, heads=[1, 2]) == []
    assert judged({}, asked=early, status=404, heads=[2]) == ["status"]
    assert judged({}, status=500) == ["status"]


def test_experts_are_far_enough_apart_for_the_check_to_tell_them(offline, installation):
    assert told_apart(offline, installation.head, ["task-0", "task-1"]) == 1.0
    assert told_apart(offline, installation.head, ["task-0", "task-0"]) == 0.0


def test_heads_that_could_answer_are_those_between_question_and_answer():
    heads = Heads(numbers=[1, 2, 3], before=[0.0, 10.0, 20.0], after=[1.0, 11.0, 21.0])

    assert heads.between(2.0, 3.0) == [1]
    assert heads.between(2.0, 10.5) == [1, 2]
    assert heads.between(10.5, 12.0) == [1, 2]
    assert heads.between(12.0, 25.0) == [2, 3]
    assert heads.between(22.0, 25.0) == [3]


def test_what_is_published_is_noted_with_its_time():
    heads = Heads()
    heads.publish(lambda: 7)

    assert heads.numbers == [7]
    assert heads.before[0] <= heads.after[0]

"""What people are told of a task, and of tasks against each other."""

import pytest

from tests.api.learning import learn
from tests.api.measuring import AT_FIRST, publish_measures
from tests.cli.documents import document


@pytest.fixture
def measured(service, taught):
    """A model whose first task a worker has measured anew."""
    services = service.services
    measures = {
        "pets": {"accuracy": 85.0, "routing": AT_FIRST},
        "digits": {"unmeasured": "no images were kept"},
    }
    publish_measures(services, taught, **measures)
    return taught


def squeezed(text):
    """The lines with single spaces between their words."""
    return [" ".join(line.split()) for line in text.splitlines()]


def test_a_task_is_shown_with_its_accuracy_now_and_in_every_revision(run, measured):
    lines = squeezed(run("task", "show", measured, "pets").stdout)

    assert "accuracy: expert 87.5%" in lines
    assert "accuracy: now 85.0%" in lines
    drift = lines.index("revision accuracy rescaler density bits cleared relative L2 cosine against")
    assert [line.split()[:2] for line in lines[drift + 1 : drift + 4]] == [
        ["1", "-"],
        ["2", "-"],
        ["3", "85.0%"],
    ]


def test_a_task_is_shown_with_what_it_shares_and_who_answers_for_its_images(run, measured):
    shown = document(run("task", "show", measured, "pets", "--json"))
    lines = squeezed(run("task", "show", measured, "pets").stdout)

    (overlap,) = shown["overlap"]
    assert f"digits {100 * overlap['jaccard']:.1f}% {100 * overlap['share']:.1f}%" in lines
    assert "who answers for its 4 held-out images where no task is named (measured in revision 3)" in lines
    assert "(base) 0.0% 100.0% 33.3%" in lines
    assert "pets 100.0% 100.0% 33.3%" in lines


def test_a_task_that_was_not_measured_is_shown_with_the_reason(run, measured):
    lines = squeezed(run("task", "show", measured, "digits").stdout)

    assert "accuracy: now - (no images were kept)" in lines
    assert "where its images are routed is not known: no images were kept" in lines


def test_tasks_are_listed_with_their_accuracy_now(run, measured):
    lines = squeezed(run("task", "list", measured).stdout)

    assert lines[0] == "task revision classes zero-shot individual expert now rescaler density"
    assert "87.5% 85.0%" in lines[1]
    assert "87.5% -" in lines[2]


def test_the_overlap_of_all_tasks_is_a_matrix(run, measured):
    answer = document(run("task", "overlap", measured, "--json"))
    lines = squeezed(run("task", "overlap", measured).stdout)

    assert lines[0] == "revision 3 pets digits"
    assert lines[1] == f"pets 100.0% {100 * answer['jaccard'][0][1]:.1f}%"
    assert squeezed(run("task", "overlap", measured, "--revision", 1).stdout)[0] == "revision 1 pets"


@pytest.mark.parametrize(
    ("words", "row"),
    [
        ((), "pets 4 3 0.0% 100.0% 0.0%"),
        (("--show", "chosen"), "pets 4 3 100.0% 100.0% 100.0%"),
        (("--show", "weight"), "pets 4 3 33.3% 33.3% 33.3%"),
    ],
)
def test_the_routing_of_all_tasks_is_a_matrix_with_reasons_for_empty_rows(run, measured, words, row):
    result = run("task", "routing", measured, *words)
    lines = squeezed(result.stdout)

    assert lines[0] == "images of number measured in revision (base) pets digits"
    assert lines[1:3] == [row, "digits 0 - - - -"]
    assert result.stderr == "digits: no images were kept\n"
    assert document(run("task", "routing", measured, "--json"))["columns"] == [None, "pets", "digits"]


def test_a_model_of_one_task_has_nobody_to_share_with(run, service, model):
    learn(service.services, model, "pets", classes=("a", "b"), checkpoint=service.fine_tuned)

    assert "shares parameters with" not in run("task", "show", model, "pets").stdout

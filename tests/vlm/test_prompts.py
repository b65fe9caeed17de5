import pytest

from vlm.errors import InvalidLabelsError, InvalidTemplatesError
from vlm.prompts import DEFAULT_TEMPLATES, fill, validate_labels, validate_templates


def test_a_label_goes_where_the_braces_are_whatever_it_holds():
    assert fill("a photo of a {}.", "cat") == "a photo of a cat."
    assert fill("{}", "{x} {} {0}") == "{x} {} {0}"


def test_labels_keep_their_order_and_lose_their_repetitions():
    assert validate_labels(["dog", "cat", "dog"]) == ("dog", "cat")


@pytest.mark.parametrize("labels", [[], [""], ["  "], ["a", 3], ["a", None], "cat", ["x" * 1001], [b"cat"]])
def test_labels_that_cannot_be_chosen_among_are_refused(labels):
    with pytest.raises(InvalidLabelsError):
        validate_labels(labels)


def test_ten_thousand_labels_are_the_most():
    assert len(validate_labels([f"class {i}" for i in range(10_000)])) == 10_000
    with pytest.raises(InvalidLabelsError, match="10001 labels; at most 10000"):
        validate_labels([f"class {i}" for i in range(10_001)])
    with pytest.raises(InvalidLabelsError, match="at most 2"):
        validate_labels(["a", "b", "c"], max_labels=2)


def test_the_default_templates_are_valid():
    assert validate_templates(DEFAULT_TEMPLATES) == DEFAULT_TEMPLATES


@pytest.mark.parametrize(
    "templates",
    [
        [],
        ["no slot"],
        ["{} and {}"],
        ["{0}"],
        [""],
        [3],
        "a photo of a {}.",
        ["{}"] * 257,
        ["{}" + "x" * 1000],
    ],
)
def test_templates_that_make_no_prompts_are_refused(templates):
    with pytest.raises(InvalidTemplatesError):
        validate_templates(templates)

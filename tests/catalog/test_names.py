import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from catalog.errors import InvalidNameError
from catalog.names import check_name


@pytest.mark.parametrize("name", ["a", "0", "vit-b-16", "my_model.v2", "a" * 63])
def test_a_plain_name_is_taken(name):
    assert check_name(name, "model") == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        "A",
        "Pets",
        "a b",
        "-a",
        "a-",
        ".a",
        "a.",
        "_a",
        "a/b",
        "a..b",
        "..",
        "ä",
        "a" * 64,
        "a\n",
        "a%2f",
        "٣",
    ],
)
def test_a_name_that_would_need_escaping_is_refused(name):
    with pytest.raises(InvalidNameError, match="cannot name a task: use 1 to 63 of the characters"):
        check_name(name, "task")


def test_a_very_long_name_does_not_flood_the_message():
    with pytest.raises(InvalidNameError) as refused:
        check_name("x" * 10_000, "base")
    assert len(str(refused.value)) < 400


@given(st.text(max_size=70))
def test_whatever_is_taken_is_safe_in_a_url_and_in_a_file_name(name):
    try:
        check_name(name, "model")
    except InvalidNameError:
        return
    assert set(name) <= set(string.ascii_lowercase + string.digits + "._-")
    assert 1 <= len(name) <= 63
    assert name[0] not in "._-"
    assert ".." not in name

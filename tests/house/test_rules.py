"""Every source keeps every rule, and every rule catches what it is there for."""

import pytest

from tests.house import rules
from tests.house.sources import parse, sources

BROKEN = {
    rules.file_is_short: ("store/long.py", "x = 1\n" * 401),
    rules.functions_are_short: ("store/long.py", "def f():\n" + "    x = 1\n" * 60),
    rules.modules_are_named_for_what_they_hold: ("store/utils/text.py", ""),
    rules.nothing_unpickles: ("store/weights.py", "import torch\ntorch.load('x')"),
    rules.rooms_are_tested_without_mocks: ("tests/store/test_x.py", "from unittest import mock"),
    rules.fusion_touches_no_disk: ("store/fusion/x.py", "open('x')"),
    rules.store_annotations_are_real: ("store/x.py", "from __future__ import annotations"),
    rules.arguments_beyond_the_third_are_named: ("vlm/x.py", "def f(a, b, c, d): ..."),
    rules.names_are_those_of_the_glossary: ("catalog/x.py", "def save_artifact(): ..."),
    rules.signatures_say_whose_id_and_which_data: ("catalog/x.py", "def find(id): ..."),
    rules.names_of_tests_are_sentences: ("tests/x/test_x.py", "def test_it_works(): assert 1"),
    rules.tests_can_fail: ("tests/x/test_x.py", "def test_that_it_runs_through(): f()"),
    rules.tests_are_not_switched_off: (
        "tests/x/test_x.py",
        "import pytest\n@pytest.mark.skip\ndef test_f(): ...",
    ),
}


@pytest.mark.parametrize("rule", rules.ALL_RULES, ids=lambda rule: rule.__name__)
def test_no_source_breaks_the_rule(rule):
    assert not [line for source in sources() for line in rule(source)]


@pytest.mark.parametrize("rule", rules.ALL_RULES, ids=lambda rule: rule.__name__)
def test_the_rule_catches_what_it_is_there_for(rule):
    path, text = BROKEN[rule]

    assert list(rule(parse(text, path)))
    assert not list(rule(parse("x = 1\n", path.replace("utils", "texts"))))

"""The docs tell what the code has: every setting, command, route, error and decision; no link is dead."""

import re

import pytest

from catalog.settings import Settings
from tests.house.sources import ROOT, text_files

DOCS = ROOT / "docs"
DECISIONS = sorted((DOCS / "decisions").glob("[0-9]*.md"))
PARTS_OF_A_DECISION = ("## Context", "## Decision", "## Consequences", "## Alternatives")


def _markdown():
    return [(path, text) for path, text in text_files() if path.endswith(".md")]


def test_every_setting_stands_in_the_operations_page():
    page = (DOCS / "operations.md").read_text()

    assert not [name for name in Settings.model_fields if f"`CONDU_{name.upper()}`" not in page]


def test_the_operations_page_names_no_setting_that_does_not_exist():
    named = set(re.findall(r"CONDU_([A-Z_]+[A-Z])", (DOCS / "operations.md").read_text()))

    assert named <= {name.upper() for name in Settings.model_fields}


@pytest.mark.parametrize("decision", DECISIONS, ids=lambda path: path.stem)
def test_a_decision_is_indexed_and_has_its_parts(decision):
    text = decision.read_text()

    assert f"({decision.name})" in (DOCS / "decisions" / "README.md").read_text()
    assert not [part for part in PARTS_OF_A_DECISION if part not in text]


def test_decisions_have_numbers_of_their_own():
    numbers = [path.name[:4] for path in DECISIONS]

    assert numbers == sorted(set(numbers))


def test_links_between_the_pages_lead_somewhere():
    dead = [
        f"{path}: {target}"
        for path, text in _markdown()
        for target in re.findall(r"\]\((?!https?:|mailto:|#)([^)#\s]+)", text)
        if not (ROOT / path).parent.joinpath(target).exists()
    ]

    assert not dead


def test_make_targets_that_pages_name_exist():
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {(path, name) for path, text in _markdown() for name in re.findall(r"`make ([a-z]+)", text)}

    assert not [f"{path}: make {name}" for path, name in sorted(named) if name not in targets]

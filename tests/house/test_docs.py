"""The docs tell what the code has: every setting, command, route, error and decision; no link is dead."""

import re

import pytest
from typer.main import get_command

from api.app import create_app
from api.errors import PROBLEMS
from catalog.settings import Settings
from catalog.training_options import TrainingOptions
from cli.exit_codes import MEANINGS
from cli.main import app as condu
from tests.house.sources import ROOMS, ROOT, sources, text_files

DOCS = ROOT / "docs"
DECISIONS = sorted((DOCS / "decisions").glob("[0-9]*.md"))
PARTS_OF_A_DECISION = ("## Context", "## Decision", "## Consequences", "## Alternatives")


def _commands(command, name):
    if not hasattr(command, "commands"):
        return [name]
    return [
        line
        for word, inner in command.commands.items()
        if not inner.hidden
        for line in _commands(inner, f"{name} {word}")
    ]


def _markdown():
    return [(path, text) for path, text in text_files() if path.endswith(".md")]


def shown_default(value):
    for size, unit in ((2**30, "GiB"), (2**20, "MiB")):
        if isinstance(value, int) and value >= size and value % size == 0:
            return f"{value // size} {unit}"
    return "-" if value in (None, ()) else f"{value:g}" if isinstance(value, float) else str(value)


def test_every_setting_stands_in_the_operations_page_with_its_default():
    page = (DOCS / "operations.md").read_text()
    rows = [
        f"| `CONDU_{name.upper()}` | {shown_default(field.default)} |"
        for name, field in Settings.model_fields.items()
    ]

    assert not [row for row in rows if row not in page]


def test_every_setting_is_read_by_the_code():
    code = "".join(source.text for source in sources() if source.folder in ROOMS)

    assert not [
        name for name in Settings.model_fields if not re.search(rf"(?:settings|self)\.{name}\b", code)
    ]


def test_the_operations_page_names_no_setting_that_does_not_exist():
    named = set(re.findall(r"CONDU_([A-Z_]+[A-Z])", (DOCS / "operations.md").read_text()))

    assert named <= {name.upper() for name in Settings.model_fields}


@pytest.fixture(scope="module")
def routes(tmp_path_factory):
    paths = create_app(Settings(data=tmp_path_factory.mktemp("data"))).openapi()["paths"]
    return {f"{method.upper()} {path}" for path, methods in paths.items() for method in methods}


def test_every_route_stands_in_the_api_page(routes):
    page = (DOCS / "api.md").read_text()

    assert not [route for route in sorted(routes) if f"`{route}`" not in page]


def test_the_api_page_names_no_route_that_does_not_exist(routes):
    named = set(re.findall(r"`((?:GET|PUT|POST|DELETE) /[^`?]*)`", (DOCS / "api.md").read_text()))

    assert named
    assert not named - routes


def test_every_training_option_stands_in_the_api_page():
    page = (DOCS / "api.md").read_text()

    assert not [name for name in TrainingOptions.model_fields if f"| `{name}` |" not in page]


def test_every_problem_stands_in_the_errors_page_with_its_status():
    page = (DOCS / "errors.md").read_text()

    assert not [kind.slug for kind in PROBLEMS.values() if f"| `{kind.slug}` | {kind.status} |" not in page]


def test_the_errors_page_names_no_problem_that_does_not_exist():
    named = re.findall(r"^\| `([a-z-]+)` \| \d{3} \|", (DOCS / "errors.md").read_text(), re.MULTILINE)

    assert len(named) == len(set(named))
    assert not set(named) - {kind.slug for kind in PROBLEMS.values()}


def test_every_command_stands_in_the_cli_page():
    page = (DOCS / "cli.md").read_text()

    assert not [command for command in _commands(get_command(condu), "condu") if f"`{command}" not in page]


def test_the_cli_page_explains_every_exit_code():
    page = (DOCS / "cli.md").read_text()

    assert not [code for code in MEANINGS if f"| {code.value} |" not in page]


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


def test_every_test_that_a_page_names_exists():
    tests = {function.name for source in sources() for function in source.functions()}
    named = {
        (path, name) for path, text in _markdown() for name in re.findall(r"`(test_\w+_\w+_\w+_\w+)`", text)
    }

    assert named
    assert not [f"{path}: {name}" for path, name in sorted(named) if name not in tests]

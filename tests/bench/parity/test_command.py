"""`condu bench parity` as a person runs it."""

import json

import pytest
from typer.testing import CliRunner

from bench.parity import agreement
from cli.main import app
from tests.bench.parity.conftest import write_fine_tunes


def _run(base, folder, out):
    options = ["--base", str(base), "--fine-tunes", str(folder), "--json", str(out), "--passes", "3"]
    return CliRunner().invoke(app, ["bench", "parity", *options])


def test_the_command_prints_the_tables_and_leaves_numbers_and_figures(files, tmp_path):
    result = _run(*files, tmp_path / "parity.json")

    assert result.exit_code == 0, result.output
    assert "Every fold against the formulas" in result.output
    document = json.loads((tmp_path / "parity.json").read_text())
    assert document["format"] == "condu-parity-1"
    assert document["agrees"]
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "parity.agreement.png",
        "parity.json",
        "parity.orders.png",
        "parity.passes.png",
    ]


def test_a_store_that_departs_from_the_formulas_fails_the_command_and_names_the_place(tmp_path, monkeypatch):
    monkeypatch.setattr(agreement, "LARGEST_ERROR", -1.0)  # nothing is this near

    result = _run(*write_fine_tunes(tmp_path, tasks=("birds", "cars")), tmp_path / "parity.json")

    assert result.exit_code == 1
    assert "departs from the formulas at norm global_l1, task 'birds' (steps)" in result.output
    assert not json.loads((tmp_path / "parity.json").read_text())["agrees"]


@pytest.mark.parametrize("missing", ["base", "folder"])
def test_what_is_missing_is_named(files, tmp_path, missing):
    base, folder = files
    wrong = tmp_path / "nowhere"

    result = _run(
        wrong if missing == "base" else base, wrong if missing == "folder" else folder, tmp_path / "p"
    )

    assert result.exit_code == 1
    assert "nowhere" in result.output


def test_a_place_that_cannot_be_written_ends_with_a_remedy(files, tmp_path):
    (tmp_path / "file").write_text("in the way")

    result = _run(*files, tmp_path / "file" / "parity.json")

    assert result.exit_code == 1
    assert "the comparison stopped" in result.output

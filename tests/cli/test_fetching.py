"""`condu bench fetch` says what each task holds, and what is missing, by name."""

import json

import pytest
from typer.testing import CliRunner

from cli.exit_codes import ExitCode
from cli.main import app
from tests.bench.suites import mtil_files
from tests.imagesets.building import image_bytes, two_classes, write_tar


@pytest.fixture
def fetch(tmp_path, monkeypatch):
    """Runs the command from a folder that has the suite `zoo`; no package can be fetched."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "zoo").mkdir()
    write_tar(tmp_path / "zoo" / "water.tar", two_classes(10))
    write_tar(tmp_path / "zoo" / "air.tar", two_classes(5))
    return lambda *words: CliRunner().invoke(app, ["bench", "fetch", *words, "--cache", "cache"])


def test_what_each_task_holds_is_shown(fetch):
    result = fetch("zoo")
    assert result.exit_code == 0, result.output
    lines = [line.split() for line in result.stdout.splitlines()]
    assert ["air", "2", "8", "2"] in lines
    assert ["water", "2", "16", "4"] in lines


def test_the_numbers_are_one_json_document(fetch):
    document = json.loads(fetch("zoo", "--json").stdout)
    assert document["suite"] == "zoo"
    assert document["tasks"]["air"] == {"classes": 2, "train": 8, "test": 2}


def test_a_task_that_is_not_whole_is_named_and_the_others_are_fetched_all_the_same(fetch, tmp_path):
    write_tar(tmp_path / "zoo" / "ash.tar", {"1.png": image_bytes()})
    (tmp_path / "zoo" / "dust.tar").write_bytes(b"no tar")
    result = fetch("zoo")
    assert result.exit_code == ExitCode.FAILED
    assert "water" in result.stdout
    assert "ash.tar: '1.png': the image lies in no class folder" in result.stderr
    assert "(and 1 more)" in result.stderr
    assert "not whole: ash, dust" in result.stderr


def test_a_missing_client_is_named_with_what_to_install(fetch):
    result = fetch("mini")
    assert result.exit_code == ExitCode.FAILED
    assert "npm is not installed" in result.stderr
    assert "apt install npm" in result.stderr
    assert "icons" in result.stdout


def test_data_sets_that_are_there_need_no_network_and_missing_cars_are_told(fetch, tmp_path):
    for name, writer in mtil_files.WRITERS.items():
        if name != "stanford_cars":
            writer(tmp_path / "sets")
    result = fetch("mtil", "--data", "sets")
    assert result.exit_code == ExitCode.FAILED
    assert "data set 'stanford_cars': " in result.stderr
    assert "not whole: stanford_cars" in result.stderr
    assert "sun397" in result.stdout


@pytest.mark.parametrize(("words", "message"), [(("maxi",), "no suite 'maxi'"), (("mtil",), "--data FOLDER")])
def test_a_suite_that_cannot_be_found_is_told(fetch, words, message):
    result = fetch(*words)
    assert result.exit_code == ExitCode.FAILED
    assert message in result.stderr

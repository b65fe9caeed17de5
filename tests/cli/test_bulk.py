"""`condu classify --input --output`, on the installation's own data folder."""

import json

import pytest

from cli.exit_codes import ExitCode
from tests.cli.documents import document
from tests.installing import environment_at
from tests.tiny_clip import image_bytes, tiny_image


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(3):
        (folder / f"{number}.png").write_bytes(image_bytes(tiny_image(number)))
    (folder / "broken.jpg").write_bytes(b"x")
    (folder / "notes.txt").write_bytes(b"x")
    return folder


@pytest.fixture
def classify(run, service, tmp_path, photos, monkeypatch):
    """Classifies the photos into a file, of the installation that the service runs on."""
    for name, value in environment_at(service.folder).items():
        monkeypatch.setenv(name, value)

    def classify(*words, model="animals", output="answers.jsonl"):
        return run(
            "classify",
            model,
            "--input",
            photos,
            "--output",
            tmp_path / output,
            "--data",
            service.folder,
            *words,
        )

    return classify


def test_a_folder_is_answered_into_a_file_without_the_service(classify, tmp_path, photos, run):
    outcome = document(classify("--json"))

    assert (outcome["images"], outcome["failed"], outcome["skipped"], outcome["revision"]) == (4, 1, 1, 2)
    rows = [json.loads(line) for line in (tmp_path / "answers.jsonl").read_text().splitlines()]
    assert [row["image"] for row in rows] == ["0.png", "1.png", "2.png", "broken.jpg"]
    one_by_one = document(run("classify", "animals", photos / "0.png", photos / "1.png", "--json"))
    told = [result["predictions"][0]["label"] for result in one_by_one["results"]]
    assert [row["label"] for row in rows[:2]] == told


def test_what_came_of_it_is_told_in_words(classify, tmp_path):
    result = classify(
        "--task", "pets", "--label", "a", "--label", "b", "--template", "one {}", "--top-k", "1"
    )

    assert result.exit_code == ExitCode.OK
    assert "4 images, 1 of them with an error, 1 other files passed over" in result.stdout
    assert "model animals, revision 2" in result.stdout
    row = json.loads((tmp_path / "answers.jsonl").read_text().splitlines()[0])
    assert [share["task"] for share in row["experts"]] == ["pets"]
    assert row["label"] in ("a", "b")


def test_a_file_that_is_there_is_replaced_only_with_overwrite(classify):
    assert classify().exit_code == ExitCode.OK

    refused = classify()
    assert refused.exit_code == ExitCode.FAILED
    assert "remedy: name another output, or replace it with --overwrite" in refused.stderr
    assert classify("--overwrite", "--batch-size", "2", "--part-size", "1").exit_code == ExitCode.OK


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "there is nothing to classify"),
        (["--input", "photos"], "--input and --output go together"),
        (["--output", "a.csv"], "--input and --output go together"),
        (["--overwrite"], "--overwrite goes with --input and --output"),
        (["--part-size", "3"], "--part-size goes with --input and --output"),
        ([__file__, "--input", "photos", "--output", "a.csv"], "give either images or --input"),
        (["--input", "photos", "--output", "a.csv", "--actors", "2"], "--actors goes with --ray"),
    ],
)
def test_words_that_make_no_sense_together_are_refused(run, words, told):
    result = run("classify", "animals", *words)

    assert result.exit_code == ExitCode.USAGE
    assert told in result.stderr


def test_options_that_contradict_each_other_are_refused(classify):
    result = classify("--label-set", "own")

    assert result.exit_code == ExitCode.USAGE
    assert "no task is named" in result.stderr


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ({"model": "nobody"}, "no model 'nobody'"),
        ({"output": "answers.doc"}, "no known form of output"),
    ],
)
def test_what_cannot_be_done_says_why(classify, words, told):
    result = classify(**words)

    assert result.exit_code == ExitCode.FAILED
    assert told in result.stderr


def test_a_folder_that_is_no_installation_is_not_made_into_one(run, photos, tmp_path):
    result = run(
        "classify", "zoo", "--input", photos, "--output", tmp_path / "a.csv", "--data", tmp_path / "no"
    )

    assert result.exit_code == ExitCode.FAILED
    assert "no data folder of an installation" in result.stderr
    assert not (tmp_path / "no").exists()


def test_a_catalog_of_another_version_is_told(run, photos, tmp_path):
    data = tmp_path / "old"
    data.mkdir()
    (data / "condu.sqlite").touch()

    result = run("classify", "zoo", "--input", photos, "--output", tmp_path / "a.csv", "--data", data)

    assert result.exit_code == ExitCode.FAILED
    assert "condu migrate" in result.stderr


def test_a_job_that_is_interrupted_says_that_it_can_go_on(classify, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("bulk.main.run", interrupted)
    result = classify()

    assert result.exit_code == ExitCode.INTERRUPTED
    assert "the same command goes on where it was" in result.stderr


def test_with_ray_the_job_goes_to_its_actors(classify):
    result = classify("--ray", "127.0.0.1:1", "--actors", "1")

    assert result.exit_code == ExitCode.FAILED
    assert "Ray is not installed" in result.stderr or "no Ray cluster answers" in result.stderr

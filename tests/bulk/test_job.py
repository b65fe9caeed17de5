"""A bulk job from its input to its file: every image one row, whatever the input and the form."""

import csv
import json
from dataclasses import replace

import pyarrow.parquet as pq
import pytest

from bulk.answering import Answerer
from bulk.errors import AnswerError, InputError, OutputError
from bulk.rows import COLUMNS
from tests.bulk.conftest import lines, write_tar
from tests.installing import copy_installation, embedded_only, settings_at


def test_every_image_of_a_folder_gets_exactly_one_row_in_the_order_of_names(bench, folder, encoded):
    outcome = bench.run(folder)

    rows = lines(outcome.output)
    assert [row["image"] for row in rows] == sorted(encoded)
    assert (outcome.images, outcome.failed, outcome.skipped, outcome.resumed) == (22, 2, 3, 0)
    assert not (bench.folder / "answers.jsonl.parts").exists()


def test_an_image_that_cannot_be_read_gets_a_row_that_says_why(bench, folder):
    rows = {row["image"]: row for row in lines(bench.run(folder).output)}

    assert rows["a/broken.jpg"]["error"]["reason"] == "not_an_image"
    assert rows["b/empty.webp"]["error"]["reason"] == "empty"
    assert rows["b/empty.webp"]["label"] is None
    assert rows["a/00.png"]["error"] is None


def test_a_row_holds_what_the_predictor_answers_for_its_image(bench, folder, encoded, installation):
    row = next(row for row in lines(bench.run(folder).output) if row["image"] == "b/07.png")

    work = _work(bench, folder)
    answerer = Answerer(work)
    picture = work.base.preprocessing.load(encoded["b/07.png"])
    (alone,) = answerer.predictor.classify(work.base, answerer.manifest, [picture], options=work.options)
    assert [found["label"] for found in row["top_k"]] == [found.label for found in alone.predictions]
    assert row["probability"] == pytest.approx(alone.predictions[0].probability, rel=1e-4)
    assert [share["digest"] for share in row["experts"]] == [share.digest for share in alone.experts]
    assert (row["model"], row["revision"]) == ("animals", 2)


def _work(bench, source):
    kept = []

    def runner(work, numbers, on_images):
        kept.append(work)
        raise InterruptedError

    with pytest.raises(InterruptedError):
        bench.run(source, "kept.jsonl", how={"runner": runner})
    return kept[0]


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_a_tar_gives_the_rows_of_its_images_in_its_own_order(bench, folder, encoded, tmp_path, mode):
    members = dict(reversed(encoded.items()))
    tar = write_tar(tmp_path / "images.bin", {**members, "readme.txt": b"x"}, mode)

    outcome = bench.run(tar, "tar.jsonl")

    rows = lines(outcome.output)
    assert [row["image"] for row in rows] == list(members)
    assert outcome.skipped == 1
    from_folder = {row["image"]: row["label"] for row in lines(bench.run(folder).output)}
    assert {row["image"]: row["label"] for row in rows} == from_folder


def test_a_list_gives_a_row_for_every_line_whether_there_is_a_file_or_not(bench, folder, tmp_path):
    listed = tmp_path / "list.txt"
    listed.write_bytes(
        b"photos/a/00.png\r\n\nphotos/no such.png\nphotos/notes.txt\nphotos\nphotos/\xff.png\n"
    )

    rows = lines(bench.run(listed).output)

    assert [row["image"] for row in rows] == [
        "photos/a/00.png", "photos/no such.png", "photos/notes.txt", "photos", "photos/\\xff.png",
    ]  # fmt: skip
    reasons = [row["error"] and row["error"]["reason"] for row in rows]
    assert reasons == [None, "missing", "not_an_image", "unreadable", "missing"]


def test_the_three_forms_say_the_same(bench, folder):
    outcomes = {name: bench.run(folder, f"same.{name}") for name in ("jsonl", "csv", "parquet")}

    rows = lines(outcomes["jsonl"].output)
    assert pq.read_table(outcomes["parquet"].output).to_pylist() == rows
    with outcomes["csv"].output.open(encoding="utf-8", newline="") as file:
        cells = list(csv.DictReader(file))
    assert tuple(cells[0]) == COLUMNS
    for cell, row in zip(cells, rows, strict=True):
        assert cell["label"] == (row["label"] or "")
        assert json.loads(cell["top_k"]) == row["top_k"]
        assert json.loads(cell["experts"]) == row["experts"]
        assert (json.loads(cell["error"]) if cell["error"] else None) == row["error"]
    assert {outcome.failed for outcome in outcomes.values()} == {2}


def test_options_are_those_of_a_single_request(bench, folder):
    rows = lines(bench.run(folder, task="pets", labels=("x", "y", "z"), top_k=2).output)

    assert [share["task"] for share in rows[0]["experts"]] == ["pets"]
    assert len(rows[0]["top_k"]) == 2
    assert {row["label"] for row in rows if row["label"]} <= {"x", "y", "z"}


def test_a_model_that_has_learned_nothing_answers_with_its_base(bench, folder):
    rows = lines(bench.run(folder, model="fresh", labels=("cat", "dog")).output)

    assert {row["revision"] for row in rows} == {None}
    assert [share["task"] for share in rows[0]["experts"]] == [None]


def test_an_earlier_revision_may_be_asked(bench, folder, installation):
    rows = lines(bench.run(folder, revision=1).output)

    assert {row["revision"] for row in rows} == {1}
    assert {share["task"] for row in rows for share in row["experts"]} == {None, "pets"}


def test_parts_and_batches_are_of_no_influence_on_the_labels(bench, folder):
    small = lines(bench.run(folder, "small.jsonl", part_size=1, batch_size=1).output)
    large = lines(bench.run(folder, "large.jsonl", part_size=1000, batch_size=64).output)

    assert [row["label"] for row in small] == [row["label"] for row in large]
    for one, other in zip(small, large, strict=True):
        assert (one["probability"] or 0) == pytest.approx(other["probability"] or 0, rel=1e-3)


def test_progress_tells_images_and_their_speed_up_to_the_last(bench, folder):
    told = []

    bench.run(folder, how={"on_progress": told.append})

    assert (told[0].images, told[-1].images, told[-1].total) == (0, 22, 22)
    assert [now.images for now in told] == sorted(now.images for now in told)
    assert told[-1].images_per_s > 0


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"model": "nobody"}, "no model 'nobody'"),
        ({"revision": 9}, "no revision 9"),
        ({"task": "food"}, "food"),
        ({"templates": ("no slot",)}, "slot"),
        ({"model": "fresh"}, "learned no task"),
    ],
)
def test_what_cannot_be_answered_is_told_before_anything_is_written(bench, folder, options, told):
    with pytest.raises(AnswerError, match=told):
        bench.run(folder, **options)

    assert not list(bench.folder.iterdir())


def test_an_output_that_is_there_is_replaced_only_when_asked(bench, folder):
    target = bench.folder / "answers.jsonl"
    target.write_text("mine")

    with pytest.raises(OutputError, match="is there already"):
        bench.run(folder)
    assert target.read_text() == "mine"
    bench.run(folder, is_overwriting=True)
    assert len(lines(target)) == 22


@pytest.mark.parametrize(
    ("name", "told"),
    [("answers.txt", "no known form"), ("no/answers.csv", "no folder"), ("taken.csv", "is a folder")],
)
def test_an_output_that_cannot_be_is_refused(bench, folder, name, told):
    (bench.folder / "taken.csv").mkdir()

    with pytest.raises(OutputError, match=told):
        bench.run(folder, name)


def test_an_output_that_cannot_be_written_is_told(bench, folder, tmp_path):
    # A file where the folder of parts must be: what root, who may write anywhere, cannot write either.
    (bench.folder / "answers.jsonl.parts").write_text("x")

    with pytest.raises(OutputError, match="cannot be written"):
        bench.run(folder)


def test_an_input_without_images_is_refused(bench, tmp_path):
    (tmp_path / "none").mkdir()

    with pytest.raises(InputError, match="holds no image"):
        bench.run(tmp_path / "none")
    assert not list(bench.folder.iterdir())


@embedded_only
def test_a_damaged_blob_ends_the_job_and_points_to_verify(bench, folder, learned_folder, tmp_path):
    data = copy_installation(learned_folder, tmp_path / "data")
    hurt = replace(bench, settings=settings_at(data, num_threads=1, device="cpu", decode_threads=2))
    work = _work(hurt, folder)
    answerer = Answerer(work)
    path = answerer.predictor.pool.store.blobs.path(answerer.manifest.tasks[0].mask)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.unlink()
    path.write_bytes(content)

    with pytest.raises(AnswerError) as caught:
        hurt.run(folder, "kept.jsonl")
    assert "condu verify" in caught.value.remedy

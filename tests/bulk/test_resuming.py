"""Jobs that were stopped go on: no image twice, none left out, the same bytes; another job is refused."""

import fcntl
import json
from dataclasses import replace

import pytest
from sqlalchemy import text

from bulk.errors import OutputError, ResumeError
from bulk.main import alone
from bulk.parts import DONE_NAME, JOB_NAME, JOINED_NAME, PartsFolder
from catalog import Catalog
from tests.bulk.conftest import lines, write_tar
from tests.installing import copy_installation, settings_at
from tests.tiny_clip import image_bytes, tiny_image


class StoppedError(Exception):
    """Stands for whatever ends a run."""


def stop_after(num_parts):
    """A runner that ends when that many parts are written; it keeps which parts were asked of it."""

    def runner(work, numbers, on_images):
        runner.asked.append(list(numbers))
        for count, part in enumerate(alone(work, numbers, on_images)):
            if count == num_parts:
                raise StoppedError
            yield part

    runner.asked = []
    return runner


def stopped(bench, source, name="answers.jsonl", *, after=2, **fields):
    """The bench, with a job that was stopped after two of its six parts."""
    with pytest.raises(StoppedError):
        bench.run(source, name, how={"runner": stop_after(after)}, **fields)
    return bench.folder / f"{name}.parts"


@pytest.mark.parametrize("form", ["jsonl", "csv", "parquet"])
def test_a_stopped_job_goes_on_to_the_bytes_of_one_that_was_not(bench, folder, form):
    whole = bench.run(folder, f"whole.{form}").output
    stopped(bench, folder, f"answers.{form}")
    runner = stop_after(99)

    outcome = bench.run(folder, f"answers.{form}", how={"runner": runner})

    assert runner.asked == [[2, 3, 4, 5]]
    assert (outcome.images, outcome.resumed, outcome.failed) == (22, 8, 2)
    assert outcome.output.read_bytes() == whole.read_bytes()


def test_parts_may_be_there_in_any_order(bench, folder, encoded, tmp_path):
    tar = write_tar(tmp_path / "images.tar.gz", encoded, "w:gz")
    whole = bench.run(tar, "whole.jsonl").output

    def backwards(work, numbers, on_images):
        yield from alone(work, list(reversed(numbers)), on_images)

    parts = stopped(bench, tar, after=3)
    (parts / "00000001.jsonl").unlink()
    assert bench.run(tar, how={"runner": backwards}).output.read_bytes() == whole.read_bytes()


def test_a_part_that_was_torn_is_made_again(bench, folder):
    whole = bench.run(folder, "whole.jsonl").output
    parts = stopped(bench, folder)
    (parts / ".writing-00000002.jsonl").write_bytes(b'{"image": "a/')

    assert bench.run(folder).output.read_bytes() == whole.read_bytes()


def test_what_no_job_is_known_for_is_begun_anew(bench, folder):
    whole = bench.run(folder, "whole.jsonl").output
    parts = stopped(bench, folder)
    (parts / JOB_NAME).unlink()
    (parts / "00000000.jsonl").write_bytes(b"of another job\n")

    assert bench.run(folder).output.read_bytes() == whole.read_bytes()


def test_a_job_that_was_killed_while_it_put_its_file_in_place_ends_as_done(bench, folder, monkeypatch):
    whole = bench.run(folder, "whole.jsonl").output
    monkeypatch.setattr(PartsFolder, "finish", _stop)
    with pytest.raises(StoppedError):
        bench.run(folder)
    monkeypatch.undo()
    parts = bench.folder / "answers.jsonl.parts"
    assert {DONE_NAME, JOINED_NAME} < {path.name for path in parts.iterdir()}

    outcome = bench.run(folder, how={"runner": stop_after(0)})

    assert (outcome.images, outcome.resumed, outcome.failed) == (22, 22, 2)
    assert outcome.output.read_bytes() == whole.read_bytes()
    assert not parts.exists()


def _stop(self):
    raise StoppedError


def test_a_job_that_was_killed_while_it_cleaned_up_ends_as_done(bench, folder, monkeypatch):
    monkeypatch.setattr(PartsFolder, "_remove", _stop)
    with pytest.raises(StoppedError):
        bench.run(folder)
    monkeypatch.undo()
    before = (bench.folder / "answers.jsonl").read_bytes()

    outcome = bench.run(folder, how={"runner": stop_after(0)})

    assert outcome.output.read_bytes() == before
    assert not (bench.folder / "answers.jsonl.parts").exists()


def test_another_job_after_a_finished_one_that_was_not_cleaned_up_begins_anew(bench, folder, monkeypatch):
    monkeypatch.setattr(PartsFolder, "_remove", _stop)
    with pytest.raises(StoppedError):
        bench.run(folder)
    monkeypatch.undo()

    with pytest.raises(OutputError, match="is there already"):
        bench.run(folder, task="pets")
    assert bench.run(folder, task="pets", is_overwriting=True).resumed == 0


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"model": "fresh", "labels": ("a",)}, "the model is animals"),
        ({"task": "pets"}, "its options are others"),
        ({"revision": 1}, "the revision is 2"),
        ({"part_size": 5}, "its parts have 4 images"),
    ],
)
def test_a_command_for_another_job_is_refused_and_the_parts_stay(bench, folder, fields, told):
    parts = stopped(bench, folder)
    before = sorted(path.name for path in parts.iterdir())

    with pytest.raises(ResumeError, match=told) as caught:
        bench.run(folder, **fields)
    assert f"rm -r {parts}" in caught.value.remedy
    assert sorted(path.name for path in parts.iterdir()) == before


def test_a_larger_batch_goes_on_with_the_same_job(bench, folder):
    stopped(bench, folder)

    assert bench.run(folder, batch_size=64).resumed == 8


def _add_a_file(source):
    (source / "zz.png").write_bytes(image_bytes(tiny_image(99)))


def _change_a_file(source):
    (source / "a" / "00.png").write_bytes(image_bytes(tiny_image(99)) + b"longer")


def _remove_a_file(source):
    (source / "a" / "00.png").unlink()


@pytest.mark.parametrize("change", [_add_a_file, _change_a_file, _remove_a_file])
def test_a_folder_that_changed_is_refused(bench, folder, change):
    stopped(bench, folder)
    change(folder)

    with pytest.raises(ResumeError, match="the input is not what it was"):
        bench.run(folder)


def test_a_list_or_a_tar_that_changed_is_refused(bench, folder, encoded, tmp_path):
    listed = tmp_path / "list.txt"
    listed.write_text("\n".join(f"photos/{name}" for name in encoded))
    tar = write_tar(tmp_path / "images.tar", encoded)
    stopped(bench, listed, "listed.csv")
    stopped(bench, tar, "tar.csv")
    listed.write_text(listed.read_text() + "\nphotos/more.png")
    write_tar(tar, {**encoded, "more.png": b""})

    for source, name in ((listed, "listed.csv"), (tar, "tar.csv")):
        with pytest.raises(ResumeError, match="the input is not what it was"):
            bench.run(source, name)


@pytest.fixture
def moving(bench, learned_folder, tmp_path):
    """A bench on an installation of the test's own, whose head may move."""
    data = copy_installation(learned_folder, tmp_path / "data")
    return replace(bench, settings=settings_at(data, num_threads=1, device="cpu", decode_threads=2))


def _execute(settings, statement):
    catalog = Catalog(settings)
    with catalog.transaction() as session:
        session.execute(text(statement))
    catalog.close()


def test_a_job_goes_on_with_its_own_revision_after_the_head_moved(moving, folder):
    whole = lines(moving.run(folder, "whole.jsonl", revision=1).output)
    _execute(moving.settings, "update models set head_revision = 1 where name = 'animals'")
    stopped(moving, folder)
    _execute(moving.settings, "update models set head_revision = 2 where name = 'animals'")

    assert lines(moving.run(folder).output) == whole


def test_a_model_that_learned_its_first_task_meanwhile_still_answers_as_it_came(moving, folder):
    options = {"labels": ("cat", "dog")}
    _execute(moving.settings, "update models set head_revision = null where name = 'animals'")
    stopped(moving, folder, **options)
    _execute(moving.settings, "update models set head_revision = 2 where name = 'animals'")

    rows = lines(moving.run(folder, **options).output)
    assert {row["revision"] for row in rows} == {None}
    assert {share["task"] for row in rows for share in row["experts"]} == {None}


def test_a_revision_that_expired_meanwhile_is_told_with_the_way_out(moving, folder):
    parts = stopped(moving, folder, revision=1)
    _execute(moving.settings, "update revisions set expired_at = created_at where number = 1")

    with pytest.raises(ResumeError, match="began with revision 1, which is gone") as caught:
        moving.run(folder)
    assert f"rm -r {parts}" in caught.value.remedy


def test_a_model_of_the_same_name_that_is_another_is_refused(moving, folder):
    parts = stopped(moving, folder)
    job = json.loads((parts / JOB_NAME).read_text())
    (parts / JOB_NAME).write_text(json.dumps({**job, "manifest": "0" * 64}))

    with pytest.raises(ResumeError, match="is not the one that the job"):
        moving.run(folder)


@pytest.mark.parametrize("content", ["{", '{"version": 99}'])
def test_a_job_that_does_not_read_is_refused(bench, folder, content):
    parts = stopped(bench, folder)
    (parts / JOB_NAME).write_text(content)

    with pytest.raises(ResumeError):
        bench.run(folder)


def test_parts_that_somebody_cut_are_not_joined(bench, folder):
    parts = stopped(bench, folder)
    part = parts / "00000001.jsonl"
    part.write_bytes(part.read_bytes().splitlines(keepends=True)[0])

    with pytest.raises(ResumeError, match="19 rows for 22 images"):
        bench.run(folder)


def test_two_processes_do_not_write_one_output(bench, folder):
    parts = stopped(bench, folder)
    with (parts / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)

        with pytest.raises(OutputError, match="another process writes"):
            bench.run(folder)
    assert bench.run(folder).images == 22


def test_a_file_that_came_meanwhile_is_not_replaced_unasked(bench, folder):
    stopped(bench, folder)
    (bench.folder / "answers.jsonl").write_text("mine")

    with pytest.raises(OutputError, match="is there already"):
        bench.run(folder)
    assert bench.run(folder, is_overwriting=True).resumed == 8

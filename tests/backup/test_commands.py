"""`condu backup` and `condu restore`, as typed."""

import json
import os

import pytest
from typer.testing import CliRunner

from cli.backup import place as places
from cli.exit_codes import ExitCode
from cli.main import app
from store.blobs import FileBlobs
from tests.backup.places import contents_of, embedded, fill_installation


@pytest.fixture
def filled(tmp_path, monkeypatch):
    for name in [name for name in os.environ if name.startswith("CONDU_")]:
        monkeypatch.delenv(name)
    settings = embedded(tmp_path / "first")
    fill_installation(settings)
    return settings


@pytest.fixture
def condu(filled):
    return lambda *words: CliRunner().invoke(app, [str(word) for word in words])


def done(answer):
    assert answer.exit_code == ExitCode.OK, answer.output
    return json.loads(answer.stdout)


def failed(answer):
    assert answer.exit_code == ExitCode.FAILED, answer.output
    return json.loads(answer.stdout)["error"]


def test_a_backup_is_made_listed_and_restored(condu, filled, tmp_path):
    made = done(condu("backup", tmp_path / "place", "--data", filled.data, "--json"))
    assert (made["num_copied"], made["num_blobs"], made["faults"]) == (4, 4, [])
    assert made["copied_bytes"] == made["blob_bytes"] > 10_000_000
    (listed,) = done(condu("restore", tmp_path / "place", "--list", "--data", filled.data, "--json"))[
        "backups"
    ]
    assert listed["backup"] == made["backup"]
    assert made["backup"][:12] in condu("restore", tmp_path / "place", "--list").stdout
    new = embedded(tmp_path / "new")
    which = ("--backup", made["backup"][:8])
    report = done(condu("restore", tmp_path / "place", *which, "--data", new.data, "--json"))
    assert (report["num_copied"], report["jobs_queued"]) == (4, 1)
    assert contents_of(new) == contents_of(filled)


def test_people_are_told_what_a_backup_and_a_restore_did(condu, filled, tmp_path):
    said = condu("backup", tmp_path / "place", "--data", filled.data).stdout
    assert "4 blobs" in said
    said = condu("restore", tmp_path / "place", "--data", tmp_path / "new").stdout
    assert "each read back and sound; 1 jobs go on" in said


def test_a_restore_into_what_holds_something_is_refused_with_the_remedy(condu, filled, tmp_path):
    done(condu("backup", tmp_path / "place", "--data", filled.data, "--json"))
    error = failed(condu("restore", tmp_path / "place", "--data", filled.data, "--json"))
    assert error["title"] == "the installation is not empty"
    assert "--data" in error["remedy"]


def test_a_backup_that_is_not_there_is_named(condu, filled, tmp_path):
    new = tmp_path / "new"
    assert (
        failed(condu("restore", tmp_path / "empty", "--data", new, "--json"))["title"] == "there is no backup"
    )
    done(condu("backup", tmp_path / "place", "--data", filled.data, "--json"))
    error = failed(condu("restore", tmp_path / "place", "--backup", "xyz", "--data", new, "--json"))
    assert error["title"] == "there is no backup xyz"
    done(condu("backup", tmp_path / "place", "--data", filled.data, "--json"))
    error = failed(condu("restore", tmp_path / "place", "--backup", "", "--data", new, "--json"))
    assert error["title"].startswith("2 backups begin with")


def test_a_backup_with_faults_is_made_and_fails_by_name(condu, filled, tmp_path):
    blobs = FileBlobs(filled.data / "blobs")
    missing = max(contents_of(filled), key=blobs.size_bytes)
    blobs.delete(missing)
    for command in ("backup", "restore"):
        data = filled.data if command == "backup" else tmp_path / "new"
        error = failed(condu(command, tmp_path / "place", "--data", data, "--json"))
        assert error["num_blobs"] == 3
        assert missing in error["detail"]


def test_a_backup_into_the_installation_itself_is_refused(condu, filled):
    answer = condu("backup", filled.data, "--data", filled.data, "--json")
    assert answer.exit_code == ExitCode.USAGE
    assert contents_of(filled)


def test_what_catalog_storage_and_disk_refuse_is_told(condu, filled, tmp_path):
    (tmp_path / "a file").write_text("in the way")
    where = (tmp_path / "a file", "--data", filled.data, "--json")
    assert failed(condu("backup", *where))["title"] == "this machine refused"
    unmade = ("--data", tmp_path / "nothing here", "--json")
    assert failed(condu("backup", tmp_path / "place", *unmade))["title"] == "the catalog refused"
    done(condu("backup", tmp_path / "place", "--data", filled.data, "--json"))
    inside = FileBlobs(tmp_path / "place" / "blobs")
    for blob in list(inside.list()):
        inside.delete(blob.digest)
    where = (tmp_path / "place", "--data", tmp_path / "new", "--json")
    assert failed(condu("restore", *where))["title"] == "the storage refused"


def test_only_the_newest_backups_stay_and_what_they_name(condu, filled, tmp_path, monkeypatch):
    place = tmp_path / "place"
    old = done(condu("backup", place, "--data", filled.data, "--json"))
    gone = FileBlobs(filled.data / "blobs").put(b"of the first backup only")
    FileBlobs(place / "blobs").put(b"of the first backup only")
    answer = done(condu("backup", place, "--data", filled.data, "--keep", 1, "--json"))
    assert answer["freed_bytes"] == 0, "another backup may just be bringing it"
    monkeypatch.setattr(places, "STILL_WANTED_S", 0.0)
    answer = done(condu("backup", place, "--data", filled.data, "--keep", 1, "--json"))
    assert answer["freed_bytes"] == gone.size_bytes
    (left,) = done(condu("restore", place, "--list", "--json"))["backups"]
    assert left["backup"] == answer["backup"] != old["backup"]
    done(condu("restore", place, "--data", tmp_path / "new", "--json"))


def test_a_backup_of_a_newer_format_is_refused(condu, filled, tmp_path):
    done(condu("backup", tmp_path / "place", "--data", filled.data, "--json"))
    backups = FileBlobs(tmp_path / "place" / "backups")
    (entry,) = backups.list()
    body = json.loads(bytes(backups.read(entry.digest))) | {"format": 2}
    backups.put(json.dumps(body).encode())
    error = failed(condu("restore", tmp_path / "place", "--data", tmp_path / "new", "--json"))
    assert "is of format 2" in error["title"]

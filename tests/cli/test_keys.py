"""`condu keys`, the refusal to listen without one, and the key that client commands send."""

import json
import os
import subprocess
import sys
import time
from contextlib import contextmanager

import httpx2
import pytest
from typer.testing import CliRunner

from cli.commands.keys import size_of, time_of
from cli.errors import CommandUsageError
from cli.exit_codes import ExitCode
from cli.main import app
from cli.ports import free_port
from tests.installing import environment_at
from tests.tiny_clip import TINY_CONFIG, write_tiny_base

READY_WITHIN_S = 120


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Runs a `condu` command line on an installation of the test's own."""
    for name in [name for name in os.environ if name.startswith("CONDU_")]:
        if name != "CONDU_TEST_SERVERS":
            monkeypatch.delenv(name)
    (tmp_path / "data").mkdir()
    environment = environment_at(tmp_path / "data")
    if "CONDU_DATABASE_URL" in environment:
        environment["CONDU_KEY_PEPPER"] = "the pepper of a test, long enough"
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return lambda *words: CliRunner().invoke(app, [str(word) for word in words])


def made(run, *words):
    answer = run("keys", "create", *words, "--json")
    assert answer.exit_code == 0, answer.output
    return json.loads(answer.stdout)


def test_a_key_is_made_shown_once_listed_and_revoked(run):
    key = made(run, "ci", "--role", "submit", "--model", "zoo", "--expires", "90d", "--max-stored", "2G")

    listed = run("keys", "list", "--json")
    (row,) = json.loads(listed.stdout)["keys"]
    assert key["key"].startswith(f"condu_{row['id']}_")
    assert key["key"].rsplit("_", 1)[1] not in listed.stdout
    assert "digest" not in row
    assert (row["name"], row["role"], row["models"]) == ("ci", "submit", ["zoo"])
    assert row["max_stored_bytes"] == 2 * 2**30
    assert row["created_by"].startswith("operator")
    assert row["expires_at"] is not None
    assert "is of no use any more" in run("keys", "revoke", row["id"]).stdout
    assert json.loads(run("keys", "list", "--json").stdout)["keys"][0]["revoked_at"] is not None
    assert row["id"] in run("keys", "list").stdout


def test_only_the_key_itself_goes_to_stdout_so_that_a_script_can_keep_it(run):
    answer = run("keys", "create", "ci", "--role", "read")

    assert answer.stdout.strip().startswith("condu_")
    assert len(answer.stdout.strip().splitlines()) == 1
    assert "shown only now" in answer.stderr


def test_the_pepper_is_for_its_owner_only(run, tmp_path):
    made(run, "ci", "--role", "read")

    pepper = tmp_path / "data" / "pepper"
    if "CONDU_KEY_PEPPER" not in os.environ:
        assert pepper.stat().st_mode & 0o777 == 0o600
        assert len(pepper.read_text().strip()) == 64
    assert [path.name for path in (tmp_path / "data").glob(".pepper*")] == []


def test_a_wrong_use_of_keys_says_what_to_do(run):
    for words, said in (
        (["create", "ci", "--role", "read", "--expires", "soon"], "90d"),
        (["create", "ci", "--role", "read", "--max-body", "lots"], "2G"),
        (["create", "Not A Name", "--role", "read"], "cannot name a key"),
        (["revoke", "nothing"], "condu keys list"),
    ):
        answer = run("keys", *words)

        assert answer.exit_code in (ExitCode.FAILED, ExitCode.USAGE)
        assert said in answer.stderr


@pytest.mark.parametrize("command", ["api", "serve"])
def test_a_service_that_others_reach_is_not_started_without_a_key_and_the_refusal_says_how(run, command):
    answer = run(command, "--host", "0.0.0.0", "--port", free_port("127.0.0.1"))  # noqa: S104 - refused

    assert answer.exit_code == ExitCode.FAILED
    assert "condu keys create root --role admin" in answer.stderr


def test_a_service_whose_pepper_is_lost_is_not_started(run, monkeypatch):
    made(run, "ci", "--role", "read")
    monkeypatch.setenv("CONDU_KEY_PEPPER", "another pepper of many letters!!")

    answer = run("api", "--host", "0.0.0.0", "--port", free_port("127.0.0.1"))  # noqa: S104 - refused

    assert answer.exit_code == ExitCode.FAILED
    assert "pepper" in answer.stderr


def test_lengths_of_time_and_sizes_are_read_as_people_write_them():
    assert time_of("90m").total_seconds() == 5400
    assert time_of("2w").days == 14
    assert (size_of("10"), size_of("3K"), size_of("2G")) == (10, 3072, 2 * 2**30)
    for wrong in ("", "0d", "-1d", "1y", "d"):
        with pytest.raises(CommandUsageError):
            time_of(wrong)
    for wrong in ("", "0", "1X", "-1", "1.5G"):
        with pytest.raises(CommandUsageError):
            size_of(wrong)


@contextmanager
def guarded_api(port, log):
    """An api that asks for keys, as a real process; its log goes into a file."""
    words = [sys.executable, "-m", "cli.main", "api", "--host", "0.0.0.0", "--port", str(port)]  # noqa: S104
    with log.open("w") as stream, subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=stream) as api:
        try:
            ends_at = time.monotonic() + READY_WITHIN_S
            while time.monotonic() < ends_at:
                try:
                    if httpx2.get(f"http://127.0.0.1:{port}/v1/health/ready").status_code == 200:
                        break
                except httpx2.TransportError:
                    time.sleep(0.1)
            yield api
        finally:
            api.terminate()
            api.wait(60)


def test_client_commands_send_the_key_of_the_environment_and_nothing_secret_is_logged(
    run, tmp_path, monkeypatch
):
    admin = made(run, "root", "--role", "admin")["key"]
    reader = made(run, "viewer", "--role", "read")["key"]
    port, log = free_port("127.0.0.1"), tmp_path / "api.log"
    monkeypatch.setenv("CONDU_URL", f"http://127.0.0.1:{port}")
    (tmp_path / "tiny.json").write_text(json.dumps(TINY_CONFIG))
    weights = write_tiny_base(tmp_path / "tiny.safetensors")
    add = ["base", "add", "tiny", "--weights", weights, "--config", tmp_path / "tiny.json"]
    with guarded_api(port, log):
        without = run("model", "list")
        monkeypatch.setenv("CONDU_API_KEY", reader)
        read, refused = run("model", "list"), run(*add)
        monkeypatch.setenv("CONDU_API_KEY", admin)
        added, audit = run(*add), run("audit", "--json")
        shown = run("audit", "--limit", "1", "--key", admin.split("_")[1])

    assert without.exit_code == ExitCode.REFUSED
    assert "condu keys create" in without.stderr
    assert read.exit_code == 0
    assert refused.exit_code == ExitCode.REFUSED
    assert "needs the role submit" in refused.stderr
    assert added.exit_code == 0, added.output
    entry = json.loads(audit.stdout)["entries"][0]
    assert (entry["who"], entry["action"]) == ("key root", "PUT /v1/bases/{base}")
    assert entry["facts"]["base"] == "tiny"
    assert entry["address"] == "127.0.0.1"
    assert "PUT /v1/bases/{base}" in shown.stdout
    lines = [json.loads(line) for line in log.read_text().splitlines() if '"condu.api"' in line]
    assert {line.get("key") for line in lines if line["path"] == "/v1/models"} == {None, reader.split("_")[1]}
    for key in (admin, reader):
        assert key.rsplit("_", 1)[1] not in log.read_text()


def test_a_key_that_cannot_stand_in_a_header_is_refused_before_it_is_sent(run, monkeypatch):
    monkeypatch.setenv("CONDU_API_KEY", "condu_\nX-Evil: 1")

    answer = run("model", "list")

    assert answer.exit_code == ExitCode.USAGE
    assert "CONDU_API_KEY" in answer.stderr

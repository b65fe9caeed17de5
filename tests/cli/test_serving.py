"""`condu serve` as a real process: ready, healthy, restarted, stopped in order."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import httpx2
import pytest
from typer.testing import CliRunner

from cli.commands.serving import reachable
from cli.exit_codes import ExitCode
from cli.main import app
from cli.ports import free_port
from cli.quickstart.service import running_service
from cli.readiness import ailments, wait_until_ready
from tests.cli.scripted_server import scripted_server, send

READY_WITHIN_S = 120


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch):
    for name in [name for name in os.environ if name.startswith("CONDU_")]:
        monkeypatch.delenv(name)


@contextmanager
def started(words):
    """A condu process, which does not outlive the test."""
    with subprocess.Popen(
        [sys.executable, "-m", "cli.main", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def first_document(stream):
    """The JSON document at the beginning of a stream that stays open."""
    text = ""
    for line in stream:
        text += line
        if line == "}\n":
            return json.loads(text)
    raise AssertionError(f"no document: {text!r}")


def children_of(process):
    """The process ids of the living children, by their command."""
    pids = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    words = {int(pid): Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0") for pid in pids}
    return {command[3].decode(): pid for pid, command in words.items() if len(command) > 3}


def test_the_service_lives_through_a_killed_api_and_stops_in_order(tmp_path):
    """One story, because starting a service takes seconds."""
    words = ["serve", "--data", tmp_path / "data", "--port", "0", "--json"]
    with started(words) as process:
        ready = first_document(process.stdout)
        health = httpx2.get(f"{ready['url']}/v1/health").json()
        assert (health["status"], ready["data"]) == ("ok", str(tmp_path / "data"))
        before = children_of(process)
        assert before.keys() == {"api", "worker"}

        os.kill(before["api"], signal.SIGKILL)
        deadline = time.monotonic() + READY_WITHIN_S
        while children_of(process).get("api") in {None, before["api"]}:
            time.sleep(0.1)
        again = wait_until_ready(ready["url"], goes_on=lambda: time.monotonic() < deadline)
        assert again["status"] == "ok"
        assert children_of(process)["worker"] == before["worker"]

        process.send_signal(signal.SIGINT)
        rest, said = process.communicate(timeout=60)

    assert process.returncode == ExitCode.OK
    assert rest == ""
    assert "the api was ended by SIGKILL; it starts again in 0.5 s" in said
    assert said.rstrip().endswith("stopped")
    assert not any(Path(f"/proc/{pid}").exists() for pid in before.values())


def test_a_port_that_is_taken_is_said_before_anything_starts(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        result = CliRunner().invoke(app, ["serve", "--data", str(tmp_path / "data"), "--port", str(port)])

    assert result.exit_code == ExitCode.FAILED
    assert f"cannot listen on port {port} of 127.0.0.1" in result.stderr
    assert f"next: condu serve --port {port + 1}" in result.stderr
    assert not (tmp_path / "data").exists()


def test_a_data_folder_that_cannot_be_made_is_said(tmp_path):
    (tmp_path / "file").write_text("in the way")

    result = CliRunner().invoke(app, ["migrate", "--data", str(tmp_path / "file" / "data")])

    assert result.exit_code == ExitCode.FAILED
    assert "cannot be made" in result.stderr


def test_a_wrong_setting_is_named(monkeypatch):
    monkeypatch.setenv("CONDU_PORT", "many")

    result = CliRunner().invoke(app, ["migrate"])

    assert result.exit_code == ExitCode.USAGE
    assert "port: " in result.stderr


def test_migrating_twice_does_no_harm(tmp_path):
    words = ["migrate", "--data", str(tmp_path / "data"), "--json"]

    first, second = CliRunner().invoke(app, words), CliRunner().invoke(app, words)

    assert (first.exit_code, second.exit_code) == (ExitCode.OK, ExitCode.OK)
    assert json.loads(second.stdout) == {
        "catalog": f"sqlite:///{tmp_path / 'data' / 'condu.sqlite'}",
        "migrated": True,
    }
    assert (tmp_path / "data" / "condu.sqlite").exists()


def test_a_service_that_cannot_start_is_told_with_the_end_of_its_log(tmp_path, monkeypatch):
    monkeypatch.setenv("CONDU_LEASE_S", "-1")

    with pytest.raises(Exception, match="while it started") as caught, running_service(tmp_path, port=0):
        pass

    assert "lease_s" in caught.value.detail
    assert str(tmp_path / "service.log") in caught.value.remedy


def test_waiting_for_a_service_can_be_called_off():
    assert wait_until_ready(f"http://127.0.0.1:{free_port('127.0.0.1')}", goes_on=lambda: False) is None


def test_a_service_that_does_not_get_well_is_told_of_after_a_while(monkeypatch):
    monkeypatch.setattr("cli.readiness.SETTLES_WITHIN_S", 0.0)
    parts = {"disk": {"status": "degraded", "detail": "full"}, "catalog": {"status": "ok", "detail": ""}}
    body = json.dumps({"status": "degraded", "parts": parts}).encode()

    with scripted_server(lambda handler, _: send(handler, 200, body)) as (url, _):
        health = wait_until_ready(url, goes_on=lambda: True)

    assert ailments(health) == ["disk: full"]


@pytest.mark.parametrize(
    ("host", "url_host"),
    [("0.0.0.0", "127.0.0.1"), ("::", "[::1]"), ("::1", "[::1]"), ("10.0.0.7", "10.0.0.7")],  # noqa: S104
)
def test_a_service_on_all_addresses_is_looked_for_on_this_machine(host, url_host):
    assert reachable(host) == url_host

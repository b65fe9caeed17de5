"""The commands of docker-compose.yml with its environment, in plain processes on real servers."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from tests.deploy.compose import OURS, SERVICES, environment_of

PATIENCE_S = 120
PLAIN = ("PATH", "HOME", "COVERAGE_PROCESS_CONFIG")
SECRETS = {
    "POSTGRES_PASSWORD": "of the database",
    "OBJECTS_ACCESS_KEY": "test-access",
    "OBJECTS_SECRET_KEY": "test-secret",
    "CONDU_KEY_PEPPER": "a pepper that nobody guesses, of many characters",
}


@pytest.fixture
def run(postgresql_url, s3_place, tmp_path):
    """Starts a command of ours as its service would, on the servers of the test."""
    running = []

    def start(service, command=None, **changes):
        environment = environment_of(OURS[service], SECRETS) | {
            "CONDU_DATABASE_URL": postgresql_url,
            "CONDU_OBJECTS_ENDPOINT": s3_place.endpoint,
            "CONDU_DATA": str(tmp_path / service),
            "CONDU_PORT": "0",
            **changes,
        }
        plain = {
            name: os.environ[name]
            for name in ("PATH", "HOME", "COVERAGE_PROCESS_CONFIG")
            if name in os.environ
        }
        process = subprocess.Popen(
            [sys.executable, "-m", "cli.main", *(command or OURS[service]["command"]), "--json"],
            env=plain | environment | {"OMP_NUM_THREADS": "1", "CONDU_DEVICE": "cpu"},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        running.append(process)
        return process

    yield start
    for process in running:
        process.kill()
        process.communicate()


def told(process):
    """What a command that goes on tells first: one JSON object, over as many lines as it takes."""
    said = ""
    while line := process.stdout.readline():
        said += line
        if line == "}\n":
            return json.loads(said)
    raise AssertionError(f"it ended with {process.wait()} and said {said!r}")


def ended(process):
    """What a command told that comes to an end, and its exit code."""
    said, _ = process.communicate(timeout=PATIENCE_S)
    return process.returncode, said


def healthcheck(port):
    command = [word.replace(":8000", f":{port}") for word in SERVICES["api"]["healthcheck"]["test"][1:]]
    return subprocess.run([sys.executable, *command[1:]], capture_output=True, check=False).returncode


def test_the_commands_of_the_services_run_on_postgresql_and_s3_as_compose_starts_them(run):
    assert ended(run("migrate"))[0] == 0
    assert ended(run("api"))[0] != 0  # nobody has made a key
    code, key = ended(run("migrate", ["keys", "create", "root", "--role", "admin"]))
    assert code == 0

    api, worker = run("api"), run("worker-cpu")
    port = int(told(api)["url"].rpartition(":")[2])
    told(worker)
    give_up_at = time.monotonic() + PATIENCE_S
    while healthcheck(port) != 0:
        assert time.monotonic() < give_up_at
        time.sleep(0.2)

    secret = json.loads(key)["key"]
    reach = {"CONDU_URL": f"http://127.0.0.1:{port}"}
    assert ended(run("api", ["stats"], **reach))[0] != 0
    code, stats = ended(run("api", ["stats"], **reach, CONDU_API_KEY=secret))
    assert code == 0
    assert json.loads(stats)
    for process in (api, worker):
        process.send_signal(signal.SIGTERM)
        assert ended(process)[0] == 0

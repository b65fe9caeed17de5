"""Retries where a repeat cannot do harm, and errors a person can act on."""

import json

import pytest
import stamina

from cli.client import Client
from cli.errors import CommandFailedError, CommandUsageError, ProblemError, ServerUnreachableError
from cli.exit_codes import ExitCode
from cli.ports import free_port
from cli.transport import is_loopback, next_command, problem_error, seconds
from cli.uploads import FileBody
from tests.cli.scripted_server import break_off, scripted_server, send

PROBLEM = {
    "type": "/problems/not-found",
    "title": "There is nothing of that name",
    "status": 404,
    "detail": "there is no model 'zoo'",
    "remedy": "list what exists",
    "instance": "/v1/models/zoo",
}


@pytest.fixture(autouse=True)
def _no_waiting_between_attempts():
    stamina.instrumentation.set_on_retry_hooks([])
    with stamina.set_testing(True, attempts=3, cap=True):
        yield
    stamina.instrumentation.set_on_retry_hooks(None)


def test_a_refusal_carries_the_problem_and_the_next_command():
    with (
        scripted_server(lambda handler, _: send(handler, 404, json.dumps(PROBLEM).encode())) as (url, seen),
        Client(url) as client,
        pytest.raises(ProblemError) as caught,
    ):
        client.get_model("zoo")

    error = caught.value
    assert (error.title, error.detail, error.remedy) == (
        "There is nothing of that name",
        "there is no model 'zoo'",
        "list what exists",
    )
    assert error.next_command == "condu model list"
    assert (error.exit_code, error.status, len(seen)) == (ExitCode.REFUSED, 404, 1)


def test_an_answer_that_is_no_problem_body_is_quoted():
    with (
        scripted_server(lambda handler, _: send(handler, 502, b"<html>bad gateway</html>")) as (url, _),
        Client(url) as client,
        pytest.raises(ProblemError) as caught,
    ):
        client.remove_model("zoo")

    assert (caught.value.title, caught.value.detail) == ("HTTP 502", "<html>bad gateway</html>")


def test_reads_are_repeated_while_the_service_is_busy():
    def answer(handler, earlier):
        send(handler, 503 if earlier < 2 else 200, b'{"models": []}', Retry_After="0")

    with scripted_server(answer) as (url, seen), Client(url) as client:
        assert client.list_models() == []

    assert len(seen) == 3


def test_reads_are_repeated_after_a_broken_connection():
    def answer(handler, earlier):
        break_off(handler) if earlier == 0 else send(handler, 200, b'{"models": []}')

    with scripted_server(answer) as (url, seen), Client(url) as client:
        assert client.list_models() == []

    assert len(seen) == 2


def test_what_changes_something_is_never_sent_twice():
    with (
        scripted_server(lambda handler, _: break_off(handler)) as (url, seen),
        Client(url) as client,
        pytest.raises(ServerUnreachableError),
    ):
        client.create_model("zoo", base="tiny")

    assert len(seen) == 1


def test_a_dataset_is_sent_again_from_its_start_after_a_broken_connection(tmp_path):
    (tmp_path / "set.tar").write_bytes(b"images")

    def answer(handler, earlier):
        body = b'{"digest": "d", "classes": ["cat"], "images": 1}'
        break_off(handler) if earlier == 0 else send(handler, 201, body)

    with scripted_server(answer) as (url, seen), Client(url) as client:
        assert client.upload_dataset(FileBody(tmp_path / "set.tar")).digest == "d"

    assert [body for _, _, _, body in seen.requests] == [b"images", b"images"]


def test_no_service_at_all_is_said_with_the_way_to_start_one():
    with (
        Client(f"http://127.0.0.1:{free_port('127.0.0.1')}") as client,
        pytest.raises(ServerUnreachableError, match="there is no condu service at") as caught,
    ):
        client.stats()

    assert (caught.value.exit_code, caught.value.next_command) == (ExitCode.UNREACHABLE, "condu serve")


@pytest.mark.parametrize("url", ["http://[half", "http://host:port", "ftp:/x"])
def test_what_is_no_url_is_not_searched_for(url):
    with pytest.raises((CommandUsageError, ServerUnreachableError)), Client(url) as client:
        client.stats()


def test_an_answer_of_another_version_is_not_guessed_at():
    with (
        scripted_server(lambda handler, _: send(handler, 200, b'{"title": "a new world"}')) as (url, _),
        Client(url) as client,
        pytest.raises(CommandFailedError, match="does not understand"),
    ):
        client.get_model("zoo")


def test_a_report_that_never_comes_is_not_taken_for_success():
    line = b'{"progress": {"done_bytes": 1, "total_bytes": 2}}\n'
    with (
        scripted_server(lambda handler, _: send(handler, 200, line)) as (url, _),
        Client(url) as client,
        pytest.raises(ServerUnreachableError, match="ended without a report"),
    ):
        client.verify()


def test_a_problem_in_the_middle_of_a_report_is_raised():
    line = json.dumps({"problem": {**PROBLEM, "type": "/problems/corrupt-blob"}}).encode() + b"\n"
    with (
        scripted_server(lambda handler, _: send(handler, 200, line)) as (url, _),
        Client(url) as client,
        pytest.raises(ProblemError) as caught,
    ):
        client.sweep(delete=True, keep_revisions=1, grace_s=0)

    assert caught.value.next_command == "condu verify"


def test_an_unhealthy_service_still_tells_its_health():
    body = b'{"status": "failing", "parts": {"disk": {"status": "failing", "detail": "full"}}}'
    with scripted_server(lambda handler, _: send(handler, 503, body)) as (url, seen), Client(url) as client:
        assert client.health()["status"] == "failing"

    assert len(seen) == 1


def test_names_cannot_reach_another_resource():
    with scripted_server(lambda handler, _: send(handler, 204, b"")) as (url, seen), Client(url) as client:
        client.remove_model("zoo/tasks/pets?x=1")

    assert seen.requests[0][1] == "/v1/models/zoo%2Ftasks%2Fpets%3Fx%3D1"


@pytest.mark.parametrize(
    ("kind", "instance", "command"),
    [
        ("not-found", "/v1/models/zoo", "condu model list"),
        ("not-found", "/v1/models/zoo/tasks/pets", "condu task list zoo"),
        ("unknown-task", "/v1/models/zoo/classify", "condu task list zoo"),
        ("not-found", "/v1/jobs/1", "condu jobs list"),
        ("already-exists", "/v1/bases/tiny", "condu base list"),
        ("no-rollback", "/v1/models/zoo/rollback", "condu model show zoo"),
        ("corrupt-blob", "/v1/models/zoo/classify", "condu verify"),
        ("invalid-labels", "/v1/models/zoo/classify", ""),
    ],
)
def test_each_kind_of_problem_leads_to_the_command_that_helps(kind, instance, command):
    assert next_command(kind, instance) == command
    assert problem_error({"type": f"/problems/{kind}", "instance": instance}).next_command == command


def test_a_date_in_retry_after_asks_for_no_particular_wait():
    assert (seconds("3"), seconds("Wed, 21 Oct 2026 07:28:00 GMT"), seconds(None)) == (3, 0, 0)


def test_only_this_machine_is_loopback():
    assert [is_loopback(f"http://{host}") for host in ("127.0.0.1:8000", "[::1]", "localhost")] == [True] * 3
    assert not is_loopback("http://condu.example.org")

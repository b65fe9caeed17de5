import io
import json

import pytest

from api.app import create_app
from api.logs import configure_logs
from api.middleware import host_name, loopback_names
from tests.api.conftest import LOCAL, Installation
from tests.api.keys import ELSEWHERE, WIDE, bearer, make_key
from tests.installing import settings_at


@pytest.fixture
def written_logs():
    """What the service logs meanwhile, line by line."""
    stream = io.StringIO()
    configure_logs(stream=stream)
    yield lambda: [json.loads(line) for line in stream.getvalue().splitlines()]
    configure_logs()


def test_every_answer_carries_an_id_and_the_security_headers(empty_for_reading):
    for url in ("/v1/bases", "/v1/nothing", "/openapi.json"):
        headers = empty_for_reading.get(url).headers

        assert len(headers["x-request-id"]) == 32
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["content-security-policy"].startswith("default-src 'none'")
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["x-frame-options"] == "DENY"


def test_an_id_of_the_client_is_kept_when_it_is_harmless(empty_for_reading):
    def id_for(offered):
        return empty_for_reading.get("/v1/bases", headers={"x-request-id": offered}).headers["x-request-id"]

    assert id_for("trace-42.a_b") == "trace-42.a_b"
    for harmful in ("a b", "<script>", "x" * 65, '{"a":1}'):
        assert id_for(harmful) != harmful


def test_a_problem_names_the_request_it_answers(empty_for_reading):
    response = empty_for_reading.get("/v1/bases/nothing", headers={"x-request-id": "find-me"})

    assert (response.json()["request_id"], response.json()["instance"]) == ("find-me", "/v1/bases/nothing")


def test_the_log_has_one_json_line_a_request_and_no_secret_of_it(empty_for_reading, written_logs):
    empty_for_reading.post(
        "/v1/models?token=query-secret",
        json={"name": "body-secret"},
        headers={"authorization": "Bearer header-secret", "x-request-id": "logged"},
    )

    lines = [line for line in written_logs() if line["logger"] == "condu.api"]
    assert [(line["event"], line["method"], line["path"], line["status"]) for line in lines] == [
        ("request", "POST", "/v1/models", 422)
    ]
    assert lines[0]["request_id"] == "logged"
    assert "secret" not in json.dumps(lines)


@pytest.mark.parametrize("host", ["localhost", "localhost:8000", "127.0.0.1:9", "[::1]:8000", "LOCALHOST"])
def test_a_service_on_loopback_answers_to_its_own_names(empty_for_reading, host):
    assert empty_for_reading.get("/v1/bases", headers={"host": host}).status_code == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example:80", "", "["]
)
def test_a_service_on_loopback_does_not_answer_to_a_rebound_name(empty_for_reading, host):
    problem = empty_for_reading.problem("GET", "/v1/bases", headers={"host": host})

    assert (problem["status"], problem["type"]) == (421, "/problems/foreign-host")


def test_a_service_bound_wider_answers_to_any_name(tmp_path):
    settings = settings_at(tmp_path, host=WIDE)
    key = make_key(settings, "read")
    with Installation(create_app(settings), base_url=ELSEWHERE, headers=bearer(key)) as condu:
        assert condu.get("/v1/bases").status_code == 200


def test_a_page_of_another_site_may_change_nothing(condu):
    foreign = {"origin": "https://evil.example"}

    problem = condu.problem("POST", "/v1/models/animals/rollback", headers=foreign)

    assert (problem["status"], problem["type"]) == (403, "/problems/foreign-origin")
    assert condu.get("/v1/models/animals").json()["head_revision"] == 2
    assert condu.get("/v1/models/animals", headers=foreign).status_code == 200


def test_a_page_of_the_service_itself_may_change_things(condu):
    own = {"origin": LOCAL, "host": "localhost"}

    assert condu.post("/v1/models/animals/rollback", headers=own).status_code == 200


def test_a_json_body_that_a_form_of_another_site_could_send_is_not_read(condu):
    text = json.dumps({"name": "new", "base": "tiny"})

    response = condu.post("/v1/models", content=text, headers={"content-type": "text/plain"})

    assert response.status_code == 422
    assert condu.get("/v1/models/new").status_code == 404


@pytest.mark.parametrize(
    ("bound", "names"),
    [
        ("127.0.0.1", {"localhost", "127.0.0.1", "::1"}),
        ("::1", {"localhost", "127.0.0.1", "::1"}),
        ("localhost", {"localhost", "127.0.0.1", "::1"}),
        ("127.1.2.3", {"localhost", "127.0.0.1", "::1", "127.1.2.3"}),
        ("0.0.0.0", set()),  # noqa: S104
        ("condu.example", set()),
    ],
)
def test_only_a_loopback_address_restricts_the_names(bound, names):
    assert loopback_names(bound) == names


@pytest.mark.parametrize(
    ("authority", "host"),
    [("a:1", "a"), ("[::1]:80", "::1"), ("A.B", "a.b"), ("", ""), ("[::1", ""), ("user@evil", "evil")],
)
def test_the_host_is_read_out_of_an_authority(authority, host):
    assert host_name(authority) == host

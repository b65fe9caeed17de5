"""Requests that try to get out of their fields, or to make the service work for nothing."""

import json

import pytest

CLASSIFY = "/v1/models/animals/classify"


def is_problem(response):
    body = response.json()
    return response.headers["content-type"] == "application/problem+json" and body["status"] < 500


NAMES = [
    "../../etc",
    "%2e%2e",
    "..%2f..%2fetc%2fpasswd",
    "a%00b",
    "a%0d%0aX-Injected:%201",
    "a;b",
    "'--",
    "ä",
]
ROUTES = ["/v1/bases/{}", "/v1/models/{}", "/v1/models/animals/tasks/{}", "/v1/datasets/{}", "/v1/jobs/{}"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("route", ROUTES)
def test_a_name_that_is_a_path_or_a_header_or_sql_is_only_not_found(learned, route, name):
    response = learned.get(route.format(name))

    assert response.status_code == 404
    assert is_problem(response)
    assert "x-injected" not in response.headers


@pytest.mark.parametrize(
    "content",
    [
        b"[" * 100_000,
        b'{"a":' * 50_000,
        b'{"name": "a", "base": "\\ud800"}',
        b'{"name": 1e999, "base": "b"}',
        b'{"name": "a", "name": "b", "base": "nothing"}',
        b"\xff\xfe",
        b"null",
    ],
    ids=["deep-list", "deep-object", "lone-surrogate", "infinity", "twice", "no-utf8", "null"],
)
@pytest.mark.parametrize("route", ["/v1/models", "/v1/bases", "/v1/sweep", CLASSIFY])
def test_json_that_no_client_would_send_is_a_problem_and_no_failure(learned, route, content):
    response = learned.post(route, content=content, headers={"content-type": "application/json"})

    assert response.status_code == 200 or is_problem(response)


def test_a_form_of_very_many_fields_is_refused(learned):
    fields = [(f"field{number}", (None, "x")) for number in range(12_000)]

    response = learned.post(CLASSIFY, files=fields)

    assert response.status_code == 400
    assert is_problem(response)


def test_a_form_with_a_field_of_megabytes_is_refused(learned):
    response = learned.post(CLASSIFY, files=[("task", (None, "x" * 2**21))])

    assert response.status_code == 400
    assert is_problem(response)


def test_a_label_as_long_as_a_book_is_refused(learned):
    files = [("images", ("a.png", b"x")), ("labels", (None, "x" * 100_000))]

    response = learned.post(CLASSIFY, files=files)

    assert response.status_code == 422
    assert len(response.text) < 5_000


def test_a_content_length_that_is_none_does_no_harm(learned):
    for length in ("-5", "nonsense", "1e9", "\u0665"):
        response = learned.request(
            "POST", "/v1/models", content=b"{}", headers=[(b"content-length", length.encode())]
        )

        assert is_problem(response)


def test_an_error_never_shows_a_stack_or_a_path_of_the_server(learned):
    shown = json.dumps(
        [
            learned.put("/v1/datasets", content=b"x").json(),
            learned.put("/v1/bases/x?architecture=ViT-B-32", content=b"x").json(),
            learned.post(CLASSIFY, content=b"x").json(),
            learned.get(
                "/v1/models/animals/tasks/pets/checkpoint", headers={"range": "bytes=9999999999-"}
            ).json(),
        ]
    )

    assert "Traceback" not in shown
    assert str(learned.settings.data) not in shown
    assert "/proc/self" not in shown

"""The one table: every error of every room is in it, and an answer made from it tells no internals."""

import json
import logging

import pytest
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.testclient import TestClient

from api.errors import PROBLEMS, kind_of
from api.middleware import RequestContextMiddleware
from api.problems import answer_with_problems
from api.refusals import ApiError, UploadTooLargeError
from catalog.errors import CatalogError, StaleHeadError
from imagesets.errors import ImagesetError, InvalidArchiveError
from store.errors import IncompatibleTensorsError, StoreError
from vlm.errors import VlmError


def leaves(error_type: type[Exception]) -> list[type[Exception]]:
    below = error_type.__subclasses__()
    return [leaf for child in below for leaf in leaves(child)] if below else [error_type]


@pytest.mark.parametrize("root", [StoreError, CatalogError, ImagesetError, VlmError, ApiError])
def test_every_leaf_of_every_error_tree_is_in_the_table(root):
    assert leaves(root) != [root]
    assert not [leaf.__name__ for leaf in leaves(root) if leaf not in PROBLEMS]


def test_one_slug_never_stands_for_two_statuses():
    statuses = {}
    for kind in PROBLEMS.values():
        statuses.setdefault(kind.slug, set()).add(kind.status)

    assert not [slug for slug, found in statuses.items() if len(found) > 1]


def test_a_subclass_nobody_listed_is_answered_as_its_nearest_ancestor():
    class VeryStaleHeadError(StaleHeadError):
        pass

    assert kind_of(VeryStaleHeadError("x")) is PROBLEMS[StaleHeadError]


@pytest.fixture
def failing():
    """An app whose one route raises what the test puts there."""
    app = FastAPI()
    answer_with_problems(app)
    app.add_middleware(RequestContextMiddleware)
    app.state.error = None

    @app.get("/fail")
    def fail():
        raise app.state.error

    with TestClient(app) as client:
        yield client


def answer_to(failing, error):
    failing.app.state.error = error
    response = failing.get("/fail")
    assert response.headers["content-type"] == "application/problem+json"
    return response


def made(error_type):
    """An error of the type, without knowing how each is made."""
    if error_type is UploadTooLargeError:
        return UploadTooLargeError(limit_bytes=1)
    if error_type is RequestValidationError:
        return RequestValidationError([])
    error = error_type.__new__(error_type)
    Exception.__init__(error, "what happened")
    for member in PROBLEMS[error_type].members:
        setattr(error, member, "m")
    return error


@pytest.mark.parametrize("error_type", PROBLEMS, ids=lambda error_type: error_type.__name__)
def test_every_kind_of_error_is_answered_with_its_status_and_type(failing, error_type):
    error = made(error_type)

    response = answer_to(failing, error)

    kind = PROBLEMS[error_type]
    assert response.status_code == kind.status
    assert response.json()["type"] == f"/problems/{kind.slug}"
    assert response.json()["remedy"]


def test_a_tensor_that_does_not_fit_is_named_in_members_of_its_own(failing):
    error = IncompatibleTensorsError("visual.proj", expected="shape (2,)", got="shape (3,)", remedy="cut it")

    body = answer_to(failing, error).json()

    assert (body["tensor"], body["expected"], body["got"]) == ("visual.proj", "shape (2,)", "shape (3,)")


def test_an_error_that_knows_its_own_remedy_is_believed(failing):
    body = answer_to(failing, InvalidArchiveError("is a link", remedy="pack files", member="a/b")).json()

    assert body["remedy"] == "pack files"
    assert body["member"] == "a/b"


def test_an_error_nobody_foresaw_tells_no_internals_but_logs_them(failing, caplog):
    with caplog.at_level(logging.ERROR):
        response = answer_to(failing, RuntimeError("password=hunter2 at /srv/secret.py"))

    assert response.status_code == 500
    assert response.json()["type"] == "/problems/internal-error"
    assert "hunter2" not in response.text
    assert "secret.py" not in response.text
    assert response.headers["x-content-type-options"] == "nosniff"
    assert "hunter2" in caplog.text
    assert response.json()["request_id"] in caplog.text


def test_what_may_succeed_later_says_when_to_try_again(failing):
    assert answer_to(failing, StaleHeadError("moved")).headers["retry-after"] == "1"


@pytest.mark.parametrize("slug", sorted({kind.slug for kind in PROBLEMS.values()}))
def test_the_type_of_a_problem_is_an_address_that_explains_it(empty_for_reading, slug):
    body = empty_for_reading.get(f"/problems/{slug}").json()

    assert body["type"] == f"/problems/{slug}"
    assert body["title"]
    assert body["remedy"]


def test_a_problem_that_does_not_exist_cannot_be_explained(empty_for_reading):
    assert empty_for_reading.get("/problems/no-such-thing").status_code == 404


def test_unknown_routes_methods_and_bodies_are_problems_too(empty_for_reading):
    assert empty_for_reading.problem("GET", "/v1/nothing")["type"] == "/problems/no-such-route"
    assert empty_for_reading.problem("PATCH", "/v1/models")["type"] == "/problems/method-not-allowed"
    assert empty_for_reading.patch("/v1/models").headers["allow"]
    broken = empty_for_reading.problem(
        "POST", "/v1/models", content=b"{", headers={"content-type": "application/json"}
    )
    assert broken["type"] == "/problems/invalid-request"


def test_a_field_that_is_wrong_is_named_without_its_value(empty_for_reading):
    secret = "hunter2" * 10

    body = empty_for_reading.problem(
        "POST", "/v1/models", json={"name": "m", "base": "b", "tuning": secret, "colour": "red"}
    )

    fields = {error["field"] for error in body["errors"]}
    assert fields == {"body.tuning", "body.colour"}
    assert secret not in json.dumps(body)

"""Every route x every caller: what each may do is what api/decisions.py says, and nothing is undecided."""

import pytest

from api.app import create_app
from api.decisions import DECISIONS, OPEN, route_of
from catalog import Settings
from catalog.keys import ROLES
from tests.api.conftest import Installation
from tests.api.keys import ELSEWHERE, WIDE, bearer, make_key
from tests.installing import copy_installation, settings_at

NOWHERE = {"slug": "nothing", "base": "nothing", "model": "nothing", "task": "nothing"}
FILLED = {**NOWHERE, "digest": "0" * 64, "job_id": "nothing", "key_id": "nothing"}
DENIED = {"/problems/unauthenticated", "/problems/forbidden"}
# What each caller is refused; written by hand, so that a decision that is loosened by mistake is seen.
FOR_ADMINS = {
    "DELETE /v1/bases/{base}",
    "DELETE /v1/models/{model}",
    "POST /v1/models/{model}/rollback",
    "DELETE /v1/models/{model}/tasks/{task}",
    "DELETE /v1/datasets/{digest}",
    "POST /v1/verify",
    "POST /v1/sweep",
    "GET /v1/keys",
    "POST /v1/keys",
    "DELETE /v1/keys/{key_id}",
    "GET /v1/audit",
}
FOR_SUBMITTERS = {
    "POST /v1/bases",
    "PUT /v1/bases/{base}",
    "POST /v1/models",
    "POST /v1/bundles",
    "POST /v1/models/{model}/tasks",
    "PUT /v1/models/{model}/tasks/{task}/checkpoint",
    "POST /v1/models/{model}/tasks/{task}/checkpoint",
    "PUT /v1/datasets",
    "POST /v1/datasets",
    "POST /v1/jobs/{job_id}/cancel",
}
FOR_ALL = {
    "GET /openapi.json",
    "GET /problems/{slug}",
    "GET /v1/health/live",
    "GET /v1/health/ready",
    "POST /v1/session",
    "DELETE /v1/session",
}
CALLERS = ("nobody", *ROLES, "bound to another model")


@pytest.fixture(scope="module")
def asked(learned_folder, tmp_path_factory):
    """How an installation answers each caller, each with an installation and keys of its own."""
    folder = copy_installation(learned_folder, tmp_path_factory.mktemp("matrix") / "data")
    settings = settings_at(folder, host=WIDE)
    headers = {role: bearer(make_key(settings, role)) for role in ROLES}
    headers["bound to another model"] = bearer(make_key(settings, "admin", models=["another"]))
    headers["nobody"] = {}
    with Installation(create_app(settings), base_url=ELSEWHERE) as client:
        yield lambda caller, method, url, **rest: client.request(method, url, headers=headers[caller], **rest)


def routes_of(app):
    """Every route that the app answers on, those that no document shows included."""
    found, waiting = set(), [("", route) for route in app.routes]
    while waiting:
        prefix, route = waiting.pop()
        inner = getattr(route, "original_router", None)
        if inner is not None:
            prefix += getattr(route, "include_context", None).prefix
            waiting += [(prefix, each) for each in inner.routes]
        else:
            found |= {(method, prefix + route.path) for method in route.methods}
    return found


def test_every_route_of_the_app_is_decided_and_every_decision_is_about_a_route(tmp_path):
    app = create_app(Settings(data=tmp_path))

    routes = {f"{method} {path}" for method, path in routes_of(app) if method != "HEAD"}

    assert routes == DECISIONS.keys()
    documented = {
        f"{method.upper()} {path}" for path, methods in app.openapi()["paths"].items() for method in methods
    }
    assert documented < routes


def test_every_route_is_found_under_its_own_name():
    for name in DECISIONS:
        method, path = name.split(" ")

        assert route_of(method, path.format(**FILLED)).name == name


def expected(caller, route):
    if route in FOR_ALL:
        return True
    if caller == "nobody":
        return False
    if caller == "bound to another model":
        return DECISIONS[route].reach == "shared"
    needed = "admin" if route in FOR_ADMINS else "submit" if route in FOR_SUBMITTERS else "read"
    return ROLES.index(caller) >= ROLES.index(needed)


@pytest.mark.parametrize("caller", CALLERS)
@pytest.mark.parametrize("route", sorted(DECISIONS))
def test_a_caller_gets_past_the_gate_exactly_where_they_may(asked, route, caller):
    method, path = route.split(" ")

    # A bound key names the model that a bundle becomes.
    params = {"name": "another"} if route == "POST /v1/bundles" else None

    answer = asked(caller, method, path.format(**FILLED), params=params)

    assert answer.status_code < 500
    problem = answer.json().get("type") if "problem" in answer.headers["content-type"] else None
    # Signing in without a key in the body is refused by the route, as a bad body.
    assert (problem not in DENIED) == expected(caller, route), (answer.status_code, problem)
    if problem == "/problems/unauthenticated":
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"].startswith("Bearer")


@pytest.mark.parametrize("caller", CALLERS)
def test_what_nobody_decided_is_not_found_and_says_no_more_to_who_may_not_know(asked, caller):
    answer = asked(caller, "GET", "/v1/secret-plans")

    assert answer.status_code == (401 if caller == "nobody" else 404)


@pytest.mark.parametrize("method", ["HEAD", "GET"])
def test_head_is_decided_as_get_is(asked, method):
    route = "/v1/models/animals/tasks/pets/checkpoint"

    assert asked("nobody", method, route).status_code == 401
    assert asked("bound to another model", method, route).status_code == 403
    assert asked("read", method, route).status_code == 200


def test_a_method_that_a_route_does_not_have_is_said_to_be_missing(asked):
    for caller in ROLES:
        answer = asked(caller, "PATCH", "/v1/models/animals")

        assert answer.status_code == 405
        assert set(answer.headers["allow"].split(", ")) == {"GET", "DELETE"}


def test_only_what_tells_nothing_of_what_is_stored_is_open():
    assert {route for route, decision in DECISIONS.items() if decision == OPEN} == FOR_ALL

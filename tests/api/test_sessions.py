"""A browser that is signed in: its cookie, its token, and what another site can do with neither."""

import pytest

from tests.api.keys import ELSEWHERE, bearer, make_key

ROLLBACK = "/v1/models/animals/rollback"


def sign_in(client, key):
    return client.post("/v1/session", json={"api_key": key.secret})


def kind(answer):
    return answer.json()["type"].removeprefix("/problems/")


def test_signing_in_gives_a_cookie_that_no_script_and_no_other_site_can_use(guarded):
    answer = sign_in(guarded.client, guarded.admin)

    assert answer.status_code == 201
    attributes = {part.strip().lower() for part in answer.headers["set-cookie"].split(";")[1:]}
    assert {"httponly", "samesite=strict", "secure", "path=/"} <= attributes
    assert answer.headers["cache-control"] == "no-store"
    assert guarded.admin.secret not in answer.text


def test_on_loopback_the_cookie_needs_no_https(condu):
    key = make_key(condu.settings)

    assert "secure" not in sign_in(condu, key).headers["set-cookie"].lower()


@pytest.fixture
def browser(guarded):
    """A client that is signed in as an admin; over http, so its cookie is given to it by hand."""
    answer = sign_in(guarded.client, guarded.admin)
    cookie = answer.headers["set-cookie"].split(";")[0]
    token = answer.json()["csrf_token"]

    def ask(method, url, **headers):
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return guarded.client.request(method, url, headers={"cookie": cookie, **named})

    ask.token = token
    return ask


def test_a_signed_in_browser_may_look_without_its_token_and_change_things_with_it(browser):
    assert browser("GET", "/v1/models").status_code == 200
    assert browser("GET", "/v1/session").json()["csrf_token"] == browser.token

    assert kind(browser("POST", ROLLBACK)) == "missing-csrf-token"
    assert kind(browser("POST", ROLLBACK, x_csrf_token="wrong")) == "missing-csrf-token"
    assert kind(browser("POST", ROLLBACK, x_csrf_token=b"\xff")) == "missing-csrf-token"
    assert browser("POST", ROLLBACK, x_csrf_token=browser.token).status_code == 200


def test_a_page_of_another_site_may_change_nothing_even_with_the_token(browser):
    answer = browser("POST", ROLLBACK, x_csrf_token=browser.token, origin="https://evil.example")

    assert (answer.status_code, kind(answer)) == (403, "foreign-origin")
    own = browser("POST", ROLLBACK, x_csrf_token=browser.token, origin=ELSEWHERE)
    assert own.status_code == 200


def test_signing_out_ends_the_session_wherever_its_cookie_is(browser):
    signed_out = browser("DELETE", "/v1/session")

    assert signed_out.json() == {"signed_out": True}
    assert 'condu_session=""' in signed_out.headers["set-cookie"]
    assert browser("GET", "/v1/models").status_code == 401
    assert browser("DELETE", "/v1/session").json() == {"signed_out": False}


def test_a_revoked_key_takes_its_sessions_with_it(guarded, browser):
    other = make_key(guarded.client.settings)

    guarded.ask(other, "DELETE", f"/v1/keys/{guarded.admin.record.key_id}")

    assert browser("GET", "/v1/models").status_code == 401


def test_a_session_may_do_what_its_key_may(guarded):
    answer = sign_in(guarded.client, guarded.bound)
    cookie = {"cookie": answer.headers["set-cookie"].split(";")[0]}

    assert answer.json()["models"] == ["animals"]
    assert guarded.client.get("/v1/models/animals", headers=cookie).status_code == 200
    assert guarded.client.get("/v1/models/fresh", headers=cookie).status_code == 403


@pytest.mark.parametrize("cookie", ["condu_session=", "condu_session=x", f"condu_session={'0' * 64}", 'a="'])
def test_a_cookie_that_is_no_session_opens_nothing(guarded, cookie):
    assert guarded.client.get("/v1/models", headers={"cookie": cookie}).status_code == 401


def test_nobody_signs_in_with_what_is_no_key_and_it_is_not_repeated(guarded):
    wrong = "condu_000000000000_" + "5" * 48

    for given in (wrong, "", "x" * 500):
        answer = guarded.client.post("/v1/session", json={"api_key": given})

        assert answer.status_code in (401, 422)
        assert "5555" not in answer.text
        assert "xxxx" not in answer.text


def test_a_key_in_the_header_counts_before_a_session(guarded, browser):
    answer = browser("GET", "/v1/session", **bearer(guarded.read))

    assert answer.json()["role"] == "read"
    assert answer.json()["csrf_token"] is None

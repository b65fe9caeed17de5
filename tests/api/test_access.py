"""Keys over HTTP: roles, models, limits, quotas, revoking, sessions; what nobody gets to see."""

import time
from datetime import timedelta

import pytest

from api.app import create_app
from api.gate import FAILURES_PER_MINUTE, UnguardedError
from catalog.errors import PepperMissingError
from tests.api.conftest import CONFIG, LOCAL, Installation
from tests.api.keys import ELSEWHERE, WIDE, bearer, make_key
from tests.imagesets.building import two_classes, write_zip
from tests.installing import settings_at

UNKNOWN = "condu_000000000000_" + "0" * 48


def kind(answer):
    return answer.json()["type"].removeprefix("/problems/")


def expect_soon(holds):
    """What was revoked is remembered for a second at most; the limit is generous."""
    for _ in range(200):
        if holds():
            return
        time.sleep(0.05)
    raise AssertionError("it never came to hold")


@pytest.mark.parametrize("changes", [{"host": WIDE}, {"host": "condu.example"}, {"require_keys": True}])
def test_a_service_that_others_reach_does_not_start_without_a_key(tmp_path, changes):
    app = create_app(settings_at(tmp_path, **changes))

    with pytest.raises(UnguardedError, match="no API key is there"), Installation(app, base_url=LOCAL):
        pass


def test_a_service_whose_only_key_is_of_no_use_does_not_start(tmp_path):
    settings = settings_at(tmp_path, host=WIDE)
    make_key(settings, ttl=timedelta(seconds=-1))

    with pytest.raises(UnguardedError), Installation(create_app(settings), base_url=ELSEWHERE):
        pass


@pytest.mark.parametrize("pepper", ["another pepper, of thirty-two letters", None])
def test_a_service_with_another_pepper_than_its_keys_does_not_start(tmp_path, pepper):
    settings = settings_at(tmp_path, host=WIDE, key_pepper="p" * 32)
    make_key(settings)

    app = create_app(settings_at(tmp_path, host=WIDE, key_pepper=pepper))
    with pytest.raises(PepperMissingError, match="pepper"), Installation(app, base_url=ELSEWHERE):
        pass


def test_on_loopback_nobody_needs_a_key_and_a_good_one_counts(condu):
    key = make_key(condu.settings, "read")

    assert condu.get("/v1/models").status_code == 200
    assert condu.get("/v1/session").json()["role"] == "admin"
    assert condu.get("/v1/session", headers=bearer(key)).json()["role"] == "read"
    assert condu.delete("/v1/models/fresh", headers=bearer(key)).status_code == 403
    assert condu.get("/v1/models", headers=bearer(UNKNOWN)).status_code == 401
    assert condu.delete("/v1/models/fresh").status_code == 200


def test_on_loopback_keys_can_be_asked_for(data_folder):
    settings = settings_at(data_folder, require_keys=True)
    key = make_key(settings, "read")
    with Installation(create_app(settings), base_url=ELSEWHERE) as client:  # as a proxy passes it on
        assert client.get("/v1/models").status_code == 401
        assert client.get("/v1/models", headers=bearer(key)).status_code == 200


@pytest.mark.parametrize(
    "presented",
    [
        "",
        "Bearer",
        "Bearer ",
        f"Bearer {UNKNOWN}",
        f"Basic {UNKNOWN}",
        "Bearer condu_",
        "Bearer condu_x_y",
        "x",
    ],
)
def test_what_is_no_good_key_opens_nothing(guarded, presented):
    answer = guarded.client.get("/v1/models", headers={"authorization": presented})

    assert (answer.status_code, kind(answer)) == (401, "unauthenticated")


def test_a_key_with_one_letter_changed_is_no_key(guarded):
    for at in (8, -1):
        letters = list(guarded.admin.secret)
        letters[at] = "0" if letters[at] != "0" else "1"

        assert guarded.ask("".join(letters), "GET", "/v1/models").status_code == 401


def test_a_revoked_key_is_of_no_use_at_once_here(guarded):
    assert guarded.ask(guarded.read, "GET", "/v1/models").status_code == 200

    revoked = guarded.ask(guarded.admin, "DELETE", f"/v1/keys/{guarded.read.record.key_id}")

    assert revoked.json()["revoked_at"] is not None
    assert guarded.ask(guarded.read, "GET", "/v1/models").status_code == 401


def test_a_key_that_expires_is_of_no_use_soon_after(guarded):
    made = guarded.ask(
        guarded.admin, "POST", "/v1/keys", json={"name": "brief", "role": "read", "expires_in_s": 0.4}
    ).json()

    expect_soon(lambda: guarded.ask(made["key"], "GET", "/v1/models").status_code == 401)


def test_a_key_is_shown_once_and_never_again(guarded):
    made = guarded.ask(guarded.admin, "POST", "/v1/keys", json={"name": "ci", "role": "read"})

    assert made.status_code == 201
    assert made.headers["cache-control"] == "no-store"
    assert guarded.ask(made.json()["key"], "GET", "/v1/models").status_code == 200
    listed = guarded.ask(guarded.admin, "GET", "/v1/keys").text
    hidden = made.json()["key"].rsplit("_", 1)[1]
    assert made.json()["id"] in listed
    assert hidden not in listed
    assert hidden not in guarded.ask(guarded.admin, "GET", "/v1/audit").text


def test_a_key_bound_to_a_model_sees_and_touches_nothing_else(guarded, fine_tuned):
    ask = guarded.ask
    bound = guarded.bound

    assert [m["name"] for m in ask(bound, "GET", "/v1/models").json()["models"]] == ["animals"]
    assert ask(bound, "GET", "/v1/models/animals").status_code == 200
    for method, url in (
        ("GET", "/v1/models/fresh"),
        ("GET", "/v1/models/not-there"),
        ("GET", "/v1/jobs?model=fresh"),
        ("POST", "/v1/models/fresh/tasks"),
        ("GET", "/v1/stats"),
        ("GET", "/v1/health"),
        ("GET", "/metrics"),
    ):
        assert kind(ask(bound, method, url)) == "forbidden", url
    other = ask(bound, "POST", "/v1/models", json={"name": "other", "base": "tiny"})
    assert kind(other) == "forbidden"
    assert kind(ask(bound, "POST", "/v1/bundles", content=b"x")) == "forbidden"


def test_a_key_bound_to_a_model_sees_only_its_jobs_and_data_sets(guarded, fine_tuned, tmp_path):
    content = fine_tuned["food"].read_bytes()
    archive = write_zip(tmp_path / "dataset.zip", two_classes(4)).read_bytes()
    foreign = submitted(guarded, guarded.admin, "fresh", content)
    own = submitted(guarded, guarded.bound, "animals", content)
    guarded.ask(guarded.admin, "PUT", "/v1/datasets", content=archive)

    assert [j["id"] for j in guarded.ask(guarded.bound, "GET", "/v1/jobs").json()["jobs"]] == [own]
    assert len(guarded.ask(guarded.admin, "GET", "/v1/jobs").json()["jobs"]) == 2
    assert guarded.ask(guarded.bound, "GET", f"/v1/jobs/{own}").status_code == 200
    for method, url in (("GET", f"/v1/jobs/{foreign}"), ("POST", f"/v1/jobs/{foreign}/cancel")):
        assert guarded.ask(guarded.bound, method, url).status_code == 404
    assert guarded.ask(guarded.bound, "GET", "/v1/datasets").json()["datasets"] == []
    assert len(guarded.ask(guarded.admin, "GET", "/v1/datasets").json()["datasets"]) == 1


def submitted(guarded, key, model, content, task="food"):
    """The id of a job that imports a checkpoint."""
    answer = guarded.ask(
        key,
        "PUT",
        f"/v1/models/{model}/tasks/{task}/checkpoint",
        params={"class": ["soup", "rice"]},
        content=content,
    )
    assert answer.status_code == 202, answer.text
    return answer.json()["job"]["id"]


def test_a_key_has_a_rate_of_its_own_and_is_told_when_to_come_back(guarded):
    slow = make_key(guarded.client.settings, "read", limits={"requests_per_minute": 3})

    answers = [guarded.ask(slow, "GET", "/v1/models") for _ in range(5)]

    assert [answer.status_code for answer in answers] == [200, 200, 200, 429, 429]
    assert kind(answers[-1]) == "rate-limited"
    assert 1 <= int(answers[-1].headers["retry-after"]) <= 61
    assert guarded.ask(guarded.read, "GET", "/v1/models").status_code == 200


def test_an_address_that_tries_many_wrong_keys_is_refused_for_a_while(guarded):
    wrong = [f"condu_{number:012x}_{'0' * 48}" for number in range(FAILURES_PER_MINUTE + 1)]

    answers = [guarded.ask(key, "GET", "/v1/models").status_code for key in wrong]

    assert set(answers[:-1]) == {401}
    assert answers[-1] == 429
    assert guarded.client.get("/v1/health/live").status_code == 200


def test_a_key_may_not_send_more_than_its_own_limit(guarded, weights, tmp_path):
    small = make_key(guarded.client.settings, "submit", limits={"max_body_bytes": 1000})
    assert len(weights.read_bytes()) > 1000

    for method, url, body in (
        ("PUT", "/v1/bases/big", {"params": {"config": CONFIG}, "content": weights.read_bytes()}),
        ("PUT", "/v1/bases/big", {"params": {"config": CONFIG}, "content": iter([b"x" * 600] * 2)}),
        ("POST", "/v1/models", {"json": {"name": "m", "base": "b" * 1100}}),
        ("POST", "/v1/models/animals/classify", {"files": [("images", ("a.png", b"x" * 1000))]}),
    ):
        answer = guarded.ask(small, method, url, **body)

        assert (answer.status_code, kind(answer)) == (413, "too-large"), url
        assert answer.json()["limit_bytes"] == 1000


def test_a_key_may_have_no_more_models_than_its_quota(guarded):
    few = make_key(guarded.client.settings, "submit", limits={"max_models": 1})

    answers = [
        guarded.ask(few, "POST", "/v1/models", json={"name": name, "base": "tiny"}) for name in ("a", "b")
    ]

    assert [answer.status_code for answer in answers] == [201, 403]
    assert answers[1].json() | {"quota": "models", "limit": 1, "used": 1} == answers[1].json()
    guarded.ask(guarded.admin, "DELETE", "/v1/models/a")
    assert guarded.ask(few, "POST", "/v1/models", json={"name": "b", "base": "tiny"}).status_code == 201


def test_a_key_may_have_no_more_unfinished_jobs_than_its_quota(guarded, fine_tuned):
    few = make_key(guarded.client.settings, "submit", limits={"max_jobs": 1})
    content = fine_tuned["food"].read_bytes()
    job = submitted(guarded, few, "animals", content)
    target = "/v1/models/fresh/tasks/food/checkpoint"

    refused = guarded.ask(few, "PUT", target, params={"class": ["a", "b"]}, content=content)

    assert (refused.status_code, refused.json()["quota"]) == (403, "jobs")
    guarded.ask(few, "POST", f"/v1/jobs/{job}/cancel")
    assert submitted(guarded, few, "fresh", content)


def test_a_key_may_store_no_more_bytes_than_its_quota(guarded, tmp_path):
    archive = write_zip(tmp_path / "dataset.zip", two_classes(4)).read_bytes()
    quota = {"max_stored_bytes": len(archive) + 10}
    few = make_key(guarded.client.settings, "submit", limits=quota)
    other = write_zip(tmp_path / "other.zip", two_classes(5)).read_bytes()

    answers = [guarded.ask(few, "PUT", "/v1/datasets", content=body) for body in (archive, archive, other)]

    assert [answer.status_code for answer in answers] == [201, 201, 403]
    assert (answers[-1].json()["quota"], answers[-1].json()["used"]) == ("bytes", len(archive))
    assert len(guarded.ask(guarded.admin, "GET", "/v1/datasets").json()["datasets"]) == 1
    (listed,) = [
        key
        for key in guarded.ask(guarded.admin, "GET", "/v1/keys").json()["keys"]
        if key["id"] == few.record.key_id
    ]
    assert listed["usage"]["stored_bytes"] == len(archive)


def test_metrics_can_be_left_open_where_all_else_is_closed(data_folder):
    settings = settings_at(data_folder, host=WIDE, open_metrics=True)
    make_key(settings)
    with Installation(create_app(settings), base_url=ELSEWHERE) as client:
        assert client.get("/metrics").status_code == 200
        assert client.get("/v1/stats").status_code == 401


def test_a_body_is_not_looked_at_before_its_sender_is_known(guarded):
    broken = {"content": b"{", "headers": {"content-type": "application/json"}}

    assert guarded.client.post("/v1/models", **broken).status_code == 401
    assert guarded.ask(guarded.submit, "POST", "/v1/models", **broken).status_code == 422


def test_what_a_key_may_see_is_kept_in_no_cache_on_the_way(guarded):
    answer = guarded.ask(guarded.read, "GET", "/v1/models")

    assert answer.headers["cache-control"] == "private, no-cache"
    assert answer.headers["vary"] == "Authorization, Cookie"
    assert answer.headers["cross-origin-opener-policy"] == "same-origin"
    assert "camera=()" in answer.headers["permissions-policy"]

"""The audit log: every change with who, what, when and from where; and no secret, there or anywhere."""

import io
import json
from datetime import UTC, datetime, timedelta

import pytest

from api.app import create_app
from api.decisions import DECISIONS
from api.logs import configure_logs
from catalog import Settings
from tests.api.conftest import CONFIG, LOCAL, Installation
from tests.api.keys import bearer, make_key
from tests.imagesets.building import two_classes, write_zip
from tests.installing import settings_at


def newest(client, **params):
    return client.get("/v1/audit", params=params).json()["entries"]


@pytest.fixture
def written_logs():
    """What the service logs meanwhile, as text."""
    stream = io.StringIO()
    configure_logs(stream=stream)
    # The test's own client logs the addresses it asks; the service has no such logger.
    yield lambda: "".join(line for line in stream.getvalue().splitlines(True) if '"httpx2"' not in line)
    configure_logs()


def every_change(weights, fine_tuned, archive):
    """A request for each route that changes something, in an order in which all of them succeed."""
    checkpoint = {"params": {"class": ["a", "b"]}, "content": fine_tuned["food"].read_bytes()}
    return [
        ("PUT /v1/bases/{base}", "/v1/bases/new", {"params": {"config": CONFIG}, "content": weights}),
        ("POST /v1/models", "/v1/models", {"json": {"name": "new", "base": "new"}}),
        ("PUT /v1/datasets", "/v1/datasets", {"content": archive}),
        ("PUT /v1/models/{model}/tasks/{task}/checkpoint", "/v1/models/new/tasks/t/checkpoint", checkpoint),
        ("POST /v1/jobs/{job_id}/cancel", "/v1/jobs/{job}/cancel", {}),
        (
            "POST /v1/models/{model}/tasks",
            "/v1/models/new/tasks",
            {"json": {"name": "t", "dataset": "{dataset}"}},
        ),
        ("POST /v1/jobs/{job_id}/cancel", "/v1/jobs/{job}/cancel", {}),
        ("DELETE /v1/datasets/{digest}", "/v1/datasets/{dataset}", {}),
        ("DELETE /v1/models/{model}", "/v1/models/new", {}),
        ("DELETE /v1/bases/{base}", "/v1/bases/new", {}),
        ("POST /v1/models/{model}/rollback", "/v1/models/animals/rollback", {}),
        ("DELETE /v1/models/{model}/tasks/{task}", "/v1/models/animals/tasks/pets", {}),
        ("POST /v1/keys", "/v1/keys", {"json": {"name": "ci", "role": "read"}}),
        ("DELETE /v1/keys/{key_id}", "/v1/keys/{key}", {}),
        ("POST /v1/sweep", "/v1/sweep", {"json": {"delete": True}}),
    ]


def test_every_change_is_written_down_with_who_what_when_and_from_where(
    guarded, weights, fine_tuned, tmp_path
):
    archive = write_zip(tmp_path / "dataset.zip", two_classes(4)).read_bytes()
    began = datetime.now(UTC) - timedelta(minutes=1)
    seen, names = {}, {}
    for route, url, request in every_change(weights.read_bytes(), fine_tuned, archive):
        filled = json.loads(
            json.dumps(request.get("json", {})).replace("{dataset}", names.get("dataset", ""))
        )
        changed = {**request, "json": filled} if "json" in request else request
        answer = guarded.ask(
            guarded.admin,
            route.split(" ")[0],
            url.format(**names),
            headers={"x-request-id": f"r-{len(seen)}"},
            **changed,
        )
        assert answer.status_code < 300, (route, answer.text)
        body = {} if route == "POST /v1/sweep" else answer.json()
        names |= {"job": body.get("job", {}).get("id", "")} if "job" in body else {}
        names |= {"dataset": body["digest"]} if route == "PUT /v1/datasets" else {}
        names |= {"key": body["id"]} if route == "POST /v1/keys" else {}
        seen[f"r-{len(seen)}"] = route

    entries = guarded.ask(guarded.admin, "GET", "/v1/audit?limit=1000").json()["entries"]

    written = {entry["request_id"]: entry for entry in entries}
    assert {request_id: written[request_id]["action"] for request_id in seen} == seen
    for entry in (written[request_id] for request_id in seen):
        assert entry["who"] == "key a-admin"
        assert entry["key"] == guarded.admin.record.key_id
        assert entry["address"] == "testclient"
        assert datetime.fromisoformat(entry["at"]) > began
    facts = {seen[entry["request_id"]]: entry["facts"] for entry in entries if entry["request_id"] in seen}
    assert facts["POST /v1/models"] == {"model": "new", "base": "new"}
    assert facts["POST /v1/models/{model}/rollback"] == {"revision": 1, "previous": 2}
    assert facts["PUT /v1/datasets"]["dataset"] == names["dataset"]
    entry_numbers = [entry["entry"] for entry in entries]
    assert entry_numbers == sorted(entry_numbers, reverse=True)


def test_every_route_that_changes_something_is_one_of_those_that_are_tried(weights, fine_tuned):
    tried = {route for route, _, _ in every_change(b"", fine_tuned, b"")}
    changing = {route for route in DECISIONS if not route.startswith("GET ")}
    # Classify and verify change nothing; the others are tried where bundles, fetching and sessions are.
    elsewhere = {
        "POST /v1/models/{model}/classify",
        "POST /v1/verify",
        "POST /v1/bundles",
        "POST /v1/bases",
        "POST /v1/datasets",
        "POST /v1/models/{model}/tasks/{task}/checkpoint",
        "POST /v1/session",
        "DELETE /v1/session",
    }

    assert changing == tried | elsewhere


def test_what_was_refused_or_changed_nothing_is_not_a_change(condu):
    before = newest(condu)
    for method, url, request in (
        ("DELETE", "/v1/models/nothing", {}),
        ("POST", "/v1/models", {"json": {"name": "animals", "base": "tiny"}}),
        ("POST", "/v1/sweep", {"json": {"delete": False}}),
        ("POST", "/v1/verify", {}),
        ("GET", "/v1/models", {}),
    ):
        condu.request(method, url, **request)

    assert newest(condu) == before


def test_a_bundle_a_session_and_whoever_needs_no_key_are_in_the_log_too(condu):
    bundle = condu.get("/v1/models/animals/bundle").content
    key = make_key(condu.settings, "read")

    condu.post("/v1/bundles?name=copied", content=bundle)
    condu.post("/v1/session", json={"api_key": key.secret})
    condu.cookies.clear()

    signed_in, imported = newest(condu)[:2]
    assert (signed_in["who"], signed_in["action"]) == ("key a-read", "POST /v1/session")
    assert (imported["who"], imported["action"]) == ("local", "POST /v1/bundles")
    assert imported["facts"] == {"model": "copied", "base": "tiny"}


def test_the_log_is_read_in_pages_and_by_key(guarded):
    for name in ("a", "b", "c"):
        guarded.ask(guarded.submit, "POST", "/v1/models", json={"name": name, "base": "tiny"})
    guarded.ask(guarded.admin, "DELETE", "/v1/models/a")

    def page(**params):
        return guarded.ask(guarded.admin, "GET", "/v1/audit", params=params).json()["entries"]

    first = page(limit=2)
    second = page(limit=2, before=first[-1]["entry"])
    assert [entry["action"] for entry in first] == ["DELETE /v1/models/{model}", "POST /v1/models"]
    assert [entry["facts"]["model"] for entry in second] == ["b", "a"]
    assert len(page(key=guarded.submit.record.key_id)) == 3


def test_a_job_names_the_request_and_the_key_that_submitted_it(guarded, fine_tuned):
    job = guarded.ask(
        guarded.submit,
        "PUT",
        "/v1/models/animals/tasks/food/checkpoint",
        params={"class": ["a", "b"]},
        content=fine_tuned["food"].read_bytes(),
        headers={"x-request-id": "from-the-start"},
    ).json()["job"]["id"]
    shown = guarded.ask(guarded.read, "GET", f"/v1/jobs/{job}").json()

    assert shown["request_id"] == "from-the-start"
    assert shown["key"] == guarded.submit.record.key_id


SECRETS = {
    "pepper": "a pepper that nobody may ever see!",
    "password": "database-password-never-shown",
    "secret_key": "object-storage-secret-never-shown",
}


def test_no_secret_is_logged_returned_or_kept(data_folder, written_logs):
    settings = settings_at(data_folder, require_keys=True, key_pepper=SECRETS["pepper"])
    key = make_key(settings)
    hidden = key.secret.rsplit("_", 1)[1]
    said = []
    with Installation(create_app(settings), base_url=LOCAL, headers=bearer(key)) as client:

        def ask(method, url, **request):
            answer = client.request(method, url, **request)
            said.append(answer.text + str(answer.headers))
            return answer

        made = client.post("/v1/keys", json={"name": "ci", "role": "read"}).json()["key"]
        session = client.post("/v1/session", json={"api_key": key.secret})
        token = session.cookies["condu_session"]
        for url in (
            "/v1/keys",
            "/v1/audit",
            "/v1/session",
            "/v1/stats",
            "/v1/health",
            "/metrics",
            "/openapi.json",
        ):
            ask("GET", url)
        ask("POST", "/v1/session", json={"api_key": key.secret, "extra": key.secret})
        ask("POST", "/v1/session", json={"api_key": [key.secret]})
        ask("POST", "/v1/keys", json={"name": key.secret, "role": "read"})
        ask("GET", f"/v1/nothing?api_key={key.secret}")
        ask("GET", "/v1/models", headers=bearer(key.secret[:-1] + "!"))
        ask("POST", "/v1/models", content=key.secret, headers={"content-type": "application/json"})

    catalog = (settings.data / "condu.sqlite").read_bytes() if settings.database_url is None else b""
    wal = settings.data / "condu.sqlite-wal"
    kept = catalog + (wal.read_bytes() if wal.exists() else b"")
    for secret in (made.rsplit("_", 1)[1], token, SECRETS["pepper"]):
        assert secret not in written_logs()
        assert not [text for text in said if secret in text]
        assert secret.encode() not in kept
    assert hidden not in written_logs()
    assert hidden.encode() not in kept
    # A name is repeated to whoever sent it; nothing else is.
    assert len([text for text in said if hidden in text]) <= 1


def test_settings_do_not_show_their_secrets_when_printed():
    settings = Settings(
        key_pepper=SECRETS["pepper"],
        api_key="condu_secret_key",
        objects_url="s3://bucket",
        objects_access_key="access",
        objects_secret_key=SECRETS["secret_key"],
        database_url=f"postgresql://me:{SECRETS['password']}@host/name",
    )

    for shown in (repr(settings), str(settings), repr(vars(settings).get("key_pepper"))):
        assert not [secret for secret in (*SECRETS.values(), "condu_secret_key") if secret in shown]

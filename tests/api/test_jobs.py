import json
import threading

import pytest

from catalog.job_events import add_event
from catalog.tables import JobRow


@pytest.fixture
def job(condu, dataset):
    """The id of a queued job."""
    return condu.post("/v1/models/animals/tasks", json={"name": "food", "dataset": dataset}).json()["job"][
        "id"
    ]


def say(condu, job_id, kind, body):
    with condu.services.catalog.transaction() as session:
        add_event(session, job_id, kind=kind, body=body)


def become(condu, job_id, **columns):
    with condu.services.catalog.transaction() as session:
        row = session.get_one(JobRow, job_id)
        for name, value in columns.items():
            setattr(row, name, value)


def read_events(lines):
    """The events of a stream, as (id, event, data)."""
    events, fields = [], {}
    for line in lines:
        if line.startswith(":"):
            continue
        if line:
            name, _, value = line.partition(": ")
            fields[name] = value
        elif "data" in fields:
            events.append((int(fields["id"]), fields["event"], json.loads(fields["data"])))
            fields = {}
    return events


def follow(condu, job_id, **headers):
    response = condu.get(f"/v1/jobs/{job_id}/events", headers=headers)
    assert response.headers["content-type"].startswith("text/event-stream")
    return read_events(response.text.splitlines())


def test_a_queued_job_is_shown_with_all_its_fields(condu, job):
    shown = condu.get(f"/v1/jobs/{job}").json()

    assert (shown["id"], shown["kind"], shown["model"], shown["task"]) == (job, "train", "animals", "food")
    assert (shown["state"], shown["attempt"], shown["cancel_requested"]) == ("queued", 0, False)
    assert [shown[name] for name in ("progress", "result", "error", "started_at", "finished_at")] == [
        None
    ] * 5


def test_jobs_are_listed_by_model_and_state(condu, job, dataset):
    other = condu.post("/v1/models/fresh/tasks", json={"name": "food", "dataset": dataset}).json()["job"][
        "id"
    ]
    condu.post(f"/v1/jobs/{other}/cancel")

    def listed(**params):
        return {found["id"] for found in condu.get("/v1/jobs", params=params).json()["jobs"]}

    assert listed() == {job, other}
    assert listed(model="animals") == {job}
    assert listed(state="cancelled") == {other}
    assert listed(model="animals", state="cancelled") == set()
    assert len(condu.get("/v1/jobs", params={"limit": 1}).json()["jobs"]) == 1
    assert condu.problem("GET", "/v1/jobs?state=sleeping")["type"] == "/problems/invalid-request"
    assert condu.problem("GET", "/v1/jobs?limit=0")["type"] == "/problems/invalid-request"


def test_a_queued_job_is_cancelled_at_once_and_stays_so(condu, job):
    cancelled = condu.post(f"/v1/jobs/{job}/cancel").json()

    assert (cancelled["state"], cancelled["cancel_requested"]) == ("cancelled", True)
    again = condu.post(f"/v1/jobs/{job}/cancel")
    assert (again.status_code, again.json()) == (200, cancelled)


def test_a_running_job_is_asked_to_stop(condu, job):
    become(condu, job, state="running", attempt=1)

    asked = condu.post(f"/v1/jobs/{job}/cancel").json()

    assert (asked["state"], asked["cancel_requested"]) == ("running", True)


def test_the_error_of_a_failed_job_is_handed_on(condu, job):
    error = {"title": "It broke", "detail": "tensor x", "remedy": "mend it"}
    become(condu, job, state="failed", error=error)

    assert condu.get(f"/v1/jobs/{job}").json()["error"] == error


@pytest.mark.parametrize("url", ["", "/cancel", "/events"])
def test_a_job_that_is_not_there_is_not_found(condu, url):
    problem = condu.problem("POST" if url == "/cancel" else "GET", f"/v1/jobs/nothing{url}")

    assert (problem["status"], problem["type"]) == (404, "/problems/not-found")


def test_the_events_of_a_finished_job_are_told_in_order_and_end(condu, job):
    say(condu, job, "log", {"text": "über\nlang"})
    say(condu, job, "progress", {"step": 1, "steps": 2, "loss": 0.5})
    condu.post(f"/v1/jobs/{job}/cancel")

    events = follow(condu, job)

    assert [(kind, body) for _, kind, body in events] == [
        ("state", {"state": "queued"}),
        ("log", {"text": "über\nlang"}),
        ("progress", {"step": 1, "steps": 2, "loss": 0.5}),
        ("state", {"state": "cancelled"}),
    ]
    assert [number for number, _, _ in events] == [1, 2, 3, 4]


def test_a_broken_stream_goes_on_after_the_last_event_that_arrived(condu, job):
    say(condu, job, "log", {"text": "one"})
    condu.post(f"/v1/jobs/{job}/cancel")

    assert [number for number, _, _ in follow(condu, job, **{"last-event-id": "2"})] == [3]
    assert follow(condu, job, **{"last-event-id": "3"}) == []
    assert len(follow(condu, job, **{"last-event-id": "nonsense"})) == 3


def test_a_follower_hears_what_happens_while_it_listens(condu, job):
    heard = threading.Event()

    def go_on():
        heard.wait(30)
        say(condu, job, "progress", {"step": 1, "steps": 1})
        condu.post(f"/v1/jobs/{job}/cancel")

    thread = threading.Thread(target=go_on)
    thread.start()
    events = []
    with condu.stream("GET", f"/v1/jobs/{job}/events") as response:
        for line in response.iter_lines():
            events.append(line)
            if line.startswith("id:"):
                heard.set()
    thread.join()

    assert [kind for _, kind, _ in read_events(events)] == ["state", "progress", "state"]


def test_a_stopping_server_ends_the_streams_of_jobs_that_go_on(condu, job):
    lines = []
    with condu.stream("GET", f"/v1/jobs/{job}/events") as response:
        for line in response.iter_lines():
            lines.append(line)
            if line.startswith("id:"):
                condu.portal.call(condu.app.state.stopping.set)

    assert [kind for _, kind, _ in read_events([*lines, ""])] == ["state"]

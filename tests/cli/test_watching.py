"""Jobs are followed to their end: to success, to failure, over interruptions."""

import signal
import subprocess
import sys

from cli.client import Client
from cli.exit_codes import ExitCode
from cli.uploads import FolderBody
from tests.api.learning import learn
from tests.cli.documents import document
from tests.cli.hands import end, in_background, take_next_job, work

FAILURE = {
    "title": "The training diverged",
    "detail": "The loss is nan.",
    "remedy": "Lower the learning_rate.",
}


def test_a_watched_training_shows_its_progress_and_its_failure(run, service, model, pictures):
    def worker():
        job_id = take_next_job(service.services, model)
        work(service.services, job_id, losses=[2.5, 1.25])
        end(service.services, job_id, "failed", error=FAILURE)

    working = in_background(worker)
    result = run("task", "add", model, "pets", "--dataset", pictures)
    working.result()

    assert result.exit_code == ExitCode.FAILED
    assert "unpacked 12 images" in result.stderr
    assert "error: The training diverged" in result.stderr
    assert "remedy: Lower the learning_rate." in result.stderr
    assert "next: condu jobs show" in result.stderr


def test_a_watched_training_ends_with_the_task_it_learned(run, service, model, pictures):
    def worker():
        job_id = take_next_job(service.services, model)
        learn(service.services, model, "pets", classes=("cat", "dog"), checkpoint=service.fine_tuned)
        end(service.services, job_id, "succeeded", result={"revision": 1})

    working = in_background(worker)
    result = run("task", "add", model, "pets", "--dataset", pictures)
    working.result()

    assert result.exit_code == ExitCode.OK
    assert f"{model} has learned pets" in result.stdout
    assert "accuracy: individual" in result.stdout


def test_a_job_is_watched_to_its_success(run, service, model, pictures):
    job = document(run("task", "add", model, "p", "--dataset", pictures, "--no-watch", "--json"))["job"]

    def worker():
        assert take_next_job(service.services, model) == job["id"]
        work(service.services, job["id"], losses=[2.5, 1.25])
        end(service.services, job["id"], "succeeded", result={"revision": 1})

    working = in_background(worker)
    watched = document(run("jobs", "watch", job["id"], "--json"))
    working.result()

    assert (watched["state"], watched["result"]) == ("succeeded", {"revision": 1})
    listed = run("jobs", "list", "--model", model).stdout
    assert "succeeded" in listed
    assert "2/2" not in listed  # its last step says nothing that its state does not
    assert "result: revision" in run("jobs", "show", job["id"]).stdout


def test_interrupting_a_watch_ends_with_its_own_code_and_leaves_the_job_alone(run, service, model, pictures):
    job = document(run("task", "add", model, "p", "--dataset", pictures, "--no-watch", "--json"))["job"]
    words = [sys.executable, "-m", "cli.main", "jobs", "watch", job["id"]]
    take_next_job(service.services, model)
    work(service.services, job["id"], losses=[])

    with subprocess.Popen(words, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stderr.readline() == "unpacked 12 images\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == ExitCode.INTERRUPTED

    assert document(run("jobs", "show", job["id"], "--json"))["state"] == "running"
    end(service.services, job["id"], "cancelled")


def test_watching_goes_on_over_a_broken_stream(service, model, pictures):
    """Events that were seen are not told again, because the stream is taken up after the last one."""
    with Client(service.url) as client:
        digest = client.upload_dataset(FolderBody.of(pictures)).digest
        job = client.submit_task(model, "pets", dataset=digest)
        assert take_next_job(service.services, model) == job.id
        work(service.services, job.id, losses=[3.0])
        events = client.watch_job(job.id)
        seen = [next(events).kind for _ in range(3)]
        events.close()
        work(service.services, job.id, losses=[2.0])
        end(service.services, job.id, "succeeded", result={})
        again = [event.kind for event in client.watch_job(job.id)]

    assert seen == ["state", "state", "log"]
    assert again[-1] == "state"
    assert again.count("progress") == 2

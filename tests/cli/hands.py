"""A worker's hands without a worker: takes a job through its states by the catalog's own functions."""

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from api.dependencies import Services
from catalog.attempts import claim_job, finish_job, record_log, record_progress
from catalog.jobs import list_jobs

WORKER = "hands"


def take_next_job(services: Services, model: str) -> str:
    """The id of the model's queued job, which now runs."""
    while True:
        with services.catalog.transaction() as session:
            queued = list_jobs(session, model=model, state="queued")
            if queued and claim_job(session, queued[0].job_id, worker=WORKER, max_attempts=3):
                return queued[0].job_id
        time.sleep(0.02)


def work(services: Services, job_id: str, *, losses: list[float]) -> None:
    """Log a line and report a loss a step."""
    with services.catalog.transaction() as session:
        record_log(session, job_id, attempt=1, text="unpacked 12 images")
    for step, loss in enumerate(losses, start=1):
        progress = {"step": step, "steps": len(losses), "loss": loss, "images_per_s": 9.0, "eta_s": 3.0}
        with services.catalog.transaction() as session:
            record_progress(session, job_id, attempt=1, progress=progress, as_event=True)


def end(services: Services, job_id: str, state: str, **outcome: Any) -> None:
    """Finish the job."""
    with services.catalog.transaction() as session:
        finish_job(session, job_id, attempt=1, state=state, **outcome)


def in_background(work_to_do: Callable[[], None]) -> "Future[None]":
    """The work under way; its result raises what went wrong."""
    pool = ThreadPoolExecutor(1)
    future = pool.submit(work_to_do)
    pool.shutdown(wait=False)
    return future

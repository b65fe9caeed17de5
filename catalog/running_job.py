"""A job in a worker's hands, whichever engine remembers its steps: fences, progress, and how it ends."""

import json
import logging
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from threading import Event, RLock
from typing import Any

from sqlalchemy.exc import OperationalError

from catalog import Catalog, Session
from catalog.attempts import finish_job, published_revision, record_log, record_progress
from catalog.errors import CatalogUnavailableError, StaleAttemptError
from catalog.job_events import MAX_LOG_CHARACTERS
from catalog.job_queue import (
    JobCancelled,
    JobContext,
    JobDeferred,
    JobFailedError,
    JobFenced,
    JobHinderedError,
    JobReleased,
    Json,
    RunJob,
)
from catalog.jobs import CANCELLED, FAILED, RUNNING, SUCCEEDED, JobRecord, find_job

_log = logging.getLogger(__name__)

Remember = Callable[[str, Callable[[], Json]], Json]
"""What the engine offers: runs a step and remembers what it returned, or returns what it remembers."""

PROGRESS_INTERVAL_S = 0.5
# A curve gets a point whenever the job became this share older, so a long job is as cheap as a short one.
_EVENT_SHARE = 0.02


class _StepRaised(BaseException):
    """Carries a step's exception past the engine, which would remember it as the step's outcome."""

    def __init__(self, error: Exception) -> None:
        super().__init__(repr(error))
        self.error = error


@dataclass(frozen=True)
class Outcome:
    """How a job ended."""

    state: str
    result: dict[str, Json] | None = None
    error: dict[str, Json] | None = None


class RunningJob(JobContext):
    """What a job sees of the engine.

    Args:
        catalog: for the job's transactions and our own.
        job: as it was claimed.
        remember: the engine's memory of steps.
        poll_s: how often to look whether the job should go on.
        stopping: set when the worker stops.
        attempts_left: how often the job may be tried again where something that it needs does not answer.
    """

    def __init__(
        self,
        catalog: Catalog,
        job: JobRecord,
        *,
        remember: Remember,
        poll_s: float,
        stopping: Event,
        attempts_left: int = 0,
    ) -> None:
        self.catalog = catalog
        self.job_id = job.job_id
        self.attempt = job.attempt
        self.attempts_left = attempts_left
        self._remember = remember
        self._poll_s = poll_s
        self._stopping = stopping
        self._began = time.monotonic()
        self._next_look = 0.0
        self._next_write = 0.0
        self._next_event = 0.0
        self._unwritten: dict[str, Any] | None = None
        # A job may report from the thread that reads its training process.
        self._lock = RLock()

    def step(self, name: str, run: Callable[[], Json]) -> Json:
        self._once_it_answers(self._look)
        try:
            value = self._remember(name, lambda: self._run_step(run))
        except _StepRaised as raised:
            raise raised.error from raised.error.__cause__  # as it was, without the engine's part
        self.flush_progress()
        return value

    def _run_step(self, run: Callable[[], Json]) -> Json:
        try:
            # Through JSON at once, so that the first attempt sees what the next would: lists, no tuples.
            value = json.loads(json.dumps(run()))
        except Exception as error:
            raise _StepRaised(error) from error
        self._once_it_answers(self._look)
        return value

    def check_cancelled(self) -> None:
        if self._stopping.is_set():
            raise JobReleased(f"the worker of job {self.job_id} is stopping")
        if time.monotonic() >= self._next_look:
            try:
                self._look()
            except CatalogUnavailableError as error:
                # Computing may go on: whatever is committed in the end is held to its attempt.
                _log.warning("job %s works on without the catalog: %s", self.job_id, error)
                self._next_look = time.monotonic() + self._poll_s

    def _look(self) -> None:
        with self.catalog.snapshot() as session:
            job = find_job(session, self.job_id)
            is_published = published_revision(session, self.job_id) is not None
        if job.attempt != self.attempt or job.state != RUNNING:
            raise JobFenced(f"attempt {self.attempt} of job {self.job_id} is over: another worker has it")
        if job.cancel_requested and not is_published:
            raise JobCancelled(f"job {self.job_id} was cancelled")
        if self._stopping.is_set():
            raise JobReleased(f"the worker of job {self.job_id} is stopping")
        self._next_look = time.monotonic() + self._poll_s

    def report(self, progress: Mapping[str, Json]) -> None:
        with self._lock:
            self._unwritten = dict(progress)
            if time.monotonic() >= self._next_write:
                self.flush_progress()

    def flush_progress(self) -> None:
        """Writes the newest progress, if it was not yet."""
        with self._lock:
            progress, self._unwritten = self._unwritten, None
            if progress is None:
                return
            moment = time.monotonic()
            as_event = moment >= self._next_event
            self._next_write = moment + PROGRESS_INTERVAL_S
            if as_event:
                self._next_event = moment + max(PROGRESS_INTERVAL_S, _EVENT_SHARE * (moment - self._began))
            try:
                self._write(
                    lambda session: record_progress(
                        session, self.job_id, attempt=self.attempt, progress=progress, as_event=as_event
                    )
                )
            except (OperationalError, CatalogUnavailableError) as error:
                _log.warning("the progress of job %s could not be recorded: %s", self.job_id, error)

    def log(self, text: str) -> None:
        def write() -> None:
            self._write(lambda session: record_log(session, self.job_id, attempt=self.attempt, text=text))

        with self._lock:
            self._once_it_answers(write)

    def _write(self, write: Callable[[Any], None]) -> None:
        try:
            with self.catalog.transaction() as session:
                write(session)
        except StaleAttemptError as error:
            raise JobFenced(str(error)) from error

    def finish(self, outcome: Outcome) -> None:
        """Records how the job ended, as soon as the database lets it.

        Raises:
            JobFenced: another attempt owns the job.
            JobReleased: the worker is stopping and the database will not take it.
        """
        self.flush_progress()

        def end(session: Session) -> None:
            finish_job(
                session,
                self.job_id,
                attempt=self.attempt,
                state=outcome.state,
                result=outcome.result,
                error=outcome.error,
            )

        self._once_it_answers(lambda: self._write(end))

    def _once_it_answers(self, ask: Callable[[], None]) -> None:
        """Asks the catalog until it answers: a full disk, a locked database, a server that is gone.

        What the job did is done, so it waits rather than lose it.
        """
        while True:
            try:
                return ask()
            except (OperationalError, CatalogUnavailableError) as error:
                _log.warning("job %s waits for the catalog: %s", self.job_id, error)
                if self._stopping.wait(self._poll_s):
                    raise JobReleased(f"job {self.job_id} could not be recorded: {error}") from error


def run_claimed(job: RunningJob, run: RunJob, *, stopping: Event) -> None:
    """Runs the job and records how it ended.

    Raises:
        JobReleased: the worker is stopping; the job is not over.
        JobDeferred: something that it needs does not answer; the job is not over.
        JobFenced: another worker has the job.
    """
    try:
        outcome = Outcome(SUCCEEDED, result=run(job))
    except JobCancelled:
        outcome = Outcome(CANCELLED)
    except StaleAttemptError as error:
        raise JobFenced(str(error)) from error
    except Exception as error:
        if stopping.is_set():
            # Its training process was stopped, or the engine: no fault of the job's.
            raise JobReleased(f"job {job.job_id} was cut off: {error}") from error
        if isinstance(error, CatalogUnavailableError):
            raise JobDeferred(f"job {job.job_id} waits for the catalog: {error}", is_counted=False) from error
        if isinstance(error, JobHinderedError) and job.attempts_left > 0:
            raise JobDeferred(f"job {job.job_id} is tried again: {error}", is_counted=True) from error
        _log.exception("job %s failed", job.job_id)
        outcome = Outcome(FAILED, error=describe_error(error))
        if not isinstance(error, JobFailedError):
            job.log("".join(traceback.format_exception(error))[-MAX_LOG_CHARACTERS:])
    job.finish(outcome)


def describe_error(error: Exception) -> dict[str, str]:
    """The error as the job's row keeps it: title, detail, remedy."""
    if isinstance(error, JobFailedError):
        return {"title": error.title, "detail": error.detail, "remedy": error.remedy}
    return {
        "title": "The job failed in a way that nobody foresaw",
        "detail": f"{type(error).__name__}: {error}",
        "remedy": "The job's log has the traceback. If the machine is sound, this is a defect of condu.",
    }

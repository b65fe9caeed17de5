"""The port of the job engine: how the api hands work in, and how a worker takes it.

The api sees a `JobQueue`, the worker a `JobRunner` and, inside a job, a `JobContext`. `catalog/dbos_queue.py`
fills them in; nothing else knows which engine runs the jobs. A job is started at least once, and what it
commits to the catalog carries its attempt, so that a worker which was taken for dead changes nothing more.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

from catalog import Catalog, Session

Json = Any
"""What json.dumps takes: None, bool, int, float, str, and lists and str-keyed dicts of these."""


class JobFailedError(Exception):
    """Raised by a job to fail with an error that its user can act on.

    Args:
        title: one short sentence: what happened.
        detail: which thing, and what was expected.
        remedy: what the user can do about it.
    """

    def __init__(self, title: str, *, detail: str, remedy: str) -> None:
        super().__init__(f"{title}: {detail} ({remedy})")
        self.title = title
        self.detail = detail
        self.remedy = remedy


class JobHinderedError(JobFailedError):
    """Raised by a job where something that it needs does not answer; it is tried again before it fails."""


class JobInterruption(BaseException):
    """The job must stop now and let this pass; a BaseException, so that no `except Exception` swallows it."""


class JobCancelled(JobInterruption):
    """The user cancelled the job; it ends as cancelled."""


class JobReleased(JobInterruption):
    """The worker is stopping; the job goes back into the queue and is resumed by the next worker."""


class JobDeferred(JobInterruption):
    """What the job needs does not answer now; the job goes back into the queue, for this worker or another.

    Attributes:
        is_counted: whether the attempt counts against the cap, as one whose worker died does.
    """

    def __init__(self, message: str, *, is_counted: bool) -> None:
        super().__init__(message)
        self.is_counted = is_counted


class JobFenced(JobInterruption):
    """This worker was taken for dead and another has the job; nothing may be written for it any more."""


class JobContext(ABC):
    """What a running job may ask of the engine.

    Attributes:
        job_id: the job.
        attempt: how often it was started; what `publish_revision` and its like want.
        catalog: for the job's own transactions.
    """

    job_id: str
    attempt: int
    catalog: Catalog

    @abstractmethod
    def step(self, name: str, run: Callable[[], Json]) -> Json:
        """What `run` returned, now or in an earlier attempt: a finished step is not run again.

        Steps must come in the same order in every attempt, so branch only on what steps returned: for a
        foreseen failure that is followed by further steps (a stale head), return a value that says so. An
        exception is not remembered; it must end the job. A step may be cut off anywhere and run again, so it
        must be idempotent. Return names and digests (the value goes to the database), never tensors.

        Raises:
            JobInterruption: as in `check_cancelled`; let it pass.
        """

    @abstractmethod
    def check_cancelled(self) -> None:
        """Nothing, while the job should go on; cheap, so call it in every loop.

        Raises:
            JobCancelled: the user cancelled it.
            JobReleased: the worker is stopping.
            JobFenced: another worker has the job.
        """

    @abstractmethod
    def report(self, progress: Mapping[str, Json]) -> None:
        """Shows the progress (phase, step, steps, loss, ...); call it often, little of it is written."""

    @abstractmethod
    def log(self, text: str) -> None:
        """Adds a line to the job's log, which is bounded: of very many lines the middle is dropped."""


RunJob = Callable[[JobContext], "dict[str, Json] | None"]
"""A job's code: returns the job's result, or raises (best a JobFailedError)."""


class JobQueue(ABC):
    """The api's side."""

    @abstractmethod
    def enqueue(self, session: Session, job_id: str, model: str) -> None:
        """Puts a job behind the model's others, inside the caller's transaction.

        It commits and rolls back with it. `catalog.jobs.submit_job` calls this; routes need not.
        """

    @abstractmethod
    def close(self) -> None:
        """Gives the connections back."""


class JobRunner(ABC):
    """The worker's side: takes jobs one at a time per device, never two of one model at once anywhere."""

    worker_id: str

    @abstractmethod
    def start(self, run: RunJob) -> None:
        """Signs the worker on, beats, takes over from dead workers and runs jobs, all on threads."""

    @abstractmethod
    def stop(self) -> None:
        """Lets running jobs unwind (JobReleased), gives them back to the queue, and signs the worker off."""

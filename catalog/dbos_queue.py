"""The job engine on DBOS: the only module that knows it.

DBOS queues the jobs, one at a time per model, and remembers the steps that are done. What it leaves open on
its own is done here and in `lease_keeper`: a worker that dies keeps its jobs for ever, resuming forgets how
often it was tried, and the engine would take every new release for another application.
"""

import logging
import os
import socket
import sqlite3
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Condition, Event, Lock
from typing import Any
from uuid import uuid4

import structlog
from dbos import DBOS, DBOSClient, DBOSConfig, DBOSPortableJSONSerializer, EnqueueOptions
from dbos import error as dbos_error
from sqlalchemy import Engine, create_engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import OperationalError, SQLAlchemyError
from sqlalchemy.orm import Session
from sqlalchemy.pool import StaticPool

from catalog import Catalog, Settings
from catalog.attempts import claim_job, requeue_job, requeue_jobs
from catalog.database import BUSY_TIMEOUT_S, begin_postgresql, postgresql_arguments
from catalog.errors import CatalogError, CatalogUnavailableError, StaleAttemptError
from catalog.job_queue import JobDeferred, JobFenced, JobQueue, JobReleased, JobRunner, Json, RunJob
from catalog.jobs import JobRecord
from catalog.lease_keeper import LeaseKeeper
from catalog.running_job import RunningJob, run_claimed
from catalog.workers import WorkerRecord, list_workers, sign_off

_log = logging.getLogger(__name__)

APPLICATION = "condu"
# Never the release: DBOS leaves work of other versions alone, so every upgrade would strand the queued jobs.
APPLICATION_VERSION = "1"
QUEUE = "condu-jobs"
WORKFLOW = "condu-job"
_PENDING = "PENDING"
# DBOS polls for messages between workflows, which nobody sends here; stopping may take as long as one poll.
_LISTEN_S = 0.5


def upgrade_engine(url: str) -> None:
    """Brings DBOS's own tables to what this version of DBOS wants, creating them if need be."""
    _tame_logging()
    if make_url(url).get_backend_name() == "sqlite":
        check_sqlite(sys.version_info[:2], sqlite3.sqlite_version_info)
    DBOS.migrate(url)


def check_sqlite(python: tuple[int, ...], sqlite: tuple[int, ...]) -> None:
    """Nothing, when DBOS can tell the time: from Python 3.12 on it asks SQLite for what 3.42 brought.

    Raises:
        CatalogError: SQLite is too old; every job would fail to be queued with an obscure message.
    """
    if python >= (3, 12) and sqlite < (3, 42):
        raise CatalogError(
            f"Python {'.'.join(map(str, python))} here has SQLite {'.'.join(map(str, sqlite))}, and the job "
            "engine needs 3.42 or newer with it: use Python 3.11, or a Python that brings a newer SQLite"
        )


def _tame_logging() -> None:
    # Left alone, DBOS prints to stderr with a handler of its own; so its warnings go where all others go.
    engine_log = logging.getLogger("dbos")
    if not engine_log.handlers:
        engine_log.addHandler(logging.NullHandler())
    engine_log.propagate = True
    engine_log.setLevel(logging.WARNING)


def _open_client(**where: Any) -> DBOSClient:
    _tame_logging()
    # Its default serializer is pickle.
    return DBOSClient(
        application_name=APPLICATION, serializer=DBOSPortableJSONSerializer(), lazy=True, **where
    )


class DbosQueue(JobQueue):
    """The api's side: rows in DBOS's tables, written in the caller's transaction."""

    def __init__(self, settings: Settings) -> None:
        self._client = _open_client(system_database_url=settings.catalog_url)

    def enqueue(self, session: Session, job_id: str, model: str) -> None:
        options: EnqueueOptions = {
            "workflow_name": WORKFLOW,
            "workflow_id": job_id,
            "queue_name": QUEUE,
            "queue_partition_key": model,
            "app_version": APPLICATION_VERSION,
        }
        self._client.enqueue_in_transaction(session, options, job_id)

    def close(self) -> None:
        self._client.destroy()


class DbosRunner(JobRunner):
    """The worker's side. DBOS allows one in a process.

    Args:
        settings: lease_s, beat_s, poll_s, stop_timeout_s, max_attempts.
        catalog: for the jobs.
        device: what the jobs run on, for show.
        concurrency: how many jobs at once; one a device.
    """

    def __init__(
        self, settings: Settings, catalog: Catalog, *, device: str = "cpu", concurrency: int = 1
    ) -> None:
        # Unique to this start of the process, or DBOS would hand the jobs of one living worker to another.
        self.worker_id = f"{socket.gethostname()}-{os.getpid()}-{uuid4().hex[:8]}"
        self._settings = settings
        self._catalog = catalog
        self._concurrency = concurrency
        self._stopping = Event()
        self._hands = Hands(catalog.url)
        self._jobs = _Counter()
        self._keeper = LeaseKeeper(
            catalog,
            worker_id=self.worker_id,
            device=device,
            lease_s=settings.lease_s,
            beat_s=settings.beat_s,
            take_over=lambda worker: self._hands.take_over(worker, num_releases=0),
            list_owners=self._hands.list_owners,
        )

    def start(self, run: RunJob) -> None:
        _tame_logging()
        self._hands.register_queue(self._concurrency, poll_s=self._settings.poll_s)
        # Before DBOS: a worker that holds a job always has a row, or it could not be taken over.
        self._keeper.start()
        DBOS(config=self._configure())

        def work(job_id: str) -> None:
            with self._jobs.counted():
                self._work(job_id, run)

        # Not DBOS's own cap, which resuming sets back: ours is in claim_job.
        DBOS.workflow(name=WORKFLOW, max_recovery_attempts=None)(work)
        DBOS.launch()

    def stop(self) -> None:
        self._stopping.set()
        if not self._jobs.wait_for_none(self._settings.stop_timeout_s):
            _log.warning("worker %s stops although a job did not let go in time", self.worker_id)
        # First no more jobs are taken, then those in hand are given back; else they would come straight back.
        DBOS.destroy(destroy_registry=True)
        self._keeper.stop()
        try:
            self._sign_off()
        except (SQLAlchemyError, CatalogUnavailableError) as error:
            _log.warning("worker %s could not sign off, others will find it dead: %s", self.worker_id, error)
        self._hands.close()

    def _sign_off(self) -> None:
        with self._catalog.snapshot() as session:
            ours = [worker for worker in list_workers(session) if worker.worker_id == self.worker_id]
        for worker in ours:
            self._hands.take_over(worker, num_releases=1)

    def _configure(self) -> DBOSConfig:
        return {
            "name": APPLICATION,
            "system_database_url": self._catalog.url,
            "executor_id": self.worker_id,
            "application_version": APPLICATION_VERSION,
            "serializer": DBOSPortableJSONSerializer(),
            "log_level": "WARNING",
            "use_listen_notify": False,
            "run_migrations": False,
            "notification_listener_polling_interval_sec": _LISTEN_S,
            # Jobs that lost their worker's lease may still be unwinding beside the next ones.
            "max_executor_threads": 4 * self._concurrency + 4,
        }

    def _work(self, job_id: str, run: RunJob) -> None:
        """What DBOS runs: it returns when the job is over for good.

        Else it raises a BaseException past DBOS, which then takes the job for running until this worker, or
        the one that takes over from it, resumes it.
        """
        try:
            job = self._claim(job_id)
            if job is None:
                return
            context = RunningJob(
                self._catalog,
                job,
                remember=_remember,
                poll_s=self._settings.poll_s,
                stopping=self._stopping,
                attempts_left=self._settings.max_attempts - (job.attempt - job.num_releases),
            )
            # Whatever is logged meanwhile, by the job or a library, says for which request it was.
            with structlog.contextvars.bound_contextvars(
                job=job_id, request_id=job.request_id, key=job.key_id, attempt=job.attempt
            ):
                _log.info("job begins")
                self._run(context, run)
                _log.info("job is over")
        except Exception as error:
            # DBOS must not see it: it would record the job as over.
            _log.exception("job %s could not be started or ended", job_id)
            raise JobReleased(f"job {job_id} waits for another worker") from error

    def _run(self, context: RunningJob, run: RunJob) -> None:
        try:
            run_claimed(context, run, stopping=self._stopping)
        except JobDeferred as deferred:
            _log.warning("%s", deferred)
            self._give_back(context, num_releases=0 if deferred.is_counted else 1)
            raise

    def _give_back(self, context: RunningJob, *, num_releases: int) -> None:
        """Into the queue with the job, as soon as the catalog takes it; for DBOS it ran here until then."""
        while not self._stopping.wait(self._settings.poll_s):
            try:
                self._hands.give_back(context.job_id, attempt=context.attempt, num_releases=num_releases)
            except StaleAttemptError:
                return  # another worker has taken it already
            except (SQLAlchemyError, CatalogUnavailableError) as error:
                _log.warning("job %s cannot be given back yet: %s", context.job_id, error)
            else:
                return

    def _claim(self, job_id: str) -> JobRecord | None:
        while not self._stopping.is_set():
            try:
                with self._catalog.transaction() as session:
                    return claim_job(
                        session,
                        job_id,
                        worker=self.worker_id,
                        max_attempts=self._settings.max_attempts,
                    )
            except (OperationalError, CatalogUnavailableError) as error:
                _log.warning("job %s cannot be started yet: %s", job_id, error)
                self._stopping.wait(self._settings.poll_s)
        raise JobReleased(f"job {job_id} was not begun: the worker is stopping")


def _remember(name: str, run: Callable[[], Json]) -> Json:
    try:
        return DBOS.run_step({"name": name}, run)
    except (dbos_error.DBOSWorkflowConflictIDError, dbos_error.DBOSWorkflowCancelledError) as error:
        # DBOS, too, saw that another worker has the job.
        raise JobFenced(f"step {name} was not recorded: {error}") from error


class _Counter:
    """How many jobs this worker has in hand."""

    def __init__(self) -> None:
        self._num_jobs = 0
        self._changed = Condition()

    @contextmanager
    def counted(self) -> Iterator[None]:
        """Counts one more as long as the block runs."""
        self._add(1)
        try:
            yield
        finally:
            self._add(-1)

    def _add(self, change: int) -> None:
        with self._changed:
            self._num_jobs += change
            self._changed.notify_all()

    def wait_for_none(self, timeout_s: float) -> bool:
        """Whether there were none before the time was over."""
        with self._changed:
            return self._changed.wait_for(lambda: self._num_jobs == 0, timeout_s)


class Hands:
    """How jobs are taken out of one worker's hands: DBOS's client on a connection that we share with it.

    DBOS resumes in a transaction of its own and commits it. On an engine with a single connection that is the
    transaction which we began: the worker's row, its jobs and DBOS's queue change together or not at all.
    """

    def __init__(self, url: str) -> None:
        self._engine = _open_single_connection(url)
        # Were it to try again after a lost connection, it would do so without our half of the transaction.
        self._client = _open_client(system_database_engine=self._engine, retry_connection_errors=False)
        # Jobs that are given back and workers that are taken over from are the business of several threads.
        self._turn = Lock()

    def register_queue(self, concurrency: int, *, poll_s: float) -> None:
        self._client.register_queue(
            QUEUE, partition_concurrency=1, worker_concurrency=concurrency, polling_interval_sec=poll_s
        )

    def list_owners(self) -> set[str]:
        """The workers that DBOS believes to be running jobs."""
        with self._turn:
            running = self._client.list_workflows(
                status=_PENDING, queue_name=QUEUE, load_input=False, load_output=False
            )
        return {workflow.executor_id for workflow in running if workflow.executor_id}

    def take_over(self, worker: WorkerRecord, *, num_releases: int) -> None:
        """Signs the worker off and puts its jobs back into the queue, once, whoever else tries."""
        with self._turn:
            self._take_over(worker, num_releases)

    def give_back(self, job_id: str, *, attempt: int, num_releases: int) -> None:
        """Puts one job of this worker back into the queue.

        Raises:
            StaleAttemptError: another attempt owns it, or it is finished.
        """
        with self._turn, Session(self._engine) as session:
            requeue_job(session, job_id, attempt=attempt, num_releases=num_releases)
            self._client.resume_workflows([job_id], queue_name=QUEUE)
            session.commit()

    def _take_over(self, worker: WorkerRecord, num_releases: int) -> None:
        job_ids = set(self._list_jobs_of(worker))
        with Session(self._engine) as session:
            if not sign_off(session, worker):
                return
            # A worker that is only slow may have begun one since: then DBOS must resume that, too.
            job_ids.update(requeue_jobs(session, worker.worker_id, num_releases=num_releases))
            if job_ids:
                self._client.resume_workflows(sorted(job_ids), queue_name=QUEUE)
            session.commit()

    def _list_jobs_of(self, worker: WorkerRecord) -> list[str]:
        """What DBOS believes that the worker runs."""
        running = self._client.list_workflows(
            status=_PENDING, executor_id=worker.worker_id, load_input=False, load_output=False
        )
        return [workflow.workflow_id for workflow in running]

    def close(self) -> None:
        self._client.destroy()
        self._engine.dispose()


def _open_single_connection(url: str) -> Engine:
    if make_url(url).get_backend_name() != "sqlite":
        engine = create_engine(url, poolclass=StaticPool, connect_args=postgresql_arguments())
        event.listen(engine, "begin", begin_postgresql)
        return engine
    arguments = {"timeout": BUSY_TIMEOUT_S, "check_same_thread": False}
    engine = create_engine(url, poolclass=StaticPool, connect_args=arguments)

    @event.listens_for(engine, "connect")
    def prepare(connection: Any, record: object) -> None:  # noqa: ARG001 - SQLAlchemy's signature
        # The driver begins a transaction where none is open, so that DBOS joins ours.
        connection.isolation_level = "IMMEDIATE"
        connection.execute("PRAGMA foreign_keys = ON")

    return engine

"""Jobs and workers as the engine's tests handle them."""

import signal
import time
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import text

from catalog.dbos_queue import DbosRunner
from catalog.jobs import cancel_job, find_job, submit_job
from catalog.workers import list_workers
from tests.catalog.worker_process import start_worker

# A limit for tests that fail, not a claim about speed.
PATIENCE_S = 30.0


def wait_until(is_so):
    """What `is_so` returned once it was true."""
    give_up_at = time.monotonic() + PATIENCE_S
    while time.monotonic() < give_up_at:
        found = is_so()
        if found:
            return found
        time.sleep(0.02)
    raise TimeoutError("waited in vain")


class Stage:
    def __init__(self, settings, catalog, *, queue, play):
        self.settings = settings
        self.catalog = catalog
        self.queue = queue
        self.play = play
        self.processes = []

    def submit(self, *script, model="pets", task="fur"):
        with self.catalog.transaction() as session:
            submitted = submit_job(
                session, self.queue, kind="train", model=model, task=task, request={"script": script}
            )
        return submitted.job_id

    def find(self, job_id):
        with self.catalog.snapshot() as session:
            return find_job(session, job_id)

    def cancel(self, job_id):
        with self.catalog.transaction() as session:
            cancel_job(session, job_id)

    def wait_for_end(self, job_id):
        wait_until(lambda: self.find(job_id).is_finished)
        return self.find(job_id)

    def wait_for_word(self, word):
        """The pid of who wrote it first."""
        wait_until(lambda: word in self.play.read_words())
        return next(line.pid for line in self.play.read() if line.what == word)

    def list_workers(self):
        with self.catalog.snapshot() as session:
            return list_workers(session)

    def execute(self, statement, **values):
        with self.catalog.transaction() as session:
            return session.execute(text(statement), values)

    def start_process(self, settings=None, concurrency=1):
        process = start_worker(settings or self.settings, concurrency)
        self.processes.append(process)
        return process

    def freeze(self, process):
        """Stops a worker's process, but not while it holds SQLite's one write lock: that would stop all."""
        with self.catalog.transaction() as session:
            session.execute(text("SELECT 1"))
            process.send_signal(signal.SIGSTOP)
            wait_until(
                lambda: Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"
            )

    @contextmanager
    def worker(self, **how):
        """A worker in this process."""
        runner = DbosRunner(self.settings, self.catalog, **how)
        runner.start(self.play.run)
        try:
            yield runner
        finally:
            runner.stop()

    def close(self):
        for process in self.processes:
            process.kill()
            process.wait()

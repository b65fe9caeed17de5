"""Jobs that play a script, for workers in this process and in others.

A job's request is {"script": [action, ...]}; each action is a step. What happens is written to a journal, a
line an event: what, attempt, pid.
"""

import os
import signal
import time
from functools import partial
from typing import NamedTuple

from catalog.errors import CatalogUnavailableError, StaleAttemptError
from catalog.job_queue import JobHinderedError, JobInterruption
from catalog.jobs import find_job
from tests.catalog.examples import learn


class Line(NamedTuple):
    what: str
    attempt: int
    pid: int


class Play:
    """Runs scripts, in a folder that all workers share."""

    def __init__(self, folder):
        self.folder = folder

    def run(self, context):
        with context.catalog.snapshot() as session:
            job = find_job(session, context.job_id)
        try:
            for number, action in enumerate(job.request["script"]):
                context.step(f"{number} {action}", partial(getattr(self, action), context, job))
        except (StaleAttemptError, JobInterruption) as interruption:
            self.write(type(interruption).__name__, context)
            raise
        return {"attempt": context.attempt}

    def write(self, what, context):
        with (self.folder / "journal.txt").open("a") as journal:
            journal.write(f"{what} {context.attempt} {os.getpid()}\n")

    def read(self):
        file = self.folder / "journal.txt"
        lines = (line.split() for line in file.read_text().splitlines()) if file.exists() else ()
        return [Line(what, int(attempt), int(pid)) for what, attempt, pid in lines]

    def read_words(self):
        return [line.what for line in self.read()]

    def wake(self):
        (self.folder / "awake").touch()

    def note(self, context, job):
        self.write("note", context)

    def die(self, context, job):
        self.write("die", context)
        os.kill(os.getpid(), signal.SIGKILL)

    def hang_first(self, context, job):
        """The first attempt is deep in a computation until it is woken."""
        self.write("hang", context)
        while context.attempt == 1 and not (self.folder / "awake").exists():
            time.sleep(0.02)

    def wait(self, context, job):
        """The first attempt waits to be stopped, as a training loop does."""
        self.write("wait", context)
        while context.attempt == 1:
            context.check_cancelled()
            time.sleep(0.02)

    def hindered_first(self, context, job):
        """What the first attempt needs does not answer."""
        self.write("hindered", context)
        if context.attempt == 1:
            raise JobHinderedError("The storage refused", detail="It does not answer.", remedy="Wait.")

    def hindered(self, context, job):
        self.write("hindered", context)
        raise JobHinderedError("The storage refused", detail="It does not answer.", remedy="Wait.")

    def without_catalog_first(self, context, job):
        """The first attempt finds the catalog gone."""
        self.write("gone", context)
        if context.attempt == 1:
            raise CatalogUnavailableError("the server is gone")

    def publish(self, context, job):
        with context.catalog.transaction() as session:
            number = learn(
                session,
                job.model,
                job.task,
                parent=None,
                manifest=f"by attempt {context.attempt}",
                names=[job.task],
                job_id=context.job_id,
                attempt=context.attempt,
            )
        self.write(f"published-{number}", context)

    def hang_first_and_publish(self, context, job):
        """The first attempt goes on without looking whether it still may."""
        self.hang_first(context, job)
        self.publish(context, job)

    def publish_and_die_first(self, context, job):
        self.publish(context, job)
        if context.attempt == 1:
            os.kill(os.getpid(), signal.SIGKILL)

    def be_alone(self, context, job):
        """Nobody else is at work on the model meanwhile."""
        claim = self.folder / f"{job.model}.busy"
        try:
            claim.touch(exist_ok=False)
        except FileExistsError:
            self.write("overlap", context)
            return
        time.sleep(0.15)
        self.write(f"alone-{job.model}", context)
        claim.unlink()

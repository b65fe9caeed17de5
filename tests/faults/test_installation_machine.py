"""Submit, cancel, import, roll back, remove, sweep and crash in any order, against a plain model.

Real jobs fold a real tiny CLIP. After every step the catalog is as the model says, the experts of the head
have the bits that they were published with, and after a sweep the store holds exactly what is needed.
"""

import importlib
import shutil
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from api.maintenance import sweep_lines
from api.removal import remove_task
from catalog.attempts import published_revision, requeue_jobs
from catalog.bases import find_base
from catalog.errors import (
    AlreadyExistsError,
    NoSuchRowError,
    RollbackError,
    StillInUseError,
)
from catalog.job_queue import JobReleased
from catalog.jobs import cancel_job, list_jobs
from catalog.models import find_model
from catalog.revisions import find_revision, list_revisions, rollback_head
from catalog.tasks import head_tasks
from serving.pinning import Heads
from store.manifest import BaseManifest
from store.safefile import write_safetensors
from tests.faults.reference import TASKS, experts_of
from tests.tiny_clip import tiny_expert_tensors, tiny_tensors
from tests.worker.installation import Installation

POINTS = {
    "folding": ("store.folding", "encode_mask", False),
    "before the transaction": ("worker.jobs.publishing", "_publish", False),
    "inside the transaction": ("worker.jobs.publishing", "publish_revision", True),
    "after the transaction": ("worker.jobs.publishing", "_publish", True),
    "cleaned up": ("worker.jobs.learning", "clean_up", True),
}
PUBLISHED = {"after the transaction", "cleaned up"}


class Crash(JobReleased):
    """The worker is gone: nothing more is done for the job, and its scratch files stay."""


@contextmanager
def crash_at(point):
    """A worker that crashes there, instead of the call or after it was made."""
    module_name, name, is_made = POINTS[point]
    module = importlib.import_module(module_name)
    real = getattr(module, name)

    def mortal(*args, **kwargs):
        if is_made:
            real(*args, **kwargs)
        raise Crash(point)

    setattr(module, name, mortal)
    try:
        yield
    finally:
        setattr(module, name, real)


@dataclass
class Job:
    task: str
    state: str = "queued"
    revision: int | None = None


@dataclass
class Known:
    """The plain model: what must exist."""

    head: int | None = None
    served: dict = field(default_factory=lambda: {None: []})
    parents: dict = field(default_factory=dict)
    experts: dict = field(default_factory=lambda: {None: {}})
    expired: set = field(default_factory=set)
    jobs: dict = field(default_factory=dict)

    def first_queued(self):
        return next((job_id for job_id, job in self.jobs.items() if job.state == "queued"), None)

    def add_revision(self, served, experts):
        number = len(self.parents) + 1
        self.parents[number], self.served[number], self.experts[number] = self.head, served, experts
        self.head = number
        return number

    def line(self, length):
        """The newest unexpired revisions from the head towards the first."""
        numbers, number = [], self.head
        while number is not None and number not in self.expired and len(numbers) < length:
            numbers.append(number)
            number = self.parents[number]
        return numbers


class Machine(RuleBasedStateMachine):
    migrated_file: Path
    checkpoints: dict

    def __init__(self):
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="condu-machine-"))
        self.opened = Installation.opened(self.folder / "data", self.migrated_file)
        self.installation = self.opened.__enter__()
        self.catalog, self.store = self.installation.catalog, self.installation.store
        self.services = SimpleNamespace(
            catalog=self.catalog,
            store=self.store,
            settings=self.installation.settings,
            heads=Heads(self.catalog, self.store),
        )
        self.known = Known()

    def teardown(self):
        self.opened.__exit__(None, None, None)
        shutil.rmtree(self.folder, ignore_errors=True)

    def head_manifest(self):
        return self.installation.read(find_revision, "pets").manifest

    @rule(task=st.sampled_from(TASKS))
    def submit(self, task):
        checkpoint = self.store.blobs.put_file(self.checkpoints[task]).digest
        learning = [job.task for job in self.known.jobs.values() if job.state == "queued"]
        try:
            job_id = self.installation.submit_import(task, checkpoint)
        except AlreadyExistsError:
            assert task in self.known.served[self.known.head]
        except StillInUseError:
            assert task in learning
        else:
            assert task not in self.known.served[self.known.head]
            assert task not in learning
            self.known.jobs[job_id] = Job(task)

    @precondition(lambda self: self.known.jobs)
    @rule(which=st.integers(0, 9))
    def cancel(self, which):
        job_id = list(self.known.jobs)[which % len(self.known.jobs)]
        with self.catalog.transaction() as session:
            cancel_job(session, job_id)
        job = self.known.jobs[job_id]
        if job.state == "queued" and job.revision is None:
            job.state = "cancelled"

    @precondition(lambda self: self.known.first_queued())
    @rule(point=st.none() | st.sampled_from(sorted(POINTS)))
    def work(self, point):
        """A worker takes the first job; at a point it dies, and another finds that out."""
        job_id = self.known.first_queued()
        job = self.known.jobs[job_id]
        is_learned = job.task in self.known.served[self.known.head]
        if point is None:
            self.installation.run(job_id)
        else:
            with crash_at(point):
                try:
                    self.installation.run(job_id)
                except Crash:
                    with self.catalog.transaction() as session:
                        requeue_jobs(session, "this process", num_releases=0)
        number = self.installation.read(published_revision, job_id)
        if number is not None and job.revision is None:
            assert not is_learned
            served = [*self.known.served[self.known.head], job.task]
            job.revision = self.known.add_revision(served, experts_of(self.store, self.head_manifest()))
        assert number == job.revision
        job.state = self.state_after_work(job, point, is_learned=is_learned)

    def state_after_work(self, job, point, *, is_learned):
        if job.revision is None and is_learned:
            return "failed"
        if point is None:
            assert job.revision is not None
            return "succeeded"
        assert (job.revision is not None) >= (point in PUBLISHED)
        # A job that had published before does nothing but clean up, where only one of the points lies.
        now = self.installation.find(next(key for key, value in self.known.jobs.items() if value is job))
        return "succeeded" if job.revision and now.state == "succeeded" else "queued"

    @rule(to=st.none() | st.integers(1, 6))
    def roll_back(self, to):
        known = self.known
        target = known.parents.get(known.head) if to is None else to
        try:
            with self.catalog.transaction() as session:
                rollback_head(session, "pets", to)
        except RollbackError:
            assert known.head is None or target is None or target in known.expired
        except NoSuchRowError:
            assert target not in known.parents
        else:
            assert target in known.parents
            assert target not in known.expired
            known.head = target

    @rule(task=st.sampled_from(TASKS))
    def remove(self, task):
        known = self.known
        if task not in known.served[known.head]:
            return
        remove_task(self.services, "pets", task)
        experts = {name: bits for name, bits in known.experts[known.head].items() if name != task}
        known.add_revision([name for name in known.served[known.head] if name != task], experts)

    @rule(keep_revisions=st.integers(1, 2))
    def sweep(self, keep_revisions):
        list(sweep_lines(self.services, delete=True, keep_revisions=keep_revisions, grace_s=0.0))
        kept = self.known.line(keep_revisions)
        self.known.expired |= set(self.known.parents) - set(kept)
        assert self.installation.blobs() == self.needed(kept)

    def needed(self, kept):
        """What the base, the kept revisions and unfinished jobs need, and nothing else."""
        manifests = {row.number: row.manifest for row in self.installation.read(list_revisions, "pets")}
        needed = {job.checkpoint for job in self.installation.read(list_jobs) if not job.is_finished}
        needed &= self.installation.blobs()  # a job that had published may have deleted its own
        for number in kept:
            needed |= {manifests[number], *self.store.manifest(manifests[number]).named_blobs()}
        base = self.installation.read(find_base, "tiny").digest
        return needed | {base, BaseManifest.from_json(self.store.blobs.read_checked(base)).weights}

    @invariant()
    def exists_what_must(self):
        known = self.known
        with self.catalog.snapshot() as session:
            states = {job.job_id: job.state for job in list_jobs(session)}
            assert states == {job_id: job.state for job_id, job in known.jobs.items()}
            assert find_model(session, "pets").head_revision == known.head
            assert [task.name for task in head_tasks(session, "pets")] == known.served[known.head]
            rows = list_revisions(session, "pets")
        assert {row.number: row.parent for row in rows} == known.parents
        assert {row.number for row in rows if row.expired_at} == known.expired
        if known.head is not None:
            assert experts_of(self.store, self.head_manifest()) == known.experts[known.head]


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoints")
    for number, task in enumerate(TASKS):
        write_safetensors(folder / task, tiny_expert_tensors(tiny_tensors(), number))
    return {task: folder / task for task in TASKS}


def test_whatever_is_done_and_wherever_a_worker_dies_there_is_what_must_be(migrated_file, checkpoints):
    Machine.migrated_file, Machine.checkpoints = migrated_file, checkpoints
    # It asserts within: after every step all of the installation is compared with the model.
    assert not run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=8,
            stateful_step_count=14,
            deadline=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
        ),
    )

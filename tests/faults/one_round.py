"""One round: jobs are submitted, workers are killed and frozen, and then all is held against what must be."""

import json
import logging
import random
import signal
import time
from dataclasses import asdict, dataclass
from functools import partial
from threading import Event

import torch
from sqlalchemy import text

from catalog import Catalog, Settings
from catalog.dbos_queue import DbosQueue
from catalog.errors import AlreadyExistsError, StillInUseError
from catalog.jobs import list_jobs, submit_job
from catalog.models import list_models
from catalog.retention import live_roots
from catalog.revisions import list_revisions
from catalog.tasks import revision_tasks
from store.blobs import open_blobs
from store.checkpoints import CheckpointStore
from store.errors import StoreError
from store.sweep import Roots, sweep
from tests.faults import round_points
from tests.faults.broken_fence import break_fence
from tests.faults.forking import answer_of, fork
from tests.faults.judging import LOST, Found, Job, Revision, judge
from tests.faults.reference import MODELS, TASKS, TEMPLATES, Reference, experts_of
from tests.faults.worker_with_kill_points import die_in
from tests.installing import copy_installation, settings_at
from worker.main import work

PATIENCE_S = 90.0
TICK_S = 0.01
LEASE_S = 1.0
QUICK = {"lease_s": LEASE_S, "beat_s": 0.2, "poll_s": 0.1, "stop_timeout_s": 5.0}
# However often its workers are killed, no job of a round is a poison job.
MANY_ATTEMPTS = 50
NUM_WORKERS = 2
MORE_DEATHS = 2


@dataclass(frozen=True)
class Blow:
    """A signal out of the blue: when, which worker, and for how long it is frozen (None: killed)."""

    at_s: float
    slot: int
    frozen_s: float | None


@dataclass(frozen=True)
class Plan:
    """What happens in a round, all of it from the seed and the round's number.

    `points` are where the first workers, and those that replace them, die: (name, call) or None.
    """

    submissions: tuple[tuple[str, str], ...]
    submitter_dies_at_s: float | None
    points: tuple[tuple[str, int] | None, ...]
    blows: tuple[Blow, ...]


def make_plan(seed, number):
    rng = random.Random(f"{seed}/{number}")
    tasks = rng.sample(TASKS, rng.choice((2, 3, 3)))
    two_models = rng.random() < 0.5
    submissions = [(rng.choice(MODELS) if two_models else MODELS[0], task) for task in tasks]
    points = _first_points(rng, round_points.EVERY[number % len(round_points.EVERY)])
    points += [rng.choice(round_points.EVERY) if rng.random() < 0.4 else None for _ in range(MORE_DEATHS)]
    blows = []
    if rng.random() < 0.3:
        blows.append(Blow(rng.uniform(0.05, 1.2), rng.randrange(NUM_WORKERS), None))
    if rng.random() < 0.12:
        blows.append(Blow(rng.uniform(0.2, 0.8), rng.randrange(NUM_WORKERS), rng.uniform(1.2, 2.0) * LEASE_S))
    submitter_dies_at_s = rng.uniform(0.0, 0.15) if rng.random() < 0.3 else None
    return Plan(
        tuple(submissions), submitter_dies_at_s, tuple(points), tuple(sorted(blows, key=lambda b: b.at_s))
    )


def _first_points(rng, point):
    """Where the first two workers die: there, whichever of them takes a job or takes one over."""
    if point[0] in round_points.TAKING_OVER:
        return [rng.choice(round_points.EVERY[: -len(round_points.TAKING_OVER)]), point]
    return [point, point]


@dataclass
class Tally:
    """What was done to a round's processes, and what came of it."""

    kills: int = 0
    freezes: int = 0
    errors: int = 0


def play_round(place, *, seed, number, broken):
    """The faults and the tally of a round in a folder of its own, which stays where something was wrong."""
    folder = place.folder / f"round-{number}"
    log = place.folder / f"round-{number}.log"
    answer_of(partial(_set_up, place.template, folder), log)
    plan, tally = make_plan(seed, number), Tally()
    acknowledged = _disturb(folder, plan, tally, broken=broken)
    faults = answer_of(partial(_judge, place, folder, acknowledged, plan), log)
    return {"number": number, "faults": faults, **asdict(tally)}


def settings_of(folder) -> Settings:
    return settings_at(folder, **QUICK, max_attempts=MANY_ATTEMPTS, device="cpu", num_threads=1)


def _set_up(template, folder, tell):
    copy_installation(template, folder)
    tell(True)


def _disturb(folder, plan, tally, *, broken):
    """The ids of the acknowledged jobs, when all jobs are over or the patience is."""
    log = folder / "log.txt"
    points = list(plan.points)

    def new_worker():
        return fork(partial(_work, folder, points.pop(0) if points else None, broken), log)

    workers = [new_worker() for _ in range(NUM_WORKERS)]
    submitters = [fork(partial(_submit, folder, plan.submissions), log)]
    watcher = fork(partial(_watch, folder, len(plan.submissions)), log)
    children = [*workers, *submitters, watcher]
    began = time.monotonic()
    signals = _signals_of(plan)
    try:
        while not watcher.has_ended() and time.monotonic() - began < PATIENCE_S:
            time.sleep(TICK_S)
            while signals and signals[0][0] <= time.monotonic() - began:
                _, slot, number = signals.pop(0)
                (submitters[-1] if slot is None else workers[slot]).signal(number)
                tally.freezes += number == signal.SIGSTOP
            for slot, worker in enumerate(workers):
                if worker.has_ended():
                    tally.kills += worker.exit_code == -signal.SIGKILL
                    tally.errors += worker.exit_code != -signal.SIGKILL
                    workers[slot] = new_worker()
                    children.append(workers[slot])
            if submitters[-1].has_ended() and submitters[-1].exit_code != 0:
                tally.kills += submitters[-1].exit_code == -signal.SIGKILL
                tally.errors += submitters[-1].exit_code != -signal.SIGKILL
                submitters.append(fork(partial(_submit, folder, plan.submissions), log))
                children.append(submitters[-1])
        return [job_id for submitter in submitters for job_id in submitter.told()]
    finally:
        for child in children:
            child.close()


def _signals_of(plan):
    """(when, which worker or None for the submitter, which signal), in order."""
    signals = [] if plan.submitter_dies_at_s is None else [(plan.submitter_dies_at_s, None, signal.SIGKILL)]
    for blow in plan.blows:
        if blow.frozen_s is None:
            signals.append((blow.at_s, blow.slot, signal.SIGKILL))
        else:
            signals.append((blow.at_s, blow.slot, signal.SIGSTOP))
            signals.append((blow.at_s + blow.frozen_s, blow.slot, signal.SIGCONT))
    return sorted(signals, key=lambda entry: entry[0])


def _work(folder, point, broken, tell):
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(process)d %(message)s")
    if point is not None:
        die_in(**round_points.order_of(*point))
    if broken:
        break_fence()
    settings = settings_of(folder)
    work(settings, Catalog(settings), Event())


def _submit(folder, submissions, tell):
    """Submits what is not there yet, and tells of each job when its transaction has committed."""
    settings = settings_of(folder)
    catalog, queue = Catalog(settings), DbosQueue(settings)
    uploads = json.loads((folder / "uploads.json").read_text())
    for model, task in submissions:
        request = {"classes": ["red", "green"], "templates": TEMPLATES}
        try:
            with catalog.transaction() as session:
                job = submit_job(
                    session,
                    queue,
                    kind="import",
                    model=model,
                    task=task,
                    request=request,
                    checkpoint=uploads[task],
                )
        except (AlreadyExistsError, StillInUseError):
            continue  # a submitter that was killed had come so far
        tell(job.job_id)


def _watch(folder, num_jobs, tell):
    """Ends when all jobs are over."""
    catalog = Catalog(settings_of(folder))
    while True:
        with catalog.snapshot() as session:
            if sum(job.is_finished for job in list_jobs(session)) >= num_jobs:
                return
        time.sleep(0.05)


def _judge(place, folder, acknowledged, plan, tell):
    torch.set_num_threads(1)
    settings = settings_of(folder)
    catalog = Catalog(settings)
    store = CheckpointStore(open_blobs(settings.blob_place))
    try:
        found = _look(catalog, store)
        faults = judge(acknowledged, found, Reference(place).experts)
        faults += [(LOST, problem) for problem in _sweep(catalog, store, found)]
        if len(found.jobs) != len(plan.submissions):
            faults.append((LOST, f"{len(found.jobs)} jobs are there, of {len(plan.submissions)}"))
    except StoreError as error:
        faults = [(LOST, f"what was published cannot be read: {error}")]
    tell(faults)


def _look(catalog, store):
    with catalog.snapshot() as session:
        jobs = [Job(job.job_id, job.model, job.task, job.state, str(job.error)) for job in list_jobs(session)]
        heads = {model.name: model.head_revision for model in list_models(session)}
        rows = [row for model in heads for row in list_revisions(session, model)]
        learned = tuple(
            tuple(row) for row in session.execute(text("SELECT model, name FROM tasks ORDER BY task_key"))
        )
        named = {row: [task.name for task in revision_tasks(session, row.model, row.number)] for row in rows}
    revisions, problems = [], []
    for row in rows:
        manifest = store.manifest(row.manifest)
        if [task.name for task in manifest.tasks] != named[row]:
            problems.append(
                f"catalog and manifest differ in what revision {row.number} of {row.model} serves"
            )
        experts = experts_of(store, row.manifest)
        revisions.append(Revision(row.model, row.number, row.parent, row.job_id, experts))
    return Found(tuple(jobs), tuple(revisions), learned, heads, tuple(problems))


def _sweep(catalog, store, found):
    """Problems with the heads after everything that nobody needs was swept away."""
    with catalog.snapshot() as session:
        live = live_roots(session)
        manifests = {
            row.model: row.manifest
            for model, head in found.heads.items()
            for row in list_revisions(session, model)
            if row.number == head
        }
    roots = Roots(manifests=live.manifests, bases=live.bases, others=live.others)
    sweep(store, roots, grace_s=0.0, delete=True)
    for revision in found.revisions:
        is_head = revision.number == found.heads[revision.model]
        if is_head and experts_of(store, manifests[revision.model]) != revision.experts:
            yield f"after a sweep the head of {revision.model} is another"

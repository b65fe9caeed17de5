"""Whether jobs that were disturbed did what undisturbed ones do: nothing lost, nothing fused twice."""

from collections import Counter
from dataclasses import dataclass, field

LOST, TWICE = "lost", "fused twice"


@dataclass(frozen=True)
class Job:
    job_id: str
    model: str
    task: str
    state: str
    error: str | None = None


@dataclass(frozen=True)
class Revision:
    """`experts` maps each task that it serves, in order, to the digest of its expert's bits."""

    model: str
    number: int
    parent: int | None
    job_id: str | None
    experts: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Found:
    """What an installation has when all is over.

    `learned` are the (model, task) of every task that was ever learned, as often as it was.
    """

    jobs: tuple[Job, ...]
    revisions: tuple[Revision, ...]
    learned: tuple[tuple[str, str], ...]
    heads: dict[str, int | None]
    problems: tuple[str, ...] = ()


def judge(acknowledged, found, expected_experts):
    """The faults, each as (LOST or TWICE, a sentence).

    Args:
        acknowledged: ids of the jobs whose submission was acknowledged.
        found: the installation at the end.
        expected_experts: (task, ...) -> {task: digest}, of an undisturbed fold in that order.
    """
    faults = [(LOST, problem) for problem in found.problems]
    faults += _judge_jobs(acknowledged, found)
    faults += _judge_fusions(found)
    for model in sorted(found.heads):
        faults += _judge_line(model, found, expected_experts)
    return faults


def _judge_jobs(acknowledged, found):
    states = {job.job_id: job for job in found.jobs}
    for job_id in acknowledged:
        if job_id not in states:
            yield LOST, f"job {job_id} was acknowledged and is not there"
    for job in found.jobs:
        if job.state != "succeeded":
            yield LOST, f"job {job.job_id} ({job.model}, {job.task}) is {job.state}: {job.error}"


def _judge_fusions(found):
    by_job = Counter(revision.job_id for revision in found.revisions)
    for job_id, count in by_job.items():
        if job_id is None or count > 1:
            yield TWICE, f"{count} revisions are of job {job_id}"
    for (model, task), count in Counter(found.learned).items():
        if count > 1:
            yield TWICE, f"task {task} of model {model} was learned {count} times"
    for job in found.jobs:
        if job.state == "succeeded" and not by_job[job.job_id]:
            yield LOST, f"job {job.job_id} succeeded and has no revision"


def _judge_line(model, found, expected_experts):
    """A model's revisions, from the first to the head: each is its parent and one more task."""
    served = {None: ()}
    task_of = {job.job_id: job.task for job in found.jobs}
    for revision in sorted((r for r in found.revisions if r.model == model), key=lambda r: r.number):
        tasks = tuple(revision.experts)
        served[revision.number] = tasks
        wanted = (*served.get(revision.parent, ()), task_of.get(revision.job_id, "?"))
        if tasks != wanted or not set(tasks) <= set(task_of.values()):
            yield LOST, f"revision {revision.number} of {model} serves {tasks}, not {wanted}"
        elif revision.experts != (right := expected_experts(tasks)):
            wrong = [task for task in tasks if revision.experts[task] != right[task]]
            yield LOST, f"revision {revision.number} of {model} has other bits in the experts of {wrong}"
    missing = {job.task for job in found.jobs if job.model == model} - set(served[found.heads[model]])
    if missing:
        yield LOST, f"the head of {model} does not serve {sorted(missing)}"

"""What is known of a task, put together from the head and the revisions that led to it."""

from dataclasses import dataclass

from api.dependencies import Services
from api.schemas.tasks import FidelityAt, TaskAccuracy, TaskAnswer, TaskFidelity, TaskImages, TaskList
from catalog import Session
from catalog.revisions import list_revisions
from catalog.tasks import TaskRecord, TriggerRecord, list_triggers, revision_tasks
from serving.pinning import PinnedRevision

NOT_MEASURED = (
    "nobody measured it in this revision, which came in a bundle or was made by an earlier version of condu; "
    "the next fusion does, where its images were kept"
)


@dataclass(frozen=True)
class ServedTask:
    """A task as a revision serves it, and what it was in the revisions that led there, oldest first."""

    record: TaskRecord
    history: tuple[TriggerRecord, ...]


def list_task_answers(services: Services, model: str) -> TaskList:
    """All tasks of the head."""
    pinned = services.heads.pin(model)
    answers = [task_answer(pinned, task) for task in served_tasks(services, pinned)]
    return TaskList(model=model, revision=pinned.number, tasks=answers)


def served_tasks(services: Services, pinned: PinnedRevision) -> list[ServedTask]:
    """The tasks of the revision, in the order they were learned."""
    if pinned.number is None:
        return []
    model = pinned.model.name
    with services.catalog.snapshot() as session:
        line = _line_of(session, pinned)
        return [
            ServedTask(record, _history(session, record, line))
            for record in revision_tasks(session, model, pinned.number)
        ]


def find_served(services: Services, pinned: PinnedRevision, task: str) -> ServedTask:
    """One task of the revision; UnknownTaskError when it does not serve it."""
    pinned.require_task(task)
    return next(each for each in served_tasks(services, pinned) if each.record.name == task)


def _line_of(session: Session, pinned: PinnedRevision) -> frozenset[int]:
    """The numbers of the revision and of those it came from; what was rolled back over is not among them."""
    parents = {record.number: record.parent for record in list_revisions(session, pinned.model.name)}
    line: set[int] = set()
    number = pinned.number
    while number is not None:
        line.add(number)
        number = parents[number]
    return frozenset(line)


def _history(session: Session, task: TaskRecord, line: frozenset[int]) -> tuple[TriggerRecord, ...]:
    # A task that was removed and learned again is another one: its history begins at its own learning.
    return tuple(
        trigger
        for trigger in list_triggers(session, task.model, task.name)
        if trigger.revision in line and trigger.revision >= task.revision_learned
    )


def task_answer(pinned: PinnedRevision, served: ServedTask) -> TaskAnswer:
    """The task as the api lists it."""
    task, trigger = served.record, served.record.trigger
    return TaskAnswer(
        name=task.name,
        model=task.model,
        revision=trigger.revision,
        revision_learned=task.revision_learned,
        classes=list(task.classes),
        templates=list(task.templates),
        rescaler=trigger.rescaler,
        density=trigger.density,
        bits_cleared=trigger.bits_cleared,
        l1_norm=task.l1_norm,
        fidelity=TaskFidelity(
            relative_l2=trigger.relative_l2,
            cosine=trigger.cosine,
            reference=trigger.reference,
            history=[_fidelity_at(past) for past in served.history],
        ),
        accuracy=TaskAccuracy(
            individual=task.accuracy_individual,
            expert=task.accuracy_expert,
            zero_shot=task.accuracy_base,
            now=trigger.accuracy,
            unmeasured=None if trigger.accuracy is not None else trigger.unmeasured or NOT_MEASURED,
        ),
        images=TaskImages(train=task.num_train, test=task.num_test, skipped=task.images_skipped),
        trigger_bytes=trigger.size_bytes,
        expert_digest=pinned.require_task(task.name).expert_digest(task.name),
        dataset=task.dataset,
        training=task.training,
    )


def _fidelity_at(trigger: TriggerRecord) -> FidelityAt:
    return FidelityAt(
        revision=trigger.revision,
        accuracy=trigger.accuracy,
        rescaler=trigger.rescaler,
        density=trigger.density,
        bits_cleared=trigger.bits_cleared,
        relative_l2=trigger.relative_l2,
        cosine=trigger.cosine,
        reference=trigger.reference,
    )

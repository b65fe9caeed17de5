"""What is known of a task, put together from the head and the revisions that led to it."""

from api.dependencies import Services
from api.errors import UnknownTaskError
from api.pinning import PinnedRevision, pin_revision
from api.schemas.tasks import FidelityAt, TaskAccuracy, TaskAnswer, TaskFidelity, TaskImages, TaskList
from catalog import Session
from catalog.revisions import list_revisions
from catalog.tasks import TaskRecord, TriggerRecord, list_triggers, revision_tasks


def list_task_answers(services: Services, model: str) -> TaskList:
    """All tasks of the head."""
    pinned = pin_revision(services, model)
    if pinned.number is None:
        return TaskList(model=model, revision=None, tasks=[])
    with services.catalog.snapshot() as session:
        line = _line_of(session, pinned)
        answers = [
            _answer(pinned, task, history=_history(session, task, line))
            for task in revision_tasks(session, model, pinned.number)
        ]
    return TaskList(model=model, revision=pinned.number, tasks=answers)


def task_answer(services: Services, model: str, task: str) -> TaskAnswer:
    """One task of the head; UnknownTaskError when the head does not serve it."""
    for answer in (tasks := list_task_answers(services, model)).tasks:
        if answer.name == task:
            return answer
    known = tuple(answer.name for answer in tasks.tasks)
    raise UnknownTaskError(model=model, task=task, revision=tasks.revision, known=known)


def _line_of(session: Session, pinned: PinnedRevision) -> frozenset[int]:
    """The numbers of the revision and of those it came from; what was rolled back over is not among them."""
    parents = {record.number: record.parent for record in list_revisions(session, pinned.model.name)}
    line: set[int] = set()
    number = pinned.number
    while number is not None:
        line.add(number)
        number = parents[number]
    return frozenset(line)


def _history(session: Session, task: TaskRecord, line: frozenset[int]) -> list[TriggerRecord]:
    # A task that was removed and learned again is another one: its history begins at its own learning.
    return [
        trigger
        for trigger in list_triggers(session, task.model, task.name)
        if trigger.revision in line and trigger.revision >= task.revision_learned
    ]


def _answer(pinned: PinnedRevision, task: TaskRecord, *, history: list[TriggerRecord]) -> TaskAnswer:
    trigger = task.trigger
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
            history=[_fidelity_at(past) for past in history],
        ),
        accuracy=TaskAccuracy(
            individual=task.accuracy_individual, expert=task.accuracy_expert, zero_shot=task.accuracy_base
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
        rescaler=trigger.rescaler,
        density=trigger.density,
        bits_cleared=trigger.bits_cleared,
        relative_l2=trigger.relative_l2,
        cosine=trigger.cosine,
        reference=trigger.reference,
    )

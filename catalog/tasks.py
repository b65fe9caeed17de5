"""Tasks: what a model learned, and what each is in a revision."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Row, Select, select
from sqlalchemy.orm import Session

from catalog.errors import AlreadyExistsError, NoSuchRowError, StillInUseError
from catalog.models import find_model
from catalog.names import check_name
from catalog.records import to_record
from catalog.tables import JobRow, PrototypeRow, TaskRow, TriggerRow


@dataclass(frozen=True)
class TriggerRecord:
    """A task in one revision: where its mask is, its rescaler, how faithful and how good its expert is.

    Attributes:
        accuracy: Top-1 in percent of its expert in this revision, on its own held-out images.
        routing: Which experts those images were routed to, as whoever measured it wrote it.
        unmeasured: Why there is no accuracy; None where there is one, or where nobody tried.
    """

    task: str
    revision: int
    position: int
    mask: str
    size_bytes: int
    rescaler: float
    density: float
    bits_cleared: int
    relative_l2: float
    cosine: float
    reference: str
    accuracy: float | None
    routing: dict[str, Any] | None
    unmeasured: str | None


@dataclass(frozen=True)
class TaskRecord:
    """A learned task as one revision serves it; accuracies in percent, None where nothing was held out."""

    model: str
    name: str
    revision_learned: int
    classes: tuple[str, ...]
    templates: tuple[str, ...]
    l1_norm: float
    num_train: int
    num_test: int
    images_skipped: int
    accuracy_individual: float | None
    accuracy_expert: float | None
    accuracy_base: float | None
    dataset: str | None
    checkpoint: str | None
    training: dict[str, Any] | None
    created_at: datetime
    prototypes: str
    prototypes_bytes: int
    trigger: TriggerRecord


Served = Row[TaskRow, TriggerRow, PrototypeRow]


def head_tasks(session: Session, model: str) -> list[TaskRecord]:
    """The tasks of the model's head, in the order in which they were learned; none before the first revision.

    Raises:
        NoSuchRowError: there is no such model.
    """
    head = find_model(session, model).head_revision
    return [] if head is None else revision_tasks(session, model, head)


def revision_tasks(session: Session, model: str, number: int) -> list[TaskRecord]:
    """The tasks that a revision serves, in the order in which they were learned."""
    query = _served().where(TriggerRow.model == model, TriggerRow.revision == number)
    return [_to_task(found) for found in session.execute(query.order_by(TriggerRow.position))]


def find_task(session: Session, model: str, name: str, *, revision: int | None = None) -> TaskRecord:
    """A task as the head, or a given revision, serves it.

    Raises:
        NoSuchRowError: no such model, or the revision does not serve such a task.
    """
    head = find_model(session, model).head_revision
    number = head if revision is None else revision
    query = _served().where(TriggerRow.model == model, TriggerRow.revision == number, TaskRow.name == name)
    found = session.execute(query).one_or_none()
    if found is None:
        where = "has no revision yet" if number is None else f"serves no task {name!r} in revision {number}"
        raise NoSuchRowError(f"model {model!r} {where}: `condu task list {model}` shows what it serves")
    return _to_task(found)


def list_triggers(session: Session, model: str, name: str) -> list[TriggerRecord]:
    """What a task was in each revision that served it, oldest first: how its fidelity went."""
    query = _served().where(TriggerRow.model == model, TaskRow.name == name).order_by(TriggerRow.revision)
    return [_to_task(found).trigger for found in session.execute(query)]


def check_task_free(session: Session, model: str, name: str) -> None:
    """Nothing, when the model could learn a task of that name now.

    Raises:
        NoSuchRowError: there is no such model.
        InvalidNameError: a task may not be called that.
        AlreadyExistsError: the head serves such a task.
        StillInUseError: an unfinished job is learning it.
    """
    check_name(name, "task")
    if name in task_names(head_tasks(session, model)):
        raise AlreadyExistsError(
            f"model {model!r} serves a task {name!r} already: choose another name, or remove it first"
        )
    learning = session.scalars(
        select(JobRow.job_id).where(
            JobRow.model == model, JobRow.task == name, JobRow.state.in_(("queued", "running"))
        )
    ).first()
    if learning is not None:
        raise StillInUseError(
            f"job {learning} is learning task {name!r} of model {model!r}: cancel it or wait for it first"
        )


def task_names(records: Sequence[TaskRecord]) -> list[str]:
    """The names of tasks, in their order."""
    return [record.name for record in records]


def _served() -> Select[TaskRow, TriggerRow, PrototypeRow]:
    return (
        select(TaskRow, TriggerRow, PrototypeRow)
        .join(TriggerRow, TriggerRow.task_key == TaskRow.task_key)
        .join(PrototypeRow, PrototypeRow.task_key == TaskRow.task_key)
    )


def _to_task(found: Served) -> TaskRecord:
    task, trigger, prototypes = found
    extra = {
        "trigger": to_record(TriggerRecord, trigger, {"task": task.name}),
        "prototypes": prototypes.digest,
        "prototypes_bytes": prototypes.size_bytes,
    }
    return to_record(TaskRecord, task, extra)

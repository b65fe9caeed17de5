"""Revisions: the immutable states of a model, and its head, which only moves by compare and swap."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from catalog.actors import Actor, act, tell
from catalog.attempts import fence_job, published_revision
from catalog.blobs import NewBlob, record_blobs
from catalog.changes import count_changes
from catalog.doomed import refuse_doomed
from catalog.errors import AlreadyExistsError, NoSuchRowError, RollbackError, StaleHeadError
from catalog.models import find_model
from catalog.names import check_name
from catalog.records import to_record
from catalog.tables import JobRow, ModelRow, PrototypeRow, RevisionRow, TaskRow, TriggerRow


@dataclass(frozen=True)
class RevisionRecord:
    """The state of a model after a fusion or removal; `expired_at` says since when its bytes may be gone."""

    model: str
    number: int
    parent: int | None
    manifest: str
    job_id: str | None
    cause: str
    created_at: datetime
    expired_at: datetime | None


@dataclass(frozen=True, kw_only=True)
class NewTask:
    """What is known of a task just learned; accuracies in percent, None where nothing was held out."""

    name: str
    classes: tuple[str, ...]
    templates: tuple[str, ...]
    l1_norm: float
    prototypes: str
    prototypes_bytes: int
    num_train: int = 0
    num_test: int = 0
    images_skipped: int = 0
    accuracy_individual: float | None = None
    accuracy_expert: float | None = None
    accuracy_base: float | None = None
    dataset: str | None = None
    checkpoint: str | None = None
    training: dict[str, Any] | None = None


@dataclass(frozen=True, kw_only=True)
class NewTrigger:
    """What a task is in the new revision; the last three as `catalog.tasks.TriggerRecord` has them."""

    task: str
    mask: str
    size_bytes: int
    rescaler: float
    density: float
    bits_cleared: int
    relative_l2: float
    cosine: float
    reference: str
    accuracy: float | None = None
    routing: dict[str, Any] | None = None
    unmeasured: str | None = None


def publish_revision(
    session: Session,
    *,
    model: str,
    parent: int | None,
    manifest: str,
    cause: str,
    triggers: Sequence[NewTrigger],
    blobs: Sequence[NewBlob] = (),
    task: NewTask | None = None,
    job_id: str | None = None,
    attempt: int | None = None,
) -> int:
    """The number of the new revision, which is the model's head as soon as the transaction commits.

    A job publishes once: asked again, by a later attempt, this returns the number it published then.

    Args:
        session: everything below happens in its transaction, or nothing does.
        model: whose revision it is.
        parent: the head that the work began on, None for a model without revisions.
        manifest: digest of the manifest's blob.
        cause: train, import or remove; a revision that came in a bundle is adopted instead.
        triggers: of ALL tasks that the revision serves, in order.
        blobs: what was stored for it, for statistics.
        task: the task that was learned; without one, the triggers must be some of the parent's.
        job_id: the job that publishes, None for a removal.
        attempt: the attempt of the job that publishes.

    Raises:
        StaleAttemptError: another attempt owns the job.
        StaleHeadError: the head is not `parent` any more.
        SweptMeanwhileError: a sweep removed a blob of it since it was written.
        AlreadyExistsError: the parent serves a task of that name already.
    """
    if job_id is not None:
        fence_job(session, job_id, attempt=attempt)
        published = published_revision(session, job_id)
        if published is not None:
            return published
        _act_for_job(session, job_id)
    _hold_head(session, model, parent)
    refuse_doomed(session, [manifest])
    task_keys = _check_triggers(session, model, parent=parent, triggers=triggers, task=task)
    number = _next_number(session, model)
    session.add(
        RevisionRow(model=model, number=number, parent=parent, manifest=manifest, job_id=job_id, cause=cause)
    )
    session.flush()
    if task is not None:
        task_keys[task.name] = _add_task(session, model, revision=number, task=task)
    _add_triggers(session, model, revision=number, triggers=triggers, task_keys=task_keys)
    record_blobs(session, blobs)
    session.execute(update(ModelRow).where(ModelRow.name == model).values(head_revision=number))
    tell(session, revision=number, cause=cause)
    return number


def adopt_revision(
    session: Session,
    *,
    model: str,
    manifest: str,
    learned: Sequence[tuple[NewTask, NewTrigger]],
    blobs: Sequence[NewBlob] = (),
) -> int:
    """The number of the first revision of a model that learned elsewhere; it is the head, its cause `bundle`.

    Args:
        session: everything below happens in its transaction, or nothing does.
        model: a model without revisions.
        manifest: digest of the manifest's blob.
        learned: the tasks of the revision in order, each with what it is in it.
        blobs: what was stored for it, for statistics.

    Raises:
        StaleHeadError: the model has a revision already.
        InvalidNameError: a task may not be called that.
    """
    _hold_head(session, model, None)
    refuse_doomed(session, [manifest])
    number = _next_number(session, model)
    session.add(RevisionRow(model=model, number=number, parent=None, manifest=manifest, cause="bundle"))
    session.flush()
    keys = {
        check_name(task.name, "task"): _add_task(session, model, revision=number, task=task)
        for task, _ in learned
    }
    triggers = [trigger for _, trigger in learned]
    _add_triggers(session, model, revision=number, triggers=triggers, task_keys=keys)
    record_blobs(session, blobs)
    session.execute(update(ModelRow).where(ModelRow.name == model).values(head_revision=number))
    return number


def find_revision(session: Session, model: str, number: int | None = None) -> RevisionRecord:
    """A revision of the model, by default its head; an expired one cannot be read any more.

    Raises:
        NoSuchRowError: no such model or revision, no revision yet, or it expired.
    """
    head = find_model(session, model).head_revision
    wanted = head if number is None else number
    if wanted is None:
        raise NoSuchRowError(f"model {model!r} has no revision yet: let it learn a task first")
    row = session.get(RevisionRow, (model, wanted), populate_existing=True)
    if row is None:
        raise NoSuchRowError(f"model {model!r} has no revision {wanted}: its head is {head}")
    if row.expired_at is not None:
        raise NoSuchRowError(
            f"revision {wanted} of model {model!r} expired on {row.expired_at:%Y-%m-%d}, and was swept: "
            f"use its head, {head}, and sweep with a larger keep_revisions to keep more"
        )
    return to_record(RevisionRecord, row)


def list_revisions(session: Session, model: str) -> list[RevisionRecord]:
    """All revisions of the model, newest first, expired ones too.

    Raises:
        NoSuchRowError: there is no such model.
    """
    find_model(session, model)
    query = select(RevisionRow).where(RevisionRow.model == model).order_by(RevisionRow.number.desc())
    return [to_record(RevisionRecord, row) for row in session.scalars(query)]


def rollback_head(session: Session, model: str, to: int | None = None) -> RevisionRecord:
    """The revision that is the head now: `to`, which may also lie ahead, or the parent of the head so far.

    Tasks that the new head does not serve are served no more and may be learned again under their names.

    Raises:
        NoSuchRowError: no such model, or no such revision.
        RollbackError: past the first revision, or to one that expired.
    """
    head = find_model(session, model).head_revision
    if head is None:
        raise RollbackError(f"model {model!r} has no revision yet, so there is nothing to roll back")
    if to is None:
        to = session.get_one(RevisionRow, (model, head)).parent
        if to is None:
            raise RollbackError(
                f"revision {head} is the first of model {model!r}, there is none before it: "
                "remove the task, or delete the model"
            )
    row = session.get(RevisionRow, (model, to), populate_existing=True)
    if row is None:
        raise NoSuchRowError(f"model {model!r} has no revision {to}: its head is {head}")
    if row.expired_at is not None:
        raise RollbackError(
            f"revision {to} of model {model!r} expired on {row.expired_at:%Y-%m-%d}, its bytes were swept: "
            "sweep with a larger keep_revisions to be able to go back further"
        )
    session.execute(update(ModelRow).where(ModelRow.name == model).values(head_revision=to))
    tell(session, revision=to, previous=head)
    return to_record(RevisionRecord, row)


def _act_for_job(session: Session, job_id: str) -> None:
    """What the job writes belongs to the key that submitted it, and the audit log names its request."""
    job = session.get_one(JobRow, job_id, populate_existing=True)
    act(
        session,
        Actor(
            who=f"worker {job.worker}",
            action="publish a revision",
            key_id=job.key_id,
            subject=f"/v1/models/{job.model}",
            request_id=job.request_id,
            facts={"job": job_id},
            has_quota=False,
        ),
    )


def _hold_head(session: Session, model: str, parent: int | None) -> None:
    # An update, not a select: it also holds the row against other publishers on databases that lock rows.
    unmoved = update(ModelRow).where(
        ModelRow.name == model, ModelRow.head_revision.is_not_distinct_from(parent)
    )
    if count_changes(session, unmoved.values(head_revision=parent)) != 1:
        head = find_model(session, model).head_revision
        raise StaleHeadError(
            f"the head of model {model!r} is revision {head or 'none'}, but the work began on "
            f"{parent or 'none'}: do it again on the new head"
        )


def _next_number(session: Session, model: str) -> int:
    # Rows of revisions are never deleted, so a number is never used again, also after a rollback.
    newest = session.scalar(select(func.max(RevisionRow.number)).where(RevisionRow.model == model))
    return (newest or 0) + 1


def _check_triggers(
    session: Session, model: str, *, parent: int | None, triggers: Sequence[NewTrigger], task: NewTask | None
) -> dict[str, int]:
    """The keys of the parent's tasks by name."""
    served = session.execute(
        select(TaskRow.name, TaskRow.task_key)
        .join(TriggerRow, TriggerRow.task_key == TaskRow.task_key)
        .where(TriggerRow.model == model, TriggerRow.revision == parent)
    )
    keys = {name: key for name, key in served}  # noqa: C416 - dict() takes no rows
    names = [trigger.task for trigger in triggers]
    expected = set(keys)
    if task is not None:
        check_name(task.name, "task")
        if task.name in keys:
            raise AlreadyExistsError(
                f"model {model!r} serves a task {task.name!r} already: choose another name"
            )
        expected.add(task.name)
    if len(set(names)) != len(names) or not set(names) <= expected or (task and set(names) != expected):
        raise ValueError(f"triggers are for the tasks {names}, the revision would serve {sorted(expected)}")
    return keys


def _add_task(session: Session, model: str, *, revision: int, task: NewTask) -> int:
    row = TaskRow(
        model=model,
        name=task.name,
        revision_learned=revision,
        classes=list(task.classes),
        templates=list(task.templates),
        l1_norm=task.l1_norm,
        num_train=task.num_train,
        num_test=task.num_test,
        images_skipped=task.images_skipped,
        accuracy_individual=task.accuracy_individual,
        accuracy_expert=task.accuracy_expert,
        accuracy_base=task.accuracy_base,
        dataset=task.dataset,
        checkpoint=task.checkpoint,
        training=task.training,
    )
    session.add(row)
    session.flush()
    session.add(PrototypeRow(task_key=row.task_key, digest=task.prototypes, size_bytes=task.prototypes_bytes))
    return row.task_key


def _add_triggers(
    session: Session,
    model: str,
    *,
    revision: int,
    triggers: Sequence[NewTrigger],
    task_keys: dict[str, int],
) -> None:
    for position, trigger in enumerate(triggers):
        session.add(
            TriggerRow(
                model=model,
                revision=revision,
                task_key=task_keys[trigger.task],
                position=position,
                mask=trigger.mask,
                size_bytes=trigger.size_bytes,
                rescaler=trigger.rescaler,
                density=trigger.density,
                bits_cleared=trigger.bits_cleared,
                relative_l2=trigger.relative_l2,
                cosine=trigger.cosine,
                reference=trigger.reference,
                accuracy=trigger.accuracy,
                routing=trigger.routing,
                unmeasured=trigger.unmeasured,
            )
        )
    session.flush()

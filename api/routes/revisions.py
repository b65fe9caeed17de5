"""Revisions: what a model was after each fusion, and which of them is its head."""

from typing import Annotated

from fastapi import APIRouter, Body

from api.dependencies import Installed, ModelName
from api.documentation import problems
from api.schemas.models import RevisionAnswer, RevisionList, RollbackAnswer, RollbackBody, TriggerAnswer
from catalog.errors import NoSuchRowError, RollbackError
from catalog.models import find_model
from catalog.revisions import RevisionRecord, list_revisions, rollback_head
from catalog.tasks import TaskRecord, revision_tasks, task_names

router = APIRouter(prefix="/models/{model}", tags=["revisions"])


@router.get("/revisions", summary="List a model's revisions", responses=problems(NoSuchRowError))
def get_revisions(model: ModelName, services: Installed) -> RevisionList:
    """Every revision, the newest first, with what each task was in it: rescaler, fidelity, accuracy."""
    with services.catalog.snapshot() as session:
        head = find_model(session, model).head_revision
        revisions = [
            revision_answer(record, revision_tasks(session, model, record.number), head=head)
            for record in list_revisions(session, model)
        ]
    return RevisionList(model=model, head_revision=head, revisions=revisions)


@router.post("/rollback", summary="Move a model's head", responses=problems(NoSuchRowError, RollbackError))
def post_rollback(
    model: ModelName, services: Installed, body: Annotated[RollbackBody | None, Body()] = None
) -> RollbackAnswer:
    """Serve another revision from now on: the head's parent, or the one that is named.

    Nothing is lost by it: the revisions after it stay until a sweep, and a roll back may go forward to them
    again. Tasks that the new head does not hold may be learned anew.
    """
    wanted = body.revision if body else None
    with services.catalog.transaction() as session:
        previous = find_model(session, model).head_revision
        head = rollback_head(session, model, to=wanted)
        tasks = task_names(revision_tasks(session, model, head.number))
    return RollbackAnswer(model=model, head_revision=head.number, previous_revision=previous, tasks=tasks)


def revision_answer(record: RevisionRecord, tasks: list[TaskRecord], *, head: int | None) -> RevisionAnswer:
    """The record as the api shows it."""
    return RevisionAnswer(
        number=record.number,
        parent=record.parent,
        is_head=record.number == head,
        cause=record.cause,
        job=record.job_id,
        manifest=record.manifest,
        created_at=record.created_at,
        expired_at=record.expired_at,
        tasks=[trigger_answer(task) for task in tasks],
    )


def trigger_answer(task: TaskRecord) -> TriggerAnswer:
    """What the task is in the revision it was read from."""
    trigger = task.trigger
    return TriggerAnswer(
        task=task.name,
        rescaler=trigger.rescaler,
        density=trigger.density,
        bits_cleared=trigger.bits_cleared,
        trigger_bytes=trigger.size_bytes,
        accuracy=trigger.accuracy,
        relative_l2=trigger.relative_l2,
        cosine=trigger.cosine,
        reference=trigger.reference,
    )

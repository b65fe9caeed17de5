"""Takes a task out of a model: a new revision that serves all others."""

from dataclasses import dataclass

from api.dependencies import Services
from catalog.blobs import NewBlob
from catalog.errors import StaleHeadError
from catalog.revisions import NewTrigger, publish_revision
from catalog.tasks import TaskRecord, revision_tasks
from serving.pinning import PinnedRevision

MAX_TRIES = 5
"""A head that moved five times in a row within milliseconds is not to be expected: fusions take seconds."""


@dataclass(frozen=True)
class Removed:
    """The new head, and the tasks it serves."""

    revision: int
    tasks: tuple[str, ...]


def remove_task(services: Services, model: str, task: str) -> Removed:
    """Publish a revision without the task, on whatever the head is by then.

    Raises:
        NoSuchRowError: There is no such model.
        UnknownTaskError: The head has no such task.
        StaleHeadError: The head kept moving.
    """
    for _ in range(MAX_TRIES - 1):
        try:
            return publish_without(services, services.heads.pin(model), task)
        except StaleHeadError:
            continue
    return publish_without(services, services.heads.pin(model), task)


def publish_without(services: Services, pinned: PinnedRevision, task: str) -> Removed:
    """Publish the pinned revision without the task; StaleHeadError when it is the head no more."""
    pinned.require_task(task)
    assert pinned.revision is not None  # noqa: S101 - a model without a revision has no task
    digest, manifest = services.store.drop_task(pinned.revision.manifest, task)
    with services.catalog.transaction() as session:
        kept = [
            record
            for record in revision_tasks(session, pinned.model.name, pinned.revision.number)
            if record.name != task
        ]
        number = publish_revision(
            session,
            model=pinned.model.name,
            parent=pinned.revision.number,
            manifest=digest,
            cause="remove",
            triggers=[_unchanged(record) for record in kept],
            blobs=[NewBlob(digest, services.store.blobs.size_bytes(digest), "manifest")],
        )
    return Removed(number, tuple(entry.name for entry in manifest.tasks))


def _unchanged(record: TaskRecord) -> NewTrigger:
    """The task's trigger as it was; a removal clears no bits, and its expert stays as good as it was."""
    trigger = record.trigger
    return NewTrigger(
        task=record.name,
        mask=trigger.mask,
        size_bytes=trigger.size_bytes,
        rescaler=trigger.rescaler,
        density=trigger.density,
        bits_cleared=0,
        relative_l2=trigger.relative_l2,
        cosine=trigger.cosine,
        reference=trigger.reference,
        accuracy=trigger.accuracy,
        unmeasured=trigger.unmeasured,
    )

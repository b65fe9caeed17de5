"""What the tasks of a revision are to one another, from their masks and from what workers measured."""

from api.dependencies import Services
from api.schemas.relations import (
    OverlapAnswer,
    OverlapWith,
    RouteShareAnswer,
    RoutingAnswer,
    RoutingRow,
    TaskPage,
    TaskRouting,
)
from api.task_answers import NOT_MEASURED, ServedTask, find_served, served_tasks, task_answer
from serving.pinning import PinnedRevision
from store.overlap import MaskOverlap
from vlm.routing_summary import RoutedPictures, confusion


def task_page(services: Services, model: str, task: str) -> TaskPage:
    """All that is known of a task of the head; UnknownTaskError when the head does not serve it."""
    pinned = services.heads.pin(model)
    found = find_served(services, pinned, task)
    overlap = _overlap_of(services, pinned)
    measured = _newest_routing(found)
    return TaskPage(
        **dict(task_answer(pinned, found)),
        overlap=[_overlap_with(overlap, task, other) for other in overlap.tasks if other != task],
        routing=None if measured is None else _task_routing(*measured),
        unrouted=_why_unrouted(found) if measured is None else None,
    )


def overlap_answer(services: Services, model: str, number: int | None) -> OverlapAnswer:
    """The overlap of every two tasks of a revision."""
    pinned = services.heads.pin(model, number)
    overlap = _overlap_of(services, pinned)
    tasks = overlap.tasks
    return OverlapAnswer(
        model=model,
        revision=pinned.number,
        tasks=list(tasks),
        jaccard=[[overlap.jaccard(row, column) for column in tasks] for row in tasks],
        share=[[overlap.share(row, column) for column in tasks] for row in tasks],
    )


def routing_answer(services: Services, model: str, number: int | None) -> RoutingAnswer:
    """Where the held-out images of a revision's tasks go, each row the newest that was measured up to it."""
    pinned = services.heads.pin(model, number)
    served = served_tasks(services, pinned)
    newest = [_newest_routing(each) for each in served]
    rows = {each.record.name: found and found[1] for each, found in zip(served, newest, strict=True)}
    matrix = confusion(rows, columns=pinned.task_names)
    return RoutingAnswer(
        model=model,
        revision=pinned.number,
        columns=[None, *pinned.task_names],
        rows=[
            RoutingRow(
                task=each.record.name,
                revision=None if found is None else found[0],
                images=matrix.num_images[at],
                chosen_first=_listed(matrix.chosen_first[at]),
                chosen=_listed(matrix.chosen[at]),
                weight=_listed(matrix.weight[at]),
                unrouted=_why_unrouted(each) if found is None else None,
            )
            for at, (each, found) in enumerate(zip(served, newest, strict=True))
        ],
    )


def _overlap_of(services: Services, pinned: PinnedRevision) -> MaskOverlap:
    return MaskOverlap((), ()) if pinned.revision is None else services.overlaps.of(pinned.revision.manifest)


def _overlap_with(overlap: MaskOverlap, task: str, other: str) -> OverlapWith:
    return OverlapWith(task=other, jaccard=overlap.jaccard(task, other), share=overlap.share(task, other))


def _newest_routing(task: ServedTask) -> tuple[int, RoutedPictures] | None:
    """The number of the revision in which its images were last routed, and where they went."""
    for trigger in reversed(task.history):
        if trigger.routing is not None:
            return trigger.revision, RoutedPictures.from_dict(trigger.routing)
    return None


def _task_routing(number: int, routed: RoutedPictures) -> TaskRouting:
    shares = [RouteShareAnswer.model_validate(share, from_attributes=True) for share in routed.shares]
    return TaskRouting(revision=number, images=routed.num_images, shares=shares)


def _why_unrouted(task: ServedTask) -> str:
    return task.record.trigger.unmeasured or NOT_MEASURED


def _listed(row: tuple[float, ...] | None) -> list[float] | None:
    return None if row is None else list(row)

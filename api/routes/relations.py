"""Relations: the parameters that tasks share, and whose experts answer for whose images."""

from fastapi import APIRouter

from api.dependencies import Installed, ModelName, RevisionNumber
from api.documentation import problems
from api.schemas.relations import OverlapAnswer, RoutingAnswer
from api.task_relations import overlap_answer, routing_answer
from catalog.errors import NoSuchRowError
from store.errors import CorruptBlobError

router = APIRouter(prefix="/models/{model}", tags=["tasks"])


@router.get(
    "/overlap",
    summary="Show which parameters tasks share",
    responses=problems(NoSuchRowError, CorruptBlobError),
)
def get_overlap(model: ModelName, services: Installed, revision: RevisionNumber = None) -> OverlapAnswer:
    """Hold the masks of a revision's tasks against each other, bit by bit; remembered once it was done."""
    return overlap_answer(services, model, revision)


@router.get("/routing", summary="Show where tasks' images are routed", responses=problems(NoSuchRowError))
def get_routing(model: ModelName, services: Installed, revision: RevisionNumber = None) -> RoutingAnswer:
    """Of each task's held-out images, which experts answer for them when no task is named, and how often.

    Measured by the worker: of a new task at its own step, of earlier ones at every fusion where their images
    were kept. Each row says in which revision it was measured.
    """
    return routing_answer(services, model, revision)

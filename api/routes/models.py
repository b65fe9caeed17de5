"""Models: create, list, show, remove."""

from fastapi import APIRouter, Response

from api.dependencies import Installed, ModelName, Services
from api.documentation import problems
from api.pinning import PinnedRevision, pin_revision
from api.schemas.models import CreateModelBody, ModelAnswer, ModelList, RemovedAnswer, StorageAnswer
from catalog.errors import AlreadyExistsError, InvalidNameError, NoSuchRowError, StillInUseError
from catalog.models import create_model, delete_model, list_models

router = APIRouter(prefix="/models", tags=["models"])


@router.post(
    "",
    summary="Create a model",
    status_code=201,
    responses=problems(InvalidNameError, AlreadyExistsError, NoSuchRowError),
)
def post_model(body: CreateModelBody, response: Response, services: Installed) -> ModelAnswer:
    """Make a model on a base; it has learned nothing yet and answers as the base does."""
    with services.catalog.transaction() as session:
        create_model(
            session,
            name=body.name,
            base=body.base,
            tuning=body.tuning,
            rescaler_norm=body.rescaler_norm,
            unified_dtype=body.unified_dtype,
        )
    response.headers["Location"] = f"/v1/models/{body.name}"
    return model_answer(services, pin_revision(services, body.name))


@router.get("", summary="List the models", responses=problems())
def get_models(services: Installed) -> ModelList:
    """All models, by name, each as its head has it."""
    with services.catalog.snapshot() as session:
        names = [model.name for model in list_models(session)]
    return ModelList(models=[model_answer(services, pin_revision(services, name)) for name in names])


@router.get("/{model}", summary="Show a model", responses=problems(NoSuchRowError))
def get_model(model: ModelName, services: Installed) -> ModelAnswer:
    """One model: its head, its tasks, and what it takes on disk."""
    return model_answer(services, pin_revision(services, model))


@router.delete("/{model}", summary="Remove a model", responses=problems(NoSuchRowError, StillInUseError))
def remove_model(model: ModelName, services: Installed) -> RemovedAnswer:
    """Forget a model that no unfinished job works on, with its revisions and tasks; its jobs stay listed."""
    with services.catalog.transaction() as session:
        delete_model(session, model)
    return RemovedAnswer(removed=model, detail="its blobs stay on disk until the next sweep")


def model_answer(services: Services, pinned: PinnedRevision) -> ModelAnswer:
    """The model as the api shows it."""
    return ModelAnswer(
        name=pinned.model.name,
        base=pinned.model.base,
        tuning=pinned.model.tuning,
        fusion=pinned.model.fusion,
        rescaler_norm=pinned.model.rescaler_norm,
        unified_dtype=pinned.model.unified_dtype,
        head_revision=pinned.number,
        tasks=list(pinned.task_names),
        storage=storage_of(services, pinned),
        created_at=pinned.model.created_at,
    )


def storage_of(services: Services, pinned: PinnedRevision) -> StorageAnswer:
    """The bytes of the revision on disk, as the store counts them."""
    checkpoint_bytes = pinned.base.size_bytes
    if pinned.manifest is None or pinned.revision is None:
        return StorageAnswer(
            base_bytes=checkpoint_bytes,
            unified_bytes=0,
            trigger_bytes={},
            prototype_bytes=0,
            buffer_bytes=0,
            marginal_bytes_per_task=0,
            full_checkpoint_bytes=checkpoint_bytes,
            total_bytes=checkpoint_bytes,
        )
    sizes = services.store.sizes(pinned.manifest)
    owned = sum(sum(by_task.values()) for by_task in (sizes.triggers, sizes.prototypes, sizes.buffers))
    return StorageAnswer(
        base_bytes=sizes.base,
        unified_bytes=sizes.unified,
        trigger_bytes=sizes.triggers,
        prototype_bytes=sum(sizes.prototypes.values()),
        buffer_bytes=sum(sizes.buffers.values()),
        marginal_bytes_per_task=round(owned / max(len(pinned.manifest.tasks), 1)),
        full_checkpoint_bytes=checkpoint_bytes,
        total_bytes=sizes.total + services.store.blobs.size_bytes(pinned.revision.manifest),
    )

"""Models: create, list, show, remove."""

from collections.abc import Generator

from fastapi import APIRouter, Request, Response

from api.dependencies import Installed, ModelName, Services
from api.documentation import binary, problems
from api.downloads import Content, content_response, unchanged_response
from api.refusals import UnusableRangeError
from api.schemas.models import CreateModelBody, ModelAnswer, ModelList, RemovedAnswer, StorageAnswer
from catalog.bases import find_base
from catalog.blobs import NewBlob, record_blobs
from catalog.errors import AlreadyExistsError, InvalidNameError, NoSuchRowError, StillInUseError
from catalog.models import NewAdapter, check_model_free, create_model, delete_model, find_model, list_models
from serving.pinning import PinnedRevision, base_manifest, base_ref
from store.errors import BlobsUnavailableError
from vlm.adapters import make_adapter_base
from vlm.errors import UnknownArchitectureError

router = APIRouter(prefix="/models", tags=["models"])
MEDIA_TYPE = "application/octet-stream"
PIECE_BYTES = 2**20


@router.post(
    "",
    summary="Create a model",
    status_code=201,
    responses=problems(
        InvalidNameError, AlreadyExistsError, NoSuchRowError, UnknownArchitectureError, BlobsUnavailableError
    ),
)
def post_model(body: CreateModelBody, response: Response, services: Installed) -> ModelAnswer:
    """Make a model on a base; it has learned nothing yet and answers as the base does.

    With `tuning` lora, what all its adapters start from is drawn and stored now: the same base, rank and seed
    give the same bytes.
    """
    services.caller.require_model(body.name)
    adapter, blobs = _adapter(services, body)
    with services.catalog.transaction() as session:
        record_blobs(session, blobs)
        create_model(
            session,
            name=body.name,
            base=body.base,
            adapter=adapter,
            rescaler_norm=body.rescaler_norm,
            unified_dtype=body.unified_dtype,
        )
    response.headers["Location"] = f"/v1/models/{body.name}"
    return model_answer(services, services.heads.pin(body.name))


@router.get("", summary="List the models", responses=problems())
def get_models(services: Installed) -> ModelList:
    """All models, by name, each as its head has it."""
    with services.catalog.snapshot() as session:
        names = [model.name for model in list_models(session) if services.caller.may_touch(model.name)]
    return ModelList(models=[model_answer(services, services.heads.pin(name)) for name in names])


@router.get("/{model}", summary="Show a model", responses=problems(NoSuchRowError))
def get_model(model: ModelName, services: Installed) -> ModelAnswer:
    """One model: its head, its tasks, and what it takes on disk."""
    return model_answer(services, services.heads.pin(model))


@router.get(
    "/{model}/adapter",
    summary="Download what a model's adapters start from",
    response_class=Response,
    responses={
        **problems(NoSuchRowError, UnusableRangeError),
        200: binary(MEDIA_TYPE, "The whole file; ETag is the digest of its bytes."),
        206: binary(MEDIA_TYPE, "The part that Range asked for."),
        304: {"description": "The client has this very file already (If-None-Match)."},
    },
)
def get_adapter(model: ModelName, request: Request, services: Installed) -> Response:
    """The frozen initialisation of a model with `tuning` lora, as safetensors.

    An adapter that is trained elsewhere must start from these values, so that its delta is what it learned.
    Each layer has a factor `lora_A.weight` [r, in], drawn, and a factor `lora_B.weight` [out, r] of zeros;
    its weight W becomes W + B A / sqrt(r). HEAD answers the same headers without the file.
    """
    with services.catalog.snapshot() as session:
        adapter = find_model(session, model).adapter
    if adapter is None:
        raise NoSuchRowError(
            f"model {model!r} has no adapters, it is tuned in full: download its base, or make a model with "
            "tuning lora"
        )
    manifest, blobs = base_manifest(services.store, adapter), services.store.blobs
    headers = {"Condu-Base": adapter}
    unchanged = unchanged_response(request, manifest.weights, headers)
    if unchanged is not None:
        return unchanged

    def read(start: int, stop: int) -> Generator[memoryview]:
        for position in range(start, stop, PIECE_BYTES):
            yield blobs.read(manifest.weights, position, min(PIECE_BYTES, stop - position))

    content = Content(
        size_bytes=manifest.size_bytes,
        digest=manifest.weights,
        read=read,
        filename=f"{model}-adapter.safetensors",
        headers=headers,
    )
    return content_response(request, content)


router.add_api_route(
    "/{model}/adapter", get_adapter, methods=["HEAD"], response_class=Response, include_in_schema=False
)


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
        adapter=pinned.model.adapter,
        lora_rank=pinned.model.lora_rank,
        lora_seed=pinned.model.lora_seed,
        fusion=pinned.model.fusion,
        rescaler_norm=pinned.model.rescaler_norm,
        unified_dtype=pinned.model.unified_dtype,
        head_revision=pinned.number,
        tasks=list(pinned.task_names),
        storage=storage_of(services, pinned),
        created_at=pinned.model.created_at,
    )


def _adapter(services: Services, body: CreateModelBody) -> tuple[NewAdapter | None, list[NewBlob]]:
    """What the model's adapters start from, now stored, and its blobs; nothing where it is tuned in full."""
    if body.tuning == "full":
        return None, []
    with services.catalog.snapshot() as session:
        check_model_free(session, body.name)
        base = base_ref(find_base(session, body.base))
    made = make_adapter_base(services.store, base, rank=body.rank, seed=body.seed)
    manifest = base_manifest(services.store, made.digest)
    blobs = [NewBlob(manifest.weights, manifest.size_bytes, "adapter")]
    return NewAdapter(made.digest, made.rank, made.seed), blobs


def storage_of(services: Services, pinned: PinnedRevision) -> StorageAnswer:
    """The bytes of the revision on disk, as the store counts them."""
    base_bytes = pinned.base.size_bytes
    adapter = pinned.model.adapter
    adapter_bytes = 0 if adapter is None else base_manifest(services.store, adapter).size_bytes
    fine_tuned_bytes = adapter_bytes or base_bytes
    if pinned.manifest is None or pinned.revision is None:
        return StorageAnswer(
            base_bytes=base_bytes,
            adapter_bytes=adapter_bytes,
            unified_bytes=0,
            trigger_bytes={},
            prototype_bytes=0,
            buffer_bytes=0,
            marginal_bytes_per_task=0,
            full_checkpoint_bytes=fine_tuned_bytes,
            total_bytes=base_bytes + adapter_bytes,
        )
    sizes = services.store.sizes(pinned.manifest)
    owned = sum(sum(by_task.values()) for by_task in (sizes.triggers, sizes.prototypes, sizes.buffers))
    return StorageAnswer(
        base_bytes=sizes.base,
        adapter_bytes=sizes.extension,
        unified_bytes=sizes.unified,
        trigger_bytes=sizes.triggers,
        prototype_bytes=sum(sizes.prototypes.values()),
        buffer_bytes=sum(sizes.buffers.values()),
        marginal_bytes_per_task=round(owned / max(len(pinned.manifest.tasks), 1)),
        full_checkpoint_bytes=fine_tuned_bytes,
        total_bytes=sizes.total + services.store.blobs.size_bytes(pinned.revision.manifest),
    )

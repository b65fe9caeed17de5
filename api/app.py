"""The composition root of the api: puts the parts together and mounts the routes."""

import asyncio
import os
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from importlib.metadata import version
from typing import Any

import torch
from anyio import to_thread
from fastapi import APIRouter, FastAPI

from api.access import AccessMiddleware
from api.dependencies import Services
from api.documentation import with_access, with_problem_schema
from api.fetching import Fetcher
from api.gate import Gate, check_guarded
from api.middleware import (
    BodyLimitMiddleware,
    LocalCallersMiddleware,
    RequestContextMiddleware,
    loopback_names,
)
from api.problems import answer_with_problems
from api.routes import (
    access,
    bases,
    bundles,
    classify,
    datasets,
    experts,
    health,
    jobs,
    maintenance,
    metrics,
    models,
    problem_kinds,
    relations,
    revisions,
    stats,
    tasks,
)
from api.uploads import UploadRoom
from catalog import Catalog, Settings, upgrade
from catalog.blobs import blob_bytes
from catalog.dbos_queue import DbosQueue
from catalog.errors import CatalogUnavailableError
from catalog.models import list_models
from catalog.tasks import head_tasks
from serving.engine import Engine, EngineLimits
from serving.metrics import Gauges, ServingMetrics
from serving.opening import open_predictor
from serving.pinning import Heads
from serving.residents import Residents
from store.blobs import open_blobs
from store.checkpoints import CheckpointStore
from store.overlap import MaskOverlaps

JSON_LIMIT_BYTES = 2**20
"""Bound of every body that no route takes as an upload: names, options, at most some hundred templates."""
CLOSE_TIMEOUT_S = 20.0
"""How long a stopping service goes on computing what it accepted."""
KEEP_FREE_BYTES = 256 * 2**20
"""Room that uploads leave on the disk, so that the catalog can still commit and jobs can still write."""

ROUTES = (
    bases,
    models,
    bundles,
    revisions,
    datasets,
    tasks,
    relations,
    experts,
    classify,
    jobs,
    maintenance,
    health,
    stats,
    access,
)

DESCRIPTION = """
Teaches a CLIP-like model task after task without forgetting: one base, one unified delta, one bit per
parameter and task.

Names are lower case. Errors are `application/problem+json` (RFC 9457); their `type` is stable, and a GET
of it explains it.
"""


class ConduApi(FastAPI):
    """The app, whose OpenAPI document also has the schema that all problems share."""

    def openapi(self) -> dict[str, Any]:
        """The OpenAPI document."""
        return with_access(with_problem_schema(super().openapi()))


def create_app(settings: Settings) -> FastAPI:
    """The app for one installation; its parts are opened when it starts and closed when it stops."""
    app = ConduApi(
        title="condu",
        version=version("condu"),
        summary="A storage-efficient store for fine-tuned vision-language models.",
        description=DESCRIPTION,
        lifespan=partial(lifespan, settings=settings),
        docs_url=None,  # both pages would load scripts from other hosts
        redoc_url=None,
        separate_input_output_schemas=False,
    )
    versioned = APIRouter(prefix="/v1")
    for module in ROUTES:
        versioned.include_router(module.router)
    app.include_router(versioned)
    app.include_router(problem_kinds.router)
    app.include_router(metrics.router)
    answer_with_problems(app)
    # The last one added is the outermost.
    app.add_middleware(BodyLimitMiddleware, default_limit_bytes=JSON_LIMIT_BYTES)
    app.add_middleware(AccessMiddleware)
    # With keys, a proxy on the same machine may pass on whatever name it was called by.
    names = frozenset[str]() if settings.require_keys else loopback_names(settings.host)
    app.add_middleware(LocalCallersMiddleware, allowed_hosts=names)
    app.add_middleware(RequestContextMiddleware)
    app.state.stopping = asyncio.Event()
    return app


@asynccontextmanager
async def lifespan(app: FastAPI, *, settings: Settings) -> AsyncIterator[None]:
    """Opens the parts, and closes them in reverse, also when a later one fails to open."""
    async with AsyncExitStack() as stack:
        app.state.services = await to_thread.run_sync(_open_services, settings, stack, app.state.stopping)
        yield
        app.state.stopping.set()


def _open_services(settings: Settings, stack: AsyncExitStack, stopping: asyncio.Event) -> Services:
    # Each thread that decodes brings helpers of its own; on two cores, leaving one to them answers faster.
    torch.set_num_threads(settings.num_threads or max(1, torch.get_num_threads() - 1))
    upgrade(settings.catalog_url)
    catalog = Catalog(settings)
    stack.callback(catalog.close)
    check_guarded(settings, catalog)
    queue = DbosQueue(settings)
    stack.callback(queue.close)
    store = CheckpointStore(open_blobs(settings.blob_place))
    catalog = catalog.beside(store.blobs.contains)
    heads = Heads(catalog, store)
    counted = ServingMetrics()
    engine = _open_engine(settings, stack, store=store, counted=counted)
    counted.watch(_gauges(engine, catalog))
    residents = Residents(
        engine,
        catalog=catalog,
        heads=heads,
        preload=settings.preload,
        pin=settings.pin,
        idle_s=settings.expert_idle_s,
    )
    stack.callback(residents.close)
    decoding = ThreadPoolExecutor(settings.decode_threads or os.cpu_count(), "condu-decode")
    stack.callback(decoding.shutdown, cancel_futures=True)
    folder = settings.scratch_dir / "uploads"
    folder.mkdir(parents=True, exist_ok=True)
    return Services(
        settings=settings,
        catalog=catalog,
        heads=heads,
        store=store,
        overlaps=MaskOverlaps(store.blobs),
        pool=engine.predictor.pool,
        predictor=engine.predictor,
        queue=queue,
        uploads=UploadRoom(folder, settings.upload_limit_bytes, KEEP_FREE_BYTES),
        decoding=decoding,
        engine=engine,
        residents=residents,
        metrics=counted,
        stopping=stopping,
        gate=Gate(settings, catalog),
        fetcher=Fetcher(settings),
    )


def _open_engine(
    settings: Settings, stack: AsyncExitStack, *, store: CheckpointStore, counted: ServingMetrics
) -> Engine:
    predictor = open_predictor(settings, store)
    stack.callback(predictor.pool.clear)
    limits = EngineLimits(
        settings.max_batch, settings.max_wait_s, settings.max_queue, settings.hang_timeout_s
    )
    engine = Engine(predictor, limits=limits, metrics=counted)
    stack.callback(engine.close, CLOSE_TIMEOUT_S)
    return engine


def _gauges(engine: Engine, catalog: Catalog) -> Gauges:
    def stored() -> tuple[dict[str, int], int, int] | None:
        try:
            with catalog.snapshot() as session:
                models = list_models(session)
                tasks = sum(len(head_tasks(session, model.name)) for model in models)
                return blob_bytes(session), len(models), tasks
        except CatalogUnavailableError:
            return None

    predictor = engine.predictor
    return Gauges(engine.status, predictor.pool.stats, predictor.class_weights.stats, stored)

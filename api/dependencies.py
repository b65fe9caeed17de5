"""What a route may ask for: the parts of the service that the composition root has put together."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Annotated, Literal

from fastapi import Depends, Path, Query, Request

from api.callers import LOCAL, Caller, actor_for, caller_of
from api.fetching import Fetcher, shown
from api.gate import Gate
from api.uploads import UploadRoom
from catalog import Catalog, Settings
from catalog.job_queue import JobQueue
from serving.engine import Engine
from serving.metrics import ServingMetrics
from serving.pinning import Heads
from serving.residents import Residents
from store.checkpoints import CheckpointStore
from store.overlap import MaskOverlaps
from vlm.experts import ExpertPool
from vlm.prediction import Predictor


@dataclass(frozen=True)
class Services:
    """The parts, built once by the lifespan of the app.

    Attributes:
        heads: Which revision a request gets.
        uploads: Where raw bodies are received.
        decoding: Where images are decoded.
        engine: What owns the device and answers.
        residents: What keeps the right experts in memory.
        stopping: Set when the server is about to stop, so that endless answers end.
        gate: What recognises callers.
        fetcher: What fetches files by their URL.
        caller: On whose behalf the catalog's transactions are.
    """

    settings: Settings
    catalog: Catalog
    heads: Heads
    store: CheckpointStore
    overlaps: MaskOverlaps
    pool: ExpertPool
    predictor: Predictor
    queue: JobQueue
    uploads: UploadRoom
    decoding: ThreadPoolExecutor
    engine: Engine
    residents: Residents
    metrics: ServingMetrics
    stopping: asyncio.Event
    gate: Gate
    fetcher: Fetcher
    caller: Caller = LOCAL

    def noting_source(self, url: str) -> "Services":
        """The same, with where something was fetched from in the audit log."""
        return replace(self, catalog=self.catalog.noting(source=shown(url)))


async def get_services(request: Request) -> Services:
    """The app's services on behalf of the caller; async, because others cost a change of threads."""
    services: Services = request.app.state.services
    acting = services.catalog.acting(actor_for(request))
    return replace(services, catalog=acting, caller=caller_of(request))


def room_of(services: Services) -> UploadRoom:
    """Where a file is received on behalf of the caller, whose limit may be smaller than the others'."""
    key = services.caller.key
    if key is None or key.max_body_bytes is None:
        return services.uploads
    limit_bytes = min(services.uploads.limit_bytes, key.max_body_bytes)
    return replace(services.uploads, limit_bytes=limit_bytes)


Installed = Annotated[Services, Depends(get_services)]

BaseName = Annotated[str, Path(description="Name of the base.", examples=["vit-b-16"])]
ModelName = Annotated[str, Path(description="Name of the model.", examples=["animals"])]
TaskName = Annotated[str, Path(description="Name of the task.", examples=["pets"])]
JobId = Annotated[str, Path(description="Id of the job.", examples=["6f1c1c34-9a53-4a3f-8f0e-1f6a5a9f2b11"])]
RevisionNumber = Annotated[
    int | None, Query(ge=1, description="A revision of the model; without it, the head.", examples=[2])
]
StateFilter = Annotated[
    Literal["queued", "running", "succeeded", "failed", "cancelled"] | None,
    Query(description="Only jobs in this state."),
]

"""Health: the truth about every part."""

from typing import TypeVar

from fastapi import APIRouter, Response

from api.dependencies import Installed
from api.documentation import problems
from api.health import check_health, check_live, check_ready
from api.schemas.installation import HealthAnswer, PartHealth

router = APIRouter(prefix="/health", tags=["installation"])
H = TypeVar("H", HealthAnswer, PartHealth)


@router.get(
    "",
    summary="Tell how the installation is",
    responses={
        **problems(),
        503: {"description": "No answers can be given; the parts say why.", "model": HealthAnswer},
    },
)
def get_health(response: Response, services: Installed) -> HealthAnswer:
    """Look at the catalog, the disk, every model's head and the workers, now.

    The status is 503 only when no answers can be given. An installation without a living worker, or with a
    nearly full disk, still classifies: it is `degraded`, with 200.
    """
    return _told(response, check_health(services))


@router.get(
    "/live",
    summary="Tell whether the process lives",
    responses={
        **problems(),
        503: {"description": "It has to be restarted: the device is silent.", "model": PartHealth},
    },
)
def get_live(response: Response, services: Installed) -> PartHealth:
    """For a supervisor: 503 says that nothing but a restart helps."""
    return _told(response, check_live(services))


@router.get(
    "/ready",
    summary="Tell whether requests are taken",
    responses={
        **problems(),
        503: {"description": "Requests are better sent elsewhere; `detail` says why.", "model": PartHealth},
    },
)
def get_ready(response: Response, services: Installed) -> PartHealth:
    """For a load balancer: 503 while the service stops, its queue is full, or nothing can be answered."""
    return _told(response, check_ready(services))


def _told(response: Response, health: H) -> H:
    response.status_code = 503 if health.status == "failing" else 200
    response.headers["Cache-Control"] = "no-store"
    return health

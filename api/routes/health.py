"""Health: the truth about every part."""

from fastapi import APIRouter, Response

from api.dependencies import Installed
from api.documentation import problems
from api.health import check_health
from api.schemas.installation import HealthAnswer

router = APIRouter(prefix="/health", tags=["installation"])


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
    health = check_health(services)
    response.status_code = 503 if health.status == "failing" else 200
    response.headers["Cache-Control"] = "no-store"
    return health

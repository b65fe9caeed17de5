"""Maintenance: read everything back, and remove what nothing needs."""

from typing import Annotated

from fastapi import APIRouter, Body
from starlette.responses import StreamingResponse

from api.dependencies import Installed
from api.documentation import ndjson, problems
from api.maintenance import as_ndjson, check_sweep, sweep_lines, verify_lines
from api.schemas.installation import SweepBody, SweepLine, VerifyLine
from catalog.errors import StillInUseError

router = APIRouter(tags=["installation"])
MEDIA_TYPE = "application/x-ndjson"


@router.post(
    "/verify",
    summary="Verify every stored byte",
    response_class=StreamingResponse,
    responses={**problems(), 200: ndjson(VerifyLine, "Lines of progress, then one line with the report.")},
)
def post_verify(services: Installed) -> StreamingResponse:
    """Read every blob back and compare its digest; check every revision against the laws of its fusion."""
    lines = as_ndjson(verify_lines(services), lambda problem: VerifyLine(problem=problem))
    return StreamingResponse(lines, media_type=MEDIA_TYPE)


@router.post(
    "/sweep",
    summary="Remove what nothing needs",
    response_class=StreamingResponse,
    responses={
        **problems(StillInUseError),
        200: ndjson(SweepLine, "Lines of progress, then one line with the report."),
    },
)
def post_sweep(services: Installed, body: Annotated[SweepBody | None, Body()] = None) -> StreamingResponse:
    """Say which blobs no revision, base, upload or job needs, and remove them if `delete`.

    Revisions beyond `keep_revisions` expire with it: the head cannot be rolled back to them any more. Blobs
    younger than the grace period stay, for a job may be about to name them.
    """
    wanted = body or SweepBody.model_validate({})
    settings = services.settings
    grace_s = settings.sweep_grace_s if wanted.grace_s is None else wanted.grace_s
    check_sweep(services, delete=wanted.delete, grace_s=grace_s)
    lines = sweep_lines(
        services,
        delete=wanted.delete,
        keep_revisions=wanted.keep_revisions or settings.keep_revisions,
        grace_s=grace_s,
    )
    return StreamingResponse(
        as_ndjson(lines, lambda problem: SweepLine(problem=problem)), media_type=MEDIA_TYPE
    )

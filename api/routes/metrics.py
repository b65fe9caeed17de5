"""Metrics: what Prometheus reads."""

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST

from api.dependencies import Installed
from api.documentation import problems

router = APIRouter(tags=["installation"])


@router.get(
    "/metrics",
    summary="Read the metrics",
    response_class=Response,
    responses={**problems(), 200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
)
def get_metrics(services: Installed) -> Response:
    """Counters and gauges of the service in Prometheus' text format; docs/operations.md names them all."""
    return Response(services.metrics.text(), media_type=CONTENT_TYPE_LATEST)

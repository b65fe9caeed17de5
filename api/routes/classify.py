"""Classify: which of some labels fit an image best."""

from typing import Any

from fastapi import APIRouter, Request

from api.classification import classify
from api.dependencies import Installed, ModelName
from api.documentation import problems
from api.refusals import UnsupportedBodyError, UploadTooLargeError
from api.schemas.classify import ClassifyAnswer, ClassifyBody, ClassifyFields
from catalog.errors import NoSuchRowError
from serving.errors import (
    DeadlineExceededError,
    DeviceMemoryError,
    DeviceStuckError,
    OverloadedError,
    UnknownTaskError,
)
from store.errors import CorruptBlobError
from vlm.errors import InvalidLabelsError, InvalidOptionsError, InvalidTemplatesError, NoLabelsError

router = APIRouter(prefix="/models/{model}", tags=["classify"])


def _form_schema() -> dict[str, Any]:
    schema = ClassifyFields.model_json_schema()
    images = {
        "type": "array",
        "items": {"type": "string", "format": "binary"},
        "description": "JPEG, PNG or WEBP files.",
    }
    return {
        **schema,
        "title": "ClassifyForm",
        "properties": {"images": images, **schema["properties"]},
        "required": ["images"],
    }


REQUEST_BODY = {
    "required": True,
    "content": {
        "multipart/form-data": {
            "schema": _form_schema(),
            "encoding": {"images": {"contentType": "image/jpeg, image/png, image/webp"}},
        },
        "application/json": {"schema": ClassifyBody.model_json_schema()},
    },
}


@router.post(
    "/classify",
    summary="Classify images",
    responses=problems(
        NoSuchRowError,
        UnknownTaskError,
        NoLabelsError,
        InvalidLabelsError,
        InvalidTemplatesError,
        InvalidOptionsError,
        UploadTooLargeError,
        UnsupportedBodyError,
        CorruptBlobError,
        OverloadedError,
        DeadlineExceededError,
        DeviceStuckError,
        DeviceMemoryError,
    ),
    openapi_extra={"requestBody": REQUEST_BODY},
)
async def post_classify(model: ModelName, request: Request, services: Installed) -> ClassifyAnswer:
    """Answer which labels fit each image, and which experts said so, with which weights, from which revision.

    With `task`, that task's expert answers. Without it, each image is shown to the base and to the `k`
    experts whose prototypes it is nearest to. An image that cannot be read gets an error of its own; the
    others are answered.
    """
    return await classify(request, services, model)

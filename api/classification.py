"""Reads a classify request, in either of its two forms, and answers it from one pinned revision."""

import base64
import binascii
import json
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from anyio import to_thread
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError
from starlette.datastructures import FormData, UploadFile
from starlette.requests import Request
from torch import Tensor

from api.dependencies import Services
from api.errors import InvalidRequestError, UnsupportedBodyError
from api.middleware import allow_body
from api.pinning import PinnedRevision, pin_revision
from api.schemas.classify import ClassifyAnswer, ClassifyBody, ClassifyFields, ImageAnswer, ImageError
from catalog import Settings
from vlm.errors import ImageRejectedError
from vlm.answers import ImageResult
from vlm.prediction_options import PredictionOptions
from vlm.preprocessing import Preprocessing

LARGEST_IMAGES = 8
"""A request has room for this many images of the largest allowed size, or for many more ordinary ones."""
SPARE_FIELDS = 1000
"""Form fields beside the labels: templates and options, with room left for a clear answer to too many."""
LISTS = ("labels", "templates")

Image = Tensor | ImageRejectedError
Fields = TypeVar("Fields", bound=BaseModel)


async def classify(request: Request, services: Services, model: str) -> ClassifyAnswer:
    """The answer to the request, all of it from one revision."""
    fields, contents = await _read(request, services.settings)
    options = PredictionOptions(**fields.model_dump(exclude={"revision", "images"}))
    pinned = await to_thread.run_sync(pin_revision, services, model, fields.revision)
    if options.task is not None:
        pinned.require_task(options.task)
    base = pinned.ref
    images = await to_thread.run_sync(
        lambda: [_prepare(content, base.preprocessing, services.settings) for content in contents],
        limiter=services.decoding,
    )
    results = await to_thread.run_sync(
        lambda: services.predictor.classify(base, pinned.manifest, images, options=options),
        limiter=services.device,
    )
    return _answer(pinned, results)


async def _read(
    request: Request, settings: Settings
) -> tuple[ClassifyFields, Sequence[bytes | ImageRejectedError]]:
    allow_body(request, LARGEST_IMAGES * settings.image_limit_bytes)
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type == "application/json":
        return await to_thread.run_sync(_read_json, await request.body(), settings)
    if media_type != "multipart/form-data":
        raise UnsupportedBodyError(
            "classify takes multipart/form-data or application/json, "
            f"not {media_type[:80] or 'a body without a type'}"
        )
    max_fields = settings.max_labels + SPARE_FIELDS
    async with request.form(max_files=settings.max_images + SPARE_FIELDS, max_fields=max_fields) as form:
        return await to_thread.run_sync(_read_form, form, settings)


def _read_json(body: bytes, settings: Settings) -> tuple[ClassifyFields, list[bytes | ImageRejectedError]]:
    try:
        values = json.loads(body)
    except (ValueError, RecursionError):
        raise InvalidRequestError("the body is not JSON") from None
    fields = _validated(ClassifyBody, values)
    _check_count(len(fields.images), settings)
    return fields, [_decoded(text) for text in fields.images]


def _read_form(form: FormData, settings: Settings) -> tuple[ClassifyFields, list[bytes | ImageRejectedError]]:
    images = form.getlist("images")
    _check_count(len(images), settings)
    values: dict[str, Any] = {name: form.getlist(name) for name in LISTS if name in form}
    values |= {name: form[name] for name in form if name not in (*LISTS, "images")}
    repeated = [name for name in values if name not in LISTS and len(form.getlist(name)) > 1]
    if repeated:
        raise InvalidRequestError(f"the field {repeated[0][:80]!r} is given more than once")
    fields = _validated(ClassifyFields, values)
    return fields, [_file_content(part, settings) for part in images]


def _validated(kind: type[Fields], values: Mapping[str, Any]) -> Fields:
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        found = [
            {**entry, "loc": ("body", *entry["loc"])}
            for entry in error.errors(include_url=False, include_input=False)
        ]
        raise RequestValidationError(found) from None


def _check_count(num_images: int, settings: Settings) -> None:
    if num_images == 0:
        raise InvalidRequestError("there are no images: send at least one as `images`")
    if num_images > settings.max_images:
        raise InvalidRequestError(
            f"{num_images} images; at most {settings.max_images} are answered in one request"
        )


def _file_content(part: UploadFile | str, settings: Settings) -> bytes | ImageRejectedError:
    if isinstance(part, str):
        return ImageRejectedError("not_an_image", "this part of the form is text; send the image as a file")
    return _too_large(part.size or 0, settings) or part.file.read()


def _decoded(text: str) -> bytes | ImageRejectedError:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return ImageRejectedError(
            "not_an_image", "this is not base64; send the image's bytes encoded as base64"
        )


def _prepare(content: bytes | ImageRejectedError, preprocessing: Preprocessing, settings: Settings) -> Image:
    if isinstance(content, ImageRejectedError):
        return content
    rejected = _too_large(len(content), settings)
    if rejected is not None:
        return rejected
    try:
        return preprocessing.load(content, max_pixels=settings.max_image_pixels)
    except ImageRejectedError as error:
        return error


def _too_large(size_bytes: int, settings: Settings) -> ImageRejectedError | None:
    if size_bytes <= settings.image_limit_bytes:
        return None
    return ImageRejectedError(
        "too_large",
        f"the image has {size_bytes} bytes; at most {settings.image_limit_bytes} are read: send a smaller",
    )


def _answer(pinned: PinnedRevision, results: Sequence[ImageResult]) -> ClassifyAnswer:
    return ClassifyAnswer(
        model=pinned.model.name, revision=pinned.number, results=[_image_answer(result) for result in results]
    )


def _image_answer(result: ImageResult) -> ImageAnswer:
    error = ImageError(reason=result.error.reason, detail=str(result.error)) if result.error else None
    return ImageAnswer.model_validate(
        {"predictions": result.predictions, "experts": result.experts, "error": error}, from_attributes=True
    )

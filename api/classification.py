"""Reads a classify request, in either of its two forms, and answers it from one pinned revision."""

import asyncio
import base64
import binascii
import json
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from anyio import to_thread
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError
from starlette.datastructures import FormData, UploadFile
from starlette.requests import ClientDisconnect, Request
from torch import Tensor

from api.dependencies import Services
from api.errors import kind_of, translated
from api.middleware import allow_body
from api.refusals import InvalidRequestError, UnsupportedBodyError
from api.schemas.classify import ClassifyAnswer, ClassifyBody, ClassifyFields, ImageAnswer, ImageError
from catalog import Settings
from serving.errors import DeadlineExceededError
from serving.pinning import PinnedRevision
from vlm.answers import ImageResult
from vlm.errors import ImageRejectedError
from vlm.prediction_options import PredictionOptions
from vlm.preprocessing import Preprocessing

LARGEST_IMAGES = 8
"""A request has room for this many images of the largest allowed size, or for many more ordinary ones."""
SPARE_FIELDS = 1000
"""Form fields beside the labels: templates and options, with room left for a clear answer to too many."""
LISTS = ("labels", "templates")

Image = Tensor | ImageRejectedError
Fields = TypeVar("Fields", bound=BaseModel)
Read = tuple[ClassifyFields, Sequence[bytes | ImageRejectedError]]
"""How to answer, and the images as they came."""


async def classify(request: Request, services: Services, model: str) -> ClassifyAnswer:
    """The answer to the request, all of it from one revision.

    Raises:
        DeadlineExceededError: It did not come in time.
        ClientDisconnect: Nobody waits for it any more; what was not computed yet is not.
    """
    arrived_at = time.monotonic()
    asked, outcome = None, "answered"
    try:
        async with _received(request, services.settings) as read:
            submit = partial(_submit, services, model, read, arrived_at=arrived_at)
            asked = await to_thread.run_sync(submit)
        return _answer(asked, await _answered(request, asked))
    except Exception as error:
        outcome = kind_of(translated(error)).slug
        raise
    finally:
        services.metrics.request(
            model=asked.pinned.model.name if asked else "",
            task=(asked.fields.task or "") if asked else "",
            outcome=outcome,
            seconds=time.monotonic() - arrived_at,
        )


@dataclass(frozen=True)
class _Asked:
    """A request on its way.

    Attributes:
        fields: How to answer.
        answered: The results to come, per label set and image.
        deadline: In seconds of time.monotonic().
    """

    pinned: PinnedRevision
    fields: ClassifyFields
    answered: Future[list[list[ImageResult]]]
    deadline: float


@asynccontextmanager
async def _received(request: Request, settings: Settings) -> AsyncIterator[Callable[[], Read]]:
    """The whole body, kept while the context lasts; to take it apart is no work for the event loop."""
    allow_body(request, LARGEST_IMAGES * settings.image_limit_bytes)
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type == "application/json":
        yield partial(_read_json, await request.body(), settings)
        return
    if media_type != "multipart/form-data":
        raise UnsupportedBodyError(
            "classify takes multipart/form-data or application/json, "
            f"not {media_type[:80] or 'a body without a type'}"
        )
    max_fields = settings.max_labels + SPARE_FIELDS
    async with request.form(max_files=settings.max_images + SPARE_FIELDS, max_fields=max_fields) as form:
        yield partial(_read_form, form, settings)


def _submit(services: Services, model: str, read: Callable[[], Read], *, arrived_at: float) -> _Asked:
    """Everything between the body and the device, in one thread: many threads hand over at a price."""
    settings = services.settings
    fields, contents = read()
    options = _options(fields)
    pinned = services.heads.pin(model, fields.revision)
    if fields.task is not None:
        pinned.require_task(fields.task)
    base = pinned.ref
    with services.engine.expecting(len(contents)):
        prepare = partial(_prepare, preprocessing=base.preprocessing, settings=settings)
        images = list(services.decoding.map(prepare, contents))
        deadline = arrived_at + min(fields.timeout_s or settings.answer_timeout_s, settings.answer_timeout_s)
        answered = services.engine.submit(base, pinned.manifest, images, options=options, deadline=deadline)
    return _Asked(pinned, fields, answered, deadline)


def _options(fields: ClassifyFields) -> list[PredictionOptions]:
    """One for each label set; they differ in their labels alone."""
    given = fields.model_dump(exclude={"revision", "images", "timeout_s", "label_sets"})
    if fields.label_sets is None:
        return [PredictionOptions(**given)]
    if fields.labels is not None or fields.label_set is not None:
        raise InvalidRequestError("label_sets stand in place of labels and label_set: give one of them")
    return [PredictionOptions(**{**given, "labels": labels}) for labels in fields.label_sets.values()]


async def _answered(request: Request, asked: _Asked) -> list[list[ImageResult]]:
    waiting = asyncio.wrap_future(asked.answered)
    gone = asyncio.ensure_future(_disconnected(request))
    try:
        either: set[asyncio.Future[Any]] = {waiting, gone}
        await asyncio.wait(
            either,
            timeout=max(0.0, asked.deadline - time.monotonic()),
            return_when=asyncio.FIRST_COMPLETED,
        )
        if waiting.done():
            return waiting.result()
        if gone.done():
            raise ClientDisconnect
        late = DeadlineExceededError("the answer did not come in time; ask again, or allow more time")
        with suppress(InvalidStateError):  # answered, or told so by the watchdog, in this very moment
            asked.answered.set_exception(late)  # so that it is not counted as one that the client gave up
        raise late
    finally:
        waiting.cancel()
        gone.cancel()


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _read_json(body: bytes, settings: Settings) -> Read:
    values = _parsed(body, "the body")
    fields = _validated(ClassifyBody, values)
    _check_count(len(fields.images), settings)
    return fields, [_decoded(text) for text in fields.images]


def _parsed(text: str | bytes, what: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise InvalidRequestError(f"{what} is not JSON") from None


def _read_form(form: FormData, settings: Settings) -> Read:
    images = form.getlist("images")
    _check_count(len(images), settings)
    values: dict[str, Any] = {name: form.getlist(name) for name in LISTS if name in form}
    values |= {name: form[name] for name in form if name not in (*LISTS, "images")}
    if isinstance(values.get("label_sets"), str):
        values["label_sets"] = _parsed(values["label_sets"], "the field 'label_sets'")
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


def _answer(asked: _Asked, results: Sequence[Sequence[ImageResult]]) -> ClassifyAnswer:
    names = None if asked.fields.label_sets is None else tuple(asked.fields.label_sets)
    answers = [_image_answer(image, names) for image in zip(*results, strict=True)]
    return ClassifyAnswer(model=asked.pinned.model.name, revision=asked.pinned.number, results=answers)


def _image_answer(results: Sequence[ImageResult], names: Sequence[str] | None) -> ImageAnswer:
    """One image's answer, from its results for each label set; `names` is None where there is one without."""
    first = results[0]
    error = ImageError(reason=first.error.reason, detail=str(first.error)) if first.error else None
    answer = {
        "predictions": first.predictions if names is None else (),
        "experts": first.experts,
        "error": error,
        "label_sets": None
        if names is None
        else {name: result.predictions for name, result in zip(names, results, strict=True)},
    }
    return ImageAnswer.model_validate(answer, from_attributes=True)

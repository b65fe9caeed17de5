"""Data sets: upload an archive of labelled images, list, show, remove."""

from pathlib import Path as FilePath
from typing import Annotated

from anyio import to_thread
from fastapi import APIRouter, Path, Request, Response

from api.dependencies import Installed, Services, room_of
from api.documentation import FETCH_PROBLEMS, binary, problems
from api.refusals import StorageFullError, UnsupportedBodyError, UploadRefusedError, UploadTooLargeError
from api.schemas.datasets import DatasetAnswer, DatasetList, StoredDatasetAnswer
from api.schemas.fetching import FetchBody
from api.schemas.models import RemovedAnswer
from api.uploads import received_upload
from catalog import Settings
from catalog.blobs import NewBlob, record_blobs
from catalog.datasets import DatasetRecord, add_dataset, delete_dataset, find_dataset, list_datasets
from catalog.errors import NoSuchRowError, StillInUseError
from imagesets import ArchiveLimits, InvalidArchiveError, inspect_archive
from store.errors import BlobsUnavailableError

router = APIRouter(prefix="/datasets", tags=["data sets"])
DatasetDigest = Annotated[
    str,
    Path(
        description="sha256 of the archive, as `PUT /v1/datasets` gave it.",
        examples=["9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"],
    ),
]


@router.put(
    "",
    summary="Upload a data set",
    status_code=201,
    response_description="The data set is kept, under the digest of the archive.",
    responses=problems(
        InvalidArchiveError,
        UploadTooLargeError,
        UploadRefusedError,
        UnsupportedBodyError,
        StorageFullError,
        BlobsUnavailableError,
    ),
    openapi_extra={
        "requestBody": {
            **binary("application/octet-stream", "A tar, tar.gz or zip archive."),
            "required": True,
        }
    },
)
async def put_dataset(request: Request, response: Response, services: Installed) -> DatasetAnswer:
    """Keep the archive that is the body, and say which classes and how many images it holds.

    The archive has one folder of images per class, or `train/` and `test/` with such folders, or
    `classes.txt` and `labels.csv`. It is looked through without unpacking; what is hostile or broken is
    refused by the name of its member. Data sets are named by their content: uploading one again changes
    nothing.
    """
    async with received_upload(request, services.uploads) as upload:
        answer = await to_thread.run_sync(_keep_dataset, services, upload)
    response.headers["Location"] = f"/v1/datasets/{answer.digest}"
    return answer


@router.post(
    "",
    summary="Fetch a data set",
    status_code=201,
    response_description="The data set is kept, under the digest of the archive.",
    responses=problems(InvalidArchiveError, *FETCH_PROBLEMS),
)
def post_dataset(body: FetchBody, response: Response, services: Installed) -> DatasetAnswer:
    """Let the service fetch an archive from a source that it allows (`CONDU_FETCH_FROM`), and keep it.

    The answer comes when the archive is here and was looked through, as with an upload. Neither the URL nor
    what it redirects to may lie in a private network.
    """
    with services.fetcher.fetched(body.url, room_of(services), body.sha256) as archive:
        answer = _keep_dataset(services.noting_source(body.url), archive)
    response.headers["Location"] = f"/v1/datasets/{answer.digest}"
    return answer


@router.get("", summary="List the data sets", responses=problems())
def get_datasets(services: Installed) -> DatasetList:
    """All data sets that were uploaded, the newest first; most lose their images once a job has used them."""
    with services.catalog.snapshot() as session:
        records = list_datasets(session)
    seen = [record for record in records if _is_seen(services, record)]
    return DatasetList(datasets=[stored_dataset_answer(record) for record in seen])


@router.get("/{digest}", summary="Show a data set", responses=problems(NoSuchRowError))
def get_dataset(digest: DatasetDigest, services: Installed) -> StoredDatasetAnswer:
    """One data set: its classes, size, and whether its images are still here."""
    with services.catalog.snapshot() as session:
        return stored_dataset_answer(find_dataset(session, digest))


@router.delete("/{digest}", summary="Remove a data set", responses=problems(NoSuchRowError, StillInUseError))
def remove_dataset(digest: DatasetDigest, services: Installed) -> RemovedAnswer:
    """Forget a data set that no unfinished job needs."""
    with services.catalog.transaction() as session:
        delete_dataset(session, digest)
    return RemovedAnswer(removed=digest, detail="its images stay on disk until the next sweep")


def _is_seen(services: Services, record: DatasetRecord) -> bool:
    """Whether the caller is told of it; who is bound to models only of what came with their key."""
    key = services.caller.key
    return key is None or key.models is None or record.key_id == key.key_id


def archive_limits(settings: Settings) -> ArchiveLimits:
    """How much of an archive this installation believes."""
    return ArchiveLimits(
        max_members=settings.max_archive_members,
        max_total_bytes=settings.max_archive_bytes,
        max_ratio=float(settings.max_archive_ratio),
    )


def stored_dataset_answer(record: DatasetRecord) -> StoredDatasetAnswer:
    """The record as the api shows it."""
    return StoredDatasetAnswer(
        digest=record.digest,
        classes=list(record.classes),
        images=record.num_images,
        format=record.format,
        size_bytes=record.size_bytes,
        created_at=record.created_at,
        released_at=record.released_at,
    )


def _keep_dataset(services: Services, upload: FilePath) -> DatasetAnswer:
    summary = inspect_archive(upload, archive_limits(services.settings))
    blob = services.store.blobs.put_file(upload)
    with services.catalog.transaction() as session:
        add_dataset(
            session,
            digest=blob.digest,
            format=summary.format,
            classes=list(summary.classes),
            num_images=summary.num_images,
            size_bytes=blob.size_bytes,
        )
        record_blobs(session, [NewBlob(blob.digest, blob.size_bytes, "dataset")])
    return DatasetAnswer(
        digest=blob.digest,
        classes=list(summary.classes),
        images=summary.num_images,
        format=summary.format,
        has_split=summary.has_split,
        size_bytes=blob.size_bytes,
    )

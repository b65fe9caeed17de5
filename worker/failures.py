"""Errors of the rooms below, told to the user of a job: what happened, to which thing, and what to do."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from catalog.errors import AlreadyExistsError, NoSuchRowError
from catalog.job_queue import JobFailedError, JobHinderedError
from imagesets import ImagesetError
from store.errors import (
    BlobsUnavailableError,
    CorruptBlobError,
    IncompatibleTensorsError,
    InvalidUploadError,
    NotFoundError,
    StorageUnreachableError,
    StoreError,
)
from vlm.errors import VlmError

OUT_OF_SPACE = (errno.ENOSPC, errno.EDQUOT)

TITLES: tuple[tuple[type[Exception], str], ...] = (
    (IncompatibleTensorsError, "The checkpoint does not fit the base"),
    (InvalidUploadError, "The checkpoint cannot be learned from"),
    (BlobsUnavailableError, "The storage refused"),
    (CorruptBlobError, "Stored bytes are damaged"),
    (NotFoundError, "Stored bytes are missing"),
    (StoreError, "The store cannot do this"),
    (ImagesetError, "The data set cannot be used"),
    (AlreadyExistsError, "The model has this task already"),
    (NoSuchRowError, "Something the job needs is gone"),
    (VlmError, "The task cannot be learned"),
)
"""The first that matches is the title; the message of the error has the rest."""

FOREIGN = tuple(kind for kind, _ in TITLES)


@contextmanager
def told_to_the_user() -> Iterator[None]:
    """Foreseen errors leave the block as JobFailedError; interruptions and all others pass as they are."""
    try:
        yield
    except FOREIGN as error:
        if _is_out_of_space(error.__cause__ or error.__context__):
            raise _disk_is_full(error) from error
        title = next(title for kind, title in TITLES if isinstance(error, kind))
        detail, remedy = _halves(str(error))
        told = JobHinderedError if isinstance(error, StorageUnreachableError) else JobFailedError
        raise told(title, detail=detail, remedy=remedy) from error
    except torch.OutOfMemoryError as error:
        raise JobFailedError(
            "The device is out of memory",
            detail=str(error).split("\n", maxsplit=1)[0],
            remedy="Submit again with a smaller batch_size, or stop what else runs on the device before.",
        ) from error
    except OSError as error:
        if _is_out_of_space(error):
            raise _disk_is_full(error) from error
        raise


def _halves(message: str) -> tuple[str, str]:
    """Detail and remedy: messages of the rooms below end in '; remedy'."""
    detail, found, remedy = message.rpartition("; ")
    return (detail, remedy) if found else (message, "Mend that and submit the job again.")


def _is_out_of_space(error: BaseException | None) -> bool:
    return isinstance(error, OSError) and error.errno in OUT_OF_SPACE


def _disk_is_full(error: Exception) -> JobFailedError:
    return JobFailedError(
        "The disk is full",
        detail=str(error),
        remedy="Free space (`condu sweep --delete` removes what nothing names), then submit the job again.",
    )

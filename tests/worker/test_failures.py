"""What the user of a job reads when something below fails."""

import errno

import pytest
import torch

from catalog.errors import StaleAttemptError
from catalog.job_queue import JobCancelled, JobFailedError
from imagesets import InvalidArchiveError
from store.errors import BlobsUnavailableError, IncompatibleTensorsError
from worker.failures import told_to_the_user

FULL = OSError(errno.ENOSPC, "No space left on device")


def storage_failure(cause):
    error = BlobsUnavailableError("cannot write a blob; free space")
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "title", "detail", "remedy"),
    [
        (
            InvalidArchiveError("it is a link", remedy="leave it out", member="x"),
            "The data set",
            "'x'",
            "leave it out",
        ),
        (
            IncompatibleTensorsError("a.b", expected="1", got="2", remedy="cast it"),
            "The checkpoint does not fit the base",
            "tensor 'a.b': expected 1, got 2",
            "cast it",
        ),
        (storage_failure(FULL), "The disk is full", "cannot write a blob", "condu sweep"),
        (
            storage_failure(OSError(errno.EIO, "I/O")),
            "The storage refused",
            "cannot write a blob",
            "free space",
        ),
        (FULL, "The disk is full", "No space left", "condu sweep"),
        (
            torch.OutOfMemoryError("wanted 1 GiB\nmore"),
            "The device is out of memory",
            "wanted 1 GiB",
            "batch_size",
        ),
    ],
)
def test_a_foreseen_error_has_a_title_the_thing_and_a_remedy(error, title, detail, remedy):
    with pytest.raises(JobFailedError) as caught, told_to_the_user():
        raise error
    assert caught.value.title.startswith(title)
    assert detail in caught.value.detail
    assert remedy in caught.value.remedy
    assert caught.value.__cause__ is error


@pytest.mark.parametrize(
    "error", [JobCancelled("x"), StaleAttemptError("x"), ZeroDivisionError("x"), OSError(5, "x")]
)
def test_interruptions_and_what_nobody_foresaw_pass_as_they_are(error):
    with pytest.raises(type(error)) as caught, told_to_the_user():
        raise error
    assert caught.value is error


def test_a_job_of_an_unknown_kind_fails_and_names_the_known_ones(installation):
    job = installation.run(installation.submit_other("dream"))
    assert job.state == "failed"
    assert "'dream'" in job.error["detail"]
    assert "import, train" in job.error["detail"]

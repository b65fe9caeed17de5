"""Runs one bulk job to its end: begins it or goes on with it, and puts the file in its place."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bulk.answering import Answerer, answerable
from bulk.errors import AnswerError, OutputError, ResumeError
from bulk.formats import Format, format_of
from bulk.parts import PartsFolder
from bulk.plan import Job, Request, Work, options_dict, tar_bounds
from bulk.sources import fingerprint, kind_of, survey
from catalog import Catalog, Settings
from catalog.errors import NoSuchRowError
from serving.pinning import Heads, PinnedRevision
from store.blobs import open_blobs
from store.checkpoints import CheckpointStore

Parts = Iterator[tuple[int, bytes]]
Runner = Callable[[Work, Sequence[int], Callable[[int], None]], Parts]
"""Makes the parts of these numbers, in any order, and tells how many images were answered meanwhile."""


@dataclass(frozen=True)
class Progress:
    """How far a job is.

    Attributes:
        images: Answered, by this run and by those before it.
        total: To be answered in all.
        resumed: Answered by the runs before.
        images_per_s: Of this run.
    """

    images: int
    total: int
    resumed: int
    images_per_s: float


@dataclass(frozen=True)
class Outcome:
    """What a job has come to.

    Attributes:
        output: The file.
        images: Its rows.
        failed: Rows that hold an error.
        skipped: Files of the input that are no images by their names.
        resumed: Rows that were there when this run began.
        revision: Who answered; None for a model that has learned nothing.
        duration_s: Of this run.
        images_per_s: Of this run.
    """

    output: Path
    model: str
    revision: int | None
    images: int
    failed: int
    skipped: int
    resumed: int
    duration_s: float
    images_per_s: float


def alone(work: Work, numbers: Sequence[int], on_images: Callable[[int], None]) -> Parts:
    """The parts, all of them made by this process."""
    answerer = Answerer(work)
    try:
        yield from answerer.parts(numbers, on_images)
    finally:
        answerer.close()


def run(
    settings: Settings,
    request: Request,
    *,
    runner: Runner = alone,
    on_progress: Callable[[Progress], None] = lambda _progress: None,
) -> Outcome:
    """What the job has come to, once its file is in its place.

    Killed at any moment and called again with the same request, it goes on with the revision it began with;
    the file is the same as if it had not been killed.

    Raises:
        BulkError: One of its kinds; the parts that were done stay for the next call.
    """
    form = format_of(request.output)
    _check_place(request.output)
    parts = PartsFolder(request.output.absolute(), form, is_overwriting=request.is_overwriting)
    done = parts.outcome()
    if done is not None:
        with parts.held():
            parts.finish()
        job = Job.from_dict(done["job"])
        if not _differences(job, request):
            return _outcome(request, job, done["failed"], resumed=job.input.num_images, duration_s=0.0)
    with parts.held():
        return _Run(settings, request, form, parts=parts, runner=runner).go(on_progress)


class _Run:
    """One run of a job, which nobody else works on."""

    def __init__(
        self, settings: Settings, request: Request, form: Format, *, parts: PartsFolder, runner: Runner
    ) -> None:
        self._settings = settings
        self._request = request
        self._form = form
        self._parts = parts
        self._runner = runner
        self._began = time.monotonic()

    def go(self, on_progress: Callable[[Progress], None]) -> Outcome:
        """Make what is missing, then join."""
        work = self._work()
        job = work.job
        missing = self._parts.missing(job.num_parts)
        total = job.input.num_images
        resumed = answered = total - sum(len(job.part(number)) for number in missing)

        def tell(count: int) -> None:
            nonlocal answered
            answered += count
            speed = (answered - resumed) / max(time.monotonic() - self._began, 1e-9)
            on_progress(Progress(answered, total, resumed, speed))

        tell(0)
        for number, content in self._runner(work, missing, tell) if missing else ():
            self._parts.put(number, content)
        done = self._parts.join(job.num_parts, lambda rows, failed: _done(job, rows, failed))
        duration_s = time.monotonic() - self._began
        return _outcome(self._request, job, done["failed"], resumed=resumed, duration_s=duration_s)

    def _work(self) -> Work:
        """The job, begun or gone on with, and what it is answered with."""
        self._parts.refuse_taken_output()
        written = self._parts.job()
        catalog = Catalog(self._settings)
        try:
            heads = Heads(catalog, CheckpointStore(open_blobs(self._settings.blob_place)))
            if written is None:
                return self._begun(heads)
            return self._gone_on_with(heads, Job.from_dict(written))
        finally:
            catalog.close()

    def _begun(self, heads: Heads) -> Work:
        request = self._request
        try:
            with answerable():
                pinned = heads.pin(request.model, request.revision)
        except NoSuchRowError as error:
            raise AnswerError(str(error), remedy="condu model list names the models") from error
        job = Job(
            model=pinned.model.name,
            revision=pinned.number,
            manifest=pinned.revision.manifest if pinned.revision else None,
            base=pinned.base.digest,
            input=survey(request.input, tar_bounds(self._settings)),
            options=options_dict(request.options),
            part_size=request.part_size,
        )
        work = self._work_on(job, pinned)
        Answerer(work).check()
        self._parts.begin(job.to_dict())
        return work

    def _gone_on_with(self, heads: Heads, job: Job) -> Work:
        """The job with its own revision, wherever the head is now."""
        folder = self._parts.folder
        differences = _differences(job, self._request)
        if differences:
            raise ResumeError(
                f"an unfinished job lies in {folder}, and it is another one: {'; '.join(differences)}",
                remedy=f"give the command that began it, or give it up: rm -r {folder}",
            )
        try:
            with answerable():
                pinned = heads.pin(job.model, job.revision)
        except NoSuchRowError as error:
            raise ResumeError(
                f"the job in {folder} began with revision {job.revision}, which is gone: {error}",
                remedy=f"begin anew with the head: rm -r {folder}",
            ) from error
        manifest = pinned.revision.manifest if pinned.revision and job.revision is not None else None
        if (manifest, pinned.base.digest) != (job.manifest, job.base):
            raise ResumeError(
                f"model {job.model} is not the one that the job in {folder} began with",
                remedy=f"begin anew: rm -r {folder}",
            )
        return self._work_on(job, pinned)

    def _work_on(self, job: Job, pinned: PinnedRevision) -> Work:
        return Work(
            settings=self._settings,
            job=job,
            base=pinned.ref,
            input=self._request.input.absolute(),
            options=self._request.options,
            suffix=self._form.suffix,
            batch_size=self._request.batch_size,
        )


def _differences(job: Job, request: Request) -> list[str]:
    kind = kind_of(request.input)
    return job.differences(request, kind, fingerprint(request.input, kind))


def _check_place(output: Path) -> None:
    if not output.absolute().parent.is_dir():
        raise OutputError(f"there is no folder {output.absolute().parent}", remedy="make it, or name another")
    if output.is_dir():
        raise OutputError(f"{output} is a folder", remedy="name a file in it")


def _done(job: Job, rows: int, failed: int) -> dict[str, Any]:
    if rows != job.input.num_images:
        raise ResumeError(
            f"the parts hold {rows} rows for {job.input.num_images} images: they were changed meanwhile",
            remedy="remove the folder of parts and begin anew",
        )
    return {"job": job.to_dict(), "failed": failed}


def _outcome(request: Request, job: Job, failed: int, *, resumed: int, duration_s: float) -> Outcome:
    images = job.input.num_images
    return Outcome(
        output=request.output,
        model=job.model,
        revision=job.revision,
        images=images,
        failed=failed,
        skipped=job.input.num_skipped,
        resumed=resumed,
        duration_s=duration_s,
        images_per_s=(images - resumed) / duration_s if duration_s > 0 else 0.0,
    )

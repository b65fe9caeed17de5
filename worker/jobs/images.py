"""The images of a job, out of its archive."""

from collections.abc import Callable
from pathlib import Path

from worker.datasets.preparing import PreparedImages, ScreeningRules, prepare_images
from worker.jobs.assignment import Assignment

PHASE = "unpack"
FOLDER = "images"


def job_images(
    work: Assignment, *, test_fraction: float, seed: int, shots: int | None = None
) -> PreparedImages:
    """The job's images: unpacked, decoded once, screened and split; at once where an earlier attempt did it.

    Raises:
        JobFailedError: No image can be read, or a class has fewer than the shots.
        InvalidArchiveError: The archive is hostile or broken.
    """
    digest = work.job.dataset
    if digest is None:
        raise ValueError(f"job {work.job.job_id} names no data set")
    archive = _linked(work, digest)
    rules = ScreeningRules(
        limits=work.bench.archive_limits,
        preprocessing=work.base.preprocessing,
        max_pixels=work.bench.settings.max_image_pixels,
        test_fraction=test_fraction,
        seed=seed,
        shots=shots,
    )
    images = prepare_images(archive, work.folder / FOLDER, rules, on_images=_Progress(work))
    if images.num_rejected:
        _log_rejected(work, images)
    return images


class _Progress:
    """Unpacking and decoding as one phase, each image counted in both."""

    def __init__(self, work: Assignment) -> None:
        self._work = work
        self._count: Callable[[int], None] | None = None

    def __call__(self, what: str, done: int, total: int) -> None:
        if self._count is None:
            self._count = self._work.counter(PHASE, 2 * total)
        self._count(done if what == "unpack" else total + done)


def _linked(work: Assignment, digest: str) -> Path:
    archive = work.folder / "archive"
    if not archive.exists():
        work.bench.store.blobs.copy_to(digest, archive)
    return archive


def _log_rejected(work: Assignment, images: PreparedImages) -> None:
    shown = "\n".join(f"  {each.name}: {each.reason}" for each in images.rejected)
    more = images.num_rejected - len(images.rejected)
    rest = f"\n  and {more} more" if more else ""
    work.context.log(f"{images.num_rejected} images are broken and were left out:\n{shown}{rest}")

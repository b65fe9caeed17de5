"""What every job of this worker process works with."""

import shutil
from dataclasses import dataclass
from pathlib import Path

from catalog import Catalog, Settings
from catalog.errors import NoSuchRowError
from catalog.jobs import find_job
from imagesets import ArchiveLimits
from store.checkpoints import CheckpointStore
from vlm.experts import ExpertPool

JUST_WRITTEN_S = 10.0
"""An upload this young may be about to be named by a new row, so it is left to the sweeper."""


@dataclass(frozen=True)
class Workbench:
    """Built once by the composition root.

    Attributes:
        settings: The installation's.
        store: Its checkpoints.
        pool: Bases and experts in memory, on the worker's device.
        just_written_s: Uploads younger than this are not deleted after a job.
    """

    settings: Settings
    store: CheckpointStore
    pool: ExpertPool
    just_written_s: float = JUST_WRITTEN_S

    @property
    def archive_limits(self) -> ArchiveLimits:
        """The same bounds that the api checks an archive against."""
        return ArchiveLimits(
            max_members=self.settings.max_archive_members,
            max_total_bytes=self.settings.max_archive_bytes,
            max_ratio=self.settings.max_archive_ratio,
        )

    def scratch(self, job_id: str) -> Path:
        """The folder of a job's scratch files, which an attempt leaves to the next."""
        return self.settings.scratch_dir / "jobs" / job_id

    def discard_scratch(self, job_id: str) -> None:
        """Remove the folder with all in it; what cannot be removed now goes when a worker starts."""
        shutil.rmtree(self.scratch(job_id), ignore_errors=True)

    def discard_leftovers(self, catalog: Catalog) -> None:
        """Remove the scratch files of jobs that are over, left by workers that died."""
        folder = self.settings.scratch_dir / "jobs"
        if not folder.exists():
            return
        for path in folder.iterdir():
            if _is_over(catalog, path.name):
                self.discard_scratch(path.name)


def _is_over(catalog: Catalog, job_id: str) -> bool:
    with catalog.snapshot() as session:
        try:
            return find_job(session, job_id).is_finished
        except NoSuchRowError:
            return True

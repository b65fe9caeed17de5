"""Puts a backup into a new installation of any kind: blobs first, then all rows in one transaction.

Until that transaction commits, the installation is empty for everybody, and another run goes on where this
one ended; afterwards it is whole, and another run is refused.
"""

import gzip
import hashlib
import io
from collections.abc import Iterator
from dataclasses import dataclass

from catalog import Session, Settings
from catalog.dbos_queue import DbosQueue, upgrade_engine
from catalog.rows import load_rows, require_empty
from cli.backup.making import Progress
from cli.backup.place import BackupManifest, BackupPlace, copy_blob, open_installed, pieces
from store.blobs import Blobs
from store.errors import CorruptBlobError, NotFoundError


@dataclass(frozen=True)
class RestoreReport:
    """What was restored; every blob was read back and is what its digest says, but for the faults."""

    digest: str
    manifest: BackupManifest
    num_copied: int
    num_jobs: int


def restore_backup(
    settings: Settings, place: BackupPlace, digest: str, *, on_progress: Progress
) -> RestoreReport:
    """The backup, in an installation that was empty.

    Args:
        settings: Of the new installation.
        place: Where the backup is.
        digest: Of the backup.
        on_progress: Hears the bytes copied and read back, and how many that will be.

    Raises:
        StillInUseError: The installation holds something.
        OutdatedSchemaError: The backup is of a newer version of condu.
        StoreError: The place or the installation's storage refused, or a blob of the backup is damaged.
    """
    settings.data.mkdir(parents=True, exist_ok=True)
    require_empty(settings.catalog_url)
    manifest = place.read(digest)
    num_copied = _bring_blobs(place.blobs, open_installed(settings), manifest, on_progress=on_progress)
    rows = _read_rows(place.blobs, manifest)
    upgrade_engine(settings.catalog_url)
    queue = DbosQueue(settings)

    def requeue(session: Session, job_id: str, model: str) -> None:
        queue.enqueue(session, job_id, model)

    try:
        num_jobs = load_rows(settings.catalog_url, rows, schema=manifest.schema, requeue=requeue)
    finally:
        queue.close()
    return RestoreReport(digest, manifest, num_copied, num_jobs)


def _bring_blobs(source: Blobs, target: Blobs, manifest: BackupManifest, *, on_progress: Progress) -> int:
    """How many blobs were copied; in the end all of them were read back from the target."""
    there = {blob.digest: blob.size_bytes for blob in target.list()}
    done = 0
    total = manifest.size_bytes + sum(
        size for digest, size in manifest.blobs.items() if there.get(digest) != size
    )
    copied = 0

    def on_bytes(size_bytes: int) -> None:
        nonlocal done
        done += size_bytes
        on_progress(done, max(done, total))

    for digest, size in manifest.blobs.items():
        if there.get(digest) == size and _is_sound(target, digest, size):
            on_bytes(size)
            continue
        target.delete(digest)
        copy_blob(source, target, digest, size_bytes=size, on_bytes=on_bytes)
        copied += 1
        if not _is_sound(target, digest, size):
            raise CorruptBlobError(f"restored blob {digest}", expected=digest, found="other bytes")
        on_bytes(size)
    return copied


def _is_sound(blobs: Blobs, digest: str, size_bytes: int) -> bool:
    """Whether the blob is there with the bytes that its digest says."""
    content = hashlib.sha256()
    try:
        for piece in pieces(blobs, digest, size_bytes):
            content.update(piece)
    except (NotFoundError, CorruptBlobError):
        return False
    return content.hexdigest() == digest


def _read_rows(blobs: Blobs, manifest: BackupManifest) -> Iterator[bytes]:
    """The lines of the rows, all of them checked against their digest first."""
    content = b"".join(pieces(blobs, manifest.rows, manifest.rows_bytes))
    found = hashlib.sha256(content).hexdigest()
    if found != manifest.rows:
        raise CorruptBlobError(f"rows {manifest.rows}", expected=manifest.rows, found=found)
    return iter(gzip.GzipFile(fileobj=io.BytesIO(content)))

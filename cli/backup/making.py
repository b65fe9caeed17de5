"""Makes a backup while the installation runs.

The rows are those of one moment. Blobs never change, so what they need can be copied at leisure; only a
sweep can take one away meanwhile, and then the rows are read anew. What is in the place already is not copied
again.
"""

import gzip
import hashlib
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from catalog import Catalog, Settings
from catalog.clock import read_clock
from catalog.retention import LiveRoots, all_roots
from catalog.rows import dump_rows, require_newest_schema
from cli.backup.place import BackupManifest, BackupPlace, copy_blob, open_installed, pieces
from store.blobs import Blobs
from store.errors import CorruptBlobError, NotFoundError, UnsupportedFormatError
from store.sweep import Roots, live_blobs

MAX_SNAPSHOTS = 5
PAUSE_S = 0.5
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class BackupReport:
    """What a backup did.

    Attributes:
        digest: The backup's name.
        copied_bytes: Bytes of blobs that were not in the place yet.
        num_copied: How many blobs these are.
    """

    digest: str
    manifest: BackupManifest
    copied_bytes: int
    num_copied: int


@dataclass(frozen=True)
class _Snapshot:
    created_at: str
    roots: LiveRoots
    num_rows: int


@dataclass
class _Copying:
    """What was copied so far, over all snapshots."""

    source: Blobs
    target: Blobs
    on_progress: Progress
    there: dict[str, int] = field(default_factory=dict)
    copied: dict[str, int] = field(default_factory=dict)
    done_bytes: int = 0

    def bring(self, digests: frozenset[str]) -> tuple[dict[str, int], list[str], bool]:
        """The blobs that the place has now, what is wrong with others, and whether any were gone."""
        found = {blob.digest: blob.size_bytes for blob in self.source.list() if blob.digest in digests}
        going = {digest: size for digest, size in found.items() if self.there.get(digest) != size}
        self.done_bytes, total = 0, sum(going.values())
        faults = [
            f"blob {digest} is missing" for digest in sorted(digests - found.keys() - self.there.keys())
        ]
        is_gone = bool(faults)

        def on_bytes(size_bytes: int) -> None:
            self.done_bytes += size_bytes
            self.on_progress(self.done_bytes, total)

        for digest, size in sorted(going.items()):
            try:
                copy_blob(self.source, self.target, digest, size_bytes=size, on_bytes=on_bytes)
            except NotFoundError:
                faults.append(f"blob {digest} is missing")
                is_gone = True
            except CorruptBlobError as error:
                faults.append(str(error))
            else:
                self.there[digest] = self.copied[digest] = size
        return {digest: self.there[digest] for digest in digests if digest in self.there}, faults, is_gone


def make_backup(
    settings: Settings, place: BackupPlace, *, on_progress: Progress, rechecks: bool = False
) -> BackupReport:
    """The backup, once all of it is in the place; until then there is none.

    Args:
        settings: Of the installation, which may be running.
        place: Where it goes; what another backup brought there is used.
        on_progress: Hears the bytes copied and the bytes to be copied.
        rechecks: Whether what is in the place already is read, and copied again where it was damaged.

    Raises:
        CatalogError: The catalog cannot be read, or is of another schema.
        StoreError: The blobs or the place refused.
    """
    schema = require_newest_schema(settings.catalog_url)
    source = open_installed(settings)
    there = {blob.digest: blob.size_bytes for blob in place.blobs.list()}
    if rechecks:
        there = _sound(place.blobs, there, on_progress)
    copying = _Copying(source, place.blobs, on_progress, there)
    catalog = Catalog(settings)
    settings.scratch_dir.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.TemporaryDirectory(dir=settings.scratch_dir, prefix="backup-") as folder:
            rows_file = Path(folder) / "rows.jsonl.gz"
            for _ in range(MAX_SNAPSHOTS):
                snapshot = _take_snapshot(catalog, rows_file)
                blobs, faults, is_gone = copying.bring(_named(source, snapshot.roots))
                if not is_gone:
                    break
                # Jobs at their end and sweeps take blobs a moment before or after their rows change.
                time.sleep(PAUSE_S)
            rows = place.blobs.put_file(rows_file)
    finally:
        catalog.close()
    manifest = BackupManifest(
        created_at=snapshot.created_at,
        schema=schema,
        rows=rows.digest,
        rows_bytes=rows.size_bytes,
        num_rows=snapshot.num_rows,
        blobs=dict(sorted(blobs.items())),
        faults=faults,
    )
    digest = place.backups.put(manifest.to_json()).digest
    return BackupReport(digest, manifest, sum(copying.copied.values()), len(copying.copied))


def _take_snapshot(catalog: Catalog, rows_file: Path) -> _Snapshot:
    """Writes all rows of one moment into the file."""
    num_rows = 0
    with catalog.snapshot() as session, rows_file.open("wb") as raw:
        created_at = read_clock(session).isoformat()
        # No time and no name in it: rows that did not change are a blob that is there already.
        with gzip.GzipFile(filename="", fileobj=raw, mode="wb", mtime=0) as file:
            for line in dump_rows(session):
                file.write(line)
                num_rows += 1
        return _Snapshot(created_at, all_roots(session), num_rows)


def _named(source: Blobs, roots: LiveRoots) -> frozenset[str]:
    """What the roots reach; everything, where a manifest is damaged and nobody can say what it names."""
    try:
        return live_blobs(source, Roots(manifests=roots.manifests, bases=roots.bases, others=roots.others))
    except (CorruptBlobError, UnsupportedFormatError):
        everything = frozenset(blob.digest for blob in source.list())
        return everything | roots.manifests | roots.bases | roots.others


def _sound(blobs: Blobs, there: dict[str, int], on_progress: Progress) -> dict[str, int]:
    """Those of the blobs whose bytes are what their digests say; the others are removed."""
    sound: dict[str, int] = {}
    done, total = 0, sum(there.values())
    for digest, size in there.items():
        content = hashlib.sha256()
        try:
            for piece in pieces(blobs, digest, size):
                content.update(piece)
                done += piece.nbytes
                on_progress(done, total)
        except (CorruptBlobError, NotFoundError):
            pass
        if content.hexdigest() == digest:
            sound[digest] = size
        else:
            blobs.delete(digest)
    return sound

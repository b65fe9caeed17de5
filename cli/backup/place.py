"""Where backups lie: blobs by digest, and a manifest for each backup, written last.

PLACE/blobs holds what the backups are made of, each blob once however many name it; PLACE/backups holds the
manifests, which are found by listing. A backup that was not finished has no manifest.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from catalog import Settings
from cli.errors import CommandFailedError, CommandUsageError
from store.blobs import BlobPlace, Blobs, open_blobs
from store.errors import CorruptBlobError, NotFoundError

FORMAT = 1
PIECE_BYTES = 8 * 2**20
STILL_WANTED_S = 86400.0
"""Blobs that no backup names stay for a day: another backup may just be bringing them."""


@dataclass(frozen=True, kw_only=True)
class BackupManifest:
    """A backup: what was in the installation at one moment.

    Attributes:
        created_at: That moment, by the clock of the installation's database.
        schema: Of the catalog's rows.
        rows: The blob that holds them, gzip of JSON lines.
        num_rows: How many they are.
        blobs: All blobs that they need, with their sizes.
        faults: What the installation should have had, and had not.
    """

    created_at: str
    schema: str
    rows: str
    rows_bytes: int
    num_rows: int
    blobs: dict[str, int]
    faults: list[str]
    format: int = FORMAT

    @property
    def size_bytes(self) -> int:
        """What a restored installation takes in blobs."""
        return sum(self.blobs.values())

    def to_json(self) -> bytes:
        """The bytes of its blob."""
        return json.dumps(asdict(self), sort_keys=True).encode()


@dataclass(frozen=True)
class BackupPlace:
    """An open place for backups."""

    blobs: Blobs
    backups: Blobs

    def find_backups(self) -> dict[str, BackupManifest]:
        """All finished backups by digest, the newest first."""
        found = {blob.digest: self.read(blob.digest) for blob in self.backups.list()}
        return dict(sorted(found.items(), key=lambda entry: entry[1].created_at, reverse=True))

    def read(self, digest: str) -> BackupManifest:
        """The backup of that digest."""
        try:
            body = json.loads(self.backups.read_checked(digest, max_bytes=2**30))
        except NotFoundError:
            raise CommandFailedError(
                f"there is no backup {digest[:80]}",
                remedy="`condu restore PLACE --list` shows those there are",
            ) from None
        if body.get("format") != FORMAT:
            raise CommandFailedError(
                f"backup {digest} is of format {body.get('format')}, this version reads {FORMAT}",
                remedy="use the version of condu that made it, or a newer one",
            )
        return BackupManifest(**body)

    def keep_newest(self, number: int) -> int:
        """Removes all backups but the newest; the bytes freed."""
        found = self.find_backups()
        going = list(found)[number:]
        for digest in going:
            self.backups.delete(digest)
        kept = [found[digest] for digest in list(found)[:number]]
        named = {digest for backup in kept for digest in (*backup.blobs, backup.rows)}
        return sum(
            self.blobs.delete(blob.digest, unless_younger_than_s=STILL_WANTED_S)
            for blob in self.blobs.list()
            if blob.digest not in named
        )


def open_place(where: str, settings: Settings, *, endpoint: str | None) -> BackupPlace:
    """The place at a folder or s3:// URL, with the installation's own keys for object storage."""
    url = (where if "://" in where else Path(where).absolute().as_uri()).rstrip("/")
    ours = settings.blob_place
    if f"{url}/blobs" == ours.url:
        raise CommandUsageError(
            "a backup cannot lie where the installation is",
            remedy="name another folder or bucket, best on another machine",
        )
    template = replace(uncached(settings), endpoint=endpoint or ours.endpoint)
    return BackupPlace(
        open_blobs(replace(template, url=f"{url}/blobs")), open_blobs(replace(template, url=f"{url}/backups"))
    )


def open_installed(settings: Settings) -> Blobs:
    """The installation's blobs, read past its cache: a backup must not drive out what is served."""
    return open_blobs(uncached(settings))


def uncached(settings: Settings) -> BlobPlace:
    """Where the installation's blobs are, without copies near by."""
    return replace(settings.blob_place, cache_folder=settings.scratch_dir / "backup", cache_bytes=0)


def pieces(blobs: Blobs, digest: str, size_bytes: int) -> Iterator[memoryview]:
    """The blob's bytes, a few at a time."""
    for start in range(0, size_bytes, PIECE_BYTES):
        yield blobs.read(digest, start, min(PIECE_BYTES, size_bytes - start))


def copy_blob(
    source: Blobs, target: Blobs, digest: str, *, size_bytes: int, on_bytes: Callable[[int], None]
) -> None:
    """Copies a blob whose bytes are those that its digest says; of others nothing is written.

    Raises:
        NotFoundError: The source has none.
        CorruptBlobError: Its bytes are others.
        BlobsUnavailableError: One of the two refused.
    """
    with target.writer() as writer:
        for piece in pieces(source, digest, size_bytes):
            writer.write(piece)
            on_bytes(piece.nbytes)
        if writer.digest != digest:
            raise CorruptBlobError(f"blob {digest}", expected=digest, found=writer.digest)
        writer.commit()

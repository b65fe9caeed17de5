"""Where blobs are kept, as an installation's settings say it, and how that place is opened."""

from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urlsplit

from store.blobs.contract import Blobs
from store.blobs.files import FileBlobs


@dataclass(frozen=True)
class BlobPlace:
    """A place for blobs.

    Attributes:
        url: `file:///absolute/folder` or `s3://bucket/prefix`.
        cache_folder: Where blobs of an object storage are kept near by; a folder of files needs none.
        cache_bytes: How many bytes of them at most.
        endpoint: The server of an object storage that is not Amazon's.
        region: Of the bucket.
        access_key: For the object storage; without it the usual AWS_ variables and roles.
        secret_key: What belongs to it.
    """

    url: str
    cache_folder: Path
    cache_bytes: int
    endpoint: str | None = None
    region: str | None = None
    access_key: str | None = field(default=None, repr=False)
    secret_key: str | None = field(default=None, repr=False)


def open_blobs(place: BlobPlace) -> Blobs:
    """The blobs at that place; a folder is made, a bucket must be there and is tried out.

    Raises:
        UnsuitableStorageError: The object storage ignores a condition that the store depends on.
        BlobsUnavailableError: It does not answer, or refuses the keys.
        ValueError: The URL names no such place.
    """
    parts = urlsplit(place.url)
    if parts.scheme == "file":
        return FileBlobs(Path(unquote(parts.path)))
    if parts.scheme != "s3":
        raise ValueError(f"blobs cannot be kept at {place.url!r}: write s3://bucket/prefix or file:///folder")
    # Only who keeps blobs in an object storage pays for the client's import.
    from store.blobs.objects import open_objects  # noqa: PLC0415

    return open_objects(place)

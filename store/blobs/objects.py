"""Blobs in an object storage (S3 and its kin) through obstore, with copies of them near by.

An object is written under PREFIX/ab/abcdef..., by one conditional put or, when it is large, by a multipart
upload, which appears whole when it is completed. A blob is first written to a file near by, since its name is
known only at the end; the file becomes its copy in the cache. What is read comes from there; a blob that the
cache cannot keep is read by ranges from the storage.
"""

import contextlib
import hashlib
import logging
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import obstore
from obstore.exceptions import (
    AlreadyExistsError,
    BaseError,
    GenericError,
    PermissionDeniedError,
    UnauthenticatedError,
)
from obstore.store import S3Store

from store.blobs.cache import BlobCache
from store.blobs.contract import (
    Blob,
    Blobs,
    BlobWriter,
    StoredBlob,
    check_digest,
    is_digest,
    not_found,
    too_short,
)
from store.blobs.files import append_to, link_or_copy, read_range, unavailable
from store.blobs.place import BlobPlace
from store.errors import CorruptBlobError, NotFoundError, StorageUnreachableError, UnsuitableStorageError

if TYPE_CHECKING:
    from obstore.store import ClientConfig, RetryConfig

_log = logging.getLogger(__name__)

# Each request carries at most this much, so that a slow line is not taken for a dead one.
PART_BYTES = 16 * 2**20
_MAX_PARALLEL_PARTS = 4
_REQUEST_TIMEOUT = timedelta(seconds=60)
_CONNECT_TIMEOUT = timedelta(seconds=5)
_RETRIES: "RetryConfig" = {
    "max_retries": 8,
    "retry_timeout": timedelta(seconds=40),
    "backoff": {"init_backoff": timedelta(milliseconds=50), "max_backoff": timedelta(seconds=5), "base": 2},
}
# The client asks again for an answer that did not come; for one that was cut off, we do.
_PATIENCE_S = 10.0
_CLOCK_HOLDS_S = 60.0
_MAX_REASON = 300
# Objects with which the storage is tried out and asked for the time; never blobs.
_TRIALS = "trials"

Result = TypeVar("Result")


def open_objects(place: BlobPlace) -> "ObjectBlobs":
    """The blobs in a bucket that was tried out.

    Raises:
        UnsuitableStorageError: The storage ignores a condition that the store depends on.
        StorageUnreachableError: It does not answer, the bucket is not there, or the keys are refused.
    """
    options: dict[str, Any] = {"region": place.region}
    client: ClientConfig = {
        "timeout": _REQUEST_TIMEOUT,
        "connect_timeout": _CONNECT_TIMEOUT,
        # Whoever names an endpoint with http:// means it; Amazon's own is https://.
        "allow_http": True,
    }
    if place.access_key is not None:
        options |= {"access_key_id": place.access_key, "secret_access_key": place.secret_key}
    if place.endpoint is not None:
        options["endpoint"] = place.endpoint
    storage = S3Store.from_url(place.url, client_options=client, retry_config=_RETRIES, **options)
    blobs = ObjectBlobs(storage, BlobCache(place.cache_folder, place.cache_bytes), name=place.url)
    blobs.try_out()
    return blobs


class ObjectBlobs(Blobs):
    """Keeps every blob as an object.

    Args:
        storage: The bucket, with the prefix in it.
        cache: For copies near by, and for what is being written.
        name: What error messages call the storage.
    """

    def __init__(self, storage: S3Store, cache: BlobCache, *, name: str) -> None:
        self._storage = storage
        self._cache = cache
        self._name = name
        # The storage's clock minus our monotonic one, and when that was found out.
        self._clock: tuple[float, float] | None = None

    def try_out(self) -> None:
        """Nothing, when the storage keeps what the store depends on.

        Raises:
            UnsuitableStorageError: It does not.
            StorageUnreachableError: It does not answer, the bucket is not there, or the keys are refused.
        """
        name, content = f"{_TRIALS}/{uuid.uuid4().hex}", b"0123456789"
        self._ask("write to", lambda: self._created(name, content))
        try:
            if self._ask("write to", lambda: self._created(name, b"another")):
                raise UnsuitableStorageError(self._name, "overwrites objects although asked not to")
            if not self._ask("read from", lambda: self._keeps_ranges(name, content)):
                raise UnsuitableStorageError(self._name, "ignores the range that is asked for")
            listed = self._ask("list", lambda: obstore.list(self._storage, _TRIALS).collect())
            if not any(entry["path"] == name for entry in listed):
                raise UnsuitableStorageError(self._name, "does not list what was just written")
        finally:
            self._ask("delete from", lambda: obstore.delete(self._storage, name))

    def writer(self) -> BlobWriter:
        return _ObjectWriter(self, self._cache)

    def read(self, digest: str, start: int = 0, length: int | None = None) -> memoryview:
        while (path := self._near(digest)) is not None:
            with contextlib.suppress(FileNotFoundError):
                return read_range(path, start, length, digest=digest)
            self._cache.forget(digest)  # another process dropped it between the two looks
        return self._read_range(digest, start, length)

    def _near(self, digest: str) -> Path | None:
        """The copy near by; None where the cache cannot keep one."""
        path = self._cache.find(check_digest(digest))
        if path is None and self._cache.max_bytes:
            path = self._cache.bring(digest, self.size_bytes(digest), lambda new: self._fetch(digest, new))
        return path

    def _fetch(self, digest: str, path: Path) -> None:
        """Write the blob into the file, checked against its digest."""
        content = hashlib.sha256()
        with path.open("wb") as file:
            for piece in self.pieces(digest):
                content.update(piece)
                file.write(piece)
        if content.hexdigest() != digest:
            raise CorruptBlobError(f"blob {digest}", expected=digest, found=content.hexdigest())

    def pieces(self, digest: str) -> Iterator[memoryview]:
        size = int(self._look(digest)["size"])
        for start in range(0, size, PART_BYTES):
            yield self._range(digest, start, min(start + PART_BYTES, size))

    def _read_range(self, digest: str, start: int, length: int | None) -> memoryview:
        size = self.size_bytes(digest)
        stop = size if length is None else start + length
        if stop > size:
            raise too_short(digest, wanted=stop, size_bytes=size)
        content = bytearray(max(stop - start, 0))
        for begin in range(start, stop, PART_BYTES):
            end = min(begin + PART_BYTES, stop)
            content[begin - start : end - start] = self._range(digest, begin, end)
        return memoryview(content)

    def _range(self, digest: str, start: int, end: int) -> memoryview:
        name = _name_of(digest)
        get = partial(obstore.get_range, self._storage, name, start=start, end=end)
        return memoryview(self._ask("read from", get, digest=digest))

    def copy_to(self, digest: str, path: Path) -> None:
        try:
            near = self._near(digest)
            if near is not None and not near.exists():
                self._cache.forget(digest)  # another process dropped it
                near = self._near(digest)
            if near is None:
                self._fetch(digest, path)
            else:
                link_or_copy(near, path)
        except OSError as error:
            raise unavailable(f"copy blob {digest} to {path}", error) from error

    def size_bytes(self, digest: str) -> int:
        near = self._cache.find(check_digest(digest))
        if near is not None:
            with contextlib.suppress(FileNotFoundError):
                return near.stat().st_size
        return int(self._look(digest)["size"])

    def contains(self, digest: str) -> bool:
        return self._find(digest) is not None

    def delete(self, digest: str, *, unless_younger_than_s: float = 0.0) -> int:
        found = self._find(digest)
        if found is None:
            self._cache.drop(digest)
            return 0
        if self._age_s(found) < unless_younger_than_s:
            return 0
        self._ask("delete from", lambda: obstore.delete(self._storage, _name_of(digest)))
        self._cache.drop(digest)
        return int(found["size"])

    def list(self) -> Iterator[StoredBlob]:
        # All at once: a list that was cut off can only be begun anew.
        for entry in self._ask("list", lambda: obstore.list(self._storage).collect()):
            _, _, name = entry["path"].rpartition("/")
            if is_digest(name):
                yield StoredBlob(name, int(entry["size"]), self._age_s(entry))

    def discard_unfinished(self, *, older_than_s: float, delete: bool) -> int:
        # Multipart uploads that nobody completed cannot be listed through obstore: docs/operations.md.
        return self._cache.discard_unfinished(older_than_s=older_than_s, delete=delete)

    def put_object(self, blob: Blob, path: Path) -> None:
        """Uploads the file as the blob; one that is there already is written again and so becomes young."""
        name = _name_of(blob.digest)
        if blob.size_bytes > PART_BYTES:
            self._ask("write to", lambda: self._put_in_parts(name, path))
        elif not self._ask("write to", lambda: self._created(name, path)):
            self._ask("write to", lambda: obstore.put(self._storage, name, path, use_multipart=False))

    def _put_in_parts(self, name: str, path: Path) -> None:
        obstore.put(self._storage, name, path, chunk_size=PART_BYTES, max_concurrency=_MAX_PARALLEL_PARTS)

    def _keeps_ranges(self, name: str, content: bytes) -> bool:
        try:
            return bytes(obstore.get_range(self._storage, name, start=2, end=5)) == content[2:5]
        except GenericError as error:
            if "non-partial" in str(error):
                return False  # the client has seen it itself
            raise

    def _created(self, name: str, content: bytes | Path) -> bool:
        """Whether the object was written; False where it is there already."""
        try:
            obstore.put(self._storage, name, content, mode="create", use_multipart=False)
        except AlreadyExistsError:
            return False
        return True

    def _find(self, digest: str) -> Any | None:
        """What the storage says of the blob; None where there is none."""
        name = _name_of(digest)
        try:
            return self._ask("look into", lambda: obstore.head(self._storage, name), digest=digest)
        except NotFoundError:
            return None

    def _look(self, digest: str) -> Any:
        """What the storage says of the blob; NotFoundError where there is none."""
        found = self._find(digest)
        if found is None:
            raise not_found(digest)
        return found

    def _age_s(self, entry: Any) -> float:
        written_at: float = entry["last_modified"].timestamp()
        return max(0.0, self._now() - written_at)

    def _now(self) -> float:
        """The storage's clock, in whole seconds: ours may be minutes away from it and from other workers'."""
        if self._clock is None or time.monotonic() - self._clock[1] > _CLOCK_HOLDS_S:
            name = f"{_TRIALS}/{uuid.uuid4().hex}"
            self._ask("write to", lambda: obstore.put(self._storage, name, b"what time is it?"))
            asked_at = time.monotonic()
            found = self._ask("look into", lambda: obstore.head(self._storage, name))
            self._ask("delete from", lambda: obstore.delete(self._storage, name))
            self._clock = found["last_modified"].timestamp() - asked_at, asked_at
        return self._clock[0] + time.monotonic()

    def _ask(self, what: str, ask: Callable[[], Result], *, digest: str | None = None) -> Result:
        """What the storage answers; its refusals as the errors that callers know.

        Whatever is asked may be asked again: a blob's bytes are always the same.
        """
        patience_ends = time.monotonic() + _PATIENCE_S
        while True:
            try:
                return ask()
            except FileNotFoundError as error:
                if digest is not None:
                    raise not_found(digest) from None
                raise self._refused(what, error, "create the bucket, or correct CONDU_OBJECTS_URL") from error
            except (PermissionDeniedError, UnauthenticatedError) as error:
                remedy = "correct CONDU_OBJECTS_ACCESS_KEY and CONDU_OBJECTS_SECRET_KEY, or what they may do"
                raise self._refused(what, error, remedy) from error
            except (BaseError, OSError) as error:
                if time.monotonic() >= patience_ends:
                    remedy = "bring it back, or correct CONDU_OBJECTS_ENDPOINT; then try again"
                    raise self._refused(what, error, remedy) from error

    def _refused(self, what: str, error: Exception, remedy: str) -> StorageUnreachableError:
        # Its first line says what happened; the rest shows the client's inside, request and all.
        reason = str(error).strip().partition("\n")[0][:_MAX_REASON]
        return StorageUnreachableError(f"cannot {what} the object storage {self._name}: {reason}; {remedy}")


class _ObjectWriter(BlobWriter):
    def __init__(self, blobs: ObjectBlobs, cache: BlobCache) -> None:
        super().__init__()
        self._blobs, self._cache = blobs, cache
        self._files = ExitStack()
        try:
            self._path = self._files.enter_context(cache.new_file())
        except OSError as error:
            raise unavailable("start a blob", error) from error

    def _append(self, piece: bytes | bytearray | memoryview) -> None:
        append_to(self._path, piece)

    def _publish(self, blob: Blob) -> None:
        self._blobs.put_object(blob, self._path)
        try:
            self._cache.adopt(blob.digest, self._path)
        except OSError as error:
            _log.warning("no copy of blob %s can be kept near by: %s", blob.digest, error)

    def _discard(self) -> None:
        self._files.close()


def _name_of(digest: str) -> str:
    return f"{check_digest(digest)[:2]}/{digest}"

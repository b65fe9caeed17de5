"""Opens a foreign bundle: its frame, its index and its manifests are checked before they are believed."""

import hashlib
import mmap
from collections.abc import Iterator
from pathlib import Path

from store.blobs.contract import MAX_CHECKED_BYTES
from store.bundles.documents import parse_base, parse_index, parse_manifest
from store.bundles.layout import (
    ADAPTER_FORMAT_VERSION,
    KIND,
    MAX_INDEX_BYTES,
    Entry,
    blobs_in_order,
    placed,
)
from store.codecs.framing import FORMAT_VERSION, MAGIC, PROLOGUE, prologue, read_index, read_prologue
from store.errors import CorruptBlobError, InvalidBundleError
from store.manifest import BaseManifest, Manifest

_PIECE_BYTES = 4 * 2**20
_AGAIN = "export it again, or copy it again whole"


class BundleReader:
    """A bundle whose every byte has a place, and which holds exactly the blobs that its manifests name.

    What the blobs hold is not looked at here; `pieces` hands them out with their digests unchecked.

    Attributes:
        index: What it says of itself.
        etag: sha256 of the index's bytes.
        manifest: The revision's manifest, hashed and checked; None of a model that has learned nothing.
        adapter: The manifest of the adapters' initialisation, likewise; None of a model that tunes in full.

    Raises:
        InvalidBundleError: The file is no bundle, damaged, or of another version.
    """

    name = KIND

    def __init__(self, path: Path) -> None:
        self._path = path
        self.size_bytes = path.stat().st_size
        version, content, self._data_end = self._frame()
        self.etag = hashlib.sha256(content).hexdigest()
        self.index = parse_index(content)
        if version != self.index.format_version:
            raise _invalid(f"its index is not one of format {version}")
        self._entries = {entry.digest: entry for entry in self.index.blobs}
        self._check_coverage()
        self.manifest = self._manifest()
        self.adapter = self._adapter()
        self._check_completeness()

    def entry(self, digest: str) -> Entry:
        """Where the blob lies in the bundle, which must have it."""
        if digest not in self._entries:
            raise _invalid(f"blob {digest} is missing")
        return self._entries[digest]

    def read(self, start: int, length: int) -> memoryview:
        """Bytes [start, start + length) of the file, in memory that the caller owns."""
        content = bytearray(length)
        with self._path.open("rb") as file:
            file.seek(start)
            if file.readinto(content) < length:
                raise _invalid(f"it ends before byte {start + length}")
        return memoryview(content)

    def pieces(self, entry: Entry) -> Iterator[memoryview]:
        """The bytes of a blob in pieces of a few MiB."""
        for start in range(0, entry.length, _PIECE_BYTES):
            yield self.read(entry.position + start, min(_PIECE_BYTES, entry.length - start))

    def mapped(self, entry: Entry) -> memoryview:
        """The bytes of a blob without a copy, in memory that never reaches the file when it is written to."""
        with self._path.open("rb") as file:
            whole = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        return memoryview(whole)[entry.position : entry.position + entry.length]

    def _frame(self) -> tuple[int, bytes, int]:
        try:
            magic, version, kind = read_prologue(self, KIND)
            if magic != MAGIC or kind != KIND.encode():
                raise InvalidBundleError("the file is no bundle: give one that `condu model export` wrote")
            if not FORMAT_VERSION <= version <= ADAPTER_FORMAT_VERSION:
                raise InvalidBundleError(
                    f"the bundle has format {version}; this version reads formats {FORMAT_VERSION} to "
                    f"{ADAPTER_FORMAT_VERSION}: upgrade condu"
                )
            if bytes(self.read(0, PROLOGUE.size)) != prologue(KIND, version):
                raise _invalid("its first 64 bytes are not all as they should be")
            return version, *read_index(self, KIND, max_bytes=MAX_INDEX_BYTES)
        except CorruptBlobError as error:
            raise _invalid(f"expected {error.expected}, found {error.found}") from error

    def _check_coverage(self) -> None:
        entries = self.index.blobs
        if len(self._entries) != len(entries):
            raise _invalid("it has a blob twice")
        if placed((entry.digest, entry.length) for entry in entries) != entries:
            raise _invalid("its blobs overlap, leave holes, or do not begin at multiples of 64 bytes")
        end = entries[-1].stop if entries else PROLOGUE.size
        if end != self._data_end:
            raise _invalid(f"its blobs end at byte {end}, its index begins at byte {self._data_end}")
        for entry in entries:
            size = entry.stop - entry.position - entry.length
            if any(self.read(entry.position + entry.length, size)):
                raise _invalid(f"the padding behind blob {entry.digest} is not zero")

    def _manifest(self) -> Manifest | None:
        if self.index.head is None:
            return None
        manifest = parse_manifest(self.document(self.index.head))
        if manifest.base != self.index.learned_on:
            raise _invalid(f"its revision is on the base {manifest.base}, not on {self.index.learned_on}")
        return manifest

    def _adapter(self) -> BaseManifest | None:
        if self.index.adapter is None:
            return None
        adapter = parse_base(self.document(self.index.adapter))
        if adapter.extends is None or adapter.extends.base != self.index.base:
            raise _invalid(f"its adapter {self.index.adapter} is not one of its base {self.index.base}")
        return adapter

    def _check_completeness(self) -> None:
        index = self.index
        base = parse_base(self.document(index.base)) if index.has_base else None
        if base is not None and base.extends is not None:
            raise _invalid(f"its base {index.base} is an extension of another, and no model by itself")
        expected = blobs_in_order(
            base=index.base,
            weights=None if base is None else base.weights,
            head=index.head,
            manifest=self.manifest,
            adapter=None if self.adapter is None else (str(index.adapter), self.adapter.weights),
        )
        for digest in expected:
            self.entry(digest)
        if extra := sorted(self._entries.keys() - set(expected)):
            raise _invalid(f"blob {extra[0]} is named by none of its manifests")
        if tuple(self._entries) != expected:
            raise _invalid("its blobs are not in the order in which its manifests name them")

    def document(self, digest: str) -> bytes:
        """A manifest of the bundle, hashed.

        Raises:
            InvalidBundleError: It is missing, too large, or damaged.
        """
        entry = self.entry(digest)
        if entry.length > MAX_CHECKED_BYTES:
            raise _invalid(f"a manifest of {entry.length} bytes; at most {MAX_CHECKED_BYTES} are read")
        content = bytes(self.read(entry.position, entry.length))
        check_digest_of(entry, hashlib.sha256(content).hexdigest())
        return content


def check_digest_of(entry: Entry, found: str) -> None:
    """Nothing where the blob's bytes have the digest that names it; else InvalidBundleError with both."""
    if found != entry.digest:
        raise _invalid(f"the bytes of blob {entry.digest} have the digest {found}")


def _invalid(detail: str) -> InvalidBundleError:
    return InvalidBundleError(f"the bundle cannot be used: {detail}; {_AGAIN}")

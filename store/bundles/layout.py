"""What a bundle holds, in which order, and where each blob lies in the file (docs/format.md)."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from store.codecs.framing import FORMAT_VERSION, PROLOGUE, padding
from store.manifest import Manifest

KIND = "bundle"
ADAPTER_FORMAT_VERSION = 2
"""Of a bundle whose model learns adapters; every other one is of version 1 still."""

MAX_INDEX_BYTES = 16 * 2**20
"""Ten thousand tasks take about ten MiB."""


@dataclass(frozen=True)
class Entry:
    """A blob of a bundle: bytes [position, position + length) of the file."""

    digest: str
    position: int
    length: int

    @property
    def stop(self) -> int:
        """Where the next payload begins."""
        return self.position + self.length + len(padding(self.length))


@dataclass(frozen=True)
class Index:
    """What a bundle says of itself.

    Attributes:
        base: Digest of the base's manifest.
        has_base: Whether the base's blobs are in the bundle.
        adapter: Digest of the adapters' initialisation, which extends the base and is in the bundle; None
            of a model that tunes in full.
        head: Digest of the revision's manifest; None of a model that has learned nothing.
        blobs: The blobs in file order.
        catalog: What the catalog keeps beside the blobs; the store does not look into it.
    """

    base: str
    has_base: bool
    head: str | None
    blobs: tuple[Entry, ...]
    catalog: Mapping[str, Any]
    adapter: str | None = None

    @property
    def format_version(self) -> int:
        """The version of the bundle's format, which knows adapters from 2 on."""
        return FORMAT_VERSION if self.adapter is None else ADAPTER_FORMAT_VERSION

    @property
    def learned_on(self) -> str:
        """Digest of the base that the revision's deltas are taken from."""
        return self.base if self.adapter is None else self.adapter

    def to_dict(self) -> dict[str, Any]:
        """The index as JSON-able values; without an adapter as they were before there were any."""
        return ({} if self.adapter is None else {"adapter": self.adapter}) | {
            "kind": KIND,
            "base": self.base,
            "has_base": self.has_base,
            "head": self.head,
            "blobs": [[entry.digest, entry.position, entry.length] for entry in self.blobs],
            "catalog": dict(self.catalog),
        }


def blobs_in_order(
    *,
    base: str,
    weights: str | None,
    head: str | None,
    manifest: Manifest | None,
    adapter: tuple[str, str] | None = None,
) -> tuple[str, ...]:
    """The digests of all blobs that the bundle has, each once, the documents before what they name.

    Args:
        base: The base's manifest.
        weights: The base's weights, where the bundle has the base.
        head: The revision's manifest, where there is a revision.
        manifest: What stands in it.
        adapter: Manifest and weights of the adapters' initialisation, where there is one.
    """
    names: list[str | None] = [base, weights] if weights else []
    names += adapter or ()
    if manifest is not None:
        names += [head, manifest.unified]
        for task in manifest.tasks:
            names += [task.mask, task.buffers, task.prototypes]
    return tuple(dict.fromkeys(name for name in names if name))


def placed(sizes: Iterable[tuple[str, int]]) -> tuple[Entry, ...]:
    """Where blobs of these sizes lie: one after the other, each at a multiple of 64 bytes."""
    entries: list[Entry] = []
    position = PROLOGUE.size
    for digest, length in sizes:
        entries.append(Entry(digest, position, length))
        position = entries[-1].stop
    return tuple(entries)

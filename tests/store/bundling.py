"""Bundles made by hand, with whatever is wrong with them that a test wants."""

import hashlib
import json

import xxhash

from store.bundles.layout import placed
from store.checkpoints import CheckpointStore
from store.codecs.framing import MAGIC, TRAILER, padding, prologue
from store.manifest import BaseManifest
from store.strict_json import canonical_json


def sha256(content):
    return hashlib.sha256(content).hexdigest()


def framed(payloads, index, version=1):
    """A file of the payloads, each padded, behind the kind's prologue, and of the index's bytes."""
    body = b"".join(bytes(payload) + padding(len(payload)) for payload in payloads)
    return prologue("bundle", version) + body + index + trailer(index)


def trailer(index):
    return TRAILER.pack(len(index), xxhash.xxh3_64_intdigest(index), MAGIC)


def bundle_of(payloads, *, base, head, has_base=True, catalog=None, change=None):
    """A bundle of these payloads in their order; `change` edits the index, or gives its bytes."""
    entries = placed((sha256(payload), len(payload)) for payload in payloads)
    index = {
        "kind": "bundle",
        "base": base,
        "has_base": has_base,
        "head": head,
        "blobs": [[entry.digest, entry.position, entry.length] for entry in entries],
        "catalog": catalog or {},
    }
    changed = change(index) if change else None
    if isinstance(changed, bytes):
        return framed(payloads, changed)
    return framed(payloads, canonical_json(index), version=2 if "adapter" in index else 1)


class Parts:
    """The parts of a stored model, to be changed one by one and put together again."""

    def __init__(self, store: CheckpointStore, digest: str) -> None:
        self.store = store
        self.manifest = store.manifest(digest)
        self.base = bytes(store.blobs.read(self.manifest.base))
        self.weights = self.blob(BaseManifest.from_json(self.base).weights)
        self.revision = json.loads(self.blob(digest))
        self.others = {}

    def blob(self, digest):
        return bytes(self.store.blobs.read(digest))

    def replace(self, owner, field, content):
        """Let a field of the revision, or of one of its tasks, name these bytes."""
        owner[field] = sha256(content)
        self.others[owner[field]] = content

    def with_base(self, content, weights=None):
        """Another manifest of the base, which the revision is on."""
        self.base, self.weights = content, weights or self.weights
        self.revision["base"] = sha256(content)

    def payloads(self, *, with_base=True):
        revision = self.revision
        names = [revision["unified"]]
        for task in revision["tasks"]:
            names += [task["mask"], task["buffers"], task["prototypes"]]
        head = canonical_json(revision)
        others = [self.others.get(name) or self.blob(name) for name in dict.fromkeys(filter(None, names))]
        return [*([self.base, self.weights] if with_base else []), head, *others]

    def bundle(self, *, with_base=True, **options):
        return bundle_of(
            self.payloads(with_base=with_base),
            base=self.revision["base"],
            head=sha256(canonical_json(self.revision)),
            has_base=with_base,
            **options,
        )

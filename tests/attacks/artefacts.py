"""Every kind of thing a store keeps, whole and small, and how hostile ones are built, with right sums."""

import json
import struct
import tracemalloc
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
import xxhash

from store.bits import pack_bits
from store.blobs import FileBlobs
from store.checkpoints import CheckpointStore, NewTask
from store.codecs.floats import DTYPES
from store.codecs.framing import FORMAT_VERSION, MAGIC, PROLOGUE
from store.errors import StoreError
from store.experts import ExpertReader
from store.manifest import BaseManifest, FusionOptions, Manifest
from store.parameters import ExpectedTensor
from store.safefile import parse_safetensors, write_safetensors
from tests.store.coded import mask_artefact, read_mask, read_unified, unified_artefact
from vlm.errors import VlmError
from vlm.prototypes import PrototypeSet

NAMED_ERRORS = (StoreError, VlmError)
MEMORY_LIMIT = 48 * 2**20

EXPECTED = {
    "head.weight": ExpectedTensor((8, 5), "parameter"),
    "norm.bias": ExpectedTensor((3,), "parameter"),
    "norm.running_mean": ExpectedTensor((3,), "buffer"),
    "norm.steps": ExpectedTensor((), "fixed"),
}
PROTOTYPES = PrototypeSet(("cat", "dog"), ("a photo of a {}.",), torch.eye(2, 4), (3, 0))


def tensors(seed):
    generator = torch.Generator().manual_seed(seed)
    made = {name: torch.randn(want.shape, generator=generator) for name, want in EXPECTED.items()}
    return made | {"norm.steps": torch.tensor(3)}


@dataclass(frozen=True)
class Learned:
    """A base and two tasks in a store."""

    store: CheckpointStore
    base: Any
    manifest: Manifest
    digest: str

    def rebuilt(self, task="second"):
        """The expert's tensors, read as a request reads them."""
        manifest = self.store.manifest(self.digest)
        base = self.store.load_base(manifest.base)
        reader = ExpertReader(self.store.blobs, base, manifest, task=manifest.task(task))
        flat = torch.empty(base.space.flat_size)
        reader.rebuild(flat)
        return flat, reader.buffers()


def learned(folder, options=None):
    """Two tasks, both with buffers of their own, learned into blobs under the folder."""
    store = CheckpointStore(FileBlobs(folder / "blobs"))
    write_safetensors(folder / "base", tensors(0))
    base = store.load_base(store.save_base(folder / "base", EXPECTED).digest)
    digest = outcome = None
    for seed, name in enumerate(("first", "second"), start=1):
        write_safetensors(folder / name, tensors(seed))
        task = NewTask(
            name, PROTOTYPES.classes, PROTOTYPES.templates, store.blobs.put(PROTOTYPES.to_bytes()).digest
        )
        outcome = store.fold(
            base, parent=digest, options=options or FusionOptions(), new_task=task, checkpoint=folder / name
        )
        digest = outcome.manifest_digest
    return Learned(store, base, outcome.manifest, digest)


def values(size=200):
    """Floats with zeros among them."""
    rng = np.random.default_rng(0)
    return np.where(rng.random(size) < 0.7, rng.standard_normal(size), 0).astype(np.float32)


def bits(size=200):
    """Packed bits, three of four set."""
    return pack_bits(np.random.default_rng(1).random(size) < 0.75)


def prototypes(content):
    """What a prototype set says, comparable."""
    found = PrototypeSet.from_bytes(content)
    return found.classes, found.templates, found.num_images, found.vectors.numpy().tobytes()


def safetensors(content):
    """What a safetensors blob holds, comparable."""
    found = parse_safetensors(memoryview(bytearray(content)))
    return {name: (tensor.dtype, tensor.shape, bytes_of(tensor)) for name, tensor in found.items()}


def bytes_of(tensor):
    return tensor.reshape(-1).view(torch.uint8).numpy().tobytes() if tensor.numel() else b""


def arrays(read):
    """A reader of artefacts whose results can be compared."""
    return lambda content: [array.tobytes() for array in read(content)]


def every_kind(made):
    """By name: the bytes of a sound artefact, and a function that reads all of it from bytes."""
    blobs, task = made.store.blobs, made.manifest.tasks[0]
    return {
        "mask": (mask_artefact(bits(), 200), arrays(read_mask)),
        **{f"unified {dtype}": (unified_artefact(values(), dtype), arrays(read_unified)) for dtype in DTYPES},
        "base manifest": (bytes(blobs.read(made.base.digest)), BaseManifest.from_json),
        "revision manifest": (bytes(blobs.read(made.digest)), Manifest.from_json),
        "base weights": (bytes(blobs.read(made.base.manifest.weights)), safetensors),
        "buffers": (bytes(blobs.read(task.buffers)), safetensors),
        "prototypes": (bytes(blobs.read(task.prototypes)), prototypes),
    }


KINDS = (
    "mask",
    *(f"unified {dtype}" for dtype in DTYPES),
    "base manifest",
    "revision manifest",
    "base weights",
    "buffers",
    "prototypes",
)


def sealed(kind, index, payloads=b"", *, version=FORMAT_VERSION, index_size=None):
    """An artefact with the given index (JSON-able, or bytes as they are) and sums that are right."""
    text = index if isinstance(index, bytes) else json.dumps(index).encode()
    trailer = struct.pack(
        "<QQ8s", len(text) if index_size is None else index_size, xxhash.xxh3_64_intdigest(text), MAGIC
    )
    return PROLOGUE.pack(MAGIC, version, kind.encode()) + payloads + text + trailer


def opened(content):
    """The index of an artefact, and the bytes between it and the prologue."""
    index_size = struct.unpack("<Q", content[-24:-16])[0]
    return json.loads(content[-24 - index_size : -24]), content[64 : -24 - index_size]


def summed(row, payloads):
    """The row with the sum that its payload has."""
    codec, position, length, _ = row
    piece = payloads[position - 64 : position - 64 + length]
    return [codec, position, length, xxhash.xxh3_64_hexdigest(piece)]


def forged(content, change):
    """The artefact after `change(index, payloads)`, which may write to both, with sums that are right."""
    index, payloads = opened(content)
    payloads = bytearray(payloads)
    change(index, payloads)
    index["chunks"] = [summed(row, payloads) for row in index["chunks"]]
    return sealed(index["kind"], index, bytes(payloads))


def canonical(document):
    """JSON as a manifest is written."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def safetensors_bytes(header, data=b""):
    """A safetensors file of this header (JSON-able, or bytes as they are)."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def entry(shape=(1,), offsets=(0, 4)):
    """A tensor in the header of a safetensors file."""
    return {"dtype": "F32", "shape": list(shape), "data_offsets": list(offsets)}


def refused(read, content, says=None):
    """The error's text; reading must end in a named error, and must not ask for much memory on its way."""
    tracemalloc.start()
    try:
        with pytest.raises(NAMED_ERRORS, match=says) as caught:
            read(content)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < MEMORY_LIMIT + 30 * len(content)
    return str(caught.value)

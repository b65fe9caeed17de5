"""Writes the golden files (`python -m tests.golden.make_golden FOLDER`) from inputs no library can change.

Format 1's stand in tests/golden/v1 and are never written again: every later version must read them. A new
format gets a folder of its own. Only where a new zstd codes the same content in other bytes may v1 be made
anew, after the tests have shown that nothing but those bytes differs.
"""

import hashlib
import json
import sys
from pathlib import Path

import numpy as np
import torch
import zstandard

from store.bits import pack_bits
from store.blobs import FileBlobs
from store.checkpoints import CheckpointStore, NewTask
from store.codecs.floats import DTYPES
from store.manifest import FusionOptions
from store.parameters import CHUNK_ELEMENTS, ExpectedTensor
from store.safefile import write_safetensors
from store.sweep import Roots, sweep
from tests.store.coded import mask_artefact, unified_artefact
from vlm.prototypes import PrototypeSet

EXPECTED = {
    "text.embedding": ExpectedTensor((40, 8), "parameter"),
    "visual.conv": ExpectedTensor((6, 3, 2, 2), "parameter"),
    "visual.head.weight": ExpectedTensor((17, 11), "parameter"),
    "visual.norm.weight": ExpectedTensor((6,), "parameter"),
    "logit_scale": ExpectedTensor((), "parameter"),
    "visual.norm.running_mean": ExpectedTensor((6,), "buffer"),
    "visual.norm.num_batches_tracked": ExpectedTensor((), "fixed"),
}
FROZEN = {"logit_scale", "visual.norm.num_batches_tracked"}
TASKS = ("animals", "vögel", "letters")
NORMS = ("global_l1", "tensor_mean_l1")
WHOLE_HISTORY = "float32-global_l1"


def numbers(name, size):
    """Float32 numbers in [-1, 1) that depend on the name alone."""
    words = np.frombuffer(hashlib.shake_128(name.encode()).digest(4 * size), dtype="<u4")
    return (words >> 8).astype(np.float32) * np.float32(2.0**-23) - np.float32(1)


def base_tensors():
    """The base's state dict."""
    made = {
        name: torch.from_numpy(numbers(f"base {name}", max(int(np.prod(want.shape)), 1))).reshape(want.shape)
        for name, want in EXPECTED.items()
    }
    return made | {"visual.norm.num_batches_tracked": torch.tensor(7)}


def tuned_tensors(task):
    """A fine-tuned state dict: half of what a task changes is common to all tasks, most embeddings stay."""
    tuned = {}
    for name, tensor in base_tensors().items():
        if name in FROZEN:
            tuned[name] = tensor
            continue
        common, own = (numbers(f"{which} {name}", tensor.numel()) for which in ("common", task))
        delta = torch.from_numpy((common + own) * np.float32(0.01)).reshape(tensor.shape)
        if name == "text.embedding":
            delta[len(task) :] = 0
        tuned[name] = tensor + delta
    return tuned


def prototype_set(task):
    """The task's prototypes: a unit vector a class."""
    return PrototypeSet(("cat", f"a {task}"), ("a photo of a {}.",), torch.eye(2, 5), (4, 0))


def learn_models(folder):
    """Every combination of options, three tasks each; returns what the reader must find, by model."""
    store = CheckpointStore(FileBlobs(folder / "blobs"))
    write_safetensors(folder / "base", base_tensors())
    base = store.load_base(store.save_base(folder / "base", EXPECTED).digest)
    found = {}
    for dtype in DTYPES:
        for norm in NORMS:
            options = FusionOptions(rescaler_norm=norm, unified_dtype=dtype)
            found[f"{dtype}-{norm}"] = _learn(store, base, options, folder)
    (folder / "base").unlink()
    kept = [
        row["revisions"] if name == WHOLE_HISTORY else row["revisions"][-1:] for name, row in found.items()
    ]
    sweep(store, Roots(manifests=[digest for row in kept for digest in row]), grace_s=0.0, delete=True)
    return found


def _learn(store, base, options, folder):
    revisions, manifest = [], None
    for task in TASKS:
        write_safetensors(folder / "tuned", tuned_tensors(task))
        prototypes = prototype_set(task)
        outcome = store.fold(
            base,
            parent=revisions[-1] if revisions else None,
            options=options,
            new_task=NewTask(
                task, prototypes.classes, prototypes.templates, store.blobs.put(prototypes.to_bytes()).digest
            ),
            checkpoint=folder / "tuned",
        )
        manifest = outcome.manifest
        revisions.append(outcome.manifest_digest)
    (folder / "tuned").unlink()
    return {
        "revisions": revisions,
        "experts": {task: expert_digest(store, base, manifest, task) for task in TASKS},
    }


def expert_digest(store, base, manifest, task):
    """sha256 of the expert's weights and buffers as they are rebuilt."""
    rebuilt = store.rebuild(base, manifest, task)
    sha256 = hashlib.sha256(rebuilt.flat.numpy().tobytes())
    for name in sorted(rebuilt.buffers):
        sha256.update(name.encode() + rebuilt.buffers[name].numpy().tobytes())
    return sha256.hexdigest()


def spread_values():
    """A chunk and a bit more: little that is not zero in the first, everything in the second."""
    values = np.zeros(CHUNK_ELEMENTS + 200, dtype=np.float32)
    values[5000:5300] = numbers("spread", 300) * np.float32(1e-3)
    values[-200:] = np.ldexp(numbers("behind", 200), np.arange(200) % 60 - 40)
    return values


def single_artefacts():
    """By file name: artefacts of two chunks, of every dtype and with every codec."""
    values = spread_values()
    made = {f"unified-{dtype}": unified_artefact(values, dtype) for dtype in DTYPES}
    bits = np.concatenate([np.ones(CHUNK_ELEMENTS, dtype=bool), numbers("bits", 1000) > 0])
    made["mask-ones"] = mask_artefact(pack_bits(bits), len(bits))
    made["mask-of-values"] = mask_artefact(pack_bits(values > 0), len(values))
    made["mask-zeros"] = mask_artefact(
        pack_bits(np.zeros(CHUNK_ELEMENTS + 3, dtype=bool)), CHUNK_ELEMENTS + 3
    )
    return made


def content_digest(arrays):
    """sha256 of what an artefact decodes to."""
    return hashlib.sha256(b"".join(array.tobytes() for array in arrays)).hexdigest()


def main(folder):
    """Write the golden files into the folder, which must not be there."""
    folder.mkdir(parents=True)
    (folder / "artefacts").mkdir()
    for name, content in single_artefacts().items():
        (folder / "artefacts" / name).write_bytes(content)
    found = {"zstd": ".".join(map(str, zstandard.ZSTD_VERSION)), "models": learn_models(folder)}
    (folder / "blobs" / "incoming").rmdir()
    (folder / "found.json").write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))

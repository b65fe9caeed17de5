"""Writes format 2's golden files (`python -m tests.golden.make_golden_adapters FOLDER`): a model of adapters.

They stand in tests/golden/v2: the blobs of a base, of what adapters on it start from and of a revision of
three tasks, and the model's bundle. Like those of format 1 they are never written again.
"""

import json
import sys
from pathlib import Path

import torch
import zstandard

from store.blobs import FileBlobs
from store.bundles import BundleFile
from store.checkpoints import CheckpointStore, NewTask
from store.manifest import Extension, FusionOptions
from store.parameters import ExpectedTensor
from store.safefile import write_safetensors
from store.sweep import Roots, sweep
from tests.golden.make_golden import EXPECTED, TASKS, base_tensors, expert_digest, numbers, prototype_set
from tests.golden.make_golden_bundles import facts

ADAPTER = {
    "visual.head.lora_A.weight": ExpectedTensor((4, 11), "parameter"),
    "visual.head.lora_B.weight": ExpectedTensor((17, 4), "parameter"),
}
BUNDLE = "adapters.condu"


def start_tensors():
    """What the adapters start from."""
    return {
        name: torch.from_numpy(numbers(f"start {name}", want.shape[0] * want.shape[1])).reshape(want.shape)
        if "lora_A" in name
        else torch.zeros(want.shape)
        for name, want in ADAPTER.items()
    }


def trained_tensors(task):
    """An adapter that was trained from there."""
    return {
        name: tensor
        + torch.from_numpy(numbers(f"{task} {name}", tensor.numel())).reshape(tensor.shape) * 0.125
        for name, tensor in start_tensors().items()
    }


def learn_adapters(folder):
    """Digests of the base, of what its adapters start from, and of the last of three revisions."""
    store = CheckpointStore(FileBlobs(folder / "blobs"))
    file = folder / "tensors"
    write_safetensors(file, base_tensors())
    base = store.save_base(file, EXPECTED).digest
    write_safetensors(file, start_tensors())
    extends = Extension(base, 4, "rank^-1/2", "kaiming-uniform/philox", 7)
    adapter = store.load_base(store.save_base(file, ADAPTER, extends=extends).digest)
    head, manifest = None, None
    for task in TASKS:
        write_safetensors(file, trained_tensors(task))
        prototypes = prototype_set(task)
        digest = store.blobs.put(prototypes.to_bytes()).digest
        outcome = store.fold(
            adapter,
            parent=head,
            options=FusionOptions(),
            new_task=NewTask(task, prototypes.classes, prototypes.templates, digest),
            checkpoint=file,
        )
        head, manifest = outcome.manifest_digest, outcome.manifest
    file.unlink()
    sweep(store, Roots(manifests=[head]), grace_s=0.0, delete=True)
    experts = {task: expert_digest(store, adapter, manifest, task) for task in TASKS}
    return {"base": base, "adapter": adapter.digest, "head": head, "experts": experts}


def adapter_facts():
    """The catalog section of the bundle."""
    found = facts("float32-global_l1")
    return found | {"model": found["model"] | {"tuning": "lora"}}


def bundle(store, found):
    """The bundle of the golden model."""
    return BundleFile(
        store.blobs,
        base=found["base"],
        adapter=found["adapter"],
        head=found["head"],
        with_base=True,
        catalog=adapter_facts(),
    )


def main(folder):
    """Write the golden files into the folder, which must not be there."""
    folder.mkdir(parents=True)
    found = learn_adapters(folder)
    store = CheckpointStore(FileBlobs(folder / "blobs"))
    (folder / BUNDLE).write_bytes(b"".join(bundle(store, found).read()))
    (folder / "blobs" / "incoming").rmdir()
    found |= {"zstd": ".".join(map(str, zstandard.ZSTD_VERSION))}
    (folder / "found.json").write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))

"""A small base with every kind of tensor, and fine-tunes of it, for the store's tests."""

import torch

from store.checkpoints import CheckpointStore, NewTask
from store.manifest import FusionOptions
from store.parameters import ExpectedTensor
from store.safefile import write_safetensors

EXPECTED = {
    "tower.weight": ExpectedTensor((70, 33), "parameter"),
    "tower.bias": ExpectedTensor((7,), "parameter"),
    "logit_scale": ExpectedTensor((), "parameter"),
    "norm.running_mean": ExpectedTensor((5,), "buffer"),
    "norm.num_batches_tracked": ExpectedTensor((), "fixed"),
}


def base_tensors(dtype=torch.float32):
    generator = torch.Generator().manual_seed(1)
    tensors = {
        name: torch.randn(want.shape, generator=generator).to(dtype) for name, want in EXPECTED.items()
    }
    tensors["norm.num_batches_tracked"] = torch.tensor(3)
    return tensors


def fine_tuned(seed, tensors=None):
    generator = torch.Generator().manual_seed(100 + seed)
    tensors = tensors or base_tensors()
    return {
        name: value + 0.01 * torch.randn(value.shape, generator=generator)
        if value.is_floating_point() and name != "logit_scale"
        else value
        for name, value in tensors.items()
    }


def save_base(store, folder, tensors=None):
    path = folder / "base.safetensors"
    write_safetensors(path, tensors or base_tensors())
    return store.load_base(store.save_base(path, EXPECTED).digest)


def new_task(store, name):
    return NewTask(
        name, ("cat", "dog"), ("a photo of a {}.",), store.blobs.put(b"prototypes of " + name.encode()).digest
    )


def learn(store, base, folder, *, name, parent=None, tensors=None, options=None):
    path = folder / f"{name}.safetensors"
    write_safetensors(path, tensors or fine_tuned(len(name) + sum(name.encode())))
    outcome = store.fold(
        base,
        parent=parent,
        options=options or FusionOptions(),
        new_task=new_task(store, name),
        checkpoint=path,
    )
    path.unlink()
    return outcome


def learn_all(store, base, folder, names, options=None):
    parent, outcome = None, None
    for name in names:
        outcome = learn(store, base, folder, name=name, parent=parent, options=options)
        parent = outcome.manifest_digest
    return outcome


def small_store(blobs):
    return CheckpointStore(blobs)

"""A learned model for the room's tests: a tiny base and three tasks, folded by the real store into memory."""

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from store.blobs import MemoryBlobs
from store.checkpoints import CheckpointStore, NewTask
from store.manifest import FusionOptions, Manifest
from store.safefile import write_safetensors
from tests.tiny_clip import TINY_CONFIG, tiny_expert_tensors, tiny_image, tiny_tensors, write_tiny_base
from vlm.architecture import Architecture, resolve_architecture
from vlm.bases import BaseRef
from vlm.experts import ExpertPool
from vlm.prototypes import compute_prototypes

TASKS = {"pets": ("cat", "dog"), "flowers": ("rose", "daisy", "tulip"), "digits": ("one", "two", "three")}
TEMPLATES = ("a photo of a {}.", "a drawing of a {}.")


@dataclass(frozen=True)
class Learned:
    """A base and the revisions on it, in memory."""

    store: CheckpointStore
    base: BaseRef
    base_tensors: dict[str, Tensor]
    checkpoints: dict[str, dict[str, Tensor]]
    manifests: list[Manifest]

    @property
    def architecture(self) -> Architecture:
        return self.base.architecture

    @property
    def manifest(self) -> Manifest:
        return self.manifests[-1]

    @property
    def model_bytes(self) -> int:
        return self.store.load_base(self.base.digest).flat.numel() * 4

    def pool(self, *, models: int = 8) -> ExpertPool:
        """A pool with room for that many models."""
        return ExpertPool(self.store, max_bytes=models * self.model_bytes)

    def picture(self, seed: int) -> Tensor:
        return self.base.preprocessing(tiny_image(seed))

    def pictures(self, num: int) -> Tensor:
        return torch.stack([self.picture(seed) for seed in range(num)])


def learn(folder, config, tasks, *, blobs=None, alter=dict) -> Learned:
    """A model of that architecture that has learned the tasks, in their order.

    `alter` gets each fine-tuned state dict and gives the one to learn.
    """
    architecture = resolve_architecture(config=config)
    store = CheckpointStore(MemoryBlobs() if blobs is None else blobs)
    base_file = write_tiny_base(folder / "base.safetensors", config=config)
    saved = store.save_base(base_file, architecture.expected_tensors())
    base = store.load_base(saved.digest)
    base_tensors = tiny_tensors(config=config)
    theta0 = architecture.build(base_tensors)
    checkpoints, manifests, parent = {}, [], None
    for seed, (name, classes) in enumerate(tasks.items(), start=1):
        checkpoints[name] = alter(tiny_expert_tensors(base_tensors, seed=seed, scale=0.1))
        prototypes = compute_prototypes(
            theta0, architecture.tokenizer(), classes=classes, templates=TEMPLATES
        )
        outcome = store.fold(
            base,
            parent=parent,
            options=FusionOptions(),
            new_task=NewTask(name, classes, TEMPLATES, store.blobs.put(prototypes.to_bytes()).digest),
            checkpoint=_written(folder / f"{name}.safetensors", checkpoints[name]),
        )
        manifests.append(outcome.manifest)
        parent = outcome.manifest_digest
    reference = BaseRef("tiny", saved.digest, architecture, architecture.preprocessing())
    return Learned(store, reference, base_tensors, checkpoints, manifests)


def _written(path, tensors):
    write_safetensors(path, tensors)
    return path


@pytest.fixture(scope="session")
def learned(tmp_path_factory) -> Learned:
    return learn(tmp_path_factory.mktemp("learned"), TINY_CONFIG, TASKS)


@pytest.fixture(scope="session", autouse=True)
def _few_threads():
    torch.set_num_threads(1)

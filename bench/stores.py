"""Stores filled with made tasks, through the same calls as an import makes."""

import contextlib
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from bench.synthetic import SyntheticModel, expected_tensors, write_flat
from store.bases import Base
from store.blobs import Blobs
from store.checkpoints import CheckpointStore, FoldOutcome, NewTask
from store.experts import open_mask
from store.manifest import FusionOptions, TaskEntry
from store.safefile import header_bytes, tensor_bytes

NUM_CLASSES = 100
FEATURE_SIZE = 512
TEMPLATES = ("a photo of a {}.",)


@contextlib.contextmanager
def scratch_folder() -> Iterator[Path]:
    """A folder for what a benchmark writes; gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="condu-bench-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def save_base(store: CheckpointStore, model: SyntheticModel, folder: Path) -> Base:
    """The made base, registered and loaded."""
    path = folder / "base.safetensors"
    write_flat(path, model.space, model.base)
    base = store.load_base(store.save_base(path, expected_tensors(model.space)).digest)
    path.unlink()
    return base


def new_task(store: CheckpointStore, index: int, num_classes: int = NUM_CLASSES) -> NewTask:
    """A task with its prototypes in the store."""
    generator = torch.Generator().manual_seed(index)
    prototypes = torch.randn(num_classes, FEATURE_SIZE, generator=generator)
    content = header_bytes([("prototypes", "float32", (num_classes, FEATURE_SIZE))])
    digest = store.blobs.put(content + bytes(tensor_bytes(prototypes))).digest
    classes = tuple(f"class {number} of task {index}" for number in range(num_classes))
    return NewTask(task_name(index), classes, TEMPLATES, digest)


def task_name(index: int) -> str:
    """What the made task of this index is called."""
    return f"task-{index}"


class GrowingModel:
    """One model of a store that learns task after task; what only earlier revisions need is removed.

    Attributes:
        head: The newest revision's outcome, once there is one.
        family: The models of the same store, whose artefacts stay; a model adds itself.
    """

    def __init__(
        self,
        store: CheckpointStore,
        base: Base,
        options: FusionOptions | None = None,
        *,
        family: "list[GrowingModel] | None" = None,
    ) -> None:
        self.store, self.base = store, base
        self.options = options or FusionOptions()
        self.head: FoldOutcome | None = None
        self.family = [] if family is None else family
        self.family.append(self)

    def learn(self, index: int, checkpoint: Path, num_classes: int = NUM_CLASSES) -> FoldOutcome:
        """Fold the next task's checkpoint in."""
        parent = self.head
        self.head = self.store.fold(
            self.base,
            parent=parent.manifest_digest if parent else None,
            options=self.options,
            new_task=new_task(self.store, index, num_classes),
            checkpoint=checkpoint,
        )
        if parent:
            heads = [model.head for model in self.family if model.head]
            kept = frozenset().union(*(head.manifest.named_blobs() for head in heads))
            for digest in parent.manifest.named_blobs() - kept:
                self.store.blobs.delete(digest)
        return self.head


def copy_revision(source: CheckpointStore, target: Blobs, digest: str) -> None:
    """Every blob that a revision needs but the base's, and its manifest, in another place."""
    manifest = source.manifest(digest)
    _copy(source, target, manifest.named_blobs() | {digest})


def copy_base(source: CheckpointStore, target: Blobs, base: Base) -> None:
    """A base's manifest and weights in another place."""
    _copy(source, target, {base.digest, base.manifest.weights})


def _copy(source: CheckpointStore, target: Blobs, digests: Iterable[str]) -> None:
    for digest in sorted(digests):
        if not target.contains(digest):
            target.put(bytes(source.blobs.read(digest)))


def packed_mask(store: CheckpointStore, task: TaskEntry, base: Base) -> Tensor:
    """A task's mask as packed bits in memory."""
    reader = open_mask(store.blobs, task.mask, base.space)
    chunks = [reader.chunk(index) for index in range(reader.num_chunks)]
    return torch.from_numpy(np.concatenate(chunks))

"""An installation as the service finds it: a base, a model, and made tasks folded in one after the other."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bench.serving.weights import BaseWeights, make_fine_tune
from catalog import Catalog, Settings, upgrade
from catalog.bases import add_base
from catalog.blobs import NewBlob
from catalog.models import create_model
from catalog.revisions import NewTask, NewTrigger, publish_revision
from store.blobs import open_blobs
from store.checkpoints import CheckpointStore, FoldOutcome
from store.checkpoints import NewTask as TaskToFold
from store.manifest import FusionOptions, Manifest
from store.safefile import write_safetensors
from vlm.bases import BaseRef
from vlm.experts import ExpertPool
from vlm.prototypes import compute_prototypes

MODEL = "served"
BASE = "base"
THINGS = (
    "roof", "petal", "tower", "leaf", "cloud", "stem", "wall", "garden", "bridge", "sky",
    "temple", "lantern", "tree", "blossom", "window", "path", "hill", "fence", "water", "stone",
)  # fmt: skip
COLOURS = ("red", "green", "blue", "grey", "yellow", "white", "brown", "pink", "black", "orange")
PICTURES_EVERY = 7
TEMPLATES = ("a photo of a {}.", "a drawing of a {}.")


@dataclass(frozen=True)
class Published:
    """A revision that requests may be answered from."""

    number: int
    manifest: Manifest


def task_name(index: int) -> str:
    """What the made task of this index is called."""
    return f"task-{index}"


def class_names(index: int, count: int) -> tuple[str, ...]:
    """Words for the classes of the made task of this index; tasks do not share them."""
    names = [
        f"{COLOURS[(index + place // len(THINGS)) % len(COLOURS)]} {THINGS[place % len(THINGS)]}"
        for place in range(count)
    ]
    return tuple(names if index < len(COLOURS) else [f"{name} {index}" for name in names])


class Installation:
    """A data folder with one model, to which further revisions can be published at any time.

    Args:
        folder: The data folder; made.
        base: What everything is learned on.
        photographs: JPEGs; each task has its share of them as training images.
        num_classes: Of each task.
        seed: Of the deltas.
    """

    def __init__(
        self,
        folder: Path,
        base: BaseWeights,
        photographs: Sequence[bytes],
        *,
        num_classes: int,
        seed: int,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        # What the environment says is about another installation.
        own: dict[str, Any] = {"data": folder, "database_url": None}
        self.settings = Settings(**own)
        upgrade(self.settings.catalog_url)
        self.catalog = Catalog(self.settings)
        self.store = CheckpointStore(open_blobs(self.settings.blob_place))
        self.pool = ExpertPool(self.store, max_bytes=0)
        self.weights = base
        self.revisions: dict[int, Published] = {}
        self.head: int | None = None
        self._num_classes, self._seed = num_classes, seed
        self.ref = self._register(folder)
        self.pictures: list[Tensor] = [self.ref.preprocessing.load(content) for content in photographs]

    def learn(self, index: int) -> Published:
        """Publish the revision that also serves the made task of this index."""
        checkpoint = self.settings.data / "fine-tune.safetensors"
        write_safetensors(
            checkpoint, make_fine_tune(self.weights.tensors, seed=1000 * self._seed + index + 1)
        )
        classes = class_names(index, self._num_classes)
        prototypes = self._put_prototypes(index, classes)
        base = self.store.load_base(self.ref.digest)
        parent = None if self.head is None else self.revisions[self.head].manifest
        outcome = self.store.fold(
            base,
            parent=None if parent is None else self.store.blobs.put(parent.to_json()).digest,
            options=FusionOptions(),
            new_task=TaskToFold(task_name(index), classes, TEMPLATES, prototypes.digest),
            checkpoint=checkpoint,
        )
        checkpoint.unlink()
        triggers = [_trigger(outcome, name) for name in outcome.tasks]
        task = NewTask(
            name=task_name(index),
            classes=classes,
            templates=TEMPLATES,
            l1_norm=outcome.tasks[task_name(index)].l1_norm,
            prototypes=prototypes.digest,
            prototypes_bytes=prototypes.size_bytes,
        )
        return self._publish(
            outcome.manifest_digest, outcome.manifest, cause="import", triggers=triggers, task=task
        )

    def drop(self, index: int) -> Published:
        """Publish the revision that serves all tasks but this one."""
        assert self.head is not None
        parent = self.revisions[self.head].manifest
        digest, manifest = self.store.drop_task(
            self.store.blobs.put(parent.to_json()).digest, task_name(index)
        )
        triggers = [
            NewTrigger(
                task=task.name,
                mask=task.mask,
                size_bytes=self.store.blobs.size_bytes(task.mask),
                rescaler=task.rescaler,
                density=task.bits_set / manifest.num_parameters,
                bits_cleared=0,
                relative_l2=0.0,
                cosine=1.0,
                reference="previous revision",
            )
            for task in manifest.tasks
        ]
        return self._publish(digest, manifest, cause="remove", triggers=triggers, task=None)

    @property
    def flat_bytes(self) -> int:
        """What one expert takes in memory."""
        return 4 * self.store.load_base(self.ref.digest).space.flat_size

    def close(self) -> None:
        """Let go of the catalog."""
        self.pool.clear()
        self.catalog.close()

    def _register(self, folder: Path) -> BaseRef:
        architecture, path = self.weights.architecture, folder / "base.safetensors"
        write_safetensors(path, dict(self.weights.tensors))
        saved = self.store.save_base(path, architecture.expected_tensors())
        path.unlink()
        preprocessing = architecture.preprocessing()
        with self.catalog.transaction() as session:
            add_base(
                session,
                name=BASE,
                architecture=architecture.name,
                config=architecture.config,
                preprocessing=preprocessing.to_dict(),
                digest=saved.digest,
                layout=saved.manifest.space.digest,
                num_parameters=saved.manifest.space.num_parameters,
                size_bytes=saved.manifest.size_bytes,
            )
            create_model(session, name=MODEL, base=BASE)
        return BaseRef(BASE, saved.digest, architecture, preprocessing)

    def _put_prototypes(self, index: int, classes: tuple[str, ...]) -> NewBlob:
        """Every task knows other photographs, so that each picture is nearest to another task."""
        mine = self.pictures[index % len(self.pictures) :: PICTURES_EVERY]
        numbers = torch.arange(len(mine)) % len(classes)
        with self.pool.lease(self.ref, None, None) as base:
            made = compute_prototypes(
                base.model,
                base.tokenizer,
                [(torch.stack(mine), numbers)],
                classes=classes,
                templates=TEMPLATES,
            )
        content = made.to_bytes()
        return NewBlob(self.store.blobs.put(content).digest, len(content), "prototypes")

    def _publish(
        self,
        digest: str,
        manifest: Manifest,
        *,
        cause: str,
        triggers: list[NewTrigger],
        task: NewTask | None,
    ) -> Published:
        with self.catalog.transaction() as session:
            number = publish_revision(
                session,
                model=MODEL,
                parent=self.head,
                manifest=digest,
                cause=cause,
                triggers=triggers,
                task=task,
            )
        self.head = number
        self.revisions[number] = Published(number, manifest)
        return self.revisions[number]


def _trigger(outcome: FoldOutcome, name: str) -> NewTrigger:
    measures = outcome.tasks[name]
    return NewTrigger(
        task=name,
        mask=outcome.manifest.task(name).mask,
        size_bytes=outcome.trigger_bytes[name],
        rescaler=measures.rescaler,
        density=measures.density,
        bits_cleared=measures.bits_cleared,
        relative_l2=measures.relative_l2,
        cosine=measures.cosine,
        reference=measures.reference,
    )


def lay_out_experts(installation: Installation, folder: Path) -> dict[str, dict[str, Any]]:
    """The head's experts as folders that plain open_clip loads, with what it is to choose among."""
    assert installation.head is not None
    manifest = installation.revisions[installation.head].manifest
    base = installation.store.load_base(installation.ref.digest)
    config = dict(installation.ref.architecture.config)
    about = {"model_cfg": config, "preprocess_cfg": config.pop("preprocess_cfg")}
    found = {}
    for task in manifest.tasks:
        place = folder / task.name
        place.mkdir(parents=True)
        (place / "open_clip_config.json").write_text(json.dumps(about))
        with (place / "open_clip_model.safetensors").open("wb") as file:
            file.writelines(installation.store.export(base, manifest, task.name).read())
        found[task.name] = {
            "folder": str(place),
            "labels": list(task.classes),
            "templates": list(task.templates),
        }
    return found

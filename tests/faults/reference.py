"""What undisturbed folds give: the bits of every expert, by the order in which tasks were folded in."""

import hashlib
import json
import os
import tempfile
from pathlib import Path

from store.blobs.files import FileBlobs
from store.checkpoints import CheckpointStore, NewTask
from store.manifest import FusionOptions

MODELS = ("pets", "birds")
TASKS = ("ears", "feet", "tails", "wings")
TEMPLATES = ["a photo of a {}."]


class Reference:
    """Folds in a store of its own, which all rounds share; what an order gave is kept in a file.

    Args:
        place: `reference` is a folder with blobs and with a checkpoint a task; `base` its base's digest.
    """

    def __init__(self, place):
        self._folder = place.reference
        self._base = place.base
        self._store = CheckpointStore(FileBlobs(self._folder / "blobs"))

    def experts(self, order):
        """{task: digest of its expert's bits} after those tasks were folded in, in that order."""
        return self._kept(tuple(order))["experts"]

    def _kept(self, order):
        if not order:
            return {"manifest": None, "experts": {}}
        file = self._folder / f"{'-'.join(order)}.json"
        if not file.exists():
            self._keep(file, self._fold(order))
        return json.loads(file.read_text())

    def _fold(self, order):
        parent = self._kept(order[:-1])["manifest"]
        base = self._store.load_base(self._base)
        outcome = self._store.fold(
            base,
            parent=parent,
            options=FusionOptions(),
            new_task=NewTask(order[-1], ("red",), tuple(TEMPLATES), self._store.blobs.put(b"none").digest),
            checkpoint=self._folder / f"{order[-1]}.safetensors",
        )
        experts = experts_of(self._store, outcome.manifest_digest)
        return {"manifest": outcome.manifest_digest, "experts": experts}

    def _keep(self, file: Path, values):
        handle, name = tempfile.mkstemp(dir=self._folder)
        with os.fdopen(handle, "w") as temporary:
            json.dump(values, temporary)
        Path(name).replace(file)


def experts_of(store, manifest_digest):
    """{task: digest of the bits of its expert} of a revision, rebuilt from the store."""
    manifest = store.manifest(manifest_digest)
    base = store.load_base(manifest.base)
    return {
        task.name: hashlib.sha256(store.rebuild(base, manifest, task.name).flat.numpy().tobytes()).hexdigest()
        for task in manifest.tasks
    }

"""The installation that every round copies, and the store in which undisturbed folds are made."""

import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from catalog import upgrade
from catalog.bases import find_base
from catalog.models import create_model
from store.blobs.files import FileBlobs
from store.safefile import write_safetensors
from tests.faults.forking import answer_of
from tests.faults.reference import MODELS, TASKS
from tests.tiny_clip import tiny_expert_tensors, tiny_tensors
from tests.worker.installation import Installation


@dataclass(frozen=True)
class Place:
    """A folder; `base` is the digest of the base that all models of its template have."""

    folder: Path
    base: str

    @property
    def template(self):
        return self.folder / "template"

    @property
    def reference(self):
        return self.folder / "reference"


def make_place(folder):
    """A place for rounds, in that folder."""
    return Place(folder, answer_of(partial(_make, folder), folder / "template.log"))


def _make(folder, tell):
    migrated = folder / "migrated.sqlite"
    upgrade(f"sqlite:///{migrated}")
    kept = FileBlobs(folder / "reference" / "blobs")
    with Installation.opened(folder / "template", migrated) as installation:
        with installation.catalog.transaction() as session:
            for model in MODELS[1:]:
                create_model(session, name=model, base="tiny")
        for blob in installation.store.blobs.list():
            kept.put(installation.store.blobs.read(blob.digest))
        uploads = {}
        for number, task in enumerate(TASKS):
            path = folder / "reference" / f"{task}.safetensors"
            write_safetensors(path, tiny_expert_tensors(tiny_tensors(), number))
            uploads[task] = installation.store.blobs.put_file(path).digest
        (folder / "template" / "uploads.json").write_text(json.dumps(uploads))
        tell(installation.read(find_base, "tiny").digest)

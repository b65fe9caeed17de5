"""Writes the golden bundles (`python -m tests.golden.make_golden_bundles FOLDER`) from the golden models.

Those of format 1 stand in tests/golden/bundles and are made anew only where tests/golden/v1 is.
"""

import json
import shutil
import sys
import tempfile
from pathlib import Path

from store.blobs import FileBlobs
from store.bundles import BundleFile
from store.checkpoints import CheckpointStore
from tests.golden.make_golden import TASKS

V1 = Path(__file__).parent / "v1"
MODELS = json.loads((V1 / "found.json").read_text())["models"]
# By file name: the golden model, and whether its base goes with it.
BUNDLES = {"whole.condu": ("float32-global_l1", True), "without-base.condu": ("int4-tensor_mean_l1", False)}


def facts(model):
    """A catalog section as the api writes it, with a value of every type in it."""
    dtype, norm = model.split("-")
    return {
        "base": {
            "name": "tiny",
            "architecture": None,
            "config": {"embed_dim": 5, "vision_cfg": {"layers": 1}, "text_cfg": {}},
            "preprocessing": {"size": [32, 32], "mean": [0.5, 0.25, 0.125]},
        },
        "model": {
            "name": "zoo",
            "tuning": "full",
            "fusion": "condu",
            "rescaler_norm": norm,
            "unified_dtype": dtype,
        },
        "revision": len(TASKS),
        "tasks": [task_facts(name, position) for position, name in enumerate(TASKS)],
    }


def task_facts(name, position):
    """What the catalog knows of a task; of the first, as little as possible."""
    is_known = position > 0
    return {
        "name": name,
        "num_train": 40 * position,
        "num_test": 10 * position,
        "images_skipped": position,
        "accuracy_individual": 87.5 if is_known else None,
        "accuracy_expert": 86.25 if is_known else None,
        "accuracy_base": 50.0 if is_known else None,
        "dataset": 64 * "d" if is_known else None,
        "training": {"iterations": 10, "betas": [0.9, 0.999], "augment": True} if is_known else None,
        "bits_cleared": 100 + position,
        "relative_l2": 0.1 * position,
        "cosine": 1.0 - 0.1 * position,
        "reference": "original" if position == len(TASKS) - 1 else "previous revision",
    }


def golden_store(folder):
    """A store with the blobs of the golden models."""
    shutil.copytree(V1 / "blobs", folder)
    return CheckpointStore(FileBlobs(folder))


def bundle(store, model, *, with_base):
    """The bundle of a golden model."""
    head = MODELS[model]["revisions"][-1]
    base = store.manifest(head).base
    return BundleFile(store.blobs, base=base, head=head, with_base=with_base, catalog=facts(model))


def main(folder):
    """Write the golden bundles into the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        store = golden_store(Path(scratch) / "blobs")
        for name, (model, with_base) in BUNDLES.items():
            (folder / name).write_bytes(b"".join(bundle(store, model, with_base=with_base).read()))


if __name__ == "__main__":
    main(Path(sys.argv[1]))

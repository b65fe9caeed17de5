"""Memory over many switches of experts: `python -m bench.serving.switching ORDERS` is the process watched."""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from bench.memory import resident
from bench.serving.installation import BASE, Installation
from bench.serving.plan import ServingPlan
from bench.serving.processes import running, told
from bench.steps import Steps
from store.blobs.files import FileBlobs
from store.checkpoints import CheckpointStore
from vlm.architecture import resolve_architecture
from vlm.bases import BaseRef
from vlm.experts import ExpertPool
from vlm.images import DEFAULT_MAX_PIXELS
from vlm.preprocessing import Preprocessing

EXPERTS_KEPT = 2
POINTS = 20
"""Times that the memory is read, the tenth and the last switch among them."""


def cache_bytes(flat_bytes: int, experts: int) -> int:
    """A bound that the base, the unified delta and so many experts fill."""
    return (2 + experts) * flat_bytes + flat_bytes // 2


def measure_switching(
    installation: Installation, plan: ServingPlan, *, folder: Path, photographs: Path, steps: Steps
) -> dict[str, Any]:
    """Resident memory of a process that goes from expert to expert, and whether the last ones are right."""
    assert installation.head is not None
    ref, manifest = installation.ref, installation.revisions[installation.head].manifest
    orders = {
        "blobs": str(installation.settings.data / "blobs"),
        "manifest": installation.store.blobs.put(manifest.to_json()).digest,
        "base": ref.digest,
        "config": ref.architecture.config,
        "preprocessing": ref.preprocessing.to_dict(),
        "photograph": str(min(photographs.iterdir())),
        "switches": plan.switches,
        "max_bytes": cache_bytes(installation.flat_bytes, EXPERTS_KEPT),
    }
    path, log = folder / "switching.json", folder / "switching.log"
    path.write_text(json.dumps(orders))
    rows = []
    with running([sys.executable, "-m", "bench.serving.switching", str(path)], log) as process:
        while "differing" not in (said := told(process, log)):
            rows.append(said)
            steps.done(said["switches"] - (rows[-2]["switches"] if len(rows) > 1 else 0))
    settled = next(row for row in rows if row["switches"] >= plan.switches // 10)
    return {
        "switches": plan.switches,
        "experts": len(manifest.tasks),
        "experts_kept": EXPERTS_KEPT,
        "from_switch": settled["switches"],
        "growth": rows[-1]["resident_bytes"] / settled["resident_bytes"] - 1,
        "rows": rows,
        "evictions": said["evictions"],
        "experts_that_differ_from_the_store": said["differing"],
    }


def main(orders: Mapping[str, Any]) -> None:
    """Go round the experts, one image each; then hold every expert against what the store rebuilds."""
    store = CheckpointStore(FileBlobs(Path(orders["blobs"])))
    manifest = store.manifest(orders["manifest"])
    preprocessing = Preprocessing.from_dict(orders["preprocessing"])
    ref = BaseRef(BASE, orders["base"], resolve_architecture(config=orders["config"]), preprocessing)
    pool = ExpertPool(store, max_bytes=orders["max_bytes"])
    picture = preprocessing.load(Path(orders["photograph"]), max_pixels=DEFAULT_MAX_PIXELS)[None]
    switches, tasks = orders["switches"], [task.name for task in manifest.tasks]
    for switch in range(1, switches + 1):
        with pool.lease(ref, manifest, tasks[switch % len(tasks)]) as expert:
            expert.image_features(picture)
        if switch % max(1, switches // POINTS) == 0:
            sizes = resident()
            _say(
                {
                    "switches": switch,
                    "resident_bytes": sizes["VmRSS"],
                    "anonymous_bytes": sizes["RssAnon"],
                }
            )
    evicted = pool.stats().evictions
    base = store.load_base(ref.digest)
    differing = 0
    for task in tasks:
        with pool.lease(ref, manifest, task) as expert:
            served, wanted = expert.model.state_dict(), store.rebuild(base, manifest, task)
            views = {**base.space.views(wanted.flat), **wanted.buffers}
            differing += any(not torch.equal(served[name], tensor) for name, tensor in views.items())
    _say({"differing": differing, "evictions": evicted})


def _say(line: Mapping[str, Any]) -> None:
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text()))

"""The process whose memory is measured: `python -m bench.memory_child JSON`, spoken to over its pipes."""

import json
import sys
from pathlib import Path
from typing import Any

from bench.memory import resident
from bench.stores import GrowingModel, new_task, save_base, scratch_folder
from bench.synthetic import SyntheticModel, clip_space, write_flat
from store.blobs.files import FileBlobs
from store.checkpoints import CheckpointStore
from store.manifest import FusionOptions

WARM_UP_PARAMETERS = 50_000


def main(arguments: dict[str, Any]) -> None:
    """Load the base, say so, fold when told to, say what it took, and end with the pipe."""
    _warm_up()
    store = CheckpointStore(FileBlobs(Path(arguments["folder"])))
    base = store.load_base(arguments["base"])
    task = new_task(store, arguments["index"])
    _say("ready")
    sys.stdin.readline()
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts anew
    store.fold(
        base,
        parent=arguments["parent"],
        options=FusionOptions(),
        new_task=task,
        checkpoint=Path(arguments["checkpoint"]),
    )
    _say(
        json.dumps({"high_water_bytes": resident()["VmHWM"], "delta_bytes": base.flat.nbytes}),
    )
    sys.stdin.read()


def _warm_up() -> None:
    with scratch_folder() as folder:
        store = CheckpointStore(FileBlobs(folder / "blobs"))
        model = SyntheticModel(clip_space(WARM_UP_PARAMETERS))
        growing = GrowingModel(store, save_base(store, model, folder))
        for index in range(2):
            write_flat(folder / "tiny.safetensors", model.space, model.checkpoint(index))
            growing.learn(index, folder / "tiny.safetensors")


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))

"""What all of it takes on disk: as the service counts it, and as the data folder grows."""

from pathlib import Path

from cli.answers import StorageAnswer
from cli.output import Output
from cli.quickstart.numbers import Numbers, storage_numbers
from cli.quickstart.plan import QuickstartPlan
from cli.quickstart.scene import Scene
from cli.storage_table import storage_rows
from cli.units import as_bytes

BAR_WIDTH = 40


def weigh_after_sweep(scene: Scene, step: str) -> None:
    """Have everything removed that the head does not need, and note what the data folder holds then."""
    report = scene.client.sweep(delete=True, keep_revisions=1, grace_s=0)
    storage = StorageAnswer.read(scene.client.get_model(scene.plan.model_name).to_dict()["storage"])
    blobs_bytes = folder_bytes(scene.service.data / "blobs")
    data_folder_bytes = folder_bytes(scene.service.data) - scene.service.log.stat().st_size
    now = {
        "data_folder_bytes": data_folder_bytes,
        "unified_bytes": storage.unified_bytes,
        "owned_bytes": sum(storage.trigger_bytes.values()) + storage.prototype_bytes + storage.buffer_bytes,
        "catalog_bytes": data_folder_bytes - blobs_bytes,
    }
    growth = scene.numbers.growth
    grown = {name: size - growth[-1]["now"][name] for name, size in now.items()} if growth else None
    growth.append({"after": step, "now": now, "grown": grown, "freed_bytes": report["bytes_freed"]})


def print_storage(scene: Scene) -> None:
    """The storage table, what a task adds, and the alternative of keeping every checkpoint."""
    scene.chapter("Storage: one base, one unified delta, one bit per parameter and task")
    model = scene.client.get_model(scene.plan.model_name).to_dict()
    storage = StorageAnswer.read(model["storage"])
    scene.numbers.storage = storage_numbers(model["storage"])
    scene.output.table(("stored", "size"), storage_rows(storage))
    scene.output.say()
    rows = [
        (
            entry["after"],
            as_bytes(entry["now"]["data_folder_bytes"]),
            *(
                as_bytes(entry["grown"][f"{part}_bytes"])
                for part in ("data_folder", "owned", "unified", "catalog")
            ),
        )
        for entry in scene.numbers.growth
        if entry["grown"]
    ]
    headings = (
        "measured after a sweep",
        "data folder",
        "grown by",
        "triggers and prototypes",
        "unified delta",
        "catalog",
    )
    scene.output.table(headings, rows)
    scene.output.say(
        "The unified delta is one for all tasks: it fills up with the weights that tasks touch first, "
        "and takes one checkpoint at the most."
    )
    scene.output.say()
    draw_bars(scene, storage)


def draw_bars(scene: Scene, storage: StorageAnswer) -> None:
    """What one more task takes, against one more full checkpoint."""
    marginal = storage.marginal_bytes_per_task
    for name, size in (("a task here", marginal), ("a full checkpoint", storage.full_checkpoint_bytes)):
        width = max(1, round(BAR_WIDTH * size / storage.full_checkpoint_bytes))
        scene.output.say(f"{name:>18} {'█' * width} {as_bytes(size)}")
    if marginal:
        scene.output.say(
            f"one more task takes 1/{storage.full_checkpoint_bytes / marginal:.1f} of one more checkpoint "
            "(trigger, prototypes and buffers; the unified delta is shared)"
        )


def weigh_what_is_left(plan: QuickstartPlan, numbers: Numbers, output: Output) -> None:
    """Weigh the data folder once the service has stopped, when the catalog has folded its log into itself."""
    left = {
        "all_bytes": folder_bytes(plan.data),
        "blobs_bytes": folder_bytes(plan.data / "blobs"),
        "catalog_bytes": sum(file.stat().st_size for file in plan.data.glob("condu.sqlite*")),
    }
    numbers.storage["data_folder_after_stop"] = left
    output.say(
        f"\nThe data folder is left with {as_bytes(left['all_bytes'])}: "
        f"blobs {as_bytes(left['blobs_bytes'])}, catalog {as_bytes(left['catalog_bytes'])}."
    )


def folder_bytes(folder: Path) -> int:
    """The bytes of all files in a folder; one that vanishes meanwhile counts nothing."""
    total = 0
    for file in folder.rglob("*"):
        try:
            total += file.stat().st_size if file.is_file() else 0
        except FileNotFoundError:
            continue
    return total

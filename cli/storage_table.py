"""What a model takes on disk, as rows."""

from typing import Any

from cli.answers import StorageAnswer
from cli.units import as_bytes


def storage_rows(storage: StorageAnswer) -> list[tuple[str, str]]:
    """Each part and its size, then the sum and what keeping every checkpoint would take."""
    rows = [("base", as_bytes(storage.base_bytes)), ("unified delta", as_bytes(storage.unified_bytes))]
    rows += [(f"trigger of {task}", as_bytes(size)) for task, size in storage.trigger_bytes.items()]
    num_tasks = len(storage.trigger_bytes)
    rows += [
        ("prototypes", as_bytes(total_of(storage.prototype_bytes))),
        ("all of it", as_bytes(storage.total_bytes)),
        (
            f"base and {num_tasks} full checkpoints instead",
            as_bytes(storage.base_bytes + num_tasks * storage.full_checkpoint_bytes),
        ),
    ]
    return rows


def total_of(sizes: Any) -> float:
    """The bytes of a number, or of a number per task."""
    return float(sum(sizes.values())) if isinstance(sizes, dict) else float(sizes or 0)

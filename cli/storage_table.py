"""What a model takes on disk, as rows."""

from cli.answers import StorageAnswer
from cli.units import as_bytes


def storage_rows(storage: StorageAnswer) -> list[tuple[str, str]]:
    """Each part and its size, then the sum and what keeping every checkpoint would take."""
    rows = [("base", as_bytes(storage.base_bytes)), ("unified delta", as_bytes(storage.unified_bytes))]
    rows += [(f"trigger of {task}", as_bytes(size)) for task, size in storage.trigger_bytes.items()]
    if not storage.trigger_bytes:
        return rows
    kept_whole_bytes = storage.base_bytes + len(storage.trigger_bytes) * storage.full_checkpoint_bytes
    return [
        *rows,
        ("prototypes", as_bytes(storage.prototype_bytes)),
        ("statistics kept whole", as_bytes(storage.buffer_bytes)),
        ("all of it", as_bytes(storage.total_bytes)),
        (f"base and {len(storage.trigger_bytes)} full checkpoints instead", as_bytes(kept_whole_bytes)),
    ]

"""What a model takes on disk, as rows."""

from cli.answers import StorageAnswer
from cli.units import as_bytes


def storage_rows(storage: StorageAnswer) -> list[tuple[str, str]]:
    """Each part and its size, then the sum and what keeping every checkpoint would take."""
    rows = [("base", as_bytes(storage.base_bytes))]
    if storage.adapter_bytes:
        rows += [("what adapters start from", as_bytes(storage.adapter_bytes))]
    rows += [("unified delta", as_bytes(storage.unified_bytes))]
    rows += [(f"trigger of {task}", as_bytes(size)) for task, size in storage.trigger_bytes.items()]
    if not storage.trigger_bytes:
        return rows
    fine_tuned = "adapters" if storage.adapter_bytes else "full checkpoints"
    kept_whole_bytes = storage.base_bytes + len(storage.trigger_bytes) * storage.full_checkpoint_bytes
    return [
        *rows,
        ("prototypes", as_bytes(storage.prototype_bytes)),
        ("statistics kept whole", as_bytes(storage.buffer_bytes)),
        ("all of it", as_bytes(storage.total_bytes)),
        (f"base and {len(storage.trigger_bytes)} {fine_tuned} instead", as_bytes(kept_whole_bytes)),
    ]

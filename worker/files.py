"""Small files that appear whole or not at all, so that their presence can mark a finished part of a job."""

import json
import os
import tempfile
from pathlib import Path
from typing import Any


def write_json(path: Path, values: Any) -> None:
    """Put the values there in one rename; two writers of the same values never tear each other's file."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(values, file)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    finally:
        Path(temporary).unlink(missing_ok=True)


def read_json(path: Path) -> Any:
    """What `write_json` wrote, or None where there is nothing yet."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None

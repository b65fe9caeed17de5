"""The task archives that ship: written with the same bytes at every run, and read back for comparisons."""

import hashlib
import io
import tarfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from examples.demo.near_copies import fingerprint

DEMO_FOLDER = Path(__file__).resolve().parents[2] / "cli" / "demo"


def held_out_fingerprints(folder: Path = DEMO_FOLDER) -> NDArray[np.uint8]:
    """Fingerprints of every test image of every shipped task."""
    prints = []
    for path in sorted((folder / "tasks").glob("*.tar")):
        with tarfile.open(path) as archive:
            for member in archive:
                stream = archive.extractfile(member)
                if member.name.startswith("test/") and stream is not None:
                    prints.append(fingerprint(Image.open(io.BytesIO(stream.read())).convert("RGB")))
    return np.stack(prints)


def write_checksums(folder: Path = DEMO_FOLDER) -> None:
    """SHA256SUMS over everything that ships in the folder, in the form that `sha256sum --check` reads."""
    shipped = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.suffix in _SHIPPED]
    lines = [
        f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.relative_to(folder).as_posix()}"
        for path in shipped
    ]
    (folder / "SHA256SUMS").write_text("\n".join(lines) + "\n")


_SHIPPED = frozenset({".safetensors", ".json", ".md", ".tar"})

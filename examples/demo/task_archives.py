"""The task archives that ship: written with the same bytes at every run, and read back for comparisons."""

import hashlib
import io
import tarfile
from collections import Counter
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from examples.demo.pictures import fingerprint
from examples.demo.task_images import TaskImage

DEMO_FOLDER = Path(__file__).resolve().parents[2] / "cli" / "demo"
# Above this the difference to the original is not seen, and the nets do not see it either.
_WEBP_QUALITY = 90
_SMALL_SIDE = 64


def write_archive(path: Path, images: list[TaskImage]) -> None:
    """A plain tar with SPLIT/CLASS/NNN.png (or .webp), sorted, without times and owners."""
    numbers: Counter[tuple[str, str]] = Counter()
    members: dict[str, bytes] = {}
    for image in images:
        place = (image.split, image.label)
        suffix, content = encode(image.picture)
        members[f"{image.split}/{image.label}/{numbers[place]:03d}.{suffix}"] = content
        numbers[place] += 1
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as archive:
        for name in sorted(members):
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(members[name]), 0o644
            archive.addfile(entry, io.BytesIO(members[name]))


def encode(picture: Image.Image) -> tuple[str, bytes]:
    """Grey pictures and small ones exactly, as PNG; large coloured drawings as WebP of high quality."""
    stream = io.BytesIO()
    if picture.mode == "L" or max(picture.size) <= _SMALL_SIDE:
        picture.save(stream, "PNG", optimize=True)
        return "png", stream.getvalue()
    picture.save(stream, "WEBP", quality=_WEBP_QUALITY, method=6)
    return "webp", stream.getvalue()


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

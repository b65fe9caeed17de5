"""Archives for the tests, built in memory member by member."""

import io
import tarfile
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path

from PIL import Image


def image_bytes(colour: tuple[int, int, int] = (200, 30, 30), *, size: int = 16, form: str = "PNG") -> bytes:
    """One small image of a single colour."""
    file = io.BytesIO()
    Image.new("RGB", (size, size), colour).save(file, form)
    return file.getvalue()


def two_classes(num_each: int = 3) -> dict[str, bytes]:
    """A well-formed image set: red cats and green sea otters."""
    red = {f"cat/{n}.png": image_bytes((200, n, 0)) for n in range(num_each)}
    green = {f"sea_otter/{n}.jpg": image_bytes((0, 200, n), form="JPEG") for n in range(num_each)}
    return red | green


def write_tar(
    path: Path, members: Mapping[str, bytes], *, extra: Iterable[tarfile.TarInfo] = (), mode: str = "w"
) -> Path:
    """A tar of the members, followed by members that are headers alone."""
    with tarfile.open(path, mode) as tar:  # type: ignore[call-overload]
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
        for info in extra:
            tar.addfile(info)
    return path


def write_zip(
    path: Path, members: Mapping[str, bytes], *, extra: Iterable[tuple[zipfile.ZipInfo, bytes]] = ()
) -> Path:
    """A zip of the members, followed by members with headers of their own."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
        for info, content in extra:
            archive.writestr(info, content)
    return path


def files_under(folder: Path) -> set[str]:
    """Every file below the folder, relative to it."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir()}

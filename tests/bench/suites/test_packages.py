"""Packages are fetched by their clients, verified before they are believed, named when they cannot be had."""

import hashlib
import io
import tarfile
import zipfile
from dataclasses import replace

import pytest

from bench.errors import BenchError
from bench.suites.packages import Package, PackageCache, read_member, read_members

CONTENT = b"the archive"
PACKAGE = Package("npm", "things", "1.2", "things-1.2.tgz", hashlib.sha256(CONTENT).hexdigest())


@pytest.fixture
def client(tmp_path, monkeypatch):
    """Puts a program of that name first in the PATH; it runs those shell commands."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")

    def install(name, commands):
        program = folder / name
        program.write_text(f"#!/bin/sh\n{commands}\n")
        program.chmod(0o755)

    return install


def tar_of(members):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return file.getvalue()


def test_a_package_is_fetched_once_and_verified(tmp_path, client):
    client("npm", f'echo "$@" >> {tmp_path}/calls; printf "the archive" > things-1.2.tgz')
    fetched = []
    cache = PackageCache(tmp_path / "cache", on_fetch=fetched.append)
    assert cache.fetch(PACKAGE).read_bytes() == CONTENT
    assert cache.fetch(PACKAGE) == PackageCache(tmp_path / "cache").fetch(PACKAGE)
    assert fetched == [PACKAGE]
    assert (tmp_path / "calls").read_text() == "pack --silent things@1.2\n"
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["things-1.2.tgz"]


def test_debian_packages_are_fetched_by_apt_and_unpacked_by_dpkg(tmp_path, client):
    content = tar_of({"./usr/share/a.txt": b"A", "./usr/share/b.png": b"B", "./etc/c.txt": b"C"})
    (tmp_path / "made.deb").write_bytes(content)
    client("apt-get", f"cp {tmp_path}/made.deb things_1.2_all.deb")
    client("dpkg-deb", 'cat "$2"')
    digest = hashlib.sha256(content).hexdigest()
    cache = PackageCache(tmp_path / "cache")
    archive = cache.fetch(Package("apt", "things", "1.2", "things_1.2_all.deb", digest))
    assert dict(read_members(archive, prefix="usr/", suffix=".txt")) == {"usr/share/a.txt": b"A"}
    assert read_member(archive, "etc/c.txt") == b"C"
    with pytest.raises(BenchError, match=r"has no etc/d\.txt"):
        read_member(archive, "etc/d.txt")


def test_a_wheel_is_read_as_the_zip_it_is(tmp_path):
    with zipfile.ZipFile(tmp_path / "things.whl", "w") as wheel:
        wheel.writestr("things/a.txt", "A")
        wheel.writestr("things/b.png", "B")
    assert dict(read_members(tmp_path / "things.whl", suffix=".txt")) == {"things/a.txt": b"A"}
    assert read_member(tmp_path / "things.whl", "things/b.png") == b"B"


@pytest.mark.parametrize(
    ("client_name", "program", "remedy"), [("npm", "npm", "apt install npm"), ("apt", "apt-get", "Debian")]
)
def test_a_missing_client_is_named_with_what_to_install(tmp_path, monkeypatch, client_name, program, remedy):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BenchError, match=rf"{program} is not installed; .* fetch things 1\.2") as told:
        PackageCache(tmp_path / "cache").fetch(replace(PACKAGE, client=client_name))
    assert remedy in told.value.remedy


def test_a_debian_package_without_dpkg_names_it(tmp_path, monkeypatch):
    (tmp_path / "things.deb").write_bytes(b"")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BenchError, match=r"dpkg-deb is not installed; .* unpack things\.deb"):
        read_member(tmp_path / "things.deb", "a")


def test_a_client_that_fails_is_quoted_and_leaves_nothing(tmp_path, client):
    client("npm", 'printf half > things-1.2.tgz; echo "first line" >&2; echo "404 not here" >&2; exit 1')
    with pytest.raises(BenchError, match=r"npm could not fetch things 1\.2: 404 not here") as told:
        PackageCache(tmp_path / "cache").fetch(PACKAGE)
    assert str(tmp_path / "cache" / "things-1.2.tgz") in told.value.remedy
    assert list((tmp_path / "cache").iterdir()) == []


def test_what_pip_cannot_find_is_told(tmp_path, monkeypatch):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    nothing = replace(PACKAGE, client="pip", name="condu-no-such-package")
    with pytest.raises(BenchError, match=r"pip could not fetch condu-no-such-package 1\.2: .*condu-no-such"):
        PackageCache(tmp_path / "cache").fetch(nothing)


def test_a_client_that_saves_another_file_is_told(tmp_path, client):
    client("npm", "printf x > things-1.3.tgz")
    with pytest.raises(BenchError, match=r"npm saved things-1\.3\.tgz and not things-1\.2\.tgz"):
        PackageCache(tmp_path / "cache").fetch(PACKAGE)


def test_what_is_not_the_pinned_archive_is_never_believed(tmp_path, client):
    client("npm", "printf other > things-1.2.tgz")
    cache = PackageCache(tmp_path / "cache")
    with pytest.raises(BenchError, match="pinned is"):
        cache.fetch(PACKAGE)
    assert list((tmp_path / "cache").iterdir()) == []
    (tmp_path / "cache" / "things-1.2.tgz").write_bytes(b"spoiled")
    with pytest.raises(BenchError, match="pinned is") as told:
        cache.fetch(PACKAGE)
    assert str(tmp_path / "cache" / "things-1.2.tgz") in told.value.remedy

"""Zips that try to get out, to hide what they hold, or to stop half-way."""

import stat
import struct
import zipfile
from pathlib import Path

import pytest

from imagesets import ArchiveLimits, InvalidArchiveError, inspect_archive, unpack_archive
from tests.attacks.test_hostile_tars import refused
from tests.imagesets.building import files_under, image_bytes, two_classes, write_zip


def entry(
    name: str, *, mode: int = stat.S_IFREG | 0o644, method: int = zipfile.ZIP_STORED
) -> zipfile.ZipInfo:
    """A zip entry with this Unix mode."""
    info = zipfile.ZipInfo(name)
    info.external_attr = mode << 16
    info.compress_type = method
    return info


@pytest.mark.parametrize(
    ("info", "reason"),
    [
        (entry("cat/link.png", mode=stat.S_IFLNK | 0o777), "'cat/link.png': the member is a link"),
        (entry("cat/dev.png", mode=stat.S_IFCHR | 0o600), "neither a plain file nor a folder"),
        (entry("../escaped.png"), "the path leaves the archive"),
        (entry("/absolute.png"), "the path is absolute"),
        (entry("C:/x.png"), "the path is absolute"),
        (entry("cat\\x.png"), "holds a backslash"),
        (entry("cat/" + "x" * 300 + ".png"), "the name is longer than"),
        (entry("./cat/0.png"), "'cat/0.png': the name comes twice"),
        (entry("cat/x.png", method=zipfile.ZIP_BZIP2), "neither stored nor deflate"),
        (entry("cat/x.png", method=zipfile.ZIP_LZMA), "neither stored nor deflate"),
    ],
    ids=lambda value: value if isinstance(value, str) else value.filename[:30],
)
def test_a_hostile_member_is_refused_by_name(tmp_path, info, reason):
    assert reason in refused(write_zip(tmp_path / "a", two_classes(), extra=[(info, b"x")]), tmp_path)


def edited(path: Path, offset: int, value: int) -> Path:
    """Set a 16-bit field in every entry of the central directory."""
    content = bytearray(path.read_bytes())
    start = content.find(b"PK\x01\x02")
    while start >= 0:
        struct.pack_into("<H", content, start + offset, value)
        start = content.find(b"PK\x01\x02", start + 4)
    path.write_bytes(content)
    return path


def test_an_encrypted_zip_is_refused(tmp_path):
    assert "'cat/0.png': the member is encrypted" in refused(
        edited(write_zip(tmp_path / "a", two_classes()), 8, 1), tmp_path
    )


def test_a_name_that_goes_on_after_a_zero_byte_is_refused(tmp_path):
    path = write_zip(tmp_path / "a", two_classes() | {"cat/x.pngZ.sh": b"x"})
    path.write_bytes(path.read_bytes().replace(b"cat/x.pngZ.sh", b"cat/x.png\0.sh"))
    assert "control or undecodable characters" in refused(path, tmp_path)


def test_more_members_than_allowed_are_refused(tmp_path):
    assert "more than 9 members" in refused(
        write_zip(tmp_path / "a", two_classes(5)), tmp_path, ArchiveLimits(max_members=9)
    )


def test_a_directory_that_is_longer_than_its_members_need_is_not_read(tmp_path):
    members = {f"cat/{'x' * 200}{n}.png": b"" for n in range(5000)}
    assert "bytes at once" in refused(
        write_zip(tmp_path / "a", members), tmp_path, ArchiveLimits(max_members=4000)
    )


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.99])
def test_a_truncated_zip_is_refused_wherever_it_is_cut(tmp_path, share):
    path = write_zip(tmp_path / "a", two_classes())
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    assert "cut short or corrupt" in refused(path, tmp_path)


def test_a_member_whose_bytes_disagree_with_their_checksum_is_refused_by_name_when_unpacked(tmp_path):
    members = two_classes()
    path = tmp_path / "a"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    path.write_bytes(path.read_bytes().replace(members["sea_otter/1.jpg"][-20:], b"\xaa" * 20, 1))
    before = files_under(tmp_path)
    with pytest.raises(InvalidArchiveError, match=r"sea_otter/\d.jpg'.*cut short or corrupt"):
        unpack_archive(path, tmp_path / "out")
    assert all(name.startswith("out/images/") for name in files_under(tmp_path) - before)


def test_a_member_that_says_it_is_longer_than_it_is_is_refused(tmp_path):
    path = tmp_path / "a"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, content in two_classes().items():
            archive.writestr(name, content)
    content = bytearray(path.read_bytes())
    start = content.find(b"PK\x01\x02")
    struct.pack_into("<I", content, start + 24, len(image_bytes()) + 1000)
    path.write_bytes(content)
    with pytest.raises(InvalidArchiveError, match="cut short or corrupt"):
        unpack_archive(path, tmp_path / "out")


def test_a_zip_of_nothing_is_refused(tmp_path):
    zipfile.ZipFile(tmp_path / "a", "w").close()
    with pytest.raises(InvalidArchiveError, match="holds no images"):
        inspect_archive(tmp_path / "a")

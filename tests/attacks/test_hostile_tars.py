"""Tars that try to get out, to be something else than files, or to stop half-way."""

import gzip
import io
import tarfile
from pathlib import Path

import pytest

from imagesets import ArchiveLimits, InvalidArchiveError, inspect_archive, unpack_archive
from tests.imagesets.building import files_under, image_bytes, two_classes, write_tar


def header(name: str, kind: bytes = tarfile.REGTYPE, linkname: str = "") -> tarfile.TarInfo:
    """A member without content."""
    info = tarfile.TarInfo(name)
    info.type = kind
    info.linkname = linkname
    return info


def refused(path: Path, tmp_path: Path, limits: ArchiveLimits | None = None) -> str:
    """What both ways in say when they refuse the archive, after a look that nothing was written anywhere."""
    before = files_under(tmp_path)
    with pytest.raises(InvalidArchiveError) as caught:
        unpack_archive(path, tmp_path / "deep" / "out", limits)
    with pytest.raises(InvalidArchiveError):
        inspect_archive(path, limits)
    assert caught.value.remedy in str(caught.value)
    assert files_under(tmp_path) == before
    return str(caught.value)


@pytest.mark.parametrize(
    ("info", "reason"),
    [
        (header("cat/link.png", tarfile.SYMTYPE, "/etc/passwd"), "is a link (to '/etc/passwd')"),
        (header("cat/link.png", tarfile.SYMTYPE, "0.png"), "is a link"),
        (header("cat/hard.png", tarfile.LNKTYPE, "cat/0.png"), "is a link"),
        (header(".hidden", tarfile.SYMTYPE, "/etc/passwd"), "is a link"),
        (header("cat/dev.png", tarfile.CHRTYPE), "neither a plain file nor a folder"),
        (header("cat/dev.png", tarfile.BLKTYPE), "neither a plain file nor a folder"),
        (header("cat/pipe.png", tarfile.FIFOTYPE), "neither a plain file nor a folder"),
        (header("../escaped.png"), "'../escaped.png': the path leaves the archive"),
        (header("cat/../../escaped.png"), "the path leaves the archive"),
        (header("../dir", tarfile.DIRTYPE), "the path leaves the archive"),
        (header("/absolute.png"), "'/absolute.png': the path is absolute"),
        (header("C:/windows.png"), "the path is absolute"),
        (header("cat\\x.png"), "holds a backslash"),
        (header("cat/\x1b[2J.png"), "control or undecodable characters"),
        (header("cat/\udcff.png"), "control or undecodable characters"),
        (header("cat/0.png"), "'cat/0.png': the name comes twice"),
        (header("./cat//0.png"), "'cat/0.png': the name comes twice"),
        (header("cat/" + "x" * 300 + ".png"), "the name is longer than"),
        (header("a/" * 1000 + "x.png"), "the name is longer than"),
    ],
    ids=lambda value: value if isinstance(value, str) else ascii(value.name)[:30],
)
@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_a_hostile_member_is_refused_by_name(tmp_path, info, reason, mode):
    assert reason in refused(write_tar(tmp_path / "a", two_classes(), extra=[info], mode=mode), tmp_path)


def test_more_members_than_allowed_are_refused(tmp_path):
    path = write_tar(tmp_path / "a", two_classes(5))
    assert "more than 9 members" in refused(path, tmp_path, ArchiveLimits(max_members=9))
    assert inspect_archive(path, ArchiveLimits(max_members=10)).num_images == 10


@pytest.mark.parametrize("keep", [5, 511, 512, 700, 1024, 5000])
@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_a_truncated_tar_is_refused_wherever_it_is_cut(tmp_path, keep, mode):
    path = write_tar(tmp_path / "a", two_classes(8), mode=mode)
    content = path.read_bytes()
    assert len(content) > keep or mode == "w:gz"
    path.write_bytes(content[: min(keep, len(content) - 9)])
    assert any(words in refused(path, tmp_path) for words in ("cut short", "neither a tar"))


def test_a_tar_cut_between_two_members_is_not_taken_for_a_shorter_one(tmp_path):
    path = write_tar(tmp_path / "a", two_classes())
    with tarfile.open(path) as tar:
        last = tar.getmembers()[-1].offset
    path.write_bytes(path.read_bytes()[:last])
    assert "stops without its end mark" in refused(path, tmp_path)


def test_garbage_after_good_members_is_not_taken_for_the_end(tmp_path):
    path = write_tar(tmp_path / "a", two_classes())
    content = bytearray(path.read_bytes())
    with tarfile.open(path) as tar:
        last = tar.getmembers()[-1].offset
    content[last : last + 512] = b"\xaa" * 512
    path.write_bytes(content)
    assert "stops without its end mark" in refused(path, tmp_path)


def test_a_gzip_whose_checksum_disagrees_is_refused(tmp_path):
    path = write_tar(tmp_path / "a", two_classes(), mode="w:gz")
    content = bytearray(path.read_bytes())
    content[-6] ^= 0xFF
    path.write_bytes(content)
    assert "cut short or corrupt" in refused(path, tmp_path)


def test_a_pax_header_that_says_it_is_huge_is_not_read_into_memory(tmp_path):
    info = header("cat/x.png")
    info.pax_headers = {"comment": "x" * (4 << 20)}
    path = tmp_path / "a"
    with tarfile.open(path, "w:gz", format=tarfile.PAX_FORMAT) as tar:
        tar.addfile(info)
    assert "bytes at once" in refused(path, tmp_path)


def test_a_thousand_nested_pax_headers_are_refused_and_do_not_overflow_the_stack(tmp_path):
    record = header("x", tarfile.XHDTYPE)
    record.size = 11
    block = record.tobuf(tarfile.USTAR_FORMAT) + b"11 path=ab\n".ljust(512, b"\0")
    path = tmp_path / "a"
    path.write_bytes(block * 3000 + write_tar(tmp_path / "b", two_classes()).read_bytes())
    (tmp_path / "b").unlink()
    assert "malformed" in refused(path, tmp_path)


def test_a_sparse_file_is_refused(tmp_path):
    info = header("cat/sparse.png")
    info.pax_headers = {"GNU.sparse.major": "0", "GNU.sparse.map": "0,1", "GNU.sparse.size": str(1 << 40)}
    path = tmp_path / "a"
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        tar.addfile(info)
    assert "neither a plain file" in refused(path, tmp_path)


@pytest.mark.parametrize(
    "content",
    [b"not an archive", b"BZh91AY&SY" + bytes(600), b"\x80\x04]" + bytes(600), bytes(100)],
    ids=["text", "bzip2", "pickle", "zeros"],
)
def test_what_is_no_archive_is_refused(tmp_path, content):
    (tmp_path / "a").write_bytes(content)
    assert "neither a tar, a gzipped tar nor a zip" in refused(tmp_path / "a", tmp_path)


def test_an_empty_file_and_a_gzip_of_something_else_are_refused(tmp_path):
    (tmp_path / "a").write_bytes(b"")
    assert "is empty (0 bytes)" in refused(tmp_path / "a", tmp_path)
    (tmp_path / "a").write_bytes(gzip.compress(b"not a tar"))
    assert "cut short or corrupt" in refused(tmp_path / "a", tmp_path)


def test_names_never_become_paths(tmp_path):
    members = {
        "cat/-rf.png": image_bytes(),
        "cat/$(x).png": image_bytes(),
        "dog/10.00\u202fAM ü\u202egnp.png": image_bytes(),
    }
    index = unpack_archive(write_tar(tmp_path / "a", members), tmp_path / "out")
    assert all(ref.path.name.removesuffix(".png").isdigit() for ref in index.train)
    assert io.BytesIO(index.train[0].path.read_bytes()).read(4) == b"\x89PNG"

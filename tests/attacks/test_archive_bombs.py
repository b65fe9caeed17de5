"""Small archives that unpack to very much are refused before they do, in bounded memory."""

import gzip
import io
import tarfile
import tracemalloc
import zipfile

import pytest

from imagesets import ArchiveLimits, inspect_archive
from tests.attacks.test_hostile_tars import refused
from tests.imagesets.building import two_classes, write_tar, write_zip

ZEROS = bytes(24 << 20)


@pytest.mark.parametrize("write", [write_zip, lambda path, members: write_tar(path, members, mode="w:gz")])
def test_a_bomb_by_ratio_is_refused(tmp_path, write):
    assert "100 times its own size" in refused(
        write(tmp_path / "a", two_classes() | {"cat/bomb.png": ZEROS}), tmp_path
    )


@pytest.mark.parametrize("write", [write_zip, lambda path, members: write_tar(path, members, mode="w:gz")])
def test_a_bomb_in_a_file_that_nobody_wants_is_refused_too(tmp_path, write):
    assert "100 times its own size" in refused(
        write(tmp_path / "a", two_classes() | {".hidden/notes.txt": ZEROS}), tmp_path
    )


@pytest.mark.parametrize("write", [write_zip, write_tar])
def test_a_bomb_by_total_bytes_is_refused(tmp_path, write):
    path = write(tmp_path / "a", two_classes(3))
    assert "unpacks to more than 800 bytes" in refused(path, tmp_path, ArchiveLimits(max_total_bytes=800))


@pytest.mark.parametrize("write", [write_zip, write_tar])
def test_one_file_over_its_limit_is_refused_by_name(tmp_path, write):
    path = write(tmp_path / "a", two_classes() | {"cat/large.png": bytes(5000)})
    assert "'cat/large.png': unpacks to 5000 bytes, more than 4999" in refused(
        path, tmp_path, ArchiveLimits(max_member_bytes=4999)
    )


def test_zip_entries_that_share_the_same_bytes_are_refused(tmp_path):
    """The overlapping zip: one compressed block named by every entry."""
    path = tmp_path / "a"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("cat/0.png", bytes(1 << 20))
        first = archive.infolist()[0]
        for number in range(1, 400):
            twin = zipfile.ZipInfo(f"cat/{number}.png")
            for field in ("compress_type", "CRC", "compress_size", "file_size", "header_offset"):
                setattr(twin, field, getattr(first, field))
            archive.filelist.append(twin)
    assert "cut short or corrupt" in refused(path, tmp_path)


def test_a_compressed_tar_is_refused_while_it_unpacks_and_memory_stays_small(tmp_path):
    path = tmp_path / "a"
    info = tarfile.TarInfo("cat/bomb.png")
    info.size = 1 << 40
    with path.open("wb") as raw, gzip.GzipFile(fileobj=raw, mode="wb", compresslevel=9) as file:
        file.write(info.tobuf(tarfile.GNU_FORMAT))
        for _ in range(32):
            file.write(bytes(1 << 20))
    tracemalloc.start()
    assert "more than" in refused(
        path, tmp_path, ArchiveLimits(max_member_bytes=1 << 50, max_total_bytes=16 << 20)
    )
    assert "times its own size" in refused(
        path, tmp_path, ArchiveLimits(max_member_bytes=1 << 50, max_total_bytes=1 << 60)
    )
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 8 << 20


def test_a_bomb_behind_the_end_mark_is_refused(tmp_path):
    plain = write_tar(tmp_path / "plain", two_classes()).read_bytes()
    (tmp_path / "plain").unlink()
    (tmp_path / "a").write_bytes(gzip.compress(plain + ZEROS))
    assert "100 times its own size" in refused(tmp_path / "a", tmp_path)


def test_a_table_over_its_limit_is_refused(tmp_path):
    members = two_classes() | {"labels.csv": b"path,label\n" * 100, "classes.txt": b"cat\n"}
    assert "'labels.csv': the table has" in refused(
        write_zip(tmp_path / "a", members), tmp_path, ArchiveLimits(max_table_bytes=1000)
    )


def test_small_images_in_a_gzipped_tar_are_no_bomb(tmp_path):
    path = write_tar(tmp_path / "a", two_classes(300), mode="w:gz")
    assert inspect_archive(path, ArchiveLimits(ratio_floor_bytes=0)).num_images == 600
    assert len(io.BytesIO(path.read_bytes()).getvalue()) < 600 * 1024

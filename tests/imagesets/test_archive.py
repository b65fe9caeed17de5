"""Archives of every layout and format are inspected and unpacked alike."""

import errno
import io
import os
import tarfile
from collections import Counter
from pathlib import Path

import pytest

import imagesets.archive
from imagesets import ArchiveLimits, InvalidArchiveError, inspect_archive, unpack_archive
from tests.imagesets.building import files_under, image_bytes, two_classes, write_tar, write_zip

TABLES = {
    "classes.txt": b"sea otter\n\ncat\nunseen\n",
    "labels.csv": b"path,label,split\nb/1.png,cat,train\na/2.png,sea otter,train\na/3.png,cat,test\n",
    "b/1.png": image_bytes(),
    "a/2.png": image_bytes(),
    "a/3.png": image_bytes(),
    "a/unlisted.png": image_bytes(),
}


@pytest.fixture(params=["tar", "tar.gz", "zip"])
def pack(request: pytest.FixtureRequest, tmp_path: Path):
    """A writer of archives in each format."""

    def write(members: dict[str, bytes]) -> Path:
        path = tmp_path / "archive"
        if request.param == "zip":
            return write_zip(path, members)
        return write_tar(path, members, mode="w:gz" if request.param == "tar.gz" else "w")

    write.format = request.param  # type: ignore[attr-defined]
    return write


def test_a_folder_per_class_is_read_with_underscores_as_spaces(pack, tmp_path):
    path = pack(two_classes())
    summary = inspect_archive(path)
    assert (summary.format, summary.classes, summary.num_images, summary.has_split) == (
        pack.format,
        ("cat", "sea otter"),
        6,
        False,
    )
    index = unpack_archive(path, tmp_path / "out")
    assert index.classes == summary.classes
    assert Counter(ref.label for ref in index.train) == {0: 3, 1: 3}
    assert not index.test
    contents = {ref.name: ref.path.read_bytes() for ref in index.train}
    assert contents == two_classes()


def test_a_wrapping_folder_hidden_files_and_other_files_do_not_matter(pack):
    members = {f"my set/{name}": content for name, content in two_classes().items()}
    litter = {
        "__MACOSX/my set/cat/._0.png": b"x",
        ".DS_Store": b"x",
        "my set/cat/.hidden.png": b"x",
        "my set/README.md": b"x",
    }
    summary = inspect_archive(pack(members | litter))
    assert (summary.classes, summary.num_images, summary.num_ignored) == (("cat", "sea otter"), 6, 1)


@pytest.mark.parametrize("wrapper", ["", "pets/"])
def test_train_and_test_folders_are_a_given_split(pack, tmp_path, wrapper):
    members = {f"{wrapper}train/{name}": content for name, content in two_classes(3).items()}
    members |= {f"{wrapper}test/{name}": content for name, content in two_classes(1).items()}
    path = pack(members)
    assert inspect_archive(path).has_split
    index = unpack_archive(path, tmp_path / "out")
    assert (len(index.train), len(index.test)) == (6, 2)
    assert {ref.name for ref in index.test} == {f"{wrapper}test/cat/0.png", f"{wrapper}test/sea_otter/0.jpg"}


def test_folders_that_are_named_train_and_test_but_hold_images_are_classes(pack):
    summary = inspect_archive(pack({"train/1.png": image_bytes(), "test/1.png": image_bytes()}))
    assert (summary.classes, summary.has_split) == (("test", "train"), False)


@pytest.mark.parametrize("wrapper", ["", "pets/"])
def test_a_class_list_with_a_table_decides_classes_order_and_split(pack, tmp_path, wrapper):
    path = pack({wrapper + name: content for name, content in TABLES.items()})
    summary = inspect_archive(path)
    assert (summary.classes, summary.num_images, summary.num_ignored) == (
        ("sea otter", "cat", "unseen"),
        3,
        1,
    )
    index = unpack_archive(path, tmp_path / "out")
    assert [(ref.name, ref.label) for ref in index.train] == [
        (f"{wrapper}b/1.png", 1),
        (f"{wrapper}a/2.png", 0),
    ]
    assert [(ref.name, ref.label) for ref in index.test] == [(f"{wrapper}a/3.png", 1)]


def test_unpacking_again_after_a_kill_gives_the_same_index_and_no_rest(pack, tmp_path, monkeypatch):
    path = pack(two_classes(4))
    whole = unpack_archive(path, tmp_path / "whole")
    writes: list[Path] = []
    real_write = imagesets.archive._write  # noqa: SLF001 - the kill must come between two files

    def dies_at_the_fourth(member, target: Path) -> None:
        if len(writes) == 3:
            target.with_name(f"{target.name}.part").write_bytes(b"half")
            raise KeyboardInterrupt
        writes.append(target)
        real_write(member, target)

    with monkeypatch.context() as patch:
        patch.setattr(imagesets.archive, "_write", dies_at_the_fourth)
        with pytest.raises(KeyboardInterrupt):
            unpack_archive(path, tmp_path / "out")
    before = {target: target.stat().st_mtime_ns for target in writes}
    index = unpack_archive(path, tmp_path / "out")
    assert index.to_dict(tmp_path / "out") == whole.to_dict(tmp_path / "whole")
    assert {target: target.stat().st_mtime_ns for target in writes} == before
    assert files_under(tmp_path / "out") == files_under(tmp_path / "whole")
    path.unlink()
    assert unpack_archive(path, tmp_path / "out") == index


def test_a_disk_too_small_is_said_before_it_is_filled(pack, tmp_path, monkeypatch):
    path = pack(two_classes())
    tiny = os.statvfs_result((4096, 4096, 10, 0, 0, 10, 10, 10, 0, 255))
    monkeypatch.setattr(imagesets.archive.os, "statvfs", lambda _folder: tiny)
    with pytest.raises(OSError, match="bytes and 0 are free") as caught:
        unpack_archive(path, tmp_path / "out")
    assert caught.value.errno == errno.ENOSPC
    assert files_under(tmp_path / "out") == set()


def test_progress_counts_up_to_all_images(pack, tmp_path):
    calls: list[tuple[int, int]] = []
    unpack_archive(
        pack(two_classes(40)), tmp_path / "out", on_progress=lambda done, total: calls.append((done, total))
    )
    assert calls == [(64, 80), (80, 80)]


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        ({"notes.txt": b"x"}, "holds no images"),
        ({}, "holds no images"),
        ({"cat/1.png": b"x", "cat/2.png": b"x"}, "one class only"),
        ({"train/cat/1.png": b"x", "test/cat/2.png": b"x"}, "one class only"),
        ({"1.png": b"x", "cat/2.png": b"x"}, "'1.png': the image lies in no class folder"),
        ({"a/b/c/1.png": b"x", "a/d/2.png": b"x"}, "'a/b/c/1.png': the image lies too deep"),
        ({"a_b/1.png": b"x", "a b/1.png": b"x"}, "both stand for the class 'a b'"),
        (
            {"train/a/1.png": b"x", "train/b/1.png": b"x", "test/c/1.png": b"x"},
            "'c': the class has test images but none",
        ),
    ],
)
def test_an_archive_in_no_known_layout_is_refused_with_the_reason(pack, members, reason):
    with pytest.raises(InvalidArchiveError) as caught:
        inspect_archive(pack(members))
    assert reason in str(caught.value)
    assert caught.value.remedy


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (
            {"labels.csv": b"path,label\nb/none.png,cat\n"},
            "'labels.csv line 2': names 'b/none.png', which is not",
        ),
        ({"labels.csv": b"path,label\n../x.png,cat\n"}, "which is not an image in the archive"),
        ({"labels.csv": b"path,label\nb/1.png,dog\n"}, "'labels.csv line 2': names the class 'dog'"),
        ({"labels.csv": b"path,label,split\nb/1.png,cat,validation\n"}, "names the split 'validation'"),
        (
            {"labels.csv": b"path,label\nb/1.png,cat\nb/1.png,cat\n"},
            "'labels.csv line 3': names 'b/1.png' a second time",
        ),
        ({"labels.csv": b"file,class\nb/1.png,cat\n"}, "names the columns ['file', 'class']"),
        ({"labels.csv": b"path,label\n"}, "the table has no rows"),
        ({"labels.csv": b""}, "names the columns []"),
        ({"labels.csv": b"path,label\nb/1.png\n"}, "the line has not 2 fields"),
        ({"labels.csv": b'path,label\n"b/1.png,cat\n'}, "the table is malformed"),
        ({"labels.csv": b"path,label\n\xff\xfe,cat\n"}, "'labels.csv': the file is not UTF-8"),
        ({"classes.txt": b"cat\nsea otter\ncat\n"}, "'classes.txt line 3': the class 'cat' stands on line 1"),
        ({"classes.txt": b"\n\n"}, "the class list is empty"),
        ({"classes.txt": b"cat\n" + b"x" * 300}, "a class name has 1 to 200 printable characters"),
        ({"classes.txt": None}, "add classes.txt with one class a line"),
    ],
)
def test_tables_that_contradict_themselves_or_the_files_are_refused(pack, change, reason):
    members = {name: content for name, content in (TABLES | change).items() if content is not None}
    with pytest.raises(InvalidArchiveError) as caught:
        inspect_archive(pack(members))
    assert reason in str(caught.value)


def test_more_classes_than_allowed_are_refused(pack):
    members = {f"{n}/1.png": image_bytes() for n in range(4)}
    assert inspect_archive(pack(members), ArchiveLimits(max_classes=4)).num_images == 4
    with pytest.raises(InvalidArchiveError, match="4 classes, more than 3"):
        inspect_archive(pack(members), ArchiveLimits(max_classes=3))
    with pytest.raises(InvalidArchiveError, match=r"'classes\.txt': more than 2 classes"):
        inspect_archive(pack(TABLES), ArchiveLimits(max_classes=2))


def test_an_old_tar_without_magic_is_read(tmp_path):
    path = write_tar(tmp_path / "old.tar", two_classes())
    content = bytearray(path.read_bytes())
    with tarfile.open(path) as tar:
        offsets = [info.offset for info in tar]
    for offset in offsets:
        header = content[offset : offset + 512]
        header[257:265] = bytes(8)
        header[148:156] = b" " * 8
        header[148:156] = b"%06o\0 " % sum(header)
        content[offset : offset + 512] = header
    path.write_bytes(content)
    assert inspect_archive(path).num_images == 6


def test_the_summary_of_an_unseekable_looking_name_is_independent_of_the_suffix(tmp_path):
    path = write_zip(tmp_path / "data.tar", two_classes())
    assert inspect_archive(path).format == "zip"
    assert io.BytesIO(path.read_bytes()).read(2) == b"PK"

"""A folder is read where it lies, as an archive of it would be."""

import pytest

from imagesets import ArchiveLimits, InvalidArchiveError, index_folder, unpack_archive
from tests.imagesets.building import image_bytes, two_classes, write_tar


def write(folder, members):
    for name, content in members.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def placed(index):
    return {
        (ref.name, index.classes[ref.label], part, ref.path.read_bytes())
        for part in ("train", "test")
        for ref in getattr(index, part)
    }


SPLIT = {f"{part}/{name}": content for part in ("train", "test") for name, content in two_classes(2).items()}
TABLES = {
    "a.png": image_bytes(),
    "b.png": image_bytes((1, 2, 3)),
    "c.png": image_bytes((9, 9, 9)),
    "classes.txt": b"tabby cat\nsea otter\n",
    "labels.csv": b"path,label,split\na.png,tabby cat,train\nb.png,sea otter,train\nc.png,sea otter,test\n",
}


@pytest.mark.parametrize("members", [two_classes(), SPLIT, TABLES], ids=["classes", "split", "tables"])
def test_a_folder_is_read_as_its_archive_is(tmp_path, members):
    litter = {".DS_Store": b"x", "__MACOSX/cat/._1.png": b"x", "README.md": b"words"}
    write(tmp_path / "folder", {**members, **litter})
    index = index_folder(tmp_path / "folder")
    unpacked = unpack_archive(write_tar(tmp_path / "a.tar", members), tmp_path / "unpacked")
    assert index.classes == unpacked.classes
    assert placed(index) == placed(unpacked)


def test_pictures_stay_where_they_are_and_are_sorted_by_name(tmp_path):
    write(tmp_path, two_classes())
    index = index_folder(tmp_path)
    assert [ref.path for ref in index.train] == sorted(tmp_path.glob("*/*"))


def test_a_folder_in_no_known_layout_is_refused_with_the_layouts(tmp_path):
    write(tmp_path, {"cat/1.png": image_bytes(), "2.png": image_bytes()})
    with pytest.raises(InvalidArchiveError, match=r"'2\.png': the image lies in no class folder"):
        index_folder(tmp_path)


def test_a_table_over_the_limit_is_not_read(tmp_path):
    write(tmp_path, TABLES)
    with pytest.raises(InvalidArchiveError, match="more than 10"):
        index_folder(tmp_path, ArchiveLimits(max_table_bytes=10))

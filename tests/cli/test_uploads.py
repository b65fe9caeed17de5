"""A folder becomes the same tar every time, without a copy on disk."""

import io
import tarfile

import pytest

from cli.errors import CommandUsageError
from cli.uploads import FileBody, FolderBody, body_of, counted


def folder_of(root, **files):
    for name, content in files.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return root


def test_a_folder_is_sent_as_a_tar_that_holds_its_files(tmp_path):
    folder = folder_of(tmp_path, cat__one=b"1" * 700, dog__two=b"22", dog__three=b"")

    packed = b"".join(FolderBody.of(folder).chunks())

    with tarfile.open(fileobj=io.BytesIO(packed)) as tar:
        found = {member.name: tar.extractfile(member).read() for member in tar.getmembers()}
    assert found == {"cat/one": b"1" * 700, "dog/two": b"22", "dog/three": b""}


def test_a_folder_tells_its_length_before_it_is_sent(tmp_path):
    long_name = "x" * 150  # needs a second header
    body = FolderBody.of(folder_of(tmp_path, **{f"cat__{long_name}": b"1" * 513, "dog__two": b"2"}))

    assert body.size_bytes == len(b"".join(body.chunks()))


def test_the_same_files_give_the_same_bytes_wherever_and_whenever_they_lie(tmp_path):
    first = folder_of(tmp_path / "a", dog__two=b"2", cat__one=b"1")
    second = folder_of(tmp_path / "b", cat__one=b"1", dog__two=b"2")
    (second / "cat" / "one").chmod(0o600)

    assert list(FolderBody.of(first).chunks()) == list(FolderBody.of(second).chunks())


def test_hidden_files_stay_at_home(tmp_path):
    body = FolderBody.of(folder_of(tmp_path, cat__one=b"1", **{".git__config": b"x", "cat__.DS_Store": b"y"}))

    assert [path.name for path, _, _ in body.members] == ["one"]


def test_a_link_in_a_folder_is_refused_by_name(tmp_path):
    folder = folder_of(tmp_path / "set", cat__one=b"1")
    (folder / "cat" / "leak.png").symlink_to("/etc/hostname")

    with pytest.raises(CommandUsageError, match=r"leak\.png is a link"):
        FolderBody.of(folder)


def test_a_folder_without_files_is_refused(tmp_path):
    with pytest.raises(CommandUsageError, match="holds no files"):
        FolderBody.of(tmp_path)


def test_a_file_that_shrinks_while_it_is_sent_stops_the_upload(tmp_path):
    body = FolderBody.of(folder_of(tmp_path, cat__one=b"1" * 100))
    (tmp_path / "cat" / "one").write_bytes(b"1")

    with pytest.raises(CommandUsageError, match="shrank"):
        list(body.chunks())


def test_a_file_is_sent_as_it_is(tmp_path):
    (tmp_path / "set.tar").write_bytes(b"anything")
    body = body_of(tmp_path / "set.tar")

    assert isinstance(body, FileBody)
    assert (body.size_bytes, b"".join(body.chunks())) == (8, b"anything")


def test_nothing_at_a_path_is_a_mistake_of_the_command_line(tmp_path):
    with pytest.raises(CommandUsageError, match="there is no file"):
        body_of(tmp_path / "missing.tar")


def test_sent_bytes_are_counted_from_nothing_to_all():
    heard = []

    assert list(counted(iter([b"ab", b"c"]), heard.append)) == [b"ab", b"c"]
    assert heard == [0, 2, 3]

"""What an input is, which images it holds, and what hostile ones can do: nothing."""

import gzip
import io
import os
import tarfile
import zipfile

import pytest
import zstandard

from bulk.errors import InputError
from bulk.items import Failure, ImageLimits, Item, load
from bulk.sources import Survey, fingerprint, kind_of, list_folder, list_lines, open_reader, survey
from bulk.tars import TarBounds
from tests.bulk.conftest import lines, write_tar
from tests.tiny_clip import image_bytes, tiny_image
from vlm.preprocessing import Preprocessing

BOUNDS = TarBounds(max_image_bytes=1 << 20, max_ratio=200.0)
PREPROCESSING = Preprocessing(size=(32, 32), mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
LIMITS = ImageLimits(image_limit_bytes=1 << 20, max_image_pixels=10_000)
PNG = image_bytes(tiny_image(1))


def names(path, start=0, stop=None, bounds=BOUNDS):
    """The names of an input's images."""
    found = survey(path, bounds)
    reader = open_reader(path, found.kind, bounds)
    try:
        return [item.name for item in reader.read(start, found.num_images if stop is None else stop)]
    finally:
        reader.close()


def link(name, target, kind=tarfile.SYMTYPE):
    """The header of a member that is a link."""
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def test_a_folder_is_read_without_following_links_out_of_it(tmp_path):
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret.png").write_bytes(PNG)
    root = tmp_path / "photos"
    (root / "sub").mkdir(parents=True)
    (root / "sub" / "b.PNG").write_bytes(PNG)
    (root / "a.jpeg").write_bytes(PNG)
    (root / "inside.png").symlink_to(root / "a.jpeg")
    (root / "out.png").symlink_to(tmp_path / "outside" / "secret.png")
    (root / "folder").symlink_to(tmp_path / "outside")
    (root / "loop").symlink_to(root)
    (root / "dangling.png").symlink_to(root / "nowhere.png")
    os.mkfifo(root / "pipe.png")

    assert list_folder(root) == (["a.jpeg", "inside.png", "sub/b.PNG"], 3)


def test_the_folder_itself_may_be_named_by_a_link(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.png").write_bytes(PNG)
    (tmp_path / "link").symlink_to(tmp_path / "photos")

    assert names(tmp_path / "link") == ["a.png"]


def test_a_name_that_is_no_text_is_shown_with_its_bytes(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / os.fsdecode(b"\xff\xe9t\xc3\xa9.png")).write_bytes(PNG)

    assert names(tmp_path / "photos") == ["\\xff\\xe9té.png"]
    assert survey(tmp_path / "photos", BOUNDS).num_images == 1


def test_a_folder_that_cannot_be_listed_is_told_and_not_left_out(tmp_path, monkeypatch):
    (tmp_path / "photos" / "sub").mkdir(parents=True)
    scandir = os.scandir

    def refuse(path):
        if str(path).endswith("sub"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)  # root, as whom tests may run, is refused nothing
    with pytest.raises(InputError, match="cannot be listed: Permission denied"):
        list_folder(tmp_path / "photos")


def compressed(path, form):
    """The tar, compressed in that form."""
    if form == "zst":
        path.write_bytes(zstandard.compress(path.read_bytes()))
    return path


@pytest.mark.parametrize("form", ["", "gz", "bz2", "xz", "zst"])
def test_any_image_of_a_tar_is_read_from_the_middle_and_backwards(tmp_path, form):
    members = {f"{number}.png": PNG + bytes(number) for number in range(9)}
    mode = "w" if form in ("", "zst") else f"w:{form}"
    tar = compressed(write_tar(tmp_path / "t", {"x.txt": b"x", **members}, mode), form)

    assert survey(tar, BOUNDS).num_images == 9
    reader = open_reader(tar, "tar", BOUNDS)
    for start, stop in ((3, 5), (5, 6), (8, 9), (0, 2), (1, 1), (1, 9)):
        found = list(reader.read(start, stop))
        assert [item.name for item in found] == list(members)[start:stop]
        assert [item.content for item in found] == list(members.values())[start:stop]
    reader.close()


def test_members_that_are_no_plain_files_are_passed_over_and_counted(tmp_path):
    device = tarfile.TarInfo("device.png")
    device.type = tarfile.CHRTYPE
    folder = tarfile.TarInfo("folder.png")
    folder.type = tarfile.DIRTYPE
    extra = [link("a.png", "/etc/passwd"), link("b.png", "x.png", tarfile.LNKTYPE), device, folder]
    tar = write_tar(tmp_path / "t.tar", {"x.png": PNG, ".hidden.png": PNG}, extra=extra)

    found = survey(tar, BOUNDS)

    assert names(tar) == ["x.png"]
    assert (found.num_images, found.num_skipped) == (1, 4)


def test_names_that_point_outside_or_come_twice_are_only_names(tmp_path, bench):
    hostile = ["../../evil.png", "/srv/evil.png", "C:\\evil.png", "new\nline.png", "x.png"]
    tar = write_tar(tmp_path / "t.tar", dict.fromkeys(hostile, PNG))
    with tarfile.open(tar, "a") as more:
        info = tarfile.TarInfo("x.png")
        info.size = len(PNG)
        more.addfile(info, io.BytesIO(PNG))
    before = {path.name for path in tmp_path.rglob("*")}

    rows = lines(bench.run(tar).output)

    assert [row["image"] for row in rows] == [*hostile, "x.png"]
    assert {row["error"] for row in rows} == {None}
    assert {path.name for path in tmp_path.rglob("*")} - before == {"answers.jsonl"}


def test_a_name_in_a_tar_that_is_no_text_is_shown_with_its_bytes(tmp_path):
    content = write_tar(tmp_path / "t.tar", {"xxxx.png": PNG}).read_bytes()
    info = tarfile.TarInfo.frombuf(content[:512], "utf-8", "surrogateescape")
    info.name = os.fsdecode(b"\xff\xfe.png")
    header = info.tobuf(tarfile.USTAR_FORMAT, "utf-8", "surrogateescape")
    (tmp_path / "t.tar").write_bytes(header + content[512:])

    assert names(tmp_path / "t.tar") == ["\\xff\\xfe.png"]


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_a_tar_that_was_cut_short_is_told_before_any_work(tmp_path, mode, bench):
    random = os.urandom(200_000)
    tar = write_tar(tmp_path / "t.tar", {"a.png": random, "b.png": random}, mode)
    tar.write_bytes(tar.read_bytes()[: tar.stat().st_size // 2 if mode != "w" else 512 * 300])

    with pytest.raises(InputError, match="cut short"):
        bench.run(tar)
    assert not list(bench.folder.iterdir())


def test_a_tar_without_its_end_mark_is_told(tmp_path):
    tar = write_tar(tmp_path / "t.tar", {"a.png": PNG})
    size = 512 + -(-len(PNG) // 512) * 512
    tar.write_bytes(tar.read_bytes()[:size])

    with pytest.raises(InputError, match="cut short"):
        survey(tar, BOUNDS)


def test_a_tar_whose_checksum_is_wrong_is_told(tmp_path):
    tar = write_tar(tmp_path / "t.tar.gz", {"a.png": PNG}, "w:gz")
    content = bytearray(tar.read_bytes())
    content[-6] ^= 1
    tar.write_bytes(content)

    with pytest.raises(InputError, match="corrupt"):
        survey(tar, BOUNDS)


def test_a_bomb_is_noticed_while_the_tar_is_walked(tmp_path):
    with gzip.open(tmp_path / "t.tar.gz", "wb") as file, tarfile.open(fileobj=file, mode="w|") as tar:
        info = tarfile.TarInfo("a.png")
        info.size = 64 << 20
        tar.addfile(info, io.BytesIO(bytes(info.size)))

    with pytest.raises(InputError, match="as only a bomb does"):
        survey(tmp_path / "t.tar.gz", BOUNDS)


def test_a_header_that_asks_for_gigabytes_is_refused(tmp_path):
    info = tarfile.TarInfo("a.png")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, 4 << 30
    (tmp_path / "t.tar").write_bytes(info.tobuf() + bytes(1024))

    with pytest.raises(InputError, match="asks to read"):
        survey(tmp_path / "t.tar", BOUNDS)


def test_an_image_that_is_too_large_is_not_read_and_gets_a_row(tmp_path, bench):
    bounds = TarBounds(max_image_bytes=100, max_ratio=200.0)
    tar = write_tar(tmp_path / "t.tar", {"a.png": bytes(101), "b.png": bytes(100)})

    first, second = open_reader(tar, "tar", bounds).read(0, 2)

    assert isinstance(first.content, Failure)
    assert (first.content.reason, second.content) == ("too_large", bytes(100))


def test_a_tar_with_fewer_images_than_it_had_is_told(tmp_path):
    tar = write_tar(tmp_path / "t.tar", {"a.png": PNG})

    with pytest.raises(InputError, match="fewer images"):
        list(open_reader(tar, "tar", BOUNDS).read(0, 2))


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"a.png\n", "list"),
        (b"\x1f\x8b\x08", "tar"),
        (b"BZh9", "tar"),
        (b"\xfd7zXZ\x00", "tar"),
        (b"", "list"),
    ],
)
def test_the_first_bytes_say_what_an_input_is(tmp_path, content, kind):
    path = tmp_path / "input.dat"
    path.write_bytes(content)

    assert kind_of(path) == kind
    assert kind_of(tmp_path) == "folder"


def test_what_is_neither_folder_nor_tar_nor_list_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "images.zip", "w") as archive:
        archive.writestr("a.png", PNG)
    os.mkfifo(tmp_path / "pipe")
    for name, told in (("images.zip", "neither"), ("pipe", "neither a file"), ("nothing", "No such file")):
        with pytest.raises(InputError, match=told):
            kind_of(tmp_path / name)


def test_a_list_is_text_with_short_lines(tmp_path):
    path = tmp_path / "list.txt"
    path.write_bytes(b"\xef\xbb\xbfa b.png\r\n\r\n  \nc.png")
    assert list_lines(path) == ["a b.png", "c.png"]
    for content in (b"a\n\0", b"x" * 40_000):
        path.write_bytes(content)
        with pytest.raises(InputError, match="is no list"):
            list_lines(path)
    with pytest.raises(InputError, match="cannot be read"):
        list_lines(tmp_path / "none.txt")


def test_a_fingerprint_changes_with_names_sizes_times_and_text(tmp_path):
    tar = write_tar(tmp_path / "t.tar", {"a.png": PNG})
    before = fingerprint(tar, "tar")
    os.utime(tar, ns=(0, 0))
    assert fingerprint(tar, "tar") != before
    (tmp_path / "f").mkdir()
    (tmp_path / "f" / "a.png").write_bytes(b"x")
    first = fingerprint(tmp_path / "f", "folder")
    (tmp_path / "f" / "a.png").rename(tmp_path / "f" / "b.png")
    assert fingerprint(tmp_path / "f", "folder") != first


def test_a_survey_is_plain_values(tmp_path):
    write_tar(tmp_path / "t.tar", {"a.png": PNG, "b.txt": PNG})

    found = survey(tmp_path / "t.tar", BOUNDS)

    assert found == Survey("tar", fingerprint(tmp_path / "t.tar", "tar"), num_images=1, num_skipped=1)


@pytest.mark.parametrize(
    ("size", "reason"), [(0, "empty"), (10, "not_an_image"), ((1 << 20) + 1, "too_large")]
)
def test_a_file_that_is_no_image_fails_alone(tmp_path, size, reason):
    path = tmp_path / "a.png"
    path.write_bytes(b"x" * size)

    (item,) = open_reader(tmp_path, "folder", BOUNDS).read(0, 1)
    found = load(item, PREPROCESSING, LIMITS)
    assert isinstance(found, Failure)
    assert found.reason == reason


def test_an_image_with_too_many_pixels_fails_alone(tmp_path):
    (tmp_path / "a.png").write_bytes(image_bytes(tiny_image(1, size=(200, 100))))

    (item,) = open_reader(tmp_path, "folder", BOUNDS).read(0, 1)
    assert load(item, PREPROCESSING, LIMITS).reason == "too_large"


def test_a_file_that_vanished_or_that_no_disk_gives_fails_alone(tmp_path):
    missing = load(Item("a.png", tmp_path / "a.png"), PREPROCESSING, LIMITS)
    too_long = load(Item("a.png", tmp_path / ("x" * 300)), PREPROCESSING, LIMITS)
    impossible = load(Item("a.png", tmp_path / "a\0.png"), PREPROCESSING, LIMITS)

    assert [found.reason for found in (missing, too_long, impossible)] == [
        "missing",
        "unreadable",
        "unreadable",
    ]

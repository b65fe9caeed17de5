"""A folder of one's own is a suite; what is wrong with it, or with its suite.json, is named."""

import json

import pytest

from bench.errors import BenchError
from bench.suites import SuiteTask, find_suite, order_of
from imagesets import ImageIndex
from tests.imagesets.building import image_bytes, two_classes, write_tar, write_zip


def write(folder, members):
    for name, content in members.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


@pytest.fixture
def folder(tmp_path):
    """A suite with a folder of classes, an archive with a split, and a zip."""
    suite = tmp_path / "zoo"
    write(suite / "water", two_classes(10))
    split = {
        f"{part}/{name}": content for part in ("train", "test") for name, content in two_classes(2).items()
    }
    write_tar(suite / "air.tar.gz", split, mode="w:gz")
    write_zip(suite / "earth.zip", two_classes(5))
    write(suite, {".cache/x/1.png": b"", "README.md": b"words"})
    return suite


def described(folder, **parts):
    (folder / "suite.json").write_text(json.dumps(parts))
    return find_suite(str(folder), data_folder=None)


def load(suite, task, tmp_path):
    return suite.load(task, cache=tmp_path / "cache", on_progress=lambda *_: None)


def test_folders_and_archives_are_tasks_and_a_missing_split_is_drawn(folder, tmp_path):
    suite = find_suite(str(folder), data_folder=None)
    assert (suite.name, suite.tasks) == ("zoo", ("air", "earth", "water"))
    sizes = {}
    for task in suite.tasks:
        loaded = load(suite, task, tmp_path)
        assert (loaded.images.classes, loaded.templates) == (("cat", "sea otter"), ("a photo of a {}.",))
        sizes[task] = (len(loaded.images.train), len(loaded.images.test))
        assert load(suite, task, tmp_path) == loaded
    assert sizes == {"air": (4, 4), "earth": (8, 2), "water": (16, 4)}
    assert suite.training("air", tuning="full", is_few_shot=False) == {}


def test_orders_are_alphabetical_and_reversed_unless_said_otherwise(folder):
    suite = find_suite(str(folder), data_folder=None)
    assert order_of(suite, "I") == ("air", "earth", "water")
    assert order_of(suite, "II") == ("water", "earth", "air")
    suite = described(folder, orders={"I": ["water", "air", "earth"], "wet": ["water", "earth", "air"]})
    assert order_of(suite, "I") == suite.tasks == ("water", "air", "earth")
    assert order_of(suite, "II") == ("water", "earth", "air")
    assert order_of(suite, "wet") == ("water", "earth", "air")


def test_suite_json_gives_templates_and_training_options(folder, tmp_path):
    suite = described(
        folder,
        templates={"air": ["a {} in the air.", "a flying {}."]},
        training={"full": {"iterations": 7}, "lora": {"learning_rate": 0.01}},
    )
    assert load(suite, "air", tmp_path).templates == ("a {} in the air.", "a flying {}.")
    assert load(suite, "water", tmp_path).templates == ("a photo of a {}.",)
    assert suite.training("air", tuning="full", is_few_shot=True) == {"iterations": 7}
    assert suite.training("air", tuning="lora", is_few_shot=False) == {"learning_rate": 0.01}
    assert load(described(folder, templates=["one {}."]), "earth", tmp_path).templates == ("one {}.",)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"colour": 1}, r"suite\.json has a part 'colour'"),
        ({"orders": ["air"]}, "orders in .* no object of lists"),
        ({"orders": {"I": "air"}}, "orders in .* no object of lists"),
        ({"orders": {"I": ["air", "fire"]}}, "order 'I' of .* names 'fire'"),
        ({"orders": {"I": ["air", "air", "water"]}}, "names 'air' more than once"),
        ({"orders": {"I": ["air", "water"]}}, "leaves out 'earth'"),
        ({"templates": ["a photo"]}, "no sentences|not sentences"),
        ({"templates": []}, "not sentences"),
        ({"templates": {"fire": ["a {}."]}}, "has no task 'fire'"),
        ({"training": {"iterations": 5}}, "training in .* is not by tuning"),
        ({"training": {"full": {"iterations": 0}}}, r"training\.full\.iterations in .* greater than"),
        ({"training": {"lora": {"learning": 1}}}, r"training\.lora\.learning in .*"),
    ],
)
def test_what_is_wrong_in_suite_json_is_named(folder, parts, message):
    with pytest.raises(BenchError, match=message):
        described(folder, **parts)


@pytest.mark.parametrize(("text", "message"), [("{", "cannot be read as JSON"), ("[1]", "has no object")])
def test_a_suite_json_that_is_none_is_refused(folder, text, message):
    (folder / "suite.json").write_text(text)
    with pytest.raises(BenchError, match=message):
        find_suite(str(folder), data_folder=None)


def test_a_task_that_is_there_twice_is_refused(folder):
    write_tar(folder / "water.tar", two_classes())
    with pytest.raises(BenchError, match=r"'water' is there twice, as water and as water\.tar"):
        find_suite(str(folder), data_folder=None)


def test_a_folder_without_tasks_is_refused(tmp_path):
    write(tmp_path, {"README.md": b"", ".git/x": b""})
    with pytest.raises(BenchError, match="holds no tasks"):
        find_suite(str(tmp_path), data_folder=None)


def test_a_task_in_no_known_layout_is_named(folder, tmp_path):
    write(folder / "fire", {"1.png": image_bytes()})
    (folder / "ash.tar").write_bytes(b"no tar")
    suite = find_suite(str(folder), data_folder=None)
    with pytest.raises(BenchError, match=r"fire: '1\.png': the image lies in no class folder"):
        load(suite, "fire", tmp_path)
    with pytest.raises(BenchError, match=r"ash\.tar: "):
        load(suite, "ash", tmp_path)
    with pytest.raises(BenchError, match="suite 'zoo' has no task 'smoke'"):
        load(suite, "smoke", tmp_path)


def test_a_task_without_training_or_test_images_is_no_task(folder, tmp_path):
    write(folder / "dust", {f"{kind}/1.png": image_bytes() for kind in ("cat", "dog")})
    with pytest.raises(BenchError, match="task 'dust' has no images to test with"):
        load(find_suite(str(folder), data_folder=None), "dust", tmp_path)
    with pytest.raises(BenchError, match="task 'void' has no images to train on"):
        SuiteTask("void", ImageIndex(("a", "b"), (), ()), ("a {}.",))


def test_a_suite_that_is_not_there_is_refused_with_those_that_are(tmp_path):
    with pytest.raises(BenchError, match="there is no suite 'maxi', and no folder of that name") as told:
        find_suite("maxi", data_folder=None)
    assert "mini, mtil" in told.value.remedy


# ---------------------------------------------------------------------------------------------------- orders


def test_an_order_is_read_from_a_file_with_comments(folder, tmp_path):
    (tmp_path / "order.txt").write_text("# wet first\nwater\n\n air   # then\nearth\n")
    assert order_of(find_suite(str(folder), data_folder=None), str(tmp_path / "order.txt")) == (
        "water",
        "air",
        "earth",
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("air\nfire\n", "names 'fire', which suite 'zoo' has not"),
        ("air\nair\nwater\n", "names 'air' more than once"),
        ("air\nwater\n", "leaves out 'earth'"),
        ("", "leaves out 'air'"),
    ],
)
def test_an_order_that_is_not_all_tasks_once_is_refused(folder, tmp_path, text, message):
    (tmp_path / "order.txt").write_text(text)
    with pytest.raises(BenchError, match=message) as told:
        order_of(find_suite(str(folder), data_folder=None), str(tmp_path / "order.txt"))
    assert "air, earth, water" in told.value.remedy


def test_an_unknown_order_is_refused_with_those_that_are_known(folder, tmp_path):
    suite = find_suite(str(folder), data_folder=None)
    with pytest.raises(BenchError, match="suite 'zoo' has no order 'III'") as told:
        order_of(suite, "III")
    assert "I, II" in told.value.remedy
    (tmp_path / "order.txt").write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(BenchError, match="not UTF-8"):
        order_of(suite, str(tmp_path / "order.txt"))

"""The task archives that ship: what tasks.json says of them is so."""

import hashlib
import io
import json
import tarfile
from collections import defaultdict
from pathlib import Path

import pytest
from PIL import Image

from catalog.training_options import TrainingOptions

DEMO = Path(__file__).parents[2] / "cli" / "demo"
TASKS = json.loads((DEMO / "tasks" / "tasks.json").read_text())["tasks"]
LARGEST_SIDE = 96
LARGEST_TOTAL_BYTES = 15_000_000


def members_of(task):
    with tarfile.open(DEMO / "tasks" / TASKS[task]["archive"]) as archive:
        for member in archive:
            yield member, archive.extractfile(member).read()


@pytest.mark.parametrize("task", TASKS)
def test_an_archive_holds_the_classes_and_the_numbers_of_images_that_are_said(task):
    classes = defaultdict(set)
    counts = defaultdict(int)
    for member, _ in members_of(task):
        split, folder, _ = member.name.split("/")
        classes[split].add(folder)
        counts[split] += 1
    assert [folder.replace("_", " ") for folder in sorted(classes["train"])] == TASKS[task]["classes"]
    assert classes["test"] == classes["train"]
    assert dict(counts) == {"train": TASKS[task]["num_train"], "test": TASKS[task]["num_test"]}


@pytest.mark.parametrize("task", TASKS)
def test_no_two_images_of_a_task_have_the_same_pixels(task):
    seen = defaultdict(list)
    for member, content in members_of(task):
        picture = Image.open(io.BytesIO(content)).convert("RGB")
        seen[hashlib.sha256(picture.tobytes()).hexdigest()].append(member.name)
    assert [names for names in seen.values() if len(names) > 1] == []


@pytest.mark.parametrize("task", TASKS)
def test_every_image_opens_and_is_at_most_96_pixels_wide_and_high(task):
    for member, content in members_of(task):
        with Image.open(io.BytesIO(content)) as picture:
            picture.load()
            assert picture.format in {"PNG", "WEBP"}, member.name
            assert max(picture.size) <= LARGEST_SIDE, member.name


@pytest.mark.parametrize("task", TASKS)
def test_an_archive_tells_nothing_of_the_machine_it_was_made_on(task):
    for member, _ in members_of(task):
        assert (member.mtime, member.uid, member.gid, member.uname, member.gname) == (0, 0, 0, "", ""), (
            member.name
        )


@pytest.mark.parametrize("task", TASKS)
def test_the_suggested_training_options_are_valid_and_the_templates_have_room_for_a_class(task):
    TrainingOptions.model_validate(TASKS[task]["training"])
    assert all(template.count("{}") == 1 for template in TASKS[task]["templates"])


def test_exactly_one_task_is_to_be_imported_and_it_is_the_last():
    assert [entry["import"] for entry in TASKS.values()] == [False] * (len(TASKS) - 1) + [True]


def test_all_archives_together_are_at_most_15_megabytes():
    assert sum(path.stat().st_size for path in (DEMO / "tasks").glob("*.tar")) <= LARGEST_TOTAL_BYTES


def test_every_task_has_a_section_on_its_licence():
    notes = (DEMO / "tasks" / "LICENSES.md").read_text()
    assert [task for task in TASKS if f"## {task}\n" not in notes] == []


def test_the_list_of_digests_names_every_file_and_matches():
    listed = dict(line.split("  ")[::-1] for line in (DEMO / "SHA256SUMS").read_text().splitlines())
    found = {
        path.relative_to(DEMO).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in DEMO.rglob("*")
        if path.is_file()
        and path.name not in {"SHA256SUMS", "__init__.py"}
        and "__pycache__" not in path.parts
    }
    assert listed == found

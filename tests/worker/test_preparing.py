"""Images are unpacked, screened and split once; broken ones are left out and named."""

import shutil

import pytest
import torch

from catalog.job_queue import JobFailedError
from imagesets import unpack_archive
from tests.worker.picturing import colour_archive, colour_image, colour_members
from tests.worker.training_setup import MAX_PIXELS, prepared, rules
from worker.datasets.preparing import PreparedImages, prepare_images, prepare_index


@pytest.mark.parametrize("limit", [0, 1 << 30])
def test_pictures_are_bit_for_bit_what_serving_sees_with_and_without_the_cache(tmp_path, limit):
    images = prepared(tmp_path, cache_limit_bytes=limit)
    assert (images.cache is None) == (limit == 0)
    preprocessing = rules().preprocessing
    pictures = images.pictures(preprocessing, max_pixels=MAX_PIXELS)
    positions = [*images.test, *images.train][:9]
    for position, (picture, label) in zip(positions, pictures.examples(positions), strict=True):
        assert torch.equal(picture, preprocessing.load(images.images[position].path))
        assert images.classes[label] == images.images[position].name.split("/")[0]


def test_broken_images_are_left_out_counted_and_named(tmp_path):
    members = colour_members() | {"red/broken.png": b"\x89PNG\r\n\x1a\n no", "blue/empty.jpg": b""}
    images = prepared(tmp_path, members=members)
    assert (len(images.images), images.num_rejected) == (24, 2)
    assert {each.name for each in images.rejected} == {"red/broken.png", "blue/empty.jpg"}
    assert all(each.reason for each in images.rejected)
    assert images.counts() == {"blue": 6, "green": 6, "red": 6}
    images.require_training_images()


def test_shots_are_drawn_a_class_from_what_the_split_left_and_with_the_seed(tmp_path):
    whole = prepared(tmp_path / "whole")
    few = prepared(tmp_path / "few", shots=2)
    assert few.counts() == {"blue": 2, "green": 2, "red": 2}
    assert few.test == whole.test
    assert set(few.train) < set(whole.train)
    assert prepared(tmp_path / "again", shots=2).train == few.train
    assert prepared(tmp_path / "all", shots=6).train == whole.train
    assert prepared(tmp_path / "other", shots=2, seed=1).train != few.train


def test_broken_images_are_no_shots(tmp_path):
    members = colour_members(("green", "blue")) | colour_members(("red",), num_each=4)
    with pytest.raises(JobFailedError, match="'red' has 3 training images, shots asks for 4") as told:
        prepared(tmp_path, members=members | {"red/broken.png": b"no"}, shots=4)
    assert "lower shots" in told.value.remedy


def test_images_on_disk_are_prepared_as_those_of_an_archive_are(tmp_path):
    unpacked = unpack_archive(colour_archive(tmp_path / "archive.tar"), tmp_path / "unpacked")
    from_index = prepare_index(unpacked, tmp_path / "index", rules(), on_images=lambda *_: None)
    from_archive = prepared(tmp_path)
    assert (from_index.train, from_index.test) == (from_archive.train, from_archive.test)
    assert from_index.cache.read_bytes() == from_archive.cache.read_bytes()
    shutil.rmtree(tmp_path / "unpacked")
    assert prepare_index(unpacked, tmp_path / "index", rules(), on_images=print) == from_index


def test_an_image_bomb_in_a_data_set_is_left_out_like_a_broken_image(tmp_path):
    bomb = colour_image("red", 0, size=(2000, 1000))
    images = prepared(tmp_path, members=colour_members() | {"red/bomb.png": bomb})
    assert [each.name for each in images.rejected] == ["red/bomb.png"]
    assert images.rejected[0].reason.startswith("too_large")


def test_of_many_broken_images_twenty_are_named(tmp_path):
    images = prepared(tmp_path, members=colour_members() | {f"red/x{n}.png": b"no" for n in range(30)})
    assert (images.num_rejected, len(images.rejected)) == (30, 20)


def test_a_class_whose_images_are_all_broken_is_named(tmp_path):
    members = colour_members() | {"grey/1.png": b"no", "grey/2.png": b"no"}
    images = prepared(tmp_path, members=members)
    with pytest.raises(JobFailedError, match=r"Class 'grey' has no readable training image; 2 images"):
        images.require_training_images()


def test_an_archive_of_broken_images_alone_is_refused(tmp_path):
    with pytest.raises(JobFailedError, match=r"All 2 are broken, the first is 'cat/1\.png'"):
        prepared(tmp_path, members={"cat/1.png": b"no", "dog/2.png": b"no"})


def test_preparing_again_reads_what_it_left(tmp_path):
    first = prepared(tmp_path)
    (tmp_path / "archive.tar").unlink()
    assert prepare_images(tmp_path / "archive.tar", tmp_path / "images", rules(), on_images=print) == first
    assert PreparedImages.from_dict(first.to_dict()) == first


def test_preparing_stopped_midway_goes_on_and_leaves_no_rest(tmp_path):
    whole = prepared(tmp_path / "whole")
    archive = colour_archive(tmp_path / "archive.tar")

    def stop_at_five(what: str, done: int, _total: int) -> None:
        if (what, done) == ("decode", 5):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare_images(archive, tmp_path / "images", rules(), on_images=stop_at_five)
    again = prepare_images(archive, tmp_path / "images", rules(), on_images=lambda *_: None)
    assert (again.train, again.test, again.classes) == (whole.train, whole.test, whole.classes)
    assert {path.name for path in (tmp_path / "images").iterdir()} == {
        "pixels.u8",
        "prepared.json",
        "unpacked",
    }


def test_a_given_split_is_used(tmp_path):
    members = {f"train/{name}": content for name, content in colour_members(num_each=3).items()}
    members |= {f"test/{name}": content for name, content in colour_members(num_each=2).items()}
    images = prepared(tmp_path, members=members)
    assert (len(images.train), len(images.test)) == (9, 6)
    assert all(images.images[position].name.startswith("test/") for position in images.test)

import json

import numpy as np
import pytest
import torch
from open_clip.transform import PreprocessCfg, image_transform, image_transform_v2
from PIL import Image

from tests.tiny_clip import image_bytes, tiny_image
from vlm.architecture import resolve_architecture
from vlm.errors import ImageRejectedError, UnknownArchitectureError
from vlm.preprocessing import Preprocessing

MEAN, STD = (0.48, 0.46, 0.41), (0.27, 0.26, 0.28)
PLAIN = Preprocessing(size=(32, 32), mean=MEAN, std=STD)


@pytest.mark.parametrize("picture_size", [(100, 60), (60, 100), (20, 20), (7, 90), (32, 32)])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize("resize_mode", ["shortest", "longest", "squash"])
@pytest.mark.parametrize("size", [(32, 32), (32, 48)])
def test_a_picture_becomes_what_open_clips_transform_makes_of_it(
    picture_size, interpolation, resize_mode, size
):
    picture = tiny_image(0, picture_size)
    ours = Preprocessing(size, MEAN, STD, interpolation=interpolation, resize_mode=resize_mode, fill_color=9)
    theirs = image_transform(
        size,
        is_train=False,
        mean=MEAN,
        std=STD,
        interpolation=interpolation,
        resize_mode=resize_mode,
        fill_color=9,
    )
    assert torch.equal(ours(picture), theirs(picture))
    assert ours(picture).shape == (3, *size)
    assert ours(picture).dtype == torch.float32


def test_a_base_is_preprocessed_as_open_clip_does_for_its_name():
    ours = resolve_architecture(name="ViT-B-32").preprocessing()
    picture = tiny_image(1, (300, 260))
    assert torch.equal(ours(picture), image_transform_v2(PreprocessCfg(size=224), is_train=False)(picture))


def test_loading_is_decoding_and_transforming(tmp_path):
    path = tmp_path / "picture.png"
    path.write_bytes(image_bytes(tiny_image(2)))
    assert torch.equal(PLAIN.load(path), PLAIN(tiny_image(2)))
    assert torch.equal(PLAIN.load(path.read_bytes()), PLAIN(tiny_image(2)))


def test_loading_keeps_the_bound_on_pixels():
    with pytest.raises(ImageRejectedError):
        PLAIN.load(image_bytes(tiny_image(2)), max_pixels=10)


def test_a_large_jpeg_is_decoded_reduced_and_looks_the_same():
    rng = np.random.default_rng(0)
    scene = Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8)).resize((1600, 1200))
    content = image_bytes(scene, "JPEG", quality=90)
    exact = Preprocessing(size=(32, 32), mean=MEAN, std=STD, jpeg_draft=0)
    assert PLAIN.decode(content).size == (200, 150)
    assert exact.decode(content).size == (1600, 1200)
    # In units of the standard deviation; one step of 8 bits is 0.015.
    assert (PLAIN.load(content) - exact.load(content)).abs().mean() < 0.03


def test_a_preprocessing_survives_json():
    exotic = Preprocessing((32, 48), MEAN, STD, "bilinear", "longest", fill_color=7, jpeg_draft=0)
    assert Preprocessing.from_dict(json.loads(json.dumps(exotic.to_dict()))) == exotic


@pytest.mark.parametrize(
    "change",
    [
        {"size": [0, 32]},
        {"size": [32]},
        {"size": 32},
        {"size": [32, 10**6]},
        {"mean": [0.5]},
        {"mean": [0.5, 0.5, float("nan")]},
        {"std": [0.5, 0, 0.5]},
        {"std": "0.5"},
        {"interpolation": "lanczos"},
        {"resize_mode": "crop"},
        {"fill_color": 300},
        {"jpeg_draft": -1},
        {"nonsense": 1},
    ],
)
def test_a_preprocessing_that_makes_no_sense_is_refused(change):
    with pytest.raises(UnknownArchitectureError, match="preprocessing"):
        Preprocessing.from_dict({**PLAIN.to_dict(), **change})


def test_a_preprocessing_without_a_mean_is_refused():
    values = PLAIN.to_dict()
    del values["mean"]
    with pytest.raises(UnknownArchitectureError, match="mean"):
        Preprocessing.from_dict(values)


def test_an_augmented_picture_follows_from_its_generator_alone():
    picture = tiny_image(3, (60, 50))
    one, again, other = (
        PLAIN.augment(picture, generator=torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)
    )
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
    assert one.shape == (3, 32, 32)


def test_augmenting_leaves_the_global_random_numbers_alone():
    state = torch.get_rng_state()
    PLAIN.augment(tiny_image(3), generator=torch.Generator().manual_seed(0))
    assert torch.equal(torch.get_rng_state(), state)


def test_augmented_crops_keep_nine_tenths_of_the_picture():
    # Left half black, right half white: the mean of a crop tells how far it may have moved.
    picture = Image.new("RGB", (100, 100))
    picture.paste((255, 255, 255), (50, 0, 100, 100))
    plain = Preprocessing(size=(32, 32), mean=(0, 0, 0), std=(1, 1, 1))
    generator = torch.Generator().manual_seed(0)
    means = [float(plain.augment(picture, generator=generator).mean()) for _ in range(100)]
    assert min(means) > 0.35
    assert max(means) < 0.65
    assert np.std(means) > 0.005


@pytest.mark.parametrize("size", [(10, 400), (400, 10)])
def test_a_picture_too_long_for_any_crop_is_cropped_in_its_middle(size):
    assert PLAIN.augment(tiny_image(4, size), generator=torch.Generator().manual_seed(0)).shape == (3, 32, 32)

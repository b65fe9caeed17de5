import json
import struct

import pytest
import torch
from safetensors.torch import load, save

from store.safefile import header_bytes, tensor_bytes
from vlm.errors import InvalidPrototypesError
from vlm.features import image_features, text_features
from vlm.prompts import fill
from vlm.prototypes import FORMAT, PrototypeSet, compute_prototypes

CLASSES, TEMPLATES = ("cat", "dog", "otter"), ("a photo of a {}.", "a drawing of a {}.")


@pytest.fixture(scope="module")
def theta0(learned):
    return learned.architecture.build(learned.base_tensors)


def prototypes(learned, theta0, batches=(), **options):
    tokenizer = learned.architecture.tokenizer()
    return compute_prototypes(theta0, tokenizer, batches, classes=CLASSES, templates=TEMPLATES, **options)


def unit(vector):
    return vector / vector.norm()


def test_a_prototype_is_the_mean_of_the_images_plus_the_mean_of_the_prompts(learned, theta0):
    images, numbers = learned.pictures(5), torch.tensor([0, 1, 0, 0, 1])
    found = prototypes(learned, theta0, [(images[:3], numbers[:3]), (images[3:], numbers[3:])])
    tokenizer = learned.architecture.tokenizer()
    pictures = image_features(theta0, images)
    for number, name in enumerate(CLASSES):
        texts = text_features(theta0, tokenizer([fill(template, name) for template in TEMPLATES]))
        mean = texts.mean(dim=0)
        if number < 2:
            mean = mean + pictures[numbers == number].mean(dim=0)
        torch.testing.assert_close(found.vectors[number], unit(mean))
    assert found.num_images == (3, 2, 0)


def test_without_images_the_text_speaks_alone(learned, theta0):
    found = prototypes(learned, theta0)
    assert found.num_images == (0, 0, 0)
    torch.testing.assert_close(found.vectors.norm(dim=1), torch.ones(3))


def test_how_images_are_batched_does_not_matter(learned, theta0):
    images, numbers = learned.pictures(6), torch.tensor([0, 1, 2, 2, 1, 0])
    whole = prototypes(learned, theta0, [(images, numbers)])
    pieces = prototypes(learned, theta0, [(images[i : i + 1], numbers[i : i + 1]) for i in range(6)])
    torch.testing.assert_close(whole.vectors, pieces.vectors)


def test_progress_counts_the_images_done(learned, theta0):
    seen = []
    images, numbers = learned.pictures(3), torch.tensor([0, 1, 2])
    prototypes(learned, theta0, [(images, numbers), (images[:1], numbers[:1])], on_progress=seen.append)
    assert seen == [3, 4]


def example():
    vectors = torch.nn.functional.normalize(
        torch.randn(3, 8, generator=torch.Generator().manual_seed(0)), dim=1
    )
    return PrototypeSet(("Katze 猫", "dog", 'quo"te'), ("a {}", "the {}"), vectors, (3, 0, 1))


def test_a_set_survives_its_bytes_and_equal_sets_have_equal_bytes():
    content = example().to_bytes()
    again = PrototypeSet.from_bytes(content)
    assert torch.equal(again.vectors, example().vectors)
    assert (again.classes, again.templates, again.num_images) == (
        ("Katze 猫", "dog", 'quo"te'),
        ("a {}", "the {}"),
        (3, 0, 1),
    )
    assert again.to_bytes() == content
    assert PrototypeSet.from_bytes(memoryview(content)).to_bytes() == content


def test_the_bytes_are_a_safetensors_file_that_others_read():
    assert torch.equal(load(example().to_bytes())["prototypes"], example().vectors)


def test_the_vectors_do_not_hang_on_the_memory_they_were_read_from():
    content = bytearray(example().to_bytes())
    found = PrototypeSet.from_bytes(memoryview(content))
    content[-8:] = b"\xff" * 8
    assert torch.equal(found.vectors, example().vectors)


def damaged(*, vectors=None, name="prototypes", about=None, file_format=FORMAT):
    good = example()
    vectors = good.vectors if vectors is None else vectors
    described = {"classes": list(good.classes), "templates": ["a {}"], "num_images": [3, 0, 1]} | (
        about or {}
    )
    metadata = {"format": file_format, "about": json.dumps(described)}
    dtype = str(vectors.dtype).removeprefix("torch.")
    return header_bytes([(name, dtype, tuple(vectors.shape))], metadata) + bytes(tensor_bytes(vectors))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"PK\x03\x04 pickle",
        example().to_bytes()[:-1],
        example().to_bytes() + b"\0",
        struct.pack("<Q", 2**60) + b"{}",
        save({"prototypes": example().vectors}),
        damaged(file_format="condu-prototypes-2"),
        damaged(name="other"),
        damaged(vectors=example().vectors.double()),
        damaged(vectors=example().vectors[:2]),
        damaged(vectors=example().vectors[0]),
        damaged(vectors=example().vectors * 2),
        damaged(vectors=torch.full((3, 8), float("nan"))),
        damaged(vectors=torch.zeros(3, 8)),
        damaged(about={"classes": ["one"]}),
        damaged(about={"num_images": [1, 2]}),
        damaged(about={"num_images": "many"}),
        damaged(about={"classes": 3}),
    ],
)
def test_bytes_that_are_no_prototypes_are_refused(content):
    with pytest.raises(InvalidPrototypesError, match="no prototypes"):
        PrototypeSet.from_bytes(content)

"""What the benchmark lays down: orders, learning rates, prompt templates, class names no data set has.

Class names and templates are those that CLIP published, as far as the benchmark uses them; where it takes the
names from the data set's own files, so does `bench.suites.mtil.layouts`.
"""

import json
from importlib import resources

from bench.suites.contract import Tuning

ORDER_I = (
    "aircraft",
    "caltech101",
    "cifar100",
    "dtd",
    "eurosat",
    "flowers",
    "food",
    "mnist",
    "oxford_pet",
    "stanford_cars",
    "sun397",
)
ORDER_II = (
    "stanford_cars",
    "food",
    "mnist",
    "oxford_pet",
    "flowers",
    "sun397",
    "aircraft",
    "caltech101",
    "dtd",
    "eurosat",
    "cifar100",
)

NUM_CLASSES = {
    "aircraft": 100,
    "caltech101": 101,
    "cifar100": 100,
    "dtd": 47,
    "eurosat": 10,
    "flowers": 102,
    "food": 101,
    "mnist": 10,
    "oxford_pet": 37,
    "stanford_cars": 196,
    "sun397": 397,
}

FEW_SHOT_ITERATIONS = 500
WARMUP_ITERATIONS = 100

# By (tuning, is few-shot), in order I. The few-shot 5e-5 on oxford_pet, not mnist, is as published.
_RATES: dict[tuple[Tuning, bool], tuple[float, ...]] = {
    ("full", False): (5e-5, 1e-5, 1e-5, 1e-5, 1e-5, 1e-5, 1e-5, 5e-5, 1e-5, 1e-5, 1e-5),
    ("lora", False): (1e-3, 5e-4, 2e-3, 2e-3, 1.5e-4, 1e-5, 2e-3, 1e-3, 1.5e-4, 2e-3, 1.5e-3),
    ("full", True): (5e-5, 1e-5, 1e-5, 1e-5, 1e-5, 1e-5, 1e-5, 1e-5, 5e-5, 1e-5, 1e-5),
    ("lora", True): (3e-3, 8e-4, 1.5e-3, 2e-3, 3e-4, 1e-5, 2e-3, 2.5e-3, 3e-4, 2e-3, 2e-3),
}
LEARNING_RATES = {how: dict(zip(ORDER_I, rates, strict=True)) for how, rates in _RATES.items()}

# {} becomes the article, then the class: 17 sentences with "a", the same 17 with "the".
_CALTECH = (
    "a photo of {} {{}}.",
    "a painting of {} {{}}.",
    "{} plastic {{}}.",
    "a sculpture of {} {{}}.",
    "a sketch of {} {{}}.",
    "a tattoo of {} {{}}.",
    "{} toy {{}}.",
    "a rendition of {} {{}}.",
    "{} embroidered {{}}.",
    "{} cartoon {{}}.",
    "{} {{}} in a video game.",
    "{} plushie {{}}.",
    "{} origami {{}}.",
    "art of {} {{}}.",
    "graffiti of {} {{}}.",
    "a drawing of {} {{}}.",
    "a doodle of {} {{}}.",
)
_TEXTURES = ("texture", "pattern", "thing", "object")

TEMPLATES = {
    "aircraft": ("a photo of a {}, a type of aircraft.", "a photo of the {}, a type of aircraft."),
    "caltech101": tuple(sentence.format(article) for article in ("a", "the") for sentence in _CALTECH),
    "cifar100": (
        "a photo of a {}.",
        "a blurry photo of a {}.",
        "a black and white photo of a {}.",
        "a low contrast photo of a {}.",
        "a high contrast photo of a {}.",
        "a bad photo of a {}.",
        "a good photo of a {}.",
        "a photo of a small {}.",
        "a photo of a big {}.",
        "a photo of the {}.",
        "a blurry photo of the {}.",
        "a black and white photo of the {}.",
        "a low contrast photo of the {}.",
        "a high contrast photo of the {}.",
        "a bad photo of the {}.",
        "a good photo of the {}.",
        "a photo of the small {}.",
        "a photo of the big {}.",
    ),
    "dtd": tuple(f"a photo of {article} {{}} {what}." for article in ("a", "the") for what in _TEXTURES),
    "eurosat": (
        "a centered satellite photo of {}.",
        "a centered satellite photo of a {}.",
        "a centered satellite photo of the {}.",
    ),
    "flowers": ("a photo of a {}, a type of flower.",),
    "food": ("a photo of a {}, a type of food.",),
    "mnist": ('a photo of the number: "{}".',),
    "oxford_pet": ("a photo of a {}, a type of pet.",),
    "stanford_cars": (
        "a photo of a {}, a type of car.",
        "a photo of a {}.",
        "a photo of the {}.",
        "a photo of my {}.",
        "i love my {}!",
        "a photo of my dirty {}.",
        "a photo of my clean {}.",
        "a photo of my new {}.",
        "a photo of my old {}.",
    ),
    "sun397": ("a photo of a {}.", "a photo of the {}."),
}

_CLASSES = json.loads(resources.files(__package__).joinpath("classes.json").read_text(encoding="utf-8"))
CALTECH_CLASSES: dict[str, str] = _CLASSES["caltech101"]
"""Class names by folder, in the order in which they are numbered; so too the next."""
EUROSAT_CLASSES: dict[str, str] = _CLASSES["eurosat"]
FLOWER_CLASSES: tuple[str, ...] = tuple(_CLASSES["flowers"])
MNIST_CLASSES: tuple[str, ...] = tuple(_CLASSES["mnist"])

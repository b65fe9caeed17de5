"""Solar cells under current (ELPV): electroluminescence photographs, of which the sure ones are taken.

They are for non-commercial use (CC BY-NC-SA 4.0): fetched where they are used, never shipped.
"""

import io
import random

from PIL import Image

from bench.suites.building import Sizes, TaskImage
from bench.suites.packages import SOLAR_CELLS, PackageCache, read_members

SEED = 20261122
SIZES = Sizes(train=200, test=50)
HALVED = 2
"""300 x 300 pixels become 150 x 150: cracks stay visible, and the archive stays small."""

# The package gives the probability that experts see a defect in a cell; only 0 and 1 are taken.
STATES = {"0.0": "intact", "1.0": "defective"}
MATERIALS = {"mono": "monocrystalline", "poly": "polycrystalline"}

TEMPLATES = ("a grey photo of a solar cell, {}.", "a photo of a solar cell, {}.", "a solar cell that is {}.")


def solar_cells(cache: PackageCache) -> list[TaskImage]:
    """Intact and defective cells of both materials, a random split."""
    files = dict(read_members(cache.fetch(SOLAR_CELLS), prefix="elpv_dataset/data/"))
    rows = [
        line.split() for line in files["elpv_dataset/data/labels.csv"].decode().splitlines() if line.strip()
    ]
    sure = [(name, f"{STATES[odds]}_{MATERIALS[kind]}") for name, odds, kind in rows if odds in STATES]
    random.Random(SEED).shuffle(sure)  # noqa: S311
    found: list[TaskImage] = []
    for label in sorted({label for _, label in sure}):
        names = [name for name, found_label in sure if found_label == label]
        for number, name in enumerate(names[: SIZES.train + SIZES.test]):
            picture = Image.open(io.BytesIO(files[f"elpv_dataset/data/{name}"])).convert("L").reduce(HALVED)
            found.append(TaskImage("test" if number < SIZES.test else "train", label, picture, name))
    return found

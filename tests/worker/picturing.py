"""Archives of tiny pictures that a tiny CLIP can learn to tell apart."""

import io
from pathlib import Path

import numpy as np
from PIL import Image

from tests.imagesets.building import write_tar, write_zip

COLOURS = {"red": (220, 40, 30), "green": (40, 200, 60), "blue": (30, 60, 220), "grey": (128, 128, 128)}


def colour_image(colour: str, seed: int, *, size: tuple[int, int] = (36, 44)) -> bytes:
    """A noisy picture of mostly one colour, as PNG."""
    rng = np.random.default_rng([seed, *colour.encode()])
    noise = rng.integers(-40, 40, (*size, 3))
    pixels = np.clip(np.array(COLOURS[colour]) + noise, 0, 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def colour_members(
    colours: tuple[str, ...] = ("red", "green", "blue"), *, num_each: int = 8, offset: int = 0
) -> dict[str, bytes]:
    """A folder per colour."""
    return {f"{c}/{n}.png": colour_image(c, n + offset) for c in colours for n in range(num_each)}


def colour_archive(path: Path, members: dict[str, bytes] | None = None, *, form: str = "tar") -> Path:
    """An archive of those members, or of `colour_members`."""
    write = write_zip if form == "zip" else write_tar
    return write(path, colour_members() if members is None else members)

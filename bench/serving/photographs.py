"""The images that are sent: JPEGs cut from the two photographs that scikit-learn ships."""

import io
import random
from importlib.resources import files

from PIL import Image

SIZE = (640, 480)
QUALITY = 90
SMALLEST_CROP = 0.35
"""Of the photograph's width: what is smaller is mostly blur."""


def make_photographs(count: int, *, seed: int) -> list[bytes]:
    """So many different JPEGs of 640 x 480 pixels; the same seed gives the same pictures."""
    draw = random.Random(seed)  # noqa: S311 - no secret, but the same crops every time
    folder = files("sklearn.datasets") / "images"
    sources = [
        Image.open(io.BytesIO((folder / name).read_bytes())).convert("RGB")
        for name in ("china.jpg", "flower.jpg")
    ]
    return [_encoded(_crop(sources[index % len(sources)], draw)) for index in range(count)]


def _crop(source: Image.Image, draw: random.Random) -> Image.Image:
    largest = min(1.0, source.height * SIZE[0] / SIZE[1] / source.width)
    width = source.width * draw.uniform(SMALLEST_CROP, largest)
    height = width * SIZE[1] / SIZE[0]
    left, top = draw.uniform(0, source.width - width), draw.uniform(0, source.height - height)
    return source.resize(SIZE, Image.Resampling.BICUBIC, box=(left, top, left + width, top + height))


def _encoded(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=QUALITY)
    return buffer.getvalue()

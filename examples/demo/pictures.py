"""Drawings as pixels: SVG to RGBA, plain and stylised views, and a fingerprint that finds near-copies."""

import io

import numpy as np
import resvg_py
from numpy.typing import NDArray
from PIL import Image, ImageFilter, ImageOps

RGB = tuple[int, int, int]
WHITE: RGB = (255, 255, 255)
# A silhouette or a thumbnail of 28 px is what small public image sets are made of.
THUMBNAIL = 28
MONOCHROME_SPREAD = 24


class UnreadableDrawingError(Exception):
    """The drawing does not render, or renders to nothing."""


def render_svg(svg: str, size: int) -> Image.Image:
    """The drawing, cropped to its ink, centred on a transparent square with a margin of a sixteenth."""
    try:
        # Without a resolution, drawings measured in millimetres have no size.
        png = resvg_py.svg_to_bytes(svg_string=svg, width=2 * size, dpi=96, skip_system_fonts=True)
        drawing = Image.open(io.BytesIO(png)).convert("RGBA")
    except (ValueError, OSError) as error:
        raise UnreadableDrawingError(str(error)) from error
    ink = drawing.getchannel("A").point(lambda alpha: 255 if alpha > 8 else 0).getbbox()
    if ink is None or drawing.height > 16 * size:
        raise UnreadableDrawingError("nothing is drawn")
    return centre(drawing.crop(ink), size)


def centre(drawing: Image.Image, size: int) -> Image.Image:
    """The drawing as large as it fits, in the middle of a transparent square."""
    inner = size - size // 8
    scale = inner / max(drawing.size)
    width, height = (max(1, round(side * scale)) for side in drawing.size)
    square = Image.new("RGBA", (size, size), (255, 255, 255, 0))
    square.paste(
        drawing.resize((width, height), Image.Resampling.LANCZOS), ((size - width) // 2, (size - height) // 2)
    )
    return square


def flatten(drawing: Image.Image, background: RGB = WHITE) -> Image.Image:
    """The drawing on a plain background."""
    ground = Image.new("RGBA", drawing.size, (*background, 255))
    return Image.alpha_composite(ground, drawing).convert("RGB")


def is_monochrome(drawing: Image.Image) -> bool:
    """True when all ink has nearly one colour, so that a negative of it reads as well."""
    pixels = np.asarray(drawing)
    ink = pixels[pixels[..., 3] > 128][:, :3]
    return len(ink) == 0 or float(ink.std(axis=0).max()) < MONOCHROME_SPREAD


def stylise(drawing: Image.Image, random: np.random.Generator) -> Image.Image:
    """One random view, as another medium would show the drawing: silhouette, thumbnail, grey, tinted."""
    style = random.integers(6)
    drawing = _turn(drawing, random)
    if style == 0:
        return _silhouette(drawing, random)
    if style == 1:
        return _grey_thumbnail(drawing)
    if style == 2:
        grey = ImageOps.grayscale(flatten(drawing))
        return (ImageOps.invert(grey) if random.random() < 0.3 else grey).convert("RGB")
    if style == 3:
        tint = random.integers(120, 256, 3)
        return flatten(drawing, (int(tint[0]), int(tint[1]), int(tint[2])))
    if style == 4:
        return flatten(drawing).filter(ImageFilter.GaussianBlur(float(random.uniform(0.5, 2.0))))
    return flatten(drawing)


def _turn(drawing: Image.Image, random: np.random.Generator) -> Image.Image:
    angle, scale = random.uniform(-15, 15), random.uniform(0.75, 1.15)
    size = drawing.width
    turned = drawing.rotate(float(angle), Image.Resampling.BICUBIC)
    side = max(8, round(size * scale))
    moved = Image.new("RGBA", drawing.size, (255, 255, 255, 0))
    offset = (size - side) // 2 + random.integers(-size // 16, size // 16 + 1, 2)
    moved.paste(turned.resize((side, side), Image.Resampling.BICUBIC), (int(offset[0]), int(offset[1])))
    return moved


def _silhouette(drawing: Image.Image, random: np.random.Generator) -> Image.Image:
    """The outline filled: white on black as a thumbnail, or black on white."""
    alpha = drawing.getchannel("A")
    if random.random() < 0.5:
        small = alpha.resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BILINEAR)
        return small.resize(drawing.size, Image.Resampling.BICUBIC).convert("RGB")
    return ImageOps.invert(alpha).convert("RGB")


def _grey_thumbnail(drawing: Image.Image) -> Image.Image:
    """A bright grey thumbnail on black; dark one-colour ink is made bright, or nothing would be seen."""
    ground = Image.new("RGBA", drawing.size, (0, 0, 0, 255))
    grey = ImageOps.grayscale(flatten(drawing))
    if is_monochrome(drawing):
        grey = ImageOps.invert(grey)
    bright = Image.merge("RGBA", (grey, grey, grey, drawing.getchannel("A")))
    flat = ImageOps.grayscale(Image.alpha_composite(ground, bright).convert("RGB"))
    small = flat.resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BILINEAR)
    return small.resize(drawing.size, Image.Resampling.BICUBIC).convert("RGB")


def fingerprint(picture: Image.Image) -> NDArray[np.uint8]:
    """256 bits of horizontal and vertical gradients (dHash, 8 x 16 each way), packed into 32 bytes."""
    grey = ImageOps.grayscale(picture)
    wide = np.asarray(grey.resize((17, 8), Image.Resampling.BOX), dtype=np.int16)
    tall = np.asarray(grey.resize((8, 17), Image.Resampling.BOX), dtype=np.int16)
    bits = np.concatenate([(wide[:, 1:] > wide[:, :-1]).ravel(), (tall[1:] > tall[:-1]).ravel()])
    return np.packbits(bits)


def distances(fingerprints: NDArray[np.uint8], others: NDArray[np.uint8]) -> NDArray[np.uint16]:
    """Differing bits of every fingerprint against every other, [N, M]."""
    table = np.array([byte.bit_count() for byte in range(256)], dtype=np.uint16)
    result = np.zeros((len(fingerprints), len(others)), dtype=np.uint16)
    for byte in range(fingerprints.shape[1]):
        result += table[fingerprints[:, byte, None] ^ others[None, :, byte]]
    return result

"""Stylised views of a drawing, as other media would show it."""

import numpy as np
from PIL import Image, ImageFilter, ImageOps

from bench.suites.drawings import flatten

# A silhouette or a thumbnail of 28 px is what small public image sets are made of.
THUMBNAIL = 28
MONOCHROME_SPREAD = 24


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

"""Drawings as pixels: SVG to RGBA, on a ground."""

import io

import resvg_py
from PIL import Image

RGB = tuple[int, int, int]
WHITE: RGB = (255, 255, 255)


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

"""Foreign bytes to an RGB image, or a clear refusal; nothing large is decoded before its size is known."""

import io
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from vlm.errors import ImageRejectedError

DEFAULT_MAX_PIXELS = 50_000_000
"""150 MB once decoded."""

MAX_ASPECT = 200
"""A strip of one pixel by millions grows to gigabytes when its shorter edge is scaled up to the model's
size."""

FORMATS = ("JPEG", "PNG", "WEBP")


def decode_image(
    content: bytes | Path,
    *,
    max_pixels: int = DEFAULT_MAX_PIXELS,
    draft_size: tuple[int, int] | None = None,
) -> Image.Image:
    """The picture as RGB, upright.

    EXIF orientation is applied; transparency is composited on white; 16-bit grey is scaled to 8 bits; CMYK
    and palettes are converted; of an animation the first frame is taken; colour profiles are ignored, as
    CLIP's own preprocessing does.

    Args:
        content: The encoded image, or the file that holds it.
        max_pixels: Width times height beyond which the image is refused, before it is decoded.
        draft_size: (width, height) down to which a JPEG may be reduced while decoding; it never comes out
            smaller.

    Raises:
        ImageRejectedError: Not a JPEG, PNG or WebP, too large, or broken; `reason` says which.
    """
    encoded = content.read_bytes() if isinstance(content, Path) else content
    with _open(encoded, max_pixels) as image:
        try:
            if draft_size is not None:
                image.draft(None, draft_size)
            image.load()
            return _to_rgb(_upright(image))
        except Exception as error:  # Pillow's decoders raise a dozen kinds on hostile bytes
            raise ImageRejectedError(
                "broken", f"the image is truncated or damaged ({error}); send it whole"
            ) from error


def _open(encoded: bytes, max_pixels: int) -> Image.Image:
    if not encoded:
        raise ImageRejectedError("empty", "the image is empty (0 bytes); send the bytes of the file")
    try:
        image = Image.open(io.BytesIO(encoded), formats=FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        # Pillow's own limit lies above ours, and is left alone: it is global to the process.
        raise _too_large(str(error)) from error
    except Exception as error:
        raise ImageRejectedError(
            "not_an_image",
            f"the content is no {', '.join(FORMATS)} image that can be read; convert it to one of these",
        ) from error
    width, height = image.size
    if width * height > max_pixels:
        image.close()
        raise _too_large(f"{width} x {height} pixels, more than {max_pixels:,}")
    if max(width, height) > MAX_ASPECT * min(width, height):
        image.close()
        raise _too_large(f"{width} x {height} pixels: one edge more than {MAX_ASPECT} times the other")
    return image


def _too_large(detail: str) -> ImageRejectedError:
    return ImageRejectedError("too_large", f"the image is too large ({detail}); scale it down")


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # noqa: BLE001  # damaged EXIF is common in real photographs, whose pixels are fine
        return image


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        # Pillow would clip 16-bit grey at 255, which turns a photograph white.
        return Image.fromarray((np.asarray(image).astype(np.uint32) >> 8).astype(np.uint8)).convert("RGB")
    if not image.has_transparency_data:
        return image.convert("RGB")
    layer = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")

"""Pictures that are bombs or no pictures: each has its error, and an honest one beside it is answered."""

import base64
import struct
import zlib

import pytest

from tests.tiny_clip import image_bytes, tiny_image

URL = "/v1/models/animals/classify"
HONEST = image_bytes(tiny_image(5))


def chunk(kind, content):
    """One chunk of a PNG, with its checksum."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width, height, body=b""):
    """A PNG that claims a size."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


HOSTILE = {
    "a bomb of 10 gigapixels": (png(100_000, 100_000, zlib.compress(bytes(10**6))), "too_large"),
    "a claim of 2**31 pixels a side": (png(2**31 - 1, 2**31 - 1), "too_large"),
    "a picture of no width": (png(0, 5), None),
    "a picture cut in half": (HONEST[: len(HONEST) // 2], None),
    "a picture with a broken checksum": (HONEST[:-20] + bytes(4) + HONEST[-16:], None),
    "nothing": (b"", "empty"),
    "text": (b"<svg onload='alert(1)'/>", "not_an_image"),
    "a GIF": (image_bytes(tiny_image(1), "GIF"), "not_an_image"),
    "a TIFF": (image_bytes(tiny_image(1), "TIFF"), "not_an_image"),
    "an EPS, which a decoder would run": (
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
        "not_an_image",
    ),
    "a pickle": (b"\x80\x04cos\nsystem\n(S'touch /tmp/owned'\ntR.", "not_an_image"),
}


@pytest.mark.parametrize("form", ["multipart", "json"])
@pytest.mark.parametrize("idea", HOSTILE)
def test_a_hostile_picture_is_refused_alone(learned, form, idea):
    content, reason = HOSTILE[idea]

    if form == "multipart":
        files = [
            ("images", (name, each)) for name, each in (("../../etc/passwd", content), ("b.png", HONEST))
        ]
        response = learned.post(URL, files=[*files, ("task", (None, "pets"))])
    else:
        images = [base64.b64encode(each).decode() for each in (content, HONEST)]
        response = learned.post(URL, json={"images": images, "task": "pets"})

    assert response.status_code == 200, response.text
    hostile, honest = response.json()["results"]
    assert hostile["predictions"] == []
    assert hostile["error"]["reason"] == (reason or hostile["error"]["reason"])
    assert hostile["error"]["detail"]
    assert honest["error"] is None
    assert len(honest["predictions"]) == 2

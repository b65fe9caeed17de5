import io
import struct
import threading
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image

from tests.tiny_clip import image_bytes, tiny_image
from vlm.errors import ImageRejectedError
from vlm.images import decode_image


def pixel(image, x=0, y=0):
    return image.getpixel((x, y))


def png_header_of(width, height):
    """A PNG that claims a size and holds next to nothing."""

    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0" * 10))
        + chunk(b"IEND", b"")
    )


def rejected(content, **options):
    with pytest.raises(ImageRejectedError) as caught:
        decode_image(content, **options)
    assert len(str(caught.value)) > 20
    return caught.value.reason


def test_png_and_lossless_webp_come_back_as_they_were():
    picture = tiny_image(1)
    for content in (image_bytes(picture), image_bytes(picture, "WEBP", lossless=True)):
        assert np.array_equal(np.asarray(decode_image(content)), np.asarray(picture))


def test_a_jpeg_comes_back_about_as_it_was():
    picture = tiny_image(1, (64, 64))
    decoded = np.asarray(decode_image(image_bytes(picture, "JPEG", quality=95)), dtype=int)
    assert np.abs(decoded - np.asarray(picture, dtype=int)).mean() < 4


def test_a_file_is_read_like_its_bytes(tmp_path):
    path = tmp_path / "picture.png"
    path.write_bytes(image_bytes(tiny_image(2)))
    assert decode_image(path).tobytes() == decode_image(path.read_bytes()).tobytes()


def test_the_orientation_of_a_camera_is_applied():
    picture = tiny_image(3, (40, 20))
    exif = Image.Exif()
    exif[0x0112] = 6  # turned a quarter clockwise to be upright
    decoded = decode_image(image_bytes(picture, "JPEG", exif=exif, quality=95))
    assert decoded.size == (20, 40)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
@pytest.mark.parametrize("exif", [b"MM\0*\0\0\0\x08\xff\xff\x01\x12", b"XX\0*\0\0\0\x08\0\0", b""])
@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP"])
def test_damaged_exif_does_not_lose_the_picture(exif, file_format):
    content = image_bytes(tiny_image(4), file_format, exif=b"Exif\0\0" + exif)
    assert decode_image(content).size == (40, 48)


def test_transparent_pixels_become_white_and_half_transparent_ones_pale():
    layer = Image.new("RGBA", (2, 1))
    layer.putpixel((0, 0), (255, 0, 0, 0))
    layer.putpixel((1, 0), (255, 0, 0, 128))
    decoded = decode_image(image_bytes(layer))
    assert pixel(decoded) == (255, 255, 255)
    red, green, blue = pixel(decoded, 1)
    assert red == 255
    assert 125 <= green == blue <= 128


def test_a_palette_with_a_transparent_entry_is_composited_on_white():
    picture = Image.new("P", (2, 1))
    picture.putpalette([0, 0, 0, 10, 200, 30])
    picture.putpixel((1, 0), 1)
    decoded = decode_image(image_bytes(picture, transparency=0))
    assert pixel(decoded) == (255, 255, 255)
    assert pixel(decoded, 1) == (10, 200, 30)


def test_grey_with_alpha_is_composited_on_white():
    decoded = decode_image(image_bytes(Image.new("LA", (1, 1), (0, 0))))
    assert pixel(decoded) == (255, 255, 255)


def test_sixteen_bit_grey_is_scaled_and_not_clipped():
    values = np.array([[0, 256, 32768, 65535]], dtype=np.uint16)
    decoded = decode_image(image_bytes(Image.fromarray(values)))
    assert [pixel(decoded, x) for x in range(4)] == [(0,) * 3, (1,) * 3, (128,) * 3, (255,) * 3]


def test_a_cmyk_jpeg_becomes_rgb():
    decoded = decode_image(image_bytes(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "JPEG", quality=95))
    red, green, blue = pixel(decoded, 8, 8)
    assert red > 200
    assert max(green, blue) < 60


@pytest.mark.parametrize("mode", ["L", "1", "P", "RGB", "RGBA", "LA"])
def test_every_mode_comes_out_as_rgb(mode):
    assert decode_image(image_bytes(tiny_image(5).convert(mode))).mode == "RGB"


@pytest.mark.parametrize("file_format", ["WEBP", "PNG"])
def test_of_an_animation_the_first_frame_is_taken(file_format):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    content = image_bytes(frames[0], file_format, save_all=True, append_images=frames[1:], lossless=True)
    assert pixel(decode_image(content)) == (255, 0, 0)


@pytest.mark.parametrize("file_format", ["GIF", "BMP", "TIFF", "PPM"])
def test_other_formats_are_refused_though_pillow_reads_them(file_format):
    assert rejected(image_bytes(tiny_image(6), file_format)) == "not_an_image"


@pytest.mark.parametrize(
    "content",
    [
        b"hello",
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b"\x89PNG\r\n\x1a\n",
        b"\xff\xd8\xff",
        b"RIFF\0\0\0\0WEBP",
        b"\0" * 999,
    ],
)
def test_what_is_no_image_is_refused(content):
    assert rejected(content) in {"not_an_image", "broken"}


def test_an_empty_image_is_refused():
    assert rejected(b"") == "empty"


@pytest.mark.parametrize(
    ("file_format", "options"), [("PNG", {}), ("JPEG", {"quality": 95}), ("WEBP", {"lossless": True})]
)
def test_a_truncated_image_is_refused_wherever_it_ends(file_format, options):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    content = image_bytes(noise, file_format, **options)
    for share in (0.3, 0.6, 0.9):
        assert rejected(content[: int(len(content) * share)]) in {"broken", "not_an_image"}


def test_a_damaged_image_is_refused():
    content = bytearray(image_bytes(tiny_image(7)))
    content[len(content) // 2] ^= 0xFF
    assert rejected(bytes(content)) == "broken"


@pytest.mark.parametrize("side", [8_000, 12_000, 60_000])
def test_a_bomb_is_refused_by_its_header_alone(side):
    assert rejected(png_header_of(side, side)) == "too_large"


def test_the_bound_is_exact():
    content = image_bytes(tiny_image(8, (10, 10)))
    assert decode_image(content, max_pixels=100).size == (10, 10)
    assert rejected(content, max_pixels=99) == "too_large"


def test_a_strip_that_would_grow_to_gigabytes_is_refused():
    assert rejected(image_bytes(Image.new("RGB", (1, 10_000)))) == "too_large"
    assert decode_image(image_bytes(Image.new("RGB", (1, 200)))).size == (1, 200)


def test_a_text_bomb_in_a_png_is_refused():
    text = zlib.compress(b"a" * 80_000_000)
    content = image_bytes(tiny_image(9))
    body = b"key\0\0" + text
    chunk = struct.pack(">I", len(body)) + b"zTXt" + body + struct.pack(">I", zlib.crc32(b"zTXt" + body))
    assert rejected(content[:33] + chunk + content[33:]) in {"not_an_image", "broken"}


def test_pillows_own_limits_stay_as_they_are_and_no_thread_disturbs_another():
    before = (Image.MAX_IMAGE_PIXELS, len(warnings.filters))
    good, results = image_bytes(tiny_image(10, (50, 50))), []

    def work():
        for _ in range(20):
            results.append(decode_image(good, max_pixels=2500).size)
            results.append(rejected(good, max_pixels=2499))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results.count((50, 50)) == results.count("too_large") == 80
    assert (Image.MAX_IMAGE_PIXELS, len(warnings.filters)) == before


def test_a_draft_of_a_jpeg_is_smaller_but_never_below_what_was_asked_for():
    content = image_bytes(tiny_image(11, (800, 600)), "JPEG")
    assert decode_image(content, draft_size=(64, 64)).size == (100, 75)
    assert decode_image(content, draft_size=(500, 500)).size == (800, 600)


def test_a_draft_leaves_other_formats_alone():
    content = image_bytes(tiny_image(12, (800, 600)))
    assert decode_image(content, draft_size=(64, 64)).size == (800, 600)


def test_a_multi_picture_jpeg_gives_its_first_picture():
    buffer = io.BytesIO()
    tiny_image(13).save(buffer, "MPO", save_all=True, append_images=[tiny_image(14)])
    assert decode_image(buffer.getvalue()).size == (40, 48)

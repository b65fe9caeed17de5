"""Images, labels, disks and clients that are not as they should be, through the whole service."""

import io
import json
import struct
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from tests.api.conftest import damage
from tests.api.test_classify import URL, alike, answers, ask
from tests.installing import embedded_only
from tests.tiny_clip import image_bytes, tiny_image

GOOD = image_bytes(tiny_image(1))


def single_pixel():
    return image_bytes(Image.new("RGB", (1, 1), (200, 30, 30)))


def four_inks():
    return image_bytes(Image.new("CMYK", (40, 30), (10, 200, 30, 20)), "JPEG")


def sixteen_bits():
    levels = np.linspace(0, 65535, 40 * 30).reshape(30, 40).astype(np.uint16)
    return image_bytes(Image.fromarray(levels))


def moving():
    frames = [Image.new("RGB", (40, 30), colour) for colour in ("red", "green", "blue")]
    content = io.BytesIO()
    frames[0].save(content, "WEBP", save_all=True, append_images=frames[1:], lossless=True)
    return content.getvalue()


def turned():
    """A picture that its EXIF says to turn, and the picture as it is then."""
    upright = tiny_image(5, (40, 40))
    exif = Image.Exif()
    exif[0x0112] = 3
    return image_bytes(upright.transpose(Image.Transpose.ROTATE_180), exif=exif), image_bytes(upright)


def bomb():
    """A PNG that claims a thousand million pixels and holds next to nothing."""

    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", 40_000, 25_000, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0" * 10))
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("made", [single_pixel, four_inks, sixteen_bits, moving])
@pytest.mark.parametrize("task", [{"task": "pets"}, {}])
def test_an_unusual_image_is_answered(learned, made, task):
    (result,) = answers(learned, [made()], **task)["results"]

    assert result["error"] is None
    assert sum(each["probability"] for each in result["predictions"]) == pytest.approx(1)


def test_of_an_animation_the_first_frame_is_answered(learned):
    first = image_bytes(Image.new("RGB", (40, 30), "red"))

    moved, still = answers(learned, [moving(), first], task="pets")["results"]

    assert moved["predictions"] == [alike(each) for each in still["predictions"]]


def test_an_image_is_answered_as_a_viewer_shows_it(learned):
    lying, upright = answers(learned, turned(), task="pets")["results"]

    assert lying["predictions"] == [alike(each) for each in upright["predictions"]]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (bomb(), "too_large"),
        (GOOD[: len(GOOD) // 2], "broken"),
        (GOOD[:20], "not_an_image"),
        (b"", "empty"),
        (b"%PDF-1.7", "not_an_image"),
    ],
)
def test_a_bad_image_has_an_error_of_its_own_and_its_neighbours_are_answered(learned, content, reason):
    before, bad, after = answers(learned, [GOOD, content, GOOD], task="pets")["results"]

    assert bad["error"]["reason"] == reason
    assert (bad["predictions"], bad["experts"]) == ([], [])
    assert before["predictions"] == [alike(each) for each in after["predictions"]]
    assert before["error"] is after["error"] is None


def test_bad_images_alone_do_no_harm_to_who_asks_next(learned):
    assert ask(learned, [bomb(), b"", GOOD[:50]]).status_code == 200

    assert answers(learned, [GOOD])["results"][0]["error"] is None


@pytest.mark.parametrize("form", ["multipart", "json"])
def test_ten_thousand_images_in_one_request_are_refused_with_the_bound(learned, form):
    if form == "json":
        problem = learned.problem("POST", URL, json={"images": [""] * 10_000})
    else:
        problem = learned.problem("POST", URL, files=[("images", ("a.png", b"x"))] * 10_000)

    assert problem["status"] in {400, 422}
    assert "256" in problem["detail"] or "1256" in problem["detail"]
    assert answers(learned, [GOOD])["results"][0]["error"] is None


@pytest.mark.parametrize(
    "labels",
    [
        ["猫", "犬"],
        ["قطة", "كلب"],
        ["γάτα", "σκύλος"],
        ["बिल्ली", "कुत्ता"],
        ["🐈", "🐕"],
        ["e\u0301tang", "étable"],
        ["a\u200db", "<end_of_text>"],
        ["x" * 300, "'; DROP TABLE models; --"],
    ],
    ids=lambda labels: ascii(labels[0][:8]),
)
def test_labels_of_any_script_come_back_as_they_were_given(learned, labels):
    (result,) = answers(learned, [GOOD], labels=labels)["results"]

    assert {each["label"] for each in result["predictions"]} == set(labels)


@pytest.mark.parametrize("labels", [[""], ["  "], ["cat", ""], ["cat", "\u2003"]])
def test_labels_that_say_nothing_are_refused(learned, labels):
    response = ask(learned, [GOOD], labels=labels)

    assert response.status_code == 422
    assert response.json()["type"] == "/problems/invalid-labels"


@embedded_only
def test_a_damaged_expert_fails_alone_and_verify_points_to_it(condu):
    store = condu.services.store
    head = condu.get("/v1/models/animals/revisions").json()["revisions"][0]["manifest"]
    mask = store.manifest(head).task("pets").mask
    damage(condu, mask)

    with ThreadPoolExecutor(8) as callers:
        tasks = ["pets", "digits"] * 8
        responses = list(callers.map(lambda task: ask(condu, [GOOD], task=task), tasks))

    for task, response in zip(tasks, responses, strict=True):
        if task == "digits":
            assert response.status_code == 200, response.text
        else:
            assert (response.status_code, response.json()["type"]) == (500, "/problems/corrupt-blob")
            assert "condu verify" in response.json()["remedy"]
    lines = [json.loads(line) for line in condu.post("/v1/verify").iter_lines()]
    report = lines[-1]["report"]
    assert not report["ok"]
    assert any(mask in problem for problem in report["problems"])


@embedded_only
def test_an_expert_that_was_mended_is_served_again(condu):
    path = condu.services.store.blobs.path(
        condu.services.store.manifest(
            condu.get("/v1/models/animals/revisions").json()["revisions"][0]["manifest"]
        )
        .task("pets")
        .mask
    )
    whole = path.read_bytes()
    damage(condu, path.name)
    assert ask(condu, [GOOD], task="pets").status_code == 500
    path.write_bytes(whole)

    assert answers(condu, [GOOD], task="pets")["results"][0]["error"] is None


@embedded_only
def test_while_the_disk_is_gone_the_experts_in_memory_go_on(condu):
    before = answers(condu, [GOOD], task="pets")
    blobs = condu.settings.data / "blobs"
    unplugged = blobs.rename(blobs.with_name("unplugged"))

    cold = ask(condu, [GOOD], task="digits", labels=["one", "two"])
    for _ in range(3):
        hot = answers(condu, [GOOD], task="pets")
        assert (hot["revision"], hot["results"]) == (before["revision"], before["results"])

    assert (cold.status_code, cold.json()["type"]) == (500, "/problems/missing-blob")

    unplugged.rename(blobs)
    assert answers(condu, [GOOD], task="digits")["results"][0]["error"] is None


@embedded_only
def test_while_the_disk_is_gone_images_without_a_task_are_routed_and_answered_as_before(condu):
    before = answers(condu, [GOOD])
    blobs = condu.settings.data / "blobs"
    blobs.rename(blobs.with_name("unplugged"))

    after = answers(condu, [GOOD])

    assert (after["revision"], after["results"][0]["experts"]) == (2, before["results"][0]["experts"])
    assert condu.get("/v1/health/live").status_code == 200
    assert condu.get("/v1/health").json()["parts"]["heads"]["status"] == "failing"


@embedded_only
def test_while_the_catalog_is_gone_the_last_head_goes_on_and_who_asks_for_another_is_told(condu):
    before = answers(condu, [GOOD], task="pets")
    condu.services.catalog.close()
    for file in condu.settings.data.glob("condu.sqlite*"):
        file.unlink()

    after = answers(condu, [GOOD], task="pets")
    never_asked = ask(condu, [GOOD], task="pets", revision=1)

    assert (after["revision"], after["results"]) == (before["revision"], before["results"])
    assert never_asked.json()["type"] == "/problems/catalog-unavailable"

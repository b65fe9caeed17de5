"""A bundle comes from anywhere: a frame or an index that lies is refused by name."""

import json
import struct

import pytest

from store.blobs import MemoryBlobs
from store.bundles import import_bundle
from store.bundles import reader as bundle_reader
from store.codecs.framing import TRAILER, prologue
from store.safefile import header_bytes
from store.strict_json import canonical_json
from tests.attacks.hostile_bundles import GOOD, expect_refusal, learned, opens, parts, sound
from tests.store.bundling import bundle_of, sha256, trailer
from tests.store.small import EXPECTED

__all__ = ["expect_refusal", "learned", "opens", "parts", "sound"]


def test_the_sound_bundle_is_taken_in(opens, sound):
    assert import_bundle(MemoryBlobs(), opens(sound), expected=EXPECTED).manifest is not None


def test_a_bundle_cut_short_anywhere_is_refused(expect_refusal, opens, sound):
    places = {0, 1, 8, 63, 64, 65, 87, 88, 89, len(sound) - 25, len(sound) - 24, len(sound) - 1}
    for entry in opens(sound).index.blobs:
        places |= {entry.position, entry.position + entry.length // 2, entry.stop - 1, entry.stop}

    for length in sorted(places):
        expect_refusal(sound[:length])


def test_a_flipped_bit_anywhere_is_refused(expect_refusal, opens, sound):
    entries = opens(sound).index.blobs
    places = {*range(64), *range(entries[-1].stop, len(sound)), *range(0, len(sound), 97)}
    for entry in entries:
        places |= {entry.position, *range(entry.position + entry.length, entry.stop)}

    for place in sorted(places):
        damaged = bytearray(sound)
        damaged[place] ^= 1 << place % 8
        expect_refusal(bytes(damaged))


def test_bytes_before_or_behind_a_bundle_are_refused(expect_refusal, sound):
    expect_refusal(b"\0" + sound)
    expect_refusal(sound + b"\0")
    expect_refusal(sound + sound)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"PK\x03\x04" * 30,
        bytes(200),
        header_bytes([]) + bytes(100),
        prologue("mask") + b"{}" + trailer(b"{}"),
    ],
    ids=["empty", "zip", "zeros", "safetensors", "mask"],
)
def test_a_file_of_another_kind_is_refused(expect_refusal, content):
    expect_refusal(content)


def test_a_bundle_of_a_later_format_says_what_to_do(expect_refusal, sound):
    expect_refusal(sound[:8] + struct.pack("<I", 3) + sound[12:], "format 3.*upgrade condu")


INDEX_FAULTS = {
    "no blobs": lambda index: index.pop("blobs"),
    "a field more": lambda index: index.update(more=1),
    "another kind": lambda index: index.update(kind="mask"),
    "has_base is a number": lambda index: index.update(has_base=1),
    "blobs is an object": lambda index: index.update(blobs={}),
    "catalog is a list": lambda index: index.update(catalog=[]),
    "base is null": lambda index: index.update(base=None),
    "base is a path": lambda index: index.update(base="../../etc/passwd"),
    "head is a number": lambda index: index.update(head=1),
    "head is another blob": lambda index: index.update(head=index["blobs"][4][0]),
    "head is not there": lambda index: index.update(head=GOOD),
    "head is null": lambda index: index.update(head=None),
    "base is not there": lambda index: index.update(base=GOOD),
    "base is said not to be there": lambda index: index.update(has_base=False),
    "a row is short": lambda index: index["blobs"][1].pop(),
    "a row is an object": lambda index: index["blobs"].append({}),
    "a digest is a path": lambda index: index["blobs"][1].__setitem__(0, "../" * 21 + "x"),
    "a digest is in capitals": lambda index: index["blobs"][1].__setitem__(0, GOOD.upper()),
    "a digest is a list": lambda index: index["blobs"][1].__setitem__(0, [GOOD]),
    "a position is a truth": lambda index: index["blobs"][1].__setitem__(1, True),
    "a position is a float": lambda index: index["blobs"][1].__setitem__(1, 64.0),
    "a position is below zero": lambda index: index["blobs"][1].__setitem__(1, -64),
    "a position is not aligned": lambda index: index["blobs"][1].__setitem__(1, index["blobs"][1][1] + 1),
    "a length is past the end": lambda index: index["blobs"][-1].__setitem__(2, 2**40),
    "a length is beyond all numbers": lambda index: index["blobs"][-1].__setitem__(2, 2**70),
    "a length is below zero": lambda index: index["blobs"][-1].__setitem__(2, -1),
    "a length is one less": lambda index: index["blobs"][3].__setitem__(2, index["blobs"][3][2] - 1),
    "two blobs overlap": lambda index: index["blobs"][1].__setitem__(1, index["blobs"][0][1]),
    "a hole is left": lambda index: index["blobs"].pop(2),
    "the last blob is left out": lambda index: index["blobs"].pop(),
    "a blob is named twice": lambda index: index["blobs"].append(index["blobs"][0]),
    "two blobs are named for each other": lambda index: index["blobs"].__setitem__(
        slice(3, 5),
        [[index["blobs"][4][0], *index["blobs"][3][1:]], [index["blobs"][3][0], *index["blobs"][4][1:]]],
    ),
    "a blob is named as another": lambda index: index["blobs"][3].__setitem__(0, GOOD),
    "not a number": lambda index: (
        index.update(catalog={"x": [1]}) or json.dumps(index).replace("[1]", "[NaN]").encode()
    ),
    "infinite": lambda index: json.dumps(index).replace("{}", '{"x":1e999}').encode(),
    "white space": lambda index: json.dumps(index, sort_keys=True).encode(),
    "a key twice": lambda index: canonical_json(index).replace(
        b'"has_base":', b'"has_base":true,"has_base":'
    ),
    "another order": lambda index: canonical_json(index).replace(b'{"base"', b'{"kind":"bundle","base"', 1),
    "half a character": lambda index: canonical_json(index).replace(b"{}", b'{"x":"\\ud800"}'),
    "no text": lambda _: b"\xff\xfe{",
    "no JSON": lambda _: b"{",
    "no object": lambda _: b"[]",
    "deeper than anybody reads": lambda _: b"[" * 100_000,
    "a number of a million digits": lambda _: b"9" * 1_000_000,
}


@pytest.mark.parametrize("fault", INDEX_FAULTS)
def test_an_index_that_lies_is_refused(expect_refusal, parts, fault):
    expect_refusal(parts.bundle(change=INDEX_FAULTS[fault]))


def test_an_index_larger_than_any_model_s_is_not_read(expect_refusal, parts, monkeypatch):
    monkeypatch.setattr(bundle_reader, "MAX_INDEX_BYTES", 1000)

    expect_refusal(parts.bundle(catalog={"x": "y" * 1000}))


def test_an_index_said_to_be_larger_than_the_file_is_not_read(expect_refusal, sound):
    _, checksum, magic = TRAILER.unpack(sound[-24:])

    expect_refusal(sound[:-24] + TRAILER.pack(2**63, checksum, magic))


def test_a_manifest_larger_than_any_model_s_is_not_read(expect_refusal, parts, monkeypatch):
    monkeypatch.setattr(bundle_reader, "MAX_CHECKED_BYTES", 1000)

    expect_refusal(parts.bundle(), "a manifest of")


def test_a_blob_that_no_manifest_names_is_refused(expect_refusal, parts):
    payloads = [*parts.payloads(), b"a stowaway"]

    found = expect_refusal(
        bundle_of(payloads, base=parts.revision["base"], head=sha256(payloads[2])), "none of its manifests"
    )

    assert sha256(b"a stowaway") in found


@pytest.mark.parametrize("left_out", range(8))
def test_a_bundle_without_one_of_its_blobs_is_refused(expect_refusal, parts, left_out):
    payloads = parts.payloads()
    head = sha256(payloads[2])
    gone = payloads.pop(left_out)

    assert sha256(gone) in expect_refusal(
        bundle_of(payloads, base=parts.revision["base"], head=head), "is missing"
    )


def test_blobs_in_another_order_are_refused(expect_refusal, parts):
    first, second, *others = parts.payloads()
    payloads = [second, first, *others]

    expect_refusal(bundle_of(payloads, base=sha256(first), head=sha256(others[0])), "not in the order")

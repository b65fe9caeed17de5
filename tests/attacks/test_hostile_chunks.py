"""Masks and unified deltas whose sums are right and whose index or payloads no writer writes."""

import copy
import json
import math
import struct

import pytest
import zstandard

from tests.attacks.artefacts import bits, forged, opened, refused, sealed, summed, values
from tests.store.coded import mask_artefact, read_mask, read_unified, unified_artefact

ROW = ["zeros", 64, 0, "2d06800538d394c2"]
MASK = {"kind": "mask", "layout": "l", "bit_count": 8, "bit_order": "little", "chunk_elements": 2**20}
UNIFIED = {"kind": "unified", "layout": "l", "element_count": 8, "dtype": "float32", "chunk_elements": 2**20}


def test_the_rows_of_zeros_that_these_attacks_start_from_are_sound():
    assert read_mask(sealed("mask", MASK | {"chunks": [ROW]}))[0].tolist() == [0]
    assert read_unified(sealed("unified", UNIFIED | {"chunks": [ROW] * 3}))[0].tolist() == [0] * 8


NUMBERS = [-1, 1.0, 1e300, 2**63, 10**400, True, None, "8", [8], {}, math.nan, math.inf]
INDEXES = {
    "no object": [],
    "a number": 7,
    "nothing": b"",
    "no JSON": b"{nonsense",
    "no UTF-8": b'{"kind": "\xff"}',
    "half a surrogate pair": b'{"kind": "\\ud800"}',
    "nested too deep": b'{"chunks": ' + b"[" * 200_000,
    "nested too deep and closed": b'{"chunks": ' + b"[" * 200_000 + b"]" * 200_000 + b"}",
    "a key twice": b'{"kind": "mask", "kind": "mask"}',
    "an integer of a million digits": b'{"bit_count": ' + b"9" * 10**6 + b"}",
    "a field that is unknown": MASK | {"chunks": [ROW], "compression": "best"},
    "another kind in the index": MASK | {"kind": "unified", "chunks": [ROW]},
    "another order of bits": MASK | {"bit_order": "big", "chunks": [ROW]},
    "no rows": MASK | {"chunks": []},
    "a row too many": MASK | {"chunks": [ROW, ROW]},
    "ten thousand rows": MASK | {"bit_count": 10**10, "chunks": [ROW] * 10**4},
    "rows that are none": MASK | {"chunks": [3]},
    "a row of three": MASK | {"chunks": [ROW[:3]]},
    "rows that are an object": MASK | {"chunks": {"0": ROW}},
    "a sum that is none": MASK | {"chunks": [[*ROW[:3], "xyz"]]},
    "a codec that is a number": MASK | {"chunks": [[1, *ROW[1:]]]},
    "a codec that is unknown": MASK | {"chunks": [["lzma", *ROW[1:]]]},
    **{f"a count of {number!r}"[:40]: MASK | {"bit_count": number, "chunks": [ROW]} for number in NUMBERS},
    **{
        f"chunks of {number!r}"[:40]: MASK | {"chunk_elements": number, "chunks": [ROW]} for number in NUMBERS
    },
    **{f"a payload at {number!r}"[:40]: MASK | {"chunks": [["raw", number, *ROW[2:]]]} for number in NUMBERS},
    **{
        f"a length of {number!r}"[:40]: MASK | {"chunks": [["raw", 64, number, ROW[3]]]} for number in NUMBERS
    },
    **{
        f"a missing {name}": {k: v for k, v in (MASK | {"chunks": [ROW]}).items() if k != name}
        for name in MASK
    },
}


@pytest.mark.parametrize("idea", INDEXES)
def test_an_index_that_no_writer_writes_is_refused(idea):
    index = INDEXES[idea]
    if isinstance(index, dict):
        try:
            index = json.dumps(index).encode()
        except ValueError:  # an integer that Python refuses to print
            index = b'{"bit_count": ' + b"9" * 5000 + b"}"
    assert refused(read_mask, sealed("mask", index))


def test_an_index_of_many_million_rows_is_refused_by_its_length():
    rows = b'{"chunks": [' + b"[]," * (3 * 10**6) + b"[]]}"
    assert "an index of at most" in refused(read_mask, sealed("mask", rows))


@pytest.mark.parametrize("size", [0, 1, 10**9, 2**63, 2**64 - 1])
def test_an_index_of_another_length_than_it_has_is_refused(size):
    assert refused(read_mask, sealed("mask", MASK | {"chunks": [ROW]}, index_size=size))


def test_payloads_that_overlap_or_leave_a_hole_or_end_behind_the_file_are_refused():
    index, payloads = opened(unified_artefact(values(), "float32"))
    for row in range(len(index["chunks"])):
        for shift in (-64, 64, 1, 10**6):
            moved = copy.deepcopy(index)
            moved["chunks"][row][1] += shift
            assert "a payload" in refused(read_unified, sealed("unified", moved, payloads))
        longer = copy.deepcopy(index)
        longer["chunks"][row][2] += 10**12
        assert "a payload" in refused(read_unified, sealed("unified", longer, payloads))
    twice = copy.deepcopy(index)
    twice["chunks"][1] = twice["chunks"][2]
    assert "a payload" in refused(read_unified, sealed("unified", twice, payloads))


def test_a_count_of_elements_that_its_payloads_do_not_have_is_refused():
    for read, content, field, kind in (
        (read_mask, mask_artefact(bits(), 200), "bit_count", "mask"),
        (read_unified, unified_artefact(values(), "int4"), "element_count", "unified"),
    ):
        index, payloads = opened(content)
        for count in (0, 1, 64, 150, 199, 100_000, 2**20, 2**20 + 1, 2**47):
            assert refused(read, sealed(kind, index | {field: count}, payloads))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8", "int4"])
def test_a_unified_delta_under_the_name_of_another_dtype_is_refused(dtype):
    index, payloads = opened(unified_artefact(values(), dtype))
    for other in {"float32", "bfloat16", "int8", "int4", "float64"} - {dtype}:
        assert refused(read_unified, sealed("unified", index | {"dtype": other}, payloads))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_values_that_are_no_numbers_are_refused(dtype):
    def spoil(index, payloads):
        for codec, position, length, _ in index["chunks"][1:]:
            assert codec == "raw"
            payloads[position - 64 : position - 64 + length] = b"\xff" * length

    content = unified_artefact(values(3), dtype)
    assert "finite" in refused(read_unified, forged(content, spoil))


@pytest.mark.parametrize(("low", "high"), [(0xFF, 0x07), (0xFF, 0xFF), (0x00, 0x00), (0xD7, 0x00)])
def test_scales_that_are_infinite_or_vanish_are_refused(low, high):
    def spoil(index, payloads):
        for row, byte in ((2, low), (3, high)):
            codec, position, length, _ = index["chunks"][row]
            index["chunks"][row][0] = "raw"
            assert (codec, length) == ("raw", 1)
            payloads[position - 64] = byte

    content = unified_artefact(values(3), "int8")
    if (low, high) == (0, 0):
        index, payloads = opened(content)
        empty = [[*row[:2], 0, ROW[3]] for row in index["chunks"][2:]]
        position = index["chunks"][2][1]
        index["chunks"][2:] = [["zeros", position, 0, ROW[3]] for _ in empty]
        assert refused(read_unified, sealed("unified", index, payloads[: position - 64]), "scales")
    else:
        assert refused(read_unified, forged(content, spoil), "scales")


def test_bits_behind_the_last_element_are_refused():
    content = mask_artefact(bits(12), 12)

    def spoil(index, payloads):
        payloads[1] |= 0x80

    assert "behind the last" in refused(read_mask, forged(content, spoil))
    floats = unified_artefact(values(12), "int4")
    assert "behind the last" in refused(read_unified, forged(floats, spoil))


def test_a_frame_that_unpacks_to_terabytes_is_refused_before_it_unpacks():
    honest = zstandard.ZstdCompressor().compress(bytes(2**20))
    claims_much = b"\x28\xb5\x2f\xfd" + b"\xe0" + struct.pack("<Q", 2**42) + honest[-9:]
    unsized = zstandard.ZstdCompressor(write_content_size=False).compress(bytes(10**8))
    wide = zstandard.ZstdCompressor(
        compression_params=zstandard.ZstdCompressionParameters.from_level(19, window_log=27)
    ).compress(bytes(10**8))
    for payload in (claims_much, honest, unsized, wide, b"\x28\xb5\x2f\xfd", b"", bytes(100)):
        content = payload + bytes(-len(payload) % 64)
        index = MASK | {"bit_count": 2**20, "chunks": [summed(["zstd", 64, len(payload), ""], content)]}
        assert refused(read_mask, sealed("mask", index, content))


def test_a_frame_that_holds_more_than_it_says_is_refused():
    frame = bytearray(zstandard.ZstdCompressor().compress(bytes(300)))
    assert zstandard.frame_content_size(bytes(frame)) == 300
    position = bytes(frame).index(struct.pack("<H", 300 - 256))
    frame[position : position + 2] = struct.pack("<H", 290 - 256)
    content = bytes(frame) + bytes(-len(frame) % 64)
    index = MASK | {"bit_count": 290 * 8, "chunks": [summed(["zstd", 64, len(frame), ""], content)]}
    assert refused(read_mask, sealed("mask", index, content))


def test_another_kind_or_version_or_magic_is_refused_by_name():
    index = MASK | {"chunks": [ROW]}
    assert "upgrade condu" in refused(read_mask, sealed("mask", index, version=2))
    assert "upgrade condu" in refused(read_mask, sealed("mask", index, version=2**32 - 1))
    assert "pass the digest of a mask" in refused(read_mask, sealed("unified", index))
    assert "pass the digest of a mask" in refused(read_mask, sealed("m\xfc", index))
    assert "is corrupt" in refused(read_mask, b"PK\3\4" + sealed("mask", index)[4:])

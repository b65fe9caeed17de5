"""Base weights, buffers and prototypes that do not describe themselves, or say what cannot be."""

import json
import math
import struct

import pytest

from store.safefile import parse_safetensors
from tests.attacks.artefacts import entry, every_kind, learned, refused, safetensors_bytes


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    return every_kind(learned(tmp_path_factory.mktemp("sound")))


SAFETENSORS = {
    "many more tensors than any model has": b"{" + b",".join(b'"%06x":0' % n for n in range(200_000)) + b"}",
    "a million dimensions": b'{"x":{"dtype":"F32","shape":['
    + b"4611686018427387904," * 700_000
    + b'0],"data_offsets":[0,0]}}',
    "two tensors on the same bytes": {"a": entry(), "b": entry()},
    "a hole": {"a": entry(), "b": entry(offsets=(8, 12))},
    "a length past the end": {"a": entry((4,), (0, 16))},
    "a length of 2**62": {"a": entry((2**60,), (0, 2**62))},
    "a negative offset": {"a": entry((1,), (-4, 0))},
    "an offset that is a float": {"a": entry((1,), (0.0, 4.0))},
    "a name twice": b'{"a":{},"a":{}}',
    "nested too deep": b'{"a":' * 300_000,
    "a shape of NaN": b'{"a":{"dtype":"F32","shape":[NaN],"data_offsets":[0,4]}}',
    "metadata of numbers": {"__metadata__": {"a": 1}, "a": entry()},
}


@pytest.mark.parametrize("idea", SAFETENSORS)
def test_a_safetensors_blob_that_does_not_describe_itself_is_refused(idea):
    content = safetensors_bytes(SAFETENSORS[idea], bytes(8 if idea.startswith("a hole") else 4))
    assert refused(lambda hostile: parse_safetensors(memoryview(bytearray(hostile))), content)


@pytest.mark.parametrize("size", [2**63, 2**64 - 1, 10**9])
def test_a_safetensors_header_of_another_length_than_it_has_is_refused(size):
    content = struct.pack("<Q", size) + b"{}"
    assert refused(lambda hostile: parse_safetensors(memoryview(bytearray(hostile))), content)


# Prototypes.

ABOUT = {"classes": ["cat", "dog"], "num_images": [3, 0], "templates": ["a photo of a {}."]}
ABOUTS = {
    "no JSON": "nonsense",
    "nested too deep": "[" * 100_000,
    "a list": "[]",
    "a class that is a number": json.dumps(ABOUT | {"classes": ["cat", 1]}),
    "a class too many": json.dumps(ABOUT | {"classes": ["cat", "dog", "cow"]}),
    "counts that are missing": json.dumps({k: v for k, v in ABOUT.items() if k != "num_images"}),
    "a negative count": json.dumps(ABOUT | {"num_images": [3, -1]}),
    "an infinite count": '{"classes":["cat","dog"],"num_images":[3,1e999],"templates":[]}',
    "a count of true": json.dumps(ABOUT | {"num_images": [True, 0]}),
    "templates that are a text": json.dumps(ABOUT | {"templates": "a {}."}),
    "a field that is unknown": json.dumps(ABOUT | {"more": 1}),
    "a name twice": '{"classes":[],"classes":["cat","dog"],"num_images":[3,0],"templates":[]}',
}


@pytest.mark.parametrize("idea", ABOUTS)
def test_prototypes_that_say_something_else_are_refused(sound, idea):
    content, read = sound["prototypes"]
    size = struct.unpack("<Q", content[:8])[0]
    header = json.loads(content[8 : 8 + size])
    header["__metadata__"]["about"] = ABOUTS[idea]
    assert refused(read, safetensors_bytes(header, content[8 + size :]))


def test_prototypes_that_are_no_unit_vectors_are_refused(sound):
    content, read = sound["prototypes"]
    for bad in (math.nan, math.inf, 0.0, 1e30):
        assert refused(read, content[:-16] + struct.pack("<4f", bad, 0, 0, 0), "unit vectors")

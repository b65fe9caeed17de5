"""Manifests with any wrong value in any place: refused before anything is done on their word."""

import copy
import json

import pytest

from store.blobs import MemoryBlobs
from store.checkpoints import CheckpointStore
from store.errors import CorruptBlobError, UnsupportedFormatError
from store.manifest import BaseManifest, Manifest
from tests.attacks.artefacts import canonical, every_kind, learned, refused

READ = {"base manifest": BaseManifest.from_json, "revision manifest": Manifest.from_json}
BAD_VALUES = [None, True, -1, 0, 1, 1.5, -0.5, 10**30, "", "x", "f" * 64, [], [[]], [1], ["x"], {}, {"x": 1}]
any_manifest = pytest.mark.parametrize("kind", READ)


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    return every_kind(learned(tmp_path_factory.mktemp("sound")))


def places(value, path=()):
    """The paths to every value in a document."""
    yield path
    if isinstance(value, (dict, list)):
        for key in value if isinstance(value, dict) else range(len(value)):
            yield from places(value[key], (*path, key))


def with_value(document, path, value):
    changed = copy.deepcopy(document)
    target = changed
    for key in path[:-1]:
        target = target[key]
    target[path[-1]] = value
    return changed


@any_manifest
def test_any_value_put_anywhere_in_a_manifest_is_refused_or_is_what_the_manifest_then_says(sound, kind):
    content, read = sound[kind]
    document = json.loads(content)
    assert canonical(document) == content
    for path in places(document):
        for bad in BAD_VALUES if path else []:
            forgery = canonical(with_value(document, path, bad))
            try:
                found = read(forgery)
            except UnsupportedFormatError as error:
                assert "condu" in str(error)  # noqa: PT017 - what is not refused is looked at below
                continue
            assert found.to_json() == forgery
            assert isinstance(bad, type(at(document, path))) or path[-1] in {"unified", "parent", "buffers"}


def at(document, path):
    for key in path:
        document = document[key]
    return document


@any_manifest
def test_a_field_missing_or_added_anywhere_in_a_manifest_is_refused(sound, kind):
    content, read = sound[kind]
    document = json.loads(content)
    for path in places(document):
        inside = at(document, path)
        if isinstance(inside, dict):
            assert refused(read, canonical(with_value(document, (*path, "more"), 1)))
            for name in inside:
                poorer = copy.deepcopy(document)
                del at(poorer, path)[name]
                assert refused(read, canonical(poorer))


@any_manifest
@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999", "-1e999", "9" * 5000])
def test_a_number_that_is_none_is_refused_wherever_it_stands(sound, kind, number):
    content, read = sound[kind]
    document = json.loads(content)
    for path in places(document):
        if path and type(at(document, path)) in {int, float}:
            forgery = canonical(with_value(document, path, "HERE")).replace(b'"HERE"', number.encode())
            assert refused(read, forgery)


@any_manifest
def test_a_manifest_written_another_way_is_refused(sound, kind):
    content, read = sound[kind]
    document = json.loads(content)
    assert refused(read, json.dumps(document).encode(), "canonically")
    assert refused(read, content + b" ", "canonically")
    assert refused(read, content[:-1] + b',"kind":"base"}', "twice")
    assert refused(read, b"\xef\xbb\xbf" + content)
    assert refused(read, content.replace(b'"format":1', b'"format":3'), "upgrade condu")
    assert refused(read, b"[" * 10**6, "nested too deep")
    assert refused(read, b'{"a":' * 10**6, "nested too deep")


def test_a_base_of_a_million_tensors_is_refused(sound):
    document = json.loads(sound["base manifest"][0])
    document["space"]["fused"] = [0] * 10**6
    assert "more than 50000 tensors" in refused(BaseManifest.from_json, canonical(document))
    blobs = MemoryBlobs()
    digest = blobs.put(canonical(document) + b" " * (65 * 2**20)).digest
    with pytest.raises(CorruptBlobError, match="at most"):
        CheckpointStore(blobs).load_base(digest)


@pytest.mark.parametrize(
    "change",
    [
        {"shape": [2**40, 2**40]},
        {"shape": [2**48], "size": 2**48},
        {"shape": [1] * 1000},
        {"shape": [-8, -5]},
        {"shape": [8.0, 5]},
        {"offset": -1},
        {"offset": 64},
        {"offset": 2**70},
        {"size": 41},
        {"dtype": "int64"},
        {"dtype": "float8"},
        {"name": "x" * 10_000},
        {"name": "norm.bias"},
        {"name": "zz"},
    ],
)
def test_a_tensor_that_lies_elsewhere_than_its_name_and_shape_put_it_is_refused(sound, change):
    document = json.loads(sound["base manifest"][0])
    document["space"]["fused"][0] |= change
    assert refused(BaseManifest.from_json, canonical(document))


def test_a_layout_digest_of_another_space_is_refused(sound):
    document = json.loads(sound["base manifest"][0])
    assert "canonically" in refused(BaseManifest.from_json, canonical(document | {"layout": "0" * 64}))


def test_a_task_twice_or_tasks_without_a_unified_delta_or_too_many_bits_are_refused(sound):
    document = json.loads(sound["revision manifest"][0])
    first, second = document["tasks"]
    assert refused(
        Manifest.from_json, canonical(document | {"tasks": [first, second | {"name": "first"}]}), "twice"
    )
    assert refused(Manifest.from_json, canonical(document | {"unified": None}), "no unified delta")
    assert refused(
        Manifest.from_json, canonical(document | {"tasks": [first | {"bits_set": 44}]}), "bits_set"
    )


def test_a_manifest_says_more_than_its_weights_have_and_no_memory_is_asked_for(tmp_path):
    made = learned(tmp_path)
    document = json.loads(bytes(made.store.blobs.read(made.base.digest)))
    tensors = {
        row["name"]: (tuple(row["shape"]), row["dtype"], kind)
        for group, kind in (("fused", "parameter"), ("buffers", "buffer"), ("fixed", "fixed"))
        for row in document["space"][group]
    }
    space = made.base.space.describe(tensors | {"head.weight": ((2**45,), "float32", "parameter")})
    forged_base = BaseManifest(
        document["weights"], document["weights_xxh3"], document["size_bytes"], space
    ).to_json()
    digest = made.store.blobs.put(forged_base).digest
    assert "layout of weights" in refused(made.store.load_base, digest)
    shorter = BaseManifest(document["weights"], document["weights_xxh3"], 7, made.base.space).to_json()
    assert "expected 7 bytes" in refused(made.store.load_base, made.store.blobs.put(shorter).digest)

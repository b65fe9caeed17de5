"""A bundle whose frame is sound and whose manifests, weights or artefacts lie is refused by name."""

import hashlib
import json

import numpy as np
import pytest
import torch
import xxhash

from store.blobs import MemoryBlobs
from store.bundles import import_bundle
from store.checkpoints import CheckpointStore
from store.codecs.bits import MaskWriter, encode_mask
from store.codecs.floats import FloatWriter, encode_floats
from store.errors import InvalidBundleError
from store.manifest import BaseManifest
from store.parameters import ExpectedTensor
from store.safefile import header_bytes, tensor_bytes
from store.strict_json import canonical_json
from tests.attacks.hostile_bundles import GOOD, expect_refusal, learned, opens, parts, sound
from tests.store.bundling import bundle_of, sha256
from tests.store.small import EXPECTED, base_tensors, save_base

__all__ = ["expect_refusal", "learned", "opens", "parts", "sound"]


def set_in(*path):
    """A change of one value deep in the revision's manifest."""
    *way, last, value = path

    def change(parts):
        there = parts.revision
        for step in way:
            there = there[step]
        there[last] = value

    return change


MANIFEST_FAULTS = {
    "a later format": set_in("format", 2),
    "no format": lambda parts: parts.revision.pop("format"),
    "a format that is a text": set_in("format", "1"),
    "another kind": set_in("kind", "base"),
    "a field more": set_in("more", 1),
    "no tasks": lambda parts: parts.revision.pop("tasks"),
    "no unified delta": set_in("unified", None),
    "a unified delta without tasks": set_in("tasks", []),
    "tasks are an object": set_in("tasks", {}),
    "a task is a text": set_in("tasks", 0, "a"),
    "a task has no mask": lambda parts: parts.revision["tasks"][0].pop("mask"),
    "a task has a field more": set_in("tasks", 0, "path", "/"),
    "two tasks of one name": set_in("tasks", 1, "name", "a"),
    "a name is a number": set_in("tasks", 0, "name", 1),
    "a mask is a path": set_in("tasks", 0, "mask", "../../../etc/passwd"),
    "a parent is a number": set_in("parent", 1),
    "a layout is a path": set_in("layout", "/"),
    "another layout": set_in("layout", GOOD),
    "another number of parameters": set_in("num_parameters", 1),
    "the parameters are a text": set_in("num_parameters", "1"),
    "a rescaler is a text": set_in("tasks", 0, "rescaler", "1.0"),
    "a rescaler is a whole number": set_in("tasks", 0, "rescaler", 1),
    "a rescaler is below zero": set_in("tasks", 0, "rescaler", -1.0),
    "a rescaler is another": set_in("tasks", 0, "rescaler", 1.5),
    "a norm is another": set_in("tasks", 0, "l1_norm", 1.5),
    "bits are a truth": set_in("tasks", 0, "bits_set", True),
    "bits are others": set_in("tasks", 0, "bits_set", 17),
    "bits are none": set_in("tasks", 0, "bits_set", 0),
    "classes are a text": set_in("tasks", 0, "classes", "cat"),
    "a class is a number": set_in("tasks", 0, "classes", [1]),
    "another fusion kind": set_in("options", "kind", "magic"),
    "another norm of the model": set_in("options", "rescaler_norm", "l2"),
    "another norm than the rescalers'": set_in("options", "rescaler_norm", "tensor_mean_l1"),
    "options are null": set_in("options", None),
    "another dtype than the unified delta's": set_in("options", "unified_dtype", "bfloat16"),
    "another base": set_in("base", GOOD),
}


@pytest.mark.parametrize("fault", MANIFEST_FAULTS)
def test_a_manifest_that_lies_is_refused(expect_refusal, parts, fault):
    payloads = parts.payloads()
    MANIFEST_FAULTS[fault](parts)
    payloads[2] = canonical_json(parts.revision)

    expect_refusal(bundle_of(payloads, base=sha256(parts.base), head=sha256(payloads[2])))


def test_a_manifest_that_is_no_canonical_json_is_refused(expect_refusal, parts):
    payloads = parts.payloads()
    payloads[2] = json.dumps(parts.revision).encode()

    expect_refusal(bundle_of(payloads, base=parts.revision["base"], head=sha256(payloads[2])), "canonical")


def safetensors(tensors, metadata=None):
    names = list(tensors)
    entries = [(n, str(tensors[n].dtype).removeprefix("torch."), tuple(tensors[n].shape)) for n in names]
    return header_bytes(entries, metadata) + b"".join(bytes(tensor_bytes(tensors[name])) for name in names)


def described(parts, weights):
    """The manifest of the base as it would be if these were its weights."""
    space = BaseManifest.from_json(parts.base).space
    return BaseManifest(sha256(weights), xxhash.xxh3_64_hexdigest(weights), len(weights), space).to_json()


def not_finite(tensors):
    tensors["tower.bias"][3] = float("nan")
    return tensors


WEIGHTS_FAULTS = {
    "tensors in another order": lambda tensors: safetensors(dict(sorted(tensors.items(), reverse=True))),
    "metadata": lambda tensors: safetensors(dict(sorted(tensors.items())), {"format": "pt"}),
    "no number": lambda tensors: safetensors(dict(sorted(not_finite(tensors).items()))),
    "a tensor less": lambda tensors: safetensors({name: tensors[name] for name in sorted(tensors)[1:]}),
    "another dtype": lambda tensors: safetensors(
        {name: t.half() if name == "tower.bias" else t for name, t in sorted(tensors.items())}
    ),
    "no safetensors": lambda tensors: b"PK" + bytes(5000),
    "nothing": lambda tensors: b"",
}


@pytest.mark.parametrize("fault", WEIGHTS_FAULTS)
def test_a_base_that_could_not_be_registered_is_refused(expect_refusal, parts, fault):
    weights = WEIGHTS_FAULTS[fault](base_tensors())
    parts.with_base(described(parts, weights), weights)

    expect_refusal(parts.bundle())


def test_a_base_of_another_architecture_is_refused(expect_refusal, sound):
    wider = EXPECTED | {"tower.bias": ExpectedTensor((8,), "parameter")}
    fixed = EXPECTED | {"norm.running_mean": ExpectedTensor((5,), "parameter")}

    expect_refusal(sound, "tower.bias", wider)
    expect_refusal(sound, "does not describe its weights", fixed)


BASE_FAULTS = {
    "its weights have another sum": lambda base: base.update(weights_xxh3="0" * 16),
    "its weights are longer": lambda base: base.update(size_bytes=10**12),
    "its layout is another": lambda base: base.update(layout=GOOD),
    "its space is none": lambda base: base.pop("space"),
    "a tensor lies elsewhere": lambda base: base["space"]["fused"][0].update(offset=2**40),
    "a tensor is of a terabyte": lambda base: base["space"]["fused"][0].update(size=2**40, shape=[2**40]),
    "its weights are a path": lambda base: base.update(weights="../weights"),
    "its weights are a number": lambda base: base.update(weights=7),
    "it is of a later format": lambda base: base.update(format=2),
    "it is a revision": lambda base: base.update(kind="revision"),
}


@pytest.mark.parametrize("fault", BASE_FAULTS)
def test_a_base_s_manifest_that_lies_is_refused(expect_refusal, parts, fault):
    base = json.loads(parts.base)
    BASE_FAULTS[fault](base)
    parts.with_base(canonical_json(base))

    expect_refusal(parts.bundle())


def artefact(writer_of, *encoded):
    """The bytes of an artefact."""
    blobs = MemoryBlobs()
    with blobs.writer() as sink:
        writer = writer_of(sink)
        for chunk in encoded:
            writer.add(*chunk) if isinstance(chunk, tuple) else writer.add(chunk)
        writer.finish()
        return bytes(blobs.read(sink.commit().digest))


def unified_of(values, space, *, layout=None, dtype="float32"):
    encoded = encode_floats(values, dtype)
    return artefact(
        lambda sink: FloatWriter(sink, layout=layout or space.digest, num_elements=len(values), dtype=dtype),
        encoded,
    )


def mask_of(bits, space, *, layout=None):
    packed = np.packbits(bits, bitorder="little")
    return artefact(
        lambda sink: MaskWriter(sink, layout=layout or space.digest, num_bits=len(bits)), encode_mask(packed)
    )


@pytest.fixture
def space(learned):
    return learned[1].space


ARTEFACT_FAULTS = {
    "the mask is a text": lambda space: ("mask", b"hello"),
    "the mask is of another layout": lambda space: (
        "mask",
        mask_of(np.ones(space.flat_size, bool), space, layout=GOOD),
    ),
    "the mask is short": lambda space: ("mask", mask_of(np.ones(64, bool), space)),
    "the mask has other bits": lambda space: ("mask", mask_of(np.ones(space.flat_size, bool), space)),
    "the mask is a unified delta": lambda space: (
        "mask",
        unified_of(np.ones(space.flat_size, np.float32), space),
    ),
    "the buffers are a text": lambda space: ("buffers", b"hello"),
    "the buffers are of another name": lambda space: (
        "buffers",
        safetensors({"other": torch.zeros(5)}),
    ),
    "the buffers are of another shape": lambda space: (
        "buffers",
        safetensors({"norm.running_mean": torch.zeros(6)}),
    ),
    "the buffers are of another dtype": lambda space: (
        "buffers",
        safetensors({"norm.running_mean": torch.zeros(5).half()}),
    ),
    "the buffers are infinite": lambda space: (
        "buffers",
        safetensors({"norm.running_mean": torch.full((5,), torch.inf)}),
    ),
    "the buffers are larger than the base's": lambda space: ("buffers", bytes(17 * 2**20)),
}


@pytest.mark.parametrize("fault", ARTEFACT_FAULTS)
def test_a_task_s_blob_that_is_not_what_it_stands_for_is_refused(expect_refusal, parts, space, fault):
    field, content = ARTEFACT_FAULTS[fault](space)
    parts.replace(parts.revision["tasks"][0], field, content)

    expect_refusal(parts.bundle())


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_unified_delta_that_is_not_finite_is_refused(expect_refusal, parts, space, value):
    values = np.ones(space.flat_size, np.float32)
    values[5] = value
    parts.replace(parts.revision, "unified", unified_of(values, space))

    expect_refusal(parts.bundle(), "finite numbers")


def test_a_unified_delta_of_another_layout_is_refused(expect_refusal, parts, space):
    parts.replace(
        parts.revision, "unified", unified_of(np.ones(space.flat_size, np.float32), space, layout=GOOD)
    )

    expect_refusal(parts.bundle(), "layout of unified delta")


def test_what_a_refused_bundle_leaves_is_named_by_nothing_it_claims(parts, opens):
    """A damaged blob never gets the name it claims: the next bundle that has it brings it whole."""
    content = bytearray(parts.bundle())
    mask = opens(bytes(content)).entry(parts.revision["tasks"][0]["mask"])
    content[mask.position + 70] ^= 1
    blobs = MemoryBlobs()

    with pytest.raises(InvalidBundleError, match=mask.digest):
        import_bundle(blobs, opens(bytes(content)), expected=EXPECTED)

    assert not blobs.contains(mask.digest)
    assert all(hashlib.sha256(blobs.read(b.digest)).hexdigest() == b.digest for b in blobs.list())


def test_a_bundle_without_base_is_held_against_the_base_that_is_here(parts, opens, tmp_path):
    store = CheckpointStore(MemoryBlobs())
    save_base(store, tmp_path)
    other = EXPECTED | {"tower.bias": ExpectedTensor((8,), "parameter")}

    with pytest.raises(InvalidBundleError, match=r"tower\.bias"):
        import_bundle(store.blobs, opens(parts.bundle(with_base=False)), expected=other)


def test_a_leftover_of_a_refused_bundle_is_no_base(parts, opens):
    blobs = MemoryBlobs()
    parts.with_base(canonical_json({"kind": "base", "format": 1, "weights": blobs.put(b"x").digest}))
    blobs.put(parts.base)

    with pytest.raises(InvalidBundleError):
        import_bundle(blobs, opens(parts.bundle(with_base=False)), expected=EXPECTED)

"""A base may extend another: the store keeps both, counts both, and moves both, and asks no more of them."""

import json
from dataclasses import replace

import pytest
import torch

from store.blobs import MemoryBlobs
from store.bundles import BundleFile, BundleReader, import_bundle
from store.checkpoints import CheckpointStore
from store.errors import (
    CorruptBlobError,
    IncompatibleTensorsError,
    InvalidBundleError,
    MissingBaseError,
    UnsupportedFormatError,
)
from store.manifest import BaseManifest, Extension
from store.parameters import ExpectedTensor
from store.safefile import write_safetensors
from store.strict_json import canonical_json
from store.sweep import Roots, live_blobs, sweep
from store.verify import verify
from tests.store.bundling import bundle_of, sha256
from tests.store.small import EXPECTED, base_tensors, learn, save_base

ADAPTER = {"a": ExpectedTensor((3, 33), "parameter"), "b": ExpectedTensor((70, 3), "parameter")}


@pytest.fixture
def store():
    return CheckpointStore(MemoryBlobs())


@pytest.fixture
def base(store, tmp_path):
    return save_base(store, tmp_path)


@pytest.fixture
def extension(store, base, tmp_path):
    return store.load_base(extend(store, base.digest, tmp_path))


@pytest.fixture
def outcome(store, extension, tmp_path):
    return learn(store, extension, tmp_path, name="pets", tensors=factors(5))


def factors(seed):
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(want.shape, generator=generator) for name, want in ADAPTER.items()}


def extend(store, digest, folder, *, seed=0):
    write_safetensors(folder / "extension.safetensors", factors(seed))
    extends = Extension(digest, 3, "rank^-1/2", "kaiming-uniform/philox", seed)
    return store.save_base(folder / "extension.safetensors", ADAPTER, extends=extends).digest


def bundled(store, outcome, folder, *, with_base=True, **changes):
    values = {
        "base": store.load_base(outcome.manifest.base).manifest.extends.base,
        "adapter": outcome.manifest.base,
        "head": outcome.manifest_digest,
        "catalog": {},
    }
    file = BundleFile(store.blobs, with_base=with_base, **{**values, **changes})
    path = folder / "bundle.condu"
    path.write_bytes(b"".join(file.read()))
    return path


def take_in(path, elsewhere, **changes):
    values = {"expected": EXPECTED, "expected_of_adapter": ADAPTER}
    return import_bundle(elsewhere.blobs, BundleReader(path), **{**values, **changes})


def test_what_a_base_extends_stands_in_its_manifest(store, base, extension):
    content = store.blobs.read_checked(extension.digest)
    manifest = BaseManifest.from_json(content)
    assert manifest.extends == Extension(base.digest, 3, "rank^-1/2", "kaiming-uniform/philox", 0)
    assert json.loads(content)["format"] == 2
    assert manifest.to_json() == content


def test_a_base_that_extends_none_is_written_as_ever(base, store):
    document = json.loads(store.blobs.read_checked(base.digest))
    assert document["format"] == 1
    assert "extends" not in document


@pytest.mark.parametrize(
    "change",
    [
        {"format": 1},
        {"format": 3},
        {"extends": None},
        {"extends": {}},
        {"extends": {"base": "nothing"}},
        {"extends": {"rank": 0}},
        {"extends": {"seed": -1}},
        {"extends": {"more": 1}},
    ],
)
def test_another_form_of_an_extension_is_refused(store, extension, change):
    document = json.loads(store.blobs.read_checked(extension.digest))
    extends = change.get("extends")
    if extends:
        change = {"extends": document["extends"] | extends}
    with pytest.raises(UnsupportedFormatError):
        BaseManifest.from_json(canonical_json(document | change))


def test_equal_values_laid_upon_other_bases_are_two_bases(store, base, extension, tmp_path):
    assert extend(store, base.digest, tmp_path) == extension.digest
    assert extend(store, "0" * 64, tmp_path) != extension.digest


def test_both_bases_are_counted(store, base, extension, outcome):
    size = store.blobs.size_bytes
    sizes = store.sizes(outcome.manifest)
    assert sizes.base == size(base.digest) + size(base.manifest.weights)
    assert sizes.extension == size(extension.digest) + size(extension.manifest.weights)
    assert sizes.total == sum(size(digest) for digest in live_blobs(store.blobs, roots_of(outcome))) - size(
        outcome.manifest_digest
    )


def roots_of(outcome):
    return Roots(manifests=[outcome.manifest_digest])


def test_a_file_that_is_of_the_other_kind_altogether_is_told_so(store, base, extension, tmp_path):
    files = {"whole": base_tensors(), "adapter": factors(1)}
    for name, tensors in files.items():
        write_safetensors(tmp_path / name, tensors)
    for wrong, space in (("whole", extension.space), ("adapter", base.space)):
        with pytest.raises(IncompatibleTensorsError, match="a model that learns adapters takes an adapter's"):
            store.check_checkpoint(space, tmp_path / wrong)


def test_a_sweep_keeps_both_bases(store, base, outcome):
    store.blobs.put(b"a leftover")
    report = sweep(store, roots_of(outcome), grace_s=0.0, delete=True)
    assert len(report.removed) == 1
    assert store.load_base(base.digest).digest == base.digest
    assert list(verify(store, manifests=[outcome.manifest_digest]))[-1].problem is None


def test_a_sweep_keeps_them_for_a_model_that_has_learned_nothing(store, base, extension):
    roots = Roots(manifests=[], bases=[extension.digest])
    assert sweep(store, roots, grace_s=0.0, delete=True).removed == ()
    assert live_blobs(store.blobs, roots) == {
        base.digest,
        base.manifest.weights,
        extension.digest,
        extension.manifest.weights,
    }


def test_a_sweep_tolerates_that_the_extended_base_is_gone(store, base, extension):
    store.blobs.delete(base.digest)
    live = live_blobs(store.blobs, Roots(manifests=[], bases=[extension.digest]))
    assert live == {extension.digest, extension.manifest.weights, base.digest}


def test_verify_looks_at_the_extended_base_too(store, base, outcome):
    roots = [outcome.manifest_digest]
    assert not [step.problem for step in verify(store, manifests=roots, bases=[base.digest]) if step.problem]
    store.blobs.delete(base.manifest.weights)
    found = [step.problem for step in verify(store, manifests=roots) if step.problem]
    assert any(base.manifest.weights in problem for problem in found)
    store.blobs.delete(base.digest)
    found = [step.problem for step in verify(store, manifests=roots) if step.problem]
    assert any(base.digest in problem for problem in found)


@pytest.mark.parametrize("with_base", [True, False])
def test_a_bundle_takes_the_extension_along(store, base, extension, outcome, tmp_path, *, with_base):
    elsewhere = CheckpointStore(MemoryBlobs())
    if not with_base:
        save_base(elsewhere, tmp_path)
    imported = take_in(bundled(store, outcome, tmp_path, with_base=with_base), elsewhere)
    assert imported.base == base.manifest
    assert imported.adapter == extension.manifest
    assert imported.manifest == outcome.manifest
    here, there = (
        one.rebuild(one.load_base(extension.digest), outcome.manifest, "pets") for one in (store, elsewhere)
    )
    assert torch.equal(here.flat, there.flat)


def test_the_extension_of_a_model_that_has_learned_nothing_goes_too(store, extension, outcome, tmp_path):
    elsewhere = CheckpointStore(MemoryBlobs())
    imported = take_in(bundled(store, outcome, tmp_path, head=None), elsewhere)
    assert imported.adapter == extension.manifest
    assert imported.manifest is None
    assert elsewhere.load_base(extension.digest).digest == extension.digest


def test_the_extended_base_may_not_be_missing(store, outcome, tmp_path):
    with pytest.raises(MissingBaseError):
        take_in(bundled(store, outcome, tmp_path, with_base=False), CheckpointStore(MemoryBlobs()))


def test_a_revision_on_another_extension_is_not_bundled(store, base, outcome, tmp_path):
    other = extend(store, base.digest, tmp_path, seed=1)
    for wrong in (other, None):
        with pytest.raises(CorruptBlobError, match="base of the revision"):
            bundled(store, outcome, tmp_path, adapter=wrong)


def test_an_extension_of_another_base_is_refused(store, outcome, tmp_path):
    strange = base_tensors()
    strange["tower.bias"] += 1
    other = save_base(store, tmp_path, strange)
    path = bundled(store, outcome, tmp_path, base=other.digest)
    with pytest.raises(InvalidBundleError, match="is not one of its base"):
        BundleReader(path)


def test_a_whole_base_is_no_extension(store, base, tmp_path):
    payloads = [bytes(store.blobs.read(digest)) for digest in (base.digest, base.manifest.weights)]
    path = tmp_path / "bundle.condu"
    path.write_bytes(
        bundle_of(
            payloads,
            base=base.digest,
            head=None,
            change=lambda index: index.update(adapter=sha256(payloads[0])),
        )
    )
    with pytest.raises(InvalidBundleError, match="is not one of its base"):
        BundleReader(path)


def test_an_extension_is_no_base_of_a_bundle(store, extension, tmp_path):
    payloads = [bytes(store.blobs.read(digest)) for digest in (extension.digest, extension.manifest.weights)]
    path = tmp_path / "bundle.condu"
    path.write_bytes(bundle_of(payloads, base=extension.digest, head=None))
    with pytest.raises(InvalidBundleError, match="no model by itself"):
        BundleReader(path)


def test_an_extension_of_other_tensors_than_the_architecture_s_is_refused(store, outcome, tmp_path):
    path = bundled(store, outcome, tmp_path)
    for expected in (None, {"a": ADAPTER["a"]}, ADAPTER | {"a": ExpectedTensor((2, 33), "parameter")}):
        with pytest.raises(InvalidBundleError, match="the bundle cannot be used"):
            take_in(path, CheckpointStore(MemoryBlobs()), expected_of_adapter=expected)


def test_an_extension_whose_manifest_tells_of_other_weights_is_refused(store, base, extension, tmp_path):
    lying = replace(extension.manifest, weights_xxh3="0" * 16).to_json()
    payloads = [
        bytes(store.blobs.read(base.digest)),
        bytes(store.blobs.read(base.manifest.weights)),
        lying,
        bytes(store.blobs.read(extension.manifest.weights)),
    ]
    path = tmp_path / "bundle.condu"
    path.write_bytes(
        bundle_of(
            payloads, base=base.digest, head=None, change=lambda index: index.update(adapter=sha256(lying))
        )
    )
    with pytest.raises(InvalidBundleError, match="does not describe its weights"):
        take_in(path, CheckpointStore(MemoryBlobs()))


@pytest.mark.parametrize("with_adapter", [True, False])
def test_the_version_of_a_bundle_says_whether_there_is_an_extension(
    store, outcome, tmp_path, *, with_adapter
):
    path = bundled(store, outcome, tmp_path)
    content = path.read_bytes()
    assert content[8] == 2
    if not with_adapter:
        base = save_base(store, tmp_path)
        plain = learn(store, base, tmp_path, name="pets")
        content = b"".join(
            BundleFile(
                store.blobs, base=base.digest, head=plain.manifest_digest, with_base=True, catalog={}
            ).read()
        )
        assert content[8] == 1
    path.write_bytes(content[:8] + bytes([3 - content[8]]) + content[9:])
    with pytest.raises(InvalidBundleError, match="its index is not one of format"):
        BundleReader(path)
    path.write_bytes(content[:8] + bytes([3]) + content[9:])
    with pytest.raises(InvalidBundleError, match="reads formats 1 to 2: upgrade condu"):
        BundleReader(path)

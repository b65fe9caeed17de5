"""A model goes from one store into another as one file, and is the same there to the last bit."""

import json
from typing import get_args

import numpy as np
import pytest
import torch

from store.blobs import FileBlobs, MemoryBlobs
from store.bundles import BundleFile, BundleReader, import_bundle
from store.checkpoints import CheckpointStore
from store.errors import CorruptBlobError, InvalidBundleError, MissingBaseError, NotFoundError
from store.manifest import FusionOptions, UnifiedDtype
from store.verify import verify
from tests.store.bundling import Parts
from tests.store.small import EXPECTED, fine_tuned, learn, learn_all, save_base

CATALOG = {"model": "zoo", "größe": [1, 2.5, None, True]}


@pytest.fixture
def store(tmp_path):
    return CheckpointStore(FileBlobs(tmp_path / "blobs"))


@pytest.fixture
def base(store, tmp_path):
    return save_base(store, tmp_path)


@pytest.fixture
def outcome(store, base, tmp_path):
    return learn_all(store, base, tmp_path, ["a", "b"])


@pytest.fixture
def elsewhere():
    return CheckpointStore(MemoryBlobs())


def bundle_file(store, base, head, *, with_base=True, catalog=CATALOG):
    return BundleFile(store.blobs, base=base.digest, head=head, with_base=with_base, catalog=catalog)


def whole(bundle):
    return b"".join(bundle.read())


def opened(content, tmp_path):
    path = tmp_path / "some.condu"
    path.write_bytes(content)
    return BundleReader(path)


def take_in(store, content, tmp_path, expected=EXPECTED):
    return import_bundle(store.blobs, opened(content, tmp_path), expected=expected)


def assert_same_experts(store, other, base, manifest):
    there = other.load_base(base.digest)
    for task in manifest.tasks:
        ours = store.rebuild(base, manifest, task.name)
        theirs = other.rebuild(there, manifest, task.name)
        assert torch.equal(ours.flat, theirs.flat)
        assert ours.buffers.keys() == theirs.buffers.keys()
        assert all(torch.equal(ours.buffers[name], theirs.buffers[name]) for name in ours.buffers)


@pytest.mark.parametrize("dtype", get_args(UnifiedDtype))
@pytest.mark.parametrize("norm", ["global_l1", "tensor_mean_l1"])
def test_a_model_is_the_same_in_another_store(store, base, elsewhere, tmp_path, *, dtype, norm):
    options = FusionOptions(unified_dtype=dtype, rescaler_norm=norm)
    outcome = learn_all(store, base, tmp_path, ["a", "b", "c"], options=options)
    assert outcome.manifest.tasks[0].buffers is not None

    imported = take_in(elsewhere, whole(bundle_file(store, base, outcome.manifest_digest)), tmp_path)

    assert imported.manifest == outcome.manifest == elsewhere.manifest(outcome.manifest_digest)
    assert imported.base == base.manifest
    assert_same_experts(store, elsewhere, base, outcome.manifest)
    problems = verify(elsewhere, manifests=[outcome.manifest_digest], bases=[base.digest])
    assert not [step.problem for step in problems if step.problem]


def test_a_bundle_holds_what_the_revision_needs_and_nothing_else(store, base, outcome, elsewhere, tmp_path):
    imported = take_in(elsewhere, whole(bundle_file(store, base, outcome.manifest_digest)), tmp_path)

    needed = outcome.manifest.named_blobs() | {base.manifest.weights, outcome.manifest_digest}
    assert {blob.digest for blob in elsewhere.blobs.list()} == needed == imported.sizes.keys()
    assert imported.sizes == {digest: store.blobs.size_bytes(digest) for digest in needed}


def test_a_bundle_tells_its_length_before_it_is_read(store, base, outcome):
    bundle = bundle_file(store, base, outcome.manifest_digest)

    content = whole(bundle)

    assert len(content) == bundle.size_bytes
    assert content[:8] == b"\x93CONDU\r\n"


def test_the_same_model_gives_the_same_bytes_and_other_facts_another_etag(store, base, outcome, tmp_path):
    first, again = (bundle_file(store, base, outcome.manifest_digest) for _ in range(2))
    other = bundle_file(store, base, outcome.manifest_digest, catalog={"model": "farm"})

    assert whole(first) == whole(again)
    assert first.etag == again.etag == opened(whole(first), tmp_path).etag
    assert other.etag != first.etag


def test_what_the_catalog_says_arrives_as_it_was(store, base, outcome, tmp_path):
    content = whole(bundle_file(store, base, outcome.manifest_digest))

    assert opened(content, tmp_path).index.catalog == CATALOG


def test_any_range_of_a_bundle_is_that_part_of_the_whole(store, base, outcome, tmp_path):
    bundle = bundle_file(store, base, outcome.manifest_digest)
    content = whole(bundle)
    cuts = {0, 1, 63, 64, bundle.size_bytes - 25, bundle.size_bytes}
    for entry in opened(content, tmp_path).index.blobs:
        end = entry.position + entry.length
        cuts |= {entry.position, entry.position + 1, end - 1, end, entry.stop}
    cuts |= set(np.random.default_rng(0).integers(0, bundle.size_bytes, 20).tolist())

    for start in sorted(cuts):
        for stop in sorted(cuts):
            assert b"".join(bundle.read(start, stop)) == content[start:stop], (start, stop)
    assert b"".join(bundle.read(7)) == content[7:]
    assert b"".join(bundle.read(0, 10**12)) == content


def test_large_blobs_are_read_in_pieces(store, base, outcome, elsewhere, tmp_path):
    parts = Parts(store, outcome.manifest_digest)
    parts.replace(parts.revision["tasks"][0], "prototypes", bytes(range(256)) * 20_000)
    imported = take_in(elsewhere, parts.bundle(), tmp_path)
    head = elsewhere.blobs.put(imported.manifest.to_json()).digest

    pieces = list(bundle_file(elsewhere, base, head).read())

    assert b"".join(pieces) == parts.bundle(catalog=CATALOG)
    assert max(len(piece) for piece in pieces) <= 2**20


def test_without_its_base_a_bundle_is_smaller_by_the_base(store, base, outcome, tmp_path):
    full, lean = (
        bundle_file(store, base, outcome.manifest_digest, with_base=with_base) for with_base in (True, False)
    )

    assert full.size_bytes - lean.size_bytes > base.manifest.size_bytes
    reader = opened(whole(lean), tmp_path)
    assert (reader.index.base, reader.index.has_base) == (base.digest, False)


def test_without_its_base_a_bundle_needs_that_base_to_be_there(store, base, outcome, elsewhere, tmp_path):
    content = whole(bundle_file(store, base, outcome.manifest_digest, with_base=False))

    with pytest.raises(MissingBaseError, match=base.digest) as error:
        take_in(elsewhere, content, tmp_path)
    assert error.value.base == base.digest
    assert list(elsewhere.blobs.list()) == []

    save_base(elsewhere, tmp_path)
    for expected in (None, EXPECTED):
        assert take_in(elsewhere, content, tmp_path, expected).manifest == outcome.manifest
    assert_same_experts(store, elsewhere, base, outcome.manifest)


def test_a_model_that_has_learned_nothing_goes_too(store, base, elsewhere, tmp_path):
    imported = take_in(elsewhere, whole(bundle_file(store, base, None)), tmp_path)

    assert imported.manifest is None
    assert torch.equal(elsewhere.load_base(base.digest).flat, base.flat)
    lean = take_in(elsewhere, whole(bundle_file(store, base, None, with_base=False)), tmp_path)
    assert lean.sizes == {}


def test_a_model_that_has_lost_all_its_tasks_goes_too(store, base, outcome, elsewhere, tmp_path):
    head = outcome.manifest_digest
    for task in ("a", "b"):
        head, manifest = store.drop_task(head, task)

    assert take_in(elsewhere, whole(bundle_file(store, base, head)), tmp_path).manifest == manifest


def test_two_tasks_with_the_same_prototypes_share_them_in_the_bundle(store, base, outcome, tmp_path):
    parts = Parts(store, outcome.manifest_digest)
    for task in parts.revision["tasks"]:
        parts.replace(task, "prototypes", b"the same")

    reader = opened(parts.bundle(), tmp_path)

    assert len({task.prototypes for task in reader.manifest.tasks}) == 1
    assert len(reader.index.blobs) == len(set(reader.index.blobs))


def flip(store, digest, position):
    path = store.blobs.path(digest)
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.chmod(0o644)
    path.write_bytes(content)


def gather(pieces, received):
    for piece in pieces:
        received += piece


@pytest.mark.parametrize("start", ["from the beginning", "from within the blob", "from its last byte"])
def test_damage_in_the_store_is_found_before_the_blob_s_end_is_handed_out(
    store, base, outcome, tmp_path, *, start
):
    bundle = bundle_file(store, base, outcome.manifest_digest)
    digest = outcome.manifest.tasks[1].mask
    entry = opened(whole(bundle), tmp_path).entry(digest)
    begin = {
        "from the beginning": 0,
        "from within the blob": entry.position + entry.length // 2,
        "from its last byte": entry.position + entry.length - 1,
    }[start]
    flip(store, digest, 3)

    received = bytearray()
    with pytest.raises(CorruptBlobError, match=digest):
        gather(bundle.read(begin), received)

    assert begin + len(received) < entry.position + entry.length


def test_a_blob_that_is_gone_is_named(store, base, outcome):
    bundle = bundle_file(store, base, outcome.manifest_digest)
    store.blobs.delete(outcome.manifest.tasks[1].mask)

    with pytest.raises(NotFoundError, match=outcome.manifest.tasks[1].mask):
        whole(bundle)
    with pytest.raises(NotFoundError):
        bundle_file(store, base, outcome.manifest_digest)


def test_a_revision_is_not_bundled_with_another_base(store, outcome):
    with pytest.raises(CorruptBlobError, match="base of the revision"):
        BundleFile(store.blobs, base="0" * 64, head=outcome.manifest_digest, with_base=False, catalog={})


def test_a_bundle_taken_in_can_be_handed_on_byte_for_byte(store, base, outcome, elsewhere, tmp_path):
    content = whole(bundle_file(store, base, outcome.manifest_digest))
    reader = opened(content, tmp_path)
    import_bundle(elsewhere.blobs, reader, expected=EXPECTED)

    again = bundle_file(elsewhere, base, reader.index.head, catalog=reader.index.catalog)

    assert whole(again) == content
    assert json.dumps(reader.index.to_dict())


def test_a_task_without_buffers_of_its_own_goes_too(store, base, elsewhere, tmp_path):
    tensors = fine_tuned(1) | {"norm.running_mean": base.buffers["norm.running_mean"]}
    outcome = learn(store, base, tmp_path, name="a", tensors=tensors)
    assert outcome.manifest.tasks[0].buffers is None

    take_in(elsewhere, whole(bundle_file(store, base, outcome.manifest_digest)), tmp_path)

    assert_same_experts(store, elsewhere, base, outcome.manifest)


def test_a_file_that_shrinks_while_it_is_taken_in_is_refused(store, base, outcome, elsewhere, tmp_path):
    bundle = opened(whole(bundle_file(store, base, outcome.manifest_digest)), tmp_path)
    (tmp_path / "some.condu").write_bytes(b"shorter")

    with pytest.raises(InvalidBundleError, match="ends before byte"):
        import_bundle(elsewhere.blobs, bundle, expected=EXPECTED)

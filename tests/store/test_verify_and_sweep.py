"""Damage is found, wherever it is; a sweep removes what nothing names and nothing else."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from store.bits import pack_bits
from store.blobs import FileBlobs
from store.checkpoints import CheckpointStore
from store.codecs.bits import MaskWriter, encode_mask
from store.errors import CorruptBlobError, NotFoundError, UnsupportedFormatError
from store.sweep import Roots, SweepPermit, sweep, sweep_steps
from store.verify import verify
from tests.store.small import base_tensors, learn, learn_all, save_base


@pytest.fixture
def store(tmp_path):
    return CheckpointStore(FileBlobs(tmp_path / "blobs"))


@pytest.fixture
def base(store, tmp_path):
    return save_base(store, tmp_path)


def problems(store, **named):
    return [step.problem for step in verify(store, **named) if step.problem]


def flip(store, digest, position):
    path = store.blobs.path(digest)
    content = bytearray(path.read_bytes())
    content[position % len(content)] ^= 1
    path.chmod(0o644)
    path.write_bytes(content)


def rewrite(store, manifest, **changes):
    return store.blobs.put(replace(manifest, **changes).to_json()).digest


def test_a_sound_store_has_no_problems_and_progress_reaches_the_end(store, base, tmp_path):
    outcome = learn_all(store, base, tmp_path, ["a", "b", "c"])
    steps = list(
        verify(store, manifests=[outcome.manifest_digest, outcome.manifest.parent], bases=[base.digest])
    )
    assert [step.problem for step in steps if step.problem] == []
    assert steps[-1].done_bytes == steps[-1].total_bytes > 0


def test_one_flipped_bit_in_any_blob_is_found(store, base, tmp_path):
    outcome = learn_all(store, base, tmp_path, ["a", "b"])
    rng = np.random.default_rng(0)
    for digest in sorted({blob.digest for blob in store.blobs.list()} & _live(outcome, base)):
        whole = store.blobs.path(digest).read_bytes()
        flip(store, digest, int(rng.integers(len(whole))))
        assert problems(store, manifests=[outcome.manifest_digest], bases=[base.digest]), digest
        store.blobs.path(digest).write_bytes(whole)
    assert problems(store, manifests=[outcome.manifest_digest]) == []


def _live(outcome, base):
    return outcome.manifest.named_blobs() | {outcome.manifest_digest, base.manifest.weights}


def test_damage_is_found_before_it_is_served(store, base, tmp_path):
    outcome = learn_all(store, base, tmp_path, ["a", "b"])
    for digest in (outcome.manifest.task("a").mask, str(outcome.manifest.unified)):
        whole = store.blobs.path(digest).read_bytes()
        for position in (0, 70, len(whole) // 2, len(whole) - 30, len(whole) - 1):
            flip(store, digest, position)
            try:
                with pytest.raises((CorruptBlobError, UnsupportedFormatError)):
                    store.rebuild(base, outcome.manifest, "a")
            finally:
                store.blobs.path(digest).write_bytes(whole)
    flip(store, base.manifest.weights, 5000)
    with pytest.raises(CorruptBlobError, match=base.manifest.weights_xxh3):
        store.load_base(base.digest)


def test_a_truncated_artefact_is_found_before_it_is_served(store, base, tmp_path):
    outcome = learn_all(store, base, tmp_path, ["a", "b"])
    path = store.blobs.path(outcome.manifest.task("a").mask)
    whole = path.read_bytes()
    path.chmod(0o644)
    for length in (0, 10, 87, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(CorruptBlobError):
            store.rebuild(base, outcome.manifest, "a")


def test_a_missing_blob_is_named(store, base, tmp_path):
    outcome = learn_all(store, base, tmp_path, ["a", "b"])
    mask = outcome.manifest.task("a").mask
    store.blobs.delete(mask)
    assert any(mask in problem for problem in problems(store, manifests=[outcome.manifest_digest]))
    with pytest.raises(NotFoundError, match=mask):
        store.rebuild(base, outcome.manifest, "a")


def test_a_mask_bit_that_went_from_zero_to_one_is_found(store, base, tmp_path):
    outcome = learn_all(store, base, tmp_path, ["a", "b"])
    with store.blobs.writer() as writer:
        mask = MaskWriter(writer, layout=base.space.digest, num_bits=base.space.flat_size)
        mask.add(*encode_mask(pack_bits(np.ones(base.space.flat_size, dtype=bool))))
        mask.finish()
        forged = writer.commit().digest
    first, second = outcome.manifest.tasks
    digest = rewrite(store, outcome.manifest, tasks=(replace(first, mask=forged), second))
    found = " ".join(problems(store, manifests=[digest]))
    assert "mask bits went from 0 to 1" in found
    assert "bits set, the manifest says" in found
    assert "norm of its served delta" in found


def test_a_changed_norm_is_found(store, base, tmp_path):
    outcome = learn_all(store, base, tmp_path, ["a", "b"])
    first, second = outcome.manifest.tasks
    digest = rewrite(store, outcome.manifest, tasks=(replace(first, l1_norm=first.l1_norm * 1.01), second))
    assert any("N changed" in problem for problem in problems(store, manifests=[digest]))


def test_a_unified_delta_of_another_dtype_than_its_manifest_says_is_found(store, base, tmp_path):
    outcome = learn_all(store, base, tmp_path, ["a"])
    options = replace(outcome.manifest.options, unified_dtype="bfloat16")
    digest = rewrite(store, outcome.manifest, options=options)
    assert any("is in float32" in problem for problem in problems(store, manifests=[digest]))


def test_an_artefact_of_another_layout_is_refused(store, base, tmp_path):
    other = save_base(store, tmp_path, base_tensors())
    assert other.digest == base.digest
    outcome = learn(store, base, tmp_path, name="a")
    with store.blobs.writer() as writer:
        mask = MaskWriter(writer, layout="f" * 64, num_bits=base.space.flat_size)
        mask.add(*encode_mask(pack_bits(np.ones(base.space.flat_size, dtype=bool))))
        mask.finish()
        foreign = writer.commit().digest
    manifest = replace(outcome.manifest, tasks=(replace(outcome.manifest.tasks[0], mask=foreign),))
    with pytest.raises(CorruptBlobError, match="layout of mask"):
        store.rebuild(base, manifest, "a")
    manifest = replace(outcome.manifest, unified=outcome.manifest.tasks[0].mask)
    with pytest.raises(UnsupportedFormatError, match="pass the digest of a unified"):
        store.rebuild(base, manifest, "a")


def test_a_newer_format_is_refused_with_the_remedy(store, base, tmp_path):
    outcome = learn(store, base, tmp_path, name="a")
    newer = outcome.manifest.to_json().replace(b'"format":1', b'"format":2')
    with pytest.raises(UnsupportedFormatError, match="upgrade condu"):
        store.manifest(store.blobs.put(newer).digest)
    with pytest.raises(UnsupportedFormatError, match="no manifest"):
        store.manifest(store.blobs.put(b"\x00\x01").digest)
    path = store.blobs.path(outcome.manifest.tasks[0].mask)
    path.chmod(0o644)
    content = bytearray(path.read_bytes())
    content[8] = 9
    path.write_bytes(content)
    with pytest.raises(UnsupportedFormatError, match="format 9"):
        store.rebuild(base, outcome.manifest, "a")


def test_a_sweep_keeps_what_the_roots_name_and_removes_the_rest(store, base, tmp_path):
    outcome = learn_all(store, base, tmp_path, ["a", "b", "c"])
    roots = Roots(manifests=[outcome.manifest_digest])
    stored = sum(blob.size_bytes for blob in store.blobs.list())
    dry = sweep(store, roots, grace_s=0.0, delete=False)
    assert sum(blob.size_bytes for blob in store.blobs.list()) == stored
    done = sweep(store, roots, grace_s=0.0, delete=True)
    assert (dry.removed, dry.bytes_freed, dry.is_dry_run) == (done.removed, done.bytes_freed, True)
    assert done.bytes_freed > 0
    assert sum(blob.size_bytes for blob in store.blobs.list()) == stored - done.bytes_freed == done.bytes_kept
    assert problems(store, manifests=[outcome.manifest_digest]) == []
    for task in "abc":
        store.rebuild(store.load_base(base.digest), outcome.manifest, task)
    assert sweep(store, roots, grace_s=0.0, delete=True).removed == ()


class AllBut(SweepPermit):
    """Withholds one blob."""

    def __init__(self, withheld):
        self.withheld, self.confirmed = withheld, set()

    def doom(self, blobs):
        return {blob.digest for blob in blobs} - {self.withheld}

    def confirm(self, digests):
        self.confirmed |= set(digests)


def test_a_sweep_removes_only_what_it_has_a_permit_for_and_says_when_it_is_done(store):
    named, unnamed = (store.blobs.put(content) for content in (b"named meanwhile", b"unnamed"))
    permit = AllBut(named.digest)
    *steps, last = sweep_steps(store.blobs, set(), grace_s=0.0, delete=True, permit=permit)
    assert last.report.removed == (unnamed.digest,)
    assert last.report.bytes_kept == named.size_bytes
    assert permit.confirmed == {unnamed.digest}
    assert [blob.digest for blob in store.blobs.list()] == [named.digest]
    assert steps[0].done_bytes < last.done_bytes == last.total_bytes


def test_a_sweep_spares_what_was_written_within_the_grace_period(store, base, tmp_path):
    learn(store, base, tmp_path, name="a")
    report = sweep(store, Roots(manifests=[]), grace_s=60.0, delete=True)
    assert report.removed == ()
    assert report.too_young == len(list(store.blobs.list())) > 0


def test_a_sweep_tolerates_roots_that_are_gone(store, base, tmp_path):
    outcome = learn(store, base, tmp_path, name="a")
    store.blobs.delete(outcome.manifest_digest)
    report = sweep(
        store,
        Roots(manifests=[outcome.manifest_digest], bases=[base.digest, "0" * 64]),
        grace_s=0.0,
        delete=True,
    )
    assert base.manifest.weights not in report.removed
    store.load_base(base.digest)


def test_after_a_sweep_a_further_task_costs_its_trigger_and_prototypes_only(store, base, tmp_path):
    parent, sizes = None, []
    for name in ["a", "b", "c", "d"]:
        outcome = learn(store, base, tmp_path, name=name, parent=parent)
        parent = outcome.manifest_digest
        sweep(store, Roots(manifests=[parent]), grace_s=0.0, delete=True)
        sizes.append(sum(blob.size_bytes for blob in store.blobs.list()))
    full = base.manifest.size_bytes
    for before, after in pairwise(sizes[1:]):
        assert after - before <= full / 32 + 2048

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from store.bits import pack_bits, unpack_bits
from store.blobs import MemoryBlobs
from store.checkpoints import CheckpointStore
from store.errors import CorruptBlobError, NotFoundError
from store.experts import open_mask
from store.manifest import FusionOptions
from store.overlap import MaskOverlap, MaskOverlaps, _bits_shared, measure_overlap
from store.parameters import CHUNK_ELEMENTS, ExpectedTensor
from store.safefile import write_safetensors
from tests.store.small import learn_all, new_task, save_base

NAMES = ("pets", "flowers", "digits")


@pytest.fixture
def store():
    return CheckpointStore(MemoryBlobs())


@pytest.fixture
def folded(store, tmp_path):
    base = save_base(store, tmp_path)
    return base, learn_all(store, base, tmp_path, NAMES)


def bits_of(store, base, manifest):
    """Every mask as booleans over the whole flat buffer."""
    found = {}
    for task in manifest.tasks:
        mask = open_mask(store.blobs, task.mask, base.space)
        packed = np.concatenate([mask.chunk(index) for index in range(mask.num_chunks)])
        found[task.name] = unpack_bits(packed, base.space.flat_size)
    return found


def assert_as_counted_by_hand(overlap, masks):
    for one, own in masks.items():
        for other, theirs in masks.items():
            both = int((own & theirs).sum())
            assert overlap.jaccard(one, other) == pytest.approx(both / int((own | theirs).sum()))
            assert overlap.share(one, other) == pytest.approx(both / int(own.sum()))


def test_the_overlap_of_folded_tasks_is_what_their_bits_say(store, folded):
    base, outcome = folded
    overlap = measure_overlap(store.blobs, outcome.manifest)
    assert overlap.tasks == NAMES
    assert [overlap.bits_shared[at][at] for at in range(3)] == [
        task.bits_set for task in outcome.manifest.tasks
    ]
    assert_as_counted_by_hand(overlap, bits_of(store, base, outcome.manifest))


def test_bits_beyond_the_first_chunk_count_too(store, tmp_path):
    expected = {"tower.weight": ExpectedTensor((CHUNK_ELEMENTS + 1000,), "parameter")}
    generator = np.random.default_rng(5)
    path = tmp_path / "weights.safetensors"

    def write(values):
        write_safetensors(path, {"tower.weight": torch.from_numpy(values.astype(np.float32))})
        return path

    theta0 = generator.standard_normal(CHUNK_ELEMENTS + 1000)
    base = store.load_base(store.save_base(write(theta0), expected).digest)
    parent = None
    for name in NAMES[:2]:
        checkpoint = write(theta0 + generator.standard_normal(len(theta0)))
        outcome = store.fold(
            base,
            parent=parent,
            options=FusionOptions(),
            new_task=new_task(store, name),
            checkpoint=checkpoint,
        )
        parent = outcome.manifest_digest
    overlap = measure_overlap(store.blobs, outcome.manifest)
    assert_as_counted_by_hand(overlap, bits_of(store, base, outcome.manifest))


@given(st.lists(st.lists(st.booleans(), min_size=128, max_size=128), min_size=1, max_size=4))
def test_bits_are_counted_as_sets_are(rows):
    shared = _bits_shared([pack_bits(np.array(row)) for row in rows])
    sets = [{at for at, bit in enumerate(row) if bit} for row in rows]
    assert shared.tolist() == [[len(one & other) for other in sets] for one in sets]


def test_tasks_that_own_nothing_share_nothing():
    overlap = MaskOverlap(("empty", "void", "full"), ((0, 0, 0), (0, 0, 0), (0, 0, 9)))
    assert overlap.jaccard("empty", "void") == overlap.share("empty", "full") == 0.0
    assert overlap.jaccard("full", "full") == overlap.share("full", "full") == 1.0


def test_a_revision_without_tasks_has_no_overlap(store, folded):
    digest = folded[1].manifest_digest
    for name in NAMES:
        digest, manifest = store.drop_task(digest, name)
    assert measure_overlap(store.blobs, manifest) == MaskOverlap((), ())


class CountingBlobs(MemoryBlobs):
    """Blobs in memory that count how often a manifest is asked for."""

    def __init__(self):
        super().__init__()
        self.asked = []

    def read_checked(self, digest):
        self.asked.append(digest)
        return super().read_checked(digest)


def test_an_overlap_is_measured_once_and_the_oldest_is_forgotten(tmp_path):
    store = CheckpointStore(CountingBlobs())
    last = learn_all(store, save_base(store, tmp_path), tmp_path, NAMES).manifest_digest
    first = store.manifest(last).parent
    overlaps = MaskOverlaps(store.blobs, max_revisions=1)
    store.blobs.asked.clear()
    assert overlaps.of(last) is overlaps.of(last)
    assert store.blobs.asked.count(last) == 1
    assert overlaps.of(first).tasks == NAMES[:2]
    assert overlaps.of(last).tasks == NAMES
    assert store.blobs.asked.count(last) == 2


def test_a_mask_that_is_gone_or_of_another_layout_is_named(store, folded, tmp_path):
    manifest = folded[1].manifest
    with pytest.raises(NotFoundError):
        MaskOverlaps(store.blobs).of("0" * 64)
    expected = {"other": ExpectedTensor((3,), "parameter")}
    path = tmp_path / "other.safetensors"
    write_safetensors(path, {"other": torch.ones(3)})
    other = store.save_base(path, expected).digest
    stranger = replace(manifest, base=other)
    with pytest.raises(CorruptBlobError, match="layout of mask"):
        measure_overlap(store.blobs, stranger)

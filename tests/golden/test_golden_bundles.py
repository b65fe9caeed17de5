"""A bundle that an older version wrote is taken in by this one; and this one writes the same bytes still."""

from pathlib import Path

import pytest

from api.bundle_facts import read_facts
from store.blobs import MemoryBlobs
from store.bundles import BundleReader, import_bundle
from store.checkpoints import CheckpointStore
from tests.golden.make_golden import EXPECTED, TASKS, expert_digest
from tests.golden.make_golden_bundles import BUNDLES, MODELS, bundle, facts, golden_store

FOLDER = Path(__file__).parent / "bundles"


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return golden_store(tmp_path_factory.mktemp("golden") / "blobs")


@pytest.fixture
def elsewhere():
    """A store with the base, which came in the whole bundle."""
    store = CheckpointStore(MemoryBlobs())
    import_bundle(store.blobs, BundleReader(FOLDER / "whole.condu"), expected=EXPECTED)
    return store


@pytest.mark.parametrize("name", BUNDLES)
def test_a_stored_bundle_is_taken_in_and_its_experts_are_what_they_were(elsewhere, name):
    model, _ = BUNDLES[name]
    imported = import_bundle(elsewhere.blobs, BundleReader(FOLDER / name), expected=EXPECTED)
    base = elsewhere.load_base(imported.manifest.base)

    assert elsewhere.manifest(MODELS[model]["revisions"][-1]) == imported.manifest
    for task in TASKS:
        digest = expert_digest(elsewhere, base, imported.manifest, task)
        assert digest == MODELS[model]["experts"][task]


@pytest.mark.parametrize("name", BUNDLES)
def test_what_a_stored_bundle_tells_of_its_tasks_is_read(name):
    model, has_base = BUNDLES[name]
    reader = BundleReader(FOLDER / name)

    assert reader.index.has_base is has_base
    assert read_facts(reader).model_dump() == facts(model)


@pytest.mark.parametrize("name", BUNDLES)
def test_a_bundle_written_today_has_the_same_bytes(store, name):
    model, with_base = BUNDLES[name]

    assert b"".join(bundle(store, model, with_base=with_base).read()) == (FOLDER / name).read_bytes()


@pytest.mark.parametrize("name", BUNDLES)
def test_a_bundle_taken_in_and_written_again_has_the_same_bytes(elsewhere, name):
    model, with_base = BUNDLES[name]
    import_bundle(elsewhere.blobs, BundleReader(FOLDER / name), expected=EXPECTED)

    assert b"".join(bundle(elsewhere, model, with_base=with_base).read()) == (FOLDER / name).read_bytes()

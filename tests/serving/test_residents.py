import time
from dataclasses import replace

import pytest

from catalog import Catalog, upgrade
from catalog.bases import add_base
from catalog.blobs import NewBlob
from catalog.models import create_model, delete_model
from catalog.revisions import publish_revision
from serving.pinning import Heads
from serving.residents import Residents
from tests.installing import embedded_only, settings_at

WAIT_S = 60


@pytest.fixture
def catalog(tmp_path, learned):
    settings = settings_at(tmp_path / "data")
    settings.data.mkdir()
    upgrade(settings.catalog_url)
    catalog = Catalog(settings)
    with catalog.transaction() as session:
        add_base(
            session,
            name="tiny",
            architecture=None,
            config=learned.architecture.config,
            preprocessing=learned.base.preprocessing.to_dict(),
            digest=learned.base.digest,
            layout="0" * 64,
            num_parameters=learned.model_bytes // 4,
            size_bytes=learned.model_bytes,
        )
        create_model(session, name="animals", base="tiny")
    publish(catalog, learned, learned.manifests[0])
    yield catalog
    catalog.close()


def publish(catalog, learned, manifest, parent=None):
    """A revision of which the catalog knows the manifest only: that is all that residents look at."""
    blob = learned.store.blobs.put(manifest.to_json())
    with catalog.transaction() as session:
        return publish_revision(
            session,
            model="animals",
            parent=parent,
            manifest=blob.digest,
            cause="rollback",
            triggers=[],
            blobs=[NewBlob(blob.digest, blob.size_bytes, "manifest")],
        )


@pytest.fixture
def reside(catalog, learned, make_engine):
    made = []

    def make(*, models=8, **wishes):
        engine = make_engine(models=models)
        made.append(Residents(engine, catalog=catalog, heads=Heads(catalog, learned.store), **wishes))
        return made[-1], engine.predictor.pool

    yield make
    for residents in made:
        residents.close()


def wait_until(claim):
    end = time.monotonic() + WAIT_S
    while not claim():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


def held(pool):
    return {entry.digest for entry in pool.entries() if entry.leases}


def here(pool):
    return {entry.digest for entry in pool.entries()}


def test_what_is_to_be_preloaded_is_in_memory_soon_and_free_to_go(reside, learned):
    residents, pool = reside(preload=("animals",))
    expected = {learned.base.digest, learned.manifests[0].expert_digest("pets")}
    wait_until(lambda: expected <= here(pool))
    wait_until(lambda: not held(pool))
    assert residents.status().problems == ()


def test_what_is_pinned_is_held_and_follows_the_head(reside, catalog, learned):
    residents, pool = reside(pin=("animals/pets",))
    first = learned.manifests[0].expert_digest("pets")
    wait_until(lambda: residents.status().pinned == 1)
    assert held(pool) == {first}
    publish(catalog, learned, learned.manifests[1], parent=1)
    second = learned.manifests[1].expert_digest("pets")
    assert first != second
    wait_until(lambda: held(pool) == {second})


def test_a_whole_model_is_pinned_with_its_base(reside, learned):
    residents, pool = reside(pin=("animals",))
    wait_until(lambda: residents.status().pinned == 2)
    assert held(pool) == {learned.base.digest, learned.manifests[0].expert_digest("pets")}
    residents.close()
    assert not held(pool)


def test_experts_in_memory_are_fetched_again_when_a_head_is_published(reside, catalog, learned):
    residents, pool = reside()
    wait_until(lambda: residents.status().readable == 1)
    ref = learned.base
    with pool.lease(ref, learned.manifests[0], "pets"):
        pass
    publish(catalog, learned, learned.manifests[1], parent=1)
    wait_until(lambda: learned.manifests[1].expert_digest("pets") in here(pool))
    assert learned.manifests[1].expert_digest("flowers") not in here(pool)


def test_what_nobody_uses_leaves_the_memory(reside, learned):
    _, pool = reside(idle_s=0.05)
    with pool.lease(learned.base, learned.manifests[0], "pets") as expert:
        time.sleep(0.2)
        assert expert.digest in here(pool)
    wait_until(lambda: not here(pool))


def test_more_pins_than_half_of_the_memory_are_refused_by_name(reside, learned):
    residents, pool = reside(models=3, pin=("animals",))
    wait_until(lambda: residents.status().problems)
    assert "CONDU_EXPERT_CACHE_BYTES" in residents.status().problems[0]
    assert residents.status().problems[0].startswith("animals: ")
    assert len(held(pool)) == 1


@pytest.mark.parametrize(
    ("wish", "told"), [("nobody", "no model 'nobody'"), ("animals/nope", "no task 'nope'")]
)
def test_a_wish_for_what_does_not_exist_is_told_and_the_others_are_met(reside, wish, told):
    residents, _ = reside(pin=(wish, "animals/pets"), preload=(wish,))
    wait_until(lambda: residents.status().pinned == 1)
    assert told in residents.status().problems[0]


def test_pins_of_a_model_that_is_deleted_are_let_go(reside, catalog):
    residents, pool = reside(pin=("animals/pets",))
    wait_until(lambda: residents.status().pinned == 1)
    with catalog.transaction() as session:
        delete_model(session, "animals")
    wait_until(lambda: residents.status().pinned == 0)
    assert not held(pool)
    assert residents.status().readable == 0


def test_a_head_that_cannot_be_read_is_named(reside, catalog, learned):
    residents, _ = reside()
    wait_until(lambda: residents.status().readable == 1)
    broken = replace(learned.manifests[1], parent="0" * 64)
    digest = learned.store.blobs.put(broken.to_json()).digest
    publish(catalog, learned, broken, parent=1)
    learned.store.blobs.delete(digest)
    wait_until(lambda: residents.status().unreadable)
    assert residents.status().unreadable == ("animals",)


@embedded_only
def test_a_catalog_that_is_gone_does_not_end_the_looking(reside, catalog, tmp_path):
    residents, pool = reside(pin=("animals/pets",))
    wait_until(lambda: residents.status().pinned == 1)
    catalog.close()
    data = (tmp_path / "data").rename(tmp_path / "away")
    wait_until(lambda: residents.status().age_s > 2.0)
    assert residents.status().pinned == 1
    data.rename(tmp_path / "data")
    wait_until(lambda: residents.status().age_s < 1.0)
    assert len(held(pool)) == 1

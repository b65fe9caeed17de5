"""Which revision a request gets, from a real catalog that moves, loses models, and goes away."""

import pytest
from sqlalchemy import Engine, event

from catalog.errors import CatalogUnavailableError, NoSuchRowError
from serving.errors import UnknownTaskError
from serving.pinning import MAX_KEPT, Heads
from tests.installing import embedded_only


@pytest.fixture
def heads(condu):
    return Heads(condu.services.catalog, condu.services.store)


@pytest.fixture
def statements():
    """Every statement that any catalog executes."""
    seen = []

    def note(connection, cursor, statement, parameters, context, executemany):
        seen.append(statement)

    event.listen(Engine, "before_cursor_execute", note)
    yield seen
    event.remove(Engine, "before_cursor_execute", note)


def quiet(condu):
    """Nobody but the test asks the catalog from now on."""
    condu.services.residents.close()


def lose_catalog(condu):
    condu.services.catalog.close()
    for file in condu.settings.data.glob("condu.sqlite*"):
        file.unlink()


def test_a_head_that_was_pinned_before_costs_one_query(condu, heads, statements):
    first = heads.pin("animals")
    quiet(condu)
    statements.clear()

    assert heads.pin("animals") is first
    assert len([each for each in statements if each.startswith("SELECT")]) == 1


def test_what_is_published_is_pinned_by_the_next_request_and_the_old_one_by_its_number(
    condu, heads, learn_task
):
    before = heads.pin("animals")
    learn_task("animals", "food", classes=("rice", "soup"))

    after = heads.pin("animals")

    assert (before.number, after.number) == (2, 3)
    assert after.task_names == ("pets", "digits", "food")
    assert heads.pin("animals", 2).manifest == before.manifest
    assert before.task_names == ("pets", "digits")


def test_a_rollback_is_seen_by_the_next_request(condu, heads):
    assert heads.pin("animals").number == 2
    condu.post("/v1/models/animals/rollback", json={"revision": 1})

    assert (heads.pin("animals").number, heads.pin("animals").task_names) == (1, ("pets",))


def test_a_model_that_was_made_again_under_its_name_is_another_one(condu, heads):
    assert heads.pin("animals").number == 2
    assert condu.delete("/v1/models/animals").is_success
    with pytest.raises(NoSuchRowError):
        heads.pin("animals")
    condu.post("/v1/models", json={"name": "animals", "base": "tiny"})

    assert (heads.pin("animals").number, heads.pin("animals").manifest) == (None, None)


def test_a_revision_that_expired_is_refused_though_it_was_pinned_before(condu, heads):
    heads.pin("animals", 1)
    condu.post("/v1/sweep", json={"delete": True, "keep_revisions": 1, "grace_s": 0}).read()

    with pytest.raises(NoSuchRowError):
        heads.pin("animals", 1)


@embedded_only
def test_while_the_catalog_is_gone_the_last_head_seen_is_pinned_and_nothing_else(condu, heads):
    seen = heads.pin("animals")
    lose_catalog(condu)

    assert heads.pin("animals") is seen
    for model, number in (("fresh", None), ("animals", 1)):
        with pytest.raises(CatalogUnavailableError):
            heads.pin(model, number)


def test_as_many_revisions_are_kept_as_the_bound_says(condu, heads):
    quiet(condu)
    for number in range(MAX_KEPT + 10):
        name = f"model-{number}"
        condu.post("/v1/models", json={"name": name, "base": "tiny"})
        heads.pin(name)
    lose_catalog(condu)

    with pytest.raises(CatalogUnavailableError):
        heads.pin("model-0")
    assert heads.pin(f"model-{MAX_KEPT + 9}").number is None


def test_a_task_that_the_revision_lacks_is_told_with_those_it_has(condu, heads):
    with pytest.raises(UnknownTaskError, match="revision 2 of model 'animals' has no task 'cars'") as caught:
        heads.pin("animals").require_task("cars")
    assert caught.value.known_tasks == ("pets", "digits")

    with pytest.raises(UnknownTaskError, match="has learned nothing yet"):
        heads.pin("fresh").require_task("cars")

import pytest

from catalog.bases import check_base_free, delete_base, find_base, list_bases
from catalog.errors import AlreadyExistsError, InvalidNameError, NoSuchRowError, StillInUseError
from catalog.jobs import cancel_job, list_jobs, submit_job
from catalog.models import NewAdapter, create_model, delete_model, find_model, list_models
from catalog.retention import live_roots
from catalog.revisions import list_revisions
from catalog.tasks import head_tasks
from tests.catalog.examples import add_model, add_tiny_base, digest_of, learn


def test_a_base_is_found_as_it_was_added(catalog):
    with catalog.transaction() as session:
        added = add_tiny_base(session)
    with catalog.snapshot() as session:
        assert find_base(session, "tiny") == added
        assert list_bases(session) == [added]
    assert added.num_parameters == 3_000_000_000
    assert added.created_at.utcoffset().total_seconds() == 0


def test_a_second_base_of_a_name_is_refused(catalog):
    with catalog.transaction() as session:
        add_tiny_base(session)
        with pytest.raises(AlreadyExistsError, match="base 'tiny' exists already"):
            check_base_free(session, "tiny")
        with pytest.raises(AlreadyExistsError):
            add_tiny_base(session)


def test_a_base_of_an_impossible_name_is_refused(catalog):
    with catalog.transaction() as session, pytest.raises(InvalidNameError, match="cannot name a base"):
        add_tiny_base(session, "Tiny CLIP")


def test_a_base_that_a_model_stands_on_cannot_go(catalog):
    with catalog.transaction() as session:
        add_model(session, "pets")
        with pytest.raises(StillInUseError, match="is the base of pets"):
            delete_base(session, "tiny")
        delete_model(session, "pets")
        delete_base(session, "tiny")
        assert list_bases(session) == []


def test_what_is_not_there_is_named_with_where_to_look(catalog):
    with catalog.snapshot() as session:
        with pytest.raises(NoSuchRowError, match="no base 'nowhere': `condu base list`"):
            find_base(session, "nowhere")
        with pytest.raises(NoSuchRowError, match="no model 'nowhere': `condu model list`"):
            find_model(session, "nowhere")
        with pytest.raises(NoSuchRowError):
            delete_base(session, "nowhere")
        with pytest.raises(NoSuchRowError):
            delete_model(session, "nowhere")


def test_a_model_begins_without_a_head_and_remembers_how_it_fuses(catalog):
    with catalog.transaction() as session:
        add_tiny_base(session)
        made = create_model(session, name="pets", base="tiny", unified_dtype="bfloat16")
    with catalog.snapshot() as session:
        assert find_model(session, "pets") == made
    assert made.head_revision is None
    assert (made.tuning, made.fusion, made.rescaler_norm, made.unified_dtype) == (
        "full",
        "condu",
        "global_l1",
        "bfloat16",
    )


def test_a_model_that_learns_adapters_remembers_what_they_start_from(catalog):
    with catalog.transaction() as session:
        add_tiny_base(session)
        start = NewAdapter(digest_of("start"), rank=64, seed=7)
        made = create_model(session, name="pets", base="tiny", adapter=start)
        assert live_roots(session).bases == {digest_of("start"), find_base(session, "tiny").digest}
        delete_model(session, "pets")
        assert live_roots(session).bases == {find_base(session, "tiny").digest}
    assert (made.tuning, made.adapter, made.lora_rank, made.lora_seed) == ("lora", start.digest, 64, 7)


def test_a_model_needs_a_base_and_a_free_name(catalog):
    with catalog.transaction() as session:
        add_model(session, "pets")
        with pytest.raises(AlreadyExistsError, match="model 'pets' exists already"):
            add_model(session, "pets")
        with pytest.raises(NoSuchRowError, match="no base 'nowhere'"):
            create_model(session, name="birds", base="nowhere")
        with pytest.raises(InvalidNameError, match="cannot name a model"):
            create_model(session, name="Birds", base="tiny")


def test_models_are_listed_by_name_and_by_base(catalog):
    with catalog.transaction() as session:
        for name, base in (("pets", "tiny"), ("birds", "tiny"), ("cars", "large")):
            add_model(session, name, base)
        assert [model.name for model in list_models(session)] == ["birds", "cars", "pets"]
        assert [model.name for model in list_models(session, base="large")] == ["cars"]


def test_a_deleted_model_takes_its_revisions_along_and_nobody_elses(catalog):
    with catalog.transaction() as session:
        for name in ("pets", "birds"):
            add_model(session, name)
            learn(session, name, "fur", parent=None, manifest=f"{name} 1")
            learn(session, name, "paws", parent=1, manifest=f"{name} 2")
        delete_model(session, "pets")
    with catalog.transaction() as session:
        assert [model.name for model in list_models(session)] == ["birds"]
        assert len(list_revisions(session, "birds")) == 2
        add_model(session, "pets")
        assert list_revisions(session, "pets") == []
        assert head_tasks(session, "pets") == []
        assert learn(session, "pets", "fur", parent=None, manifest="again") == 1


def test_a_model_with_an_unfinished_job_cannot_go_but_its_finished_jobs_stay(catalog, queue, model):
    with catalog.transaction() as session:
        job = submit_job(session, queue, kind="train", model=model, task="fur", request={})
        with pytest.raises(StillInUseError, match=f"unfinished jobs .the first is {job.job_id}."):
            delete_model(session, model)
        cancel_job(session, job.job_id)
        delete_model(session, model)
        assert [record.job_id for record in list_jobs(session)] == [job.job_id]

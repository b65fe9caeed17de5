import pytest
from sqlalchemy import text

from catalog.datasets import (
    add_dataset,
    delete_dataset,
    find_dataset,
    keep_dataset,
    list_datasets,
    release_dataset,
    require_dataset,
)
from catalog.errors import DatasetGoneError, NoSuchRowError, StillInUseError
from catalog.jobs import cancel_job, submit_job
from catalog.retention import expire_datasets, expire_revisions, live_roots
from catalog.revisions import publish_revision, rollback_head
from catalog.uploads import is_upload_free
from tests.catalog.examples import digest_of, learn, new_task, new_trigger


@pytest.fixture
def session(catalog, model):
    with catalog.transaction() as opened:
        yield opened


def add_images(session, name):
    added = add_dataset(
        session, digest=digest_of(name), format="tar", classes=["cat", "dog"], num_images=9, size_bytes=99
    )
    return added.digest


def grow_old(session, table, column, days=30):
    session.execute(text(f"UPDATE {table} SET {column} = {column} - {days * 86400000}"))  # noqa: S608
    session.expire_all()


def manifests(session, **how):
    return live_roots(session, **how).manifests


def digests(*names):
    return frozenset(map(digest_of, names))


def learn_three(session):
    for parent, (task, manifest) in enumerate((("a", "one"), ("b", "two"), ("c", "three"))):
        learn(session, "pets", task, parent=parent or None, manifest=manifest)


def test_the_newest_revisions_on_the_heads_line_stay(session):
    learn_three(session)
    assert manifests(session) == digests("three")
    assert manifests(session, keep_revisions=2) == digests("two", "three")
    assert manifests(session, keep_revisions=9) == digests("one", "two", "three")


def test_what_a_rollback_left_aside_goes(session):
    learn_three(session)
    rollback_head(session, "pets", to=1)
    learn(session, "pets", "d", parent=1, manifest="four")
    assert manifests(session, keep_revisions=9) == digests("one", "four")
    assert [record.number for record in expire_revisions(session, keep_revisions=2)] == [2, 3]


def test_what_expired_is_no_root_any_more_but_for_a_while(session):
    learn_three(session)
    assert [record.number for record in expire_revisions(session)] == [1, 2]
    assert expire_revisions(session) == []
    assert manifests(session, keep_revisions=9) == digests("three")
    assert manifests(session, grace_s=3600.0) == digests("one", "two", "three")
    grow_old(session, "revisions", "expired_at")
    assert manifests(session, grace_s=3600.0) == digests("three")


def test_the_head_always_stays(session):
    learn_three(session)
    for function in (live_roots, expire_revisions):
        with pytest.raises(ValueError, match="at least the head must stay"):
            function(session, keep_revisions=0)


def test_every_base_stays_with_or_without_models(session):
    assert live_roots(session).bases == digests("base tiny")


def test_uploads_of_unfinished_jobs_stay_and_go_with_the_job(session, queue):
    images = add_images(session, "images")
    job = submit_job(
        session,
        queue,
        kind="import",
        model="pets",
        task="fur",
        request={},
        dataset=images,
        checkpoint=digest_of("upload"),
    )
    assert live_roots(session, upload_ttl_s=0.0).others == digests("images", "upload")
    cancel_job(session, job.job_id)
    assert live_roots(session, upload_ttl_s=0.0).others == frozenset()


def test_an_unused_data_set_stays_for_its_time(session):
    images = add_images(session, "images")
    assert live_roots(session).others == {images}
    grow_old(session, "datasets", "created_at")
    assert live_roots(session).others == frozenset()
    add_images(session, "images")
    assert live_roots(session).others == {images}


def test_an_uploaded_checkpoint_is_free_when_no_other_job_and_no_task_needs_it(session, queue):
    upload = digest_of("upload")
    first, second = (
        submit_job(session, queue, kind="import", model="pets", task=task, request={}, checkpoint=upload)
        for task in ("a", "b")
    )
    assert not is_upload_free(session, upload, after_job=first.job_id)
    cancel_job(session, second.job_id)
    assert is_upload_free(session, upload, after_job=first.job_id)
    learned = new_task("c", checkpoint=upload)
    publish_revision(
        session,
        model="pets",
        parent=None,
        manifest=digest_of("one"),
        cause="import",
        triggers=[new_trigger("c")],
        task=learned,
    )
    assert not is_upload_free(session, upload, after_job=first.job_id)


def test_a_data_set_is_released_by_the_last_job_that_needs_it(session, queue):
    images = add_images(session, "images")
    first, second = (
        submit_job(session, queue, kind="train", model="pets", task=task, request={}, dataset=images)
        for task in ("a", "b")
    )
    with pytest.raises(StillInUseError, match="is being used by job"):
        delete_dataset(session, images)
    assert not release_dataset(session, images, after_job=first.job_id)
    cancel_job(session, first.job_id)
    assert release_dataset(session, images, after_job=second.job_id)
    cancel_job(session, second.job_id)
    assert live_roots(session).others == frozenset()


def test_a_released_data_set_is_remembered_but_cannot_be_used_until_it_is_uploaded_again(session, queue):
    images = add_images(session, "images")
    assert release_dataset(session, images, after_job="some job")
    assert find_dataset(session, images).released_at is not None
    with pytest.raises(DatasetGoneError, match="upload them again, and set training"):
        submit_job(session, queue, kind="train", model="pets", task="a", request={}, dataset=images)
    add_images(session, "images")
    assert require_dataset(session, images).released_at is None


def test_an_unused_data_set_expires_with_its_time_and_says_so(session, queue):
    kept, used, unused, young = (add_images(session, name) for name in ("kept", "used", "unused", "young"))
    keep_dataset(session, kept)
    submit_job(session, queue, kind="train", model="pets", task="a", request={}, dataset=used)
    grow_old(session, "datasets", "created_at")
    add_images(session, "young")
    assert expire_datasets(session, upload_ttl_s=86400.0) == [unused]
    assert expire_datasets(session, upload_ttl_s=86400.0) == []
    with pytest.raises(DatasetGoneError):
        require_dataset(session, unused)
    assert live_roots(session).others == {kept, used, young}


def test_a_kept_data_set_outlives_jobs_and_time_until_it_is_deleted(session):
    images = add_images(session, "images")
    keep_dataset(session, images)
    assert not release_dataset(session, images, after_job="some job")
    grow_old(session, "datasets", "created_at")
    assert live_roots(session).others == {images}
    assert [(record.digest, record.is_kept) for record in list_datasets(session)] == [(images, True)]
    delete_dataset(session, images)
    assert live_roots(session).others == frozenset()
    with pytest.raises(NoSuchRowError, match="upload it with PUT /v1/datasets"):
        find_dataset(session, images)


def test_a_kept_checkpoint_stays_as_long_as_a_live_revision_serves_its_task(session):
    publish_revision(
        session,
        model="pets",
        parent=None,
        manifest=digest_of("one"),
        cause="import",
        triggers=[new_trigger("fur")],
        task=new_task("fur", checkpoint=digest_of("kept")),
    )
    assert live_roots(session).others == digests("kept")
    publish_revision(session, model="pets", parent=1, manifest=digest_of("two"), cause="remove", triggers=[])
    assert live_roots(session, keep_revisions=2).others == digests("kept")
    assert live_roots(session, keep_revisions=1).others == frozenset()

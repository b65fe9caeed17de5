"""Installations of both kinds, and what is in them."""

import sqlalchemy as sa

from catalog import Settings, upgrade
from catalog.database import open_engine
from catalog.rows import dump_rows
from cli.backup.making import make_backup
from cli.backup.place import open_place
from cli.backup.restoring import restore_backup
from store.blobs import open_blobs
from store.checkpoints import CheckpointStore
from tests.migrations.rows import fill, tables_of
from tests.store.small import save_base


def embedded(folder):
    """An installation on SQLite and files."""
    return Settings(data=folder, database_url=None, objects_url=None)


def on_servers(folder, url, place):
    """An installation on PostgreSQL and S3."""
    return Settings(
        data=folder,
        database_url=url,
        objects_url=place.url,
        objects_endpoint=place.endpoint,
        objects_access_key=place.access_key,
        objects_secret_key=place.secret_key,
    )


def fill_installation(settings):
    """A row in every table and the blobs they name, of all sizes from none to several pieces."""
    settings.data.mkdir(parents=True)
    upgrade(settings.catalog_url)
    blobs = open_blobs(settings.blob_place)
    digests = [blobs.put(content).digest for content in (b"", bytes(range(256)) * 40_000)]
    base = save_base(CheckpointStore(blobs), settings.data)
    engine = open_engine(settings.catalog_url)
    tables = tables_of(engine)
    fill(engine, tables)
    with engine.begin() as connection:
        connection.execute(tables["datasets"].update().values(digest=digests[1], released_at=None))
        connection.execute(tables["bases"].update().values(digest=base.digest))
        connection.execute(tables["models"].update().values(adapter=base.digest))
        connection.execute(tables["revisions"].update().values(expired_at=9, job_id=None))
        connection.execute(tables["tasks"].update().values(checkpoint=None))
        connection.execute(tables["jobs"].update().values(dataset=digests[1], checkpoint=digests[0]))
        connection.execute(tables["jobs"].update().values(state="running", worker="gone", attempt=2))
    engine.dispose()
    return [*digests, base.digest, base.manifest.weights]


def rows_of(settings):
    """All rows that a backup keeps, as its lines."""
    engine = open_engine(settings.catalog_url)
    try:
        with sa.orm.Session(engine) as session:
            return list(dump_rows(session))
    finally:
        engine.dispose()


def contents_of(settings):
    """Every blob's bytes."""
    blobs = open_blobs(settings.blob_place)
    return {blob.digest: bytes(blobs.read(blob.digest)) for blob in blobs.list()}


def quiet(done_bytes, total_bytes):
    """A progress that only holds to its promise."""
    assert 0 <= done_bytes <= total_bytes


def back_up(settings, where, **how):
    """The report of a backup of the installation to the place."""
    place = open_place(str(where), settings, endpoint=None)
    return make_backup(settings, place, on_progress=quiet, **how)


def restore_newest(settings, where):
    """The report of restoring the newest backup of the place into the installation."""
    place = open_place(str(where), settings, endpoint=None)
    newest = next(iter(place.find_backups()))
    return restore_backup(settings, place, newest, on_progress=quiet)

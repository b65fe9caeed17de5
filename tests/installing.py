"""Where tests put an installation: embedded in a folder, or on servers when CONDU_TEST_SERVERS is set.

`make test-servers` runs the suite with it: the same tests, on PostgreSQL and S3.
"""

import os
import shutil
from pathlib import Path

import pytest

from catalog import Settings, upgrade

ON_SERVERS = bool(os.environ.get("CONDU_TEST_SERVERS"))

ENGINE_JOBS = "dbos.workflow_status" if ON_SERVERS else "workflow_status"
"""The job engine's own table; on PostgreSQL it is in a schema of its own."""

embedded_only = pytest.mark.skipif(ON_SERVERS, reason="it damages or fills the files of the embedded default")
"""For tests that reach for SQLite's file or the folder of blobs behind the installation's back."""


def settings_at(folder: Path, **changes) -> Settings:
    """The settings of an installation in that folder; its database is migrated when it is first opened."""
    return Settings(data=folder, **(_places(folder) | changes))


def _places(folder: Path) -> dict[str, str]:
    if not ON_SERVERS:
        return {}
    from tests import servers  # noqa: PLC0415 - takes a second to import

    name = servers.name_for(folder)
    if not servers.database_exists(name):
        servers.create_database(name, like=servers.template())
    return {
        "database_url": servers.database_url(name),
        "objects_url": f"s3://{servers.BUCKET}/{name}",
        "objects_endpoint": servers.s3_endpoint(),
        "objects_access_key": servers.KEYS["access_key"],
        "objects_secret_key": servers.KEYS["secret_key"],
    }


def environment_at(folder: Path) -> dict[str, str]:
    """What tells a process of the installation in that folder, as environment variables."""
    settings = {"data": str(folder), **_places(folder)}
    return {f"CONDU_{name.upper()}": value for name, value in settings.items()}


def migrated_settings_at(folder: Path, migrated_file: Path, **changes) -> Settings:
    """Settings of an installation whose empty database was copied from a migrated one."""
    if not ON_SERVERS:
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(migrated_file, folder / "condu.sqlite")
    return settings_at(folder, **changes)


def copy_installation(source: Path, copy: Path) -> Path:
    """A copy of an installation that nobody has open; blobs, which nobody ever changes, are shared."""
    shutil.copytree(source, copy, ignore=shutil.ignore_patterns("blobs", "cache"))
    if not ON_SERVERS:
        shutil.copytree(source / "blobs", copy / "blobs", copy_function=os.link)
        return copy
    from tests import servers  # noqa: PLC0415

    servers.create_database(servers.name_for(copy), like=servers.name_for(source))
    servers.copy_objects(servers.name_for(source), servers.name_for(copy))
    return copy


@pytest.fixture(scope="session")
def migrated_file(tmp_path_factory):
    """A database that the migrations built, to be copied: building one takes a tenth of a second."""
    file = tmp_path_factory.mktemp("migrated") / "condu.sqlite"
    upgrade(f"sqlite:///{file}")
    return file

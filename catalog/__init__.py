"""What exists and what is to be done: names, revisions, digests and jobs in one SQL database.

A composition root builds one `Catalog` and passes it on. One request or one step of a job is one transaction:

    with catalog.transaction() as session:
        record = models.create_model(session, name="pets", base="tiny")

The functions that read and write live beside this file, a file a noun, and take the session first; they never
commit. What they return are frozen records, which outlive the session.
"""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from sqlalchemy.exc import DataError, DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.orm import Session

from catalog.actors import Actor, act
from catalog.audit import record_change
from catalog.database import check_schema, compact, open_engine, upgrade_schema
from catalog.doomed import look_into_store
from catalog.errors import CatalogUnavailableError, NoSuchRowError
from catalog.settings import Settings

__all__ = ["Catalog", "Session", "Settings", "upgrade"]


def upgrade(url: str) -> None:
    """Brings the catalog and the job engine's tables to the newest schema, making those that are missing.

    Several processes may do so at once; on a database that is up to date it changes nothing.
    """
    from catalog.dbos_queue import upgrade_engine  # noqa: PLC0415 - a circle, and dbos takes a second to import

    upgrade_schema(url)
    upgrade_engine(url)


class Catalog:
    """The open database: hands out transactions.

    Args:
        where: the settings of the installation, or the SQLAlchemy URL itself.

    Raises:
        OutdatedSchemaError: the database is not at the newest schema; `condu migrate` helps.
    """

    def __init__(self, where: Settings | str) -> None:
        self.url = where if isinstance(where, str) else where.catalog_url
        self._writing = open_engine(self.url)
        # One pool, two ways to begin: a reader must not wait for the lock that writers take.
        self._reading = self._writing.execution_options(condu_begin="DEFERRED")
        self._actor: Actor | None = None
        self._contains: Callable[[str], bool] | None = None
        check_schema(self._reading)

    def acting(self, actor: Actor) -> "Catalog":
        """The same open catalog, whose transactions are on behalf of the actor, and in the audit log."""
        bound = copy.copy(self)
        bound._actor = actor  # noqa: SLF001 - its own
        return bound

    def beside(self, contains: Callable[[str], bool]) -> "Catalog":
        """The same open catalog, whose transactions may ask whether a blob that was swept is there again."""
        bound = copy.copy(self)
        bound._contains = contains  # noqa: SLF001 - its own
        return bound

    def noting(self, **facts: Any) -> "Catalog":
        """The same, with something more in the audit log of what the actor does; itself where nobody acts."""
        return self if self._actor is None else self.acting(replace(self._actor, facts=facts))

    @contextmanager
    def transaction(self) -> Iterator[Session]:
        """A session that may write; committed at the end of the block, rolled back when the block raises.

        Raises:
            CatalogUnavailableError: the database refused; nothing of the block was kept.
        """
        with _translated(), Session(self._writing, expire_on_commit=False) as session, session.begin():
            if self._actor is not None:
                act(session, self._actor)
            if self._contains is not None:
                look_into_store(session, self._contains)
            yield session
            record_change(session)

    @contextmanager
    def snapshot(self) -> Iterator[Session]:
        """A session that only reads, all of it from one moment; never waits for a writer, never committed.

        Raises:
            CatalogUnavailableError: the database refused.
        """
        with _translated(), Session(self._reading, expire_on_commit=False) as session:
            yield session

    def check(self) -> None:
        """Nothing, when the database answers and is at the newest schema.

        Raises:
            OutdatedSchemaError: it is at another schema.
        """
        check_schema(self._reading)

    def compact(self) -> None:
        """Gives back the disk space of SQLite's write-ahead log, but for what someone still reads."""
        compact(self._writing)

    def close(self) -> None:
        """Gives the connections back; the catalog cannot be used afterwards."""
        self._writing.dispose()


@contextmanager
def _translated() -> Iterator[None]:
    """What the driver says of a full disk, a lock or a lost server, as the one error that callers know."""
    try:
        yield
    except DataError as error:
        if "NUL" not in str(error.orig):
            raise
        # SQLite finds nothing of such a name; PostgreSQL does not even look.
        raise NoSuchRowError("no name has a NUL byte in it") from error
    except (DBAPIError, PoolTimeoutError) as error:
        is_refusal = isinstance(error, OperationalError | InterfaceError | PoolTimeoutError)
        if not (is_refusal or getattr(error, "connection_invalidated", False)):
            raise
        reason = getattr(error, "orig", None) or error
        raise CatalogUnavailableError(
            f"the catalog's database refused: {reason}; free disk space or bring it back, then try again"
        ) from error

"""The audit log: who changed what, when and from where, written in the very transaction of the change."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from catalog.actors import actor_of, told
from catalog.records import to_record
from catalog.tables import AuditRow

MAX_SUBJECT = 300


@dataclass(frozen=True)
class AuditRecord:
    """A change that was made.

    Attributes:
        entry: Counts up; the newest is the highest.
        who: `local` (nobody had to say), `key NAME`, `operator NAME` or `worker ID`.
        action: The route or the command.
        subject: The path of the request, or what the command was about.
        facts: What changed in particular: names, digests, ids.
        address: Of the client; behind a proxy that is not trusted, the proxy's.
    """

    entry: int
    at: datetime
    who: str
    key_id: str | None
    action: str
    subject: str
    facts: dict[str, Any]
    address: str | None
    request_id: str | None


def record_change(session: Session) -> None:
    """Writes down the transaction in which it is called, if somebody acts in it."""
    actor = actor_of(session)
    if actor is None:
        return
    session.add(
        AuditRow(
            who=actor.who,
            key_id=actor.key_id,
            action=actor.action,
            subject=actor.subject[:MAX_SUBJECT],
            facts={**actor.facts, **told(session)},
            address=actor.address,
            request_id=actor.request_id,
        )
    )
    session.flush()


def list_audit(
    session: Session, *, before: int | None = None, key_id: str | None = None, limit: int = 100
) -> list[AuditRecord]:
    """The newest entries, newest first; those before an entry, or of one key, if so asked."""
    query = select(AuditRow).order_by(AuditRow.entry.desc()).limit(limit)
    if before is not None:
        query = query.where(AuditRow.entry < before)
    if key_id is not None:
        query = query.where(AuditRow.key_id == key_id)
    return [to_record(AuditRecord, row) for row in session.scalars(query)]

"""Browser sessions: a person who signed in with a key, known by a cookie until session or key ends."""

import re
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from catalog.changes import count_changes
from catalog.clock import now
from catalog.peppers import Pepper
from catalog.tables import SessionRow

TOKEN_FORM = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class NewSession:
    """A session that has just begun; the token is what the cookie holds, and is nowhere else."""

    token: str
    expires_at: datetime

    def __repr__(self) -> str:
        return f"NewSession(expires_at={self.expires_at!r})"


def begin_session(session: Session, pepper: Pepper, *, key_id: str, ttl: timedelta) -> NewSession:
    """The new session of the key; those that are over are forgotten."""
    session.execute(delete(SessionRow).where(SessionRow.expires_at <= now()))
    token = secrets.token_hex(32)
    expires_at = session.scalars(select(now())).one() + ttl
    session.add(SessionRow(digest=_digest(pepper, token), key_id=key_id, expires_at=expires_at))
    session.flush()
    return NewSession(token, expires_at)


def session_key(session: Session, pepper: Pepper, token: str) -> str | None:
    """The id of the key that the session was begun with; None where it is over or never was."""
    if TOKEN_FORM.fullmatch(token) is None:
        return None
    query = select(SessionRow.key_id).where(
        SessionRow.digest == _digest(pepper, token), SessionRow.expires_at > now()
    )
    return session.scalars(query).one_or_none()


def end_session(session: Session, pepper: Pepper, token: str) -> bool:
    """Whether there was such a session; it is over now."""
    return count_changes(session, delete(SessionRow).where(SessionRow.digest == _digest(pepper, token))) == 1


def csrf_token(pepper: Pepper, token: str) -> str:
    """What a page of ours sends beside the cookie; another site, which only has the cookie sent, cannot."""
    return pepper.digest("csrf", token)


def _digest(pepper: Pepper, token: str) -> str:
    # A lookup by hash, so nothing is compared letter by letter.
    return pepper.digest("session", token)

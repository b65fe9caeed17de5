"""API keys: made, recognised, revoked. Of a key only a keyed hash is kept; it is shown once, when made."""

import hmac
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal, get_args

from sqlalchemy import Select, delete, or_, select, update
from sqlalchemy.orm import Session

from catalog.actors import tell
from catalog.changes import count_changes
from catalog.clock import now
from catalog.errors import InvalidNameError, NoSuchRowError
from catalog.names import check_name
from catalog.peppers import Pepper
from catalog.records import to_record
from catalog.tables import ApiKeyRow, SessionRow

Role = Literal["read", "submit", "admin"]
ROLES: tuple[Role, ...] = get_args(Role)
"""Each may do what those before it may."""

KEY_FORM = re.compile(r"condu_([0-9a-f]{12})_([0-9a-f]{48})")
_PURPOSE = "api-key"


@dataclass(frozen=True)
class KeyLimits:
    """What a key may do at most; None is what the installation allows anyone.

    Attributes:
        requests_per_minute: Answered; more get 429.
        max_body_bytes: Of one request.
        max_jobs: That are not over, at once.
        max_models: That it made and that are still there.
        max_stored_bytes: Of blobs that were new when it or its jobs brought them.
    """

    requests_per_minute: int | None = None
    max_body_bytes: int | None = None
    max_jobs: int | None = None
    max_models: int | None = None
    max_stored_bytes: int | None = None


@dataclass(frozen=True)
class KeyRecord:
    """A key as the catalog knows it, which is not enough to use it.

    Attributes:
        key_id: Its middle part; no secret.
        name: What its maker calls it.
        models: Those it may touch; None for all, and for what belongs to the whole installation.
        pepper: Mark of the pepper it was hashed with.
    """

    key_id: str
    name: str
    role: str
    models: tuple[str, ...] | None
    pepper: str
    created_at: datetime
    created_by: str
    expires_at: datetime | None
    revoked_at: datetime | None
    requests_per_minute: int | None
    max_body_bytes: int | None
    max_jobs: int | None
    max_models: int | None
    max_stored_bytes: int | None

    def may(self, role: str) -> bool:
        """Whether the key's role is that one or more."""
        return ROLES.index(self.role) >= ROLES.index(role)

    def may_touch(self, model: str) -> bool:
        """Whether the model is one of the key's."""
        return self.models is None or model in self.models


@dataclass(frozen=True)
class NewKey:
    """A key that was just made; `secret` is the whole key, and is nowhere else."""

    record: KeyRecord
    secret: str

    def __repr__(self) -> str:
        return f"NewKey({self.record.key_id!r})"


def create_key(
    session: Session,
    pepper: Pepper,
    *,
    name: str,
    role: Role,
    models: Sequence[str] | None = None,
    ttl: timedelta | None = None,
    limits: KeyLimits | None = None,
    created_by: str,
) -> NewKey:
    """The new key, the only time that it is shown.

    Args:
        session: the caller's transaction.
        pepper: the installation's.
        name: what it is for; need not be unique.
        role: what it may do.
        models: the only models it may touch, which need not exist yet; None for all.
        ttl: how long it is good for; None for ever.
        limits: rates, sizes and quotas.
        created_by: who made it.

    Raises:
        InvalidNameError: it, or one of the models, may not be called that.
    """
    check_name(name, "key")
    if models is not None and not models:
        raise InvalidNameError("a key that may touch no model at all is of no use: name one, or leave it out")
    key_id, hidden = secrets.token_hex(6), secrets.token_hex(24)
    made_at = session.scalars(select(now())).one()
    row = ApiKeyRow(
        key_id=key_id,
        name=name,
        digest=_digest(pepper, key_id, hidden),
        pepper=pepper.mark,
        role=role,
        models=None if models is None else sorted({check_name(model, "model") for model in models}),
        created_at=made_at,
        created_by=created_by,
        expires_at=None if ttl is None else made_at + ttl,
        **vars(limits or KeyLimits()),
    )
    session.add(row)
    session.flush()
    tell(session, key=key_id, key_name=name, role=role, models=row.models)
    return NewKey(_record(row), f"condu_{key_id}_{hidden}")


def recognise_key(session: Session, pepper: Pepper, presented: str) -> KeyRecord | None:
    """The key that was presented, if it is one and is good now, by the database's clock."""
    match = KEY_FORM.fullmatch(presented)
    if match is None:
        return None
    row = session.scalars(_usable().where(ApiKeyRow.key_id == match[1])).one_or_none()
    # Compared also where there is no such key: an answer takes as long for a wrong id as for a wrong secret.
    expected = row.digest if row is not None else pepper.digest(_PURPOSE, "")
    is_right = hmac.compare_digest(_digest(pepper, match[1], match[2]), expected)
    return _record(row) if row is not None and is_right else None


def find_usable_key(session: Session, key_id: str) -> KeyRecord | None:
    """The key of that id, if it is not revoked and has not expired."""
    row = session.scalars(_usable().where(ApiKeyRow.key_id == key_id)).one_or_none()
    return None if row is None else _record(row)


def list_keys(session: Session) -> list[KeyRecord]:
    """All keys, newest first, also those that are of no use any more."""
    query = select(ApiKeyRow).order_by(ApiKeyRow.created_at.desc(), ApiKeyRow.key_id)
    return [_record(row) for row in session.scalars(query)]


def usable_keys(session: Session) -> list[KeyRecord]:
    """The keys that are good now."""
    return [_record(row) for row in session.scalars(_usable())]


def revoke_key(session: Session, key_id: str) -> KeyRecord:
    """The key, of no use from now on, its browser sessions over; revoking it again changes nothing.

    Raises:
        NoSuchRowError: there is none of that id.
    """
    row = session.get(ApiKeyRow, key_id, populate_existing=True)
    if row is None:
        raise NoSuchRowError(f"there is no key {key_id!r}: `condu keys list` shows those there are")
    unrevoked = update(ApiKeyRow).where(ApiKeyRow.key_id == key_id, ApiKeyRow.revoked_at.is_(None))
    count_changes(session, unrevoked.values(revoked_at=now()))
    session.execute(delete(SessionRow).where(SessionRow.key_id == key_id))
    tell(session, key=key_id, key_name=row.name)
    session.refresh(row)
    return _record(row)


def _usable() -> Select[ApiKeyRow]:
    is_fresh = or_(ApiKeyRow.expires_at.is_(None), ApiKeyRow.expires_at > now())
    return select(ApiKeyRow).where(ApiKeyRow.revoked_at.is_(None), is_fresh)


def _digest(pepper: Pepper, key_id: str, hidden: str) -> str:
    return pepper.digest(_PURPOSE, f"{key_id}:{hidden}")


def _record(row: ApiKeyRow) -> KeyRecord:
    return to_record(KeyRecord, row)

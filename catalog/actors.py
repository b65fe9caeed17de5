"""On whose behalf a transaction changes something: what it leaves behind in the audit log and in new rows."""

from dataclasses import dataclass, field
from typing import Any

from sqlalchemy.orm import Session

_ACTOR = "condu_actor"
_FACTS = "condu_facts"


@dataclass(frozen=True)
class Actor:
    """Who acts, and by which request.

    Attributes:
        who: What the audit log shows: `local`, `key NAME`, `operator NAME`, `worker ID`.
        action: What is being done: a route such as `POST /v1/models`, or a command.
        key_id: The API key that is answerable, if there is one; what is new counts against its quotas.
        subject: What it is done to: the path of the request.
        address: Where it came from.
        request_id: Finds it in the logs.
        facts: What is known beforehand, beside what the transaction's functions tell.
        has_quota: Whether more than the key may have is refused; what a job learned is kept all the same.
    """

    who: str
    action: str
    key_id: str | None = None
    subject: str = ""
    address: str | None = None
    request_id: str | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    has_quota: bool = True


def act(session: Session, actor: Actor) -> None:
    """Does all that follows in the session's transaction on behalf of the actor."""
    session.info[_ACTOR] = actor


def actor_of(session: Session) -> Actor | None:
    """On whose behalf the transaction is; None where nobody said."""
    actor: Actor | None = session.info.get(_ACTOR)
    return actor


def owner_of(session: Session) -> str | None:
    """The key that new rows belong to."""
    actor = actor_of(session)
    return None if actor is None else actor.key_id


def tell(session: Session, **facts: Any) -> None:
    """Adds to what the audit log will say of the transaction; names and digests, never secrets."""
    session.info.setdefault(_FACTS, {}).update(facts)


def told(session: Session) -> dict[str, Any]:
    """What the transaction's functions told of it."""
    facts: dict[str, Any] = session.info.get(_FACTS, {})
    return facts

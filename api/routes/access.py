"""Access: API keys, the browser's session, and the audit log."""

from datetime import timedelta
from typing import Annotated

from fastapi import APIRouter, Path, Query, Request, Response

from api.callers import caller_of
from api.dependencies import Installed, Services
from api.documentation import problems
from api.gate import COOKIE
from api.middleware import client_address, is_loopback
from api.refusals import UnauthenticatedError
from api.schemas.access import (
    AuditAnswer,
    AuditList,
    CreateKeyBody,
    KeyAnswer,
    KeyList,
    NewKeyAnswer,
    SessionAnswer,
    SignedOutAnswer,
    SignInBody,
)
from catalog.actors import Actor, act
from catalog.audit import AuditRecord, list_audit
from catalog.errors import InvalidNameError, NoSuchRowError, PepperMissingError
from catalog.keys import KeyLimits, KeyRecord, create_key, list_keys, revoke_key
from catalog.peppers import make_pepper
from catalog.quotas import Usage, usage_of
from catalog.sessions import begin_session, csrf_token, end_session

router = APIRouter(tags=["access"])
NEVER_KEPT = {"Cache-Control": "no-store"}

KeyId = Annotated[str, Path(description="The middle part of the key, which is no secret.", examples=["1f0c"])]


@router.post(
    "/keys",
    summary="Make an API key",
    status_code=201,
    response_description="The key; this answer is the only place where it is shown.",
    responses=problems(InvalidNameError, PepperMissingError),
)
def post_key(body: CreateKeyBody, response: Response, services: Installed) -> NewKeyAnswer:
    """Make a key with a role, for all models or some, for ever or for a time, with limits of its own or none.

    Only a keyed hash of it is kept: what is lost cannot be shown again, and is replaced by a new one.
    """
    pepper = make_pepper(services.settings)
    with services.catalog.transaction() as session:
        made = create_key(
            session,
            pepper,
            name=body.name,
            role=body.role,
            models=body.models,
            ttl=None if body.expires_in_s is None else timedelta(seconds=body.expires_in_s),
            limits=KeyLimits(**body.limits.model_dump()),
            created_by=services.caller.who,
        )
    response.headers.update(NEVER_KEPT)
    response.headers["Location"] = f"/v1/keys/{made.record.key_id}"
    return NewKeyAnswer(**dict(key_answer(made.record, Usage(0, 0, 0))), key=made.secret)


@router.get("/keys", summary="List the API keys", responses=problems())
def get_keys(services: Installed) -> KeyList:
    """All keys, the newest first, with what each uses of its quotas; none of them can be used from this."""
    with services.catalog.snapshot() as session:
        return KeyList(
            keys=[key_answer(record, usage_of(session, record.key_id)) for record in list_keys(session)]
        )


@router.delete("/keys/{key_id}", summary="Revoke an API key", responses=problems(NoSuchRowError))
def delete_key(key_id: KeyId, services: Installed) -> KeyAnswer:
    """Make a key useless, now here and within a second everywhere; the browsers signed in with it are out."""
    with services.catalog.transaction() as session:
        revoked = key_answer(revoke_key(session, key_id), usage_of(session, key_id))
    services.gate.forget()
    return revoked


@router.get("/audit", summary="Read the audit log", responses=problems())
def get_audit(
    services: Installed,
    before: Annotated[
        int | None, Query(ge=1, le=2**31 - 1, description="Only entries before this one.", examples=[100])
    ] = None,
    key_id: Annotated[str | None, Query(alias="key", description="Only what this key (its id) did.")] = None,
    limit: Annotated[int, Query(ge=1, le=1000, description="At most so many.")] = 100,
) -> AuditList:
    """Every change, the newest first: who made it, what it was, when, and from where."""
    with services.catalog.snapshot() as session:
        records = list_audit(session, before=before, key_id=key_id, limit=limit)
    return AuditList(entries=[audit_answer(record) for record in records])


@router.post(
    "/session",
    summary="Sign a browser in",
    status_code=201,
    response_description="The browser is signed in: its cookie is set.",
    responses=problems(UnauthenticatedError),
)
def post_session(
    body: SignInBody, request: Request, response: Response, services: Installed
) -> SessionAnswer:
    """Exchange a key for a cookie that no script can read and no other site can have sent.

    What changes something must then carry the answer's `csrf_token` as X-CSRF-Token. The session ends when
    it is signed out, when its time is over, or when the key ends.
    """
    presented = body.api_key.get_secret_value()
    found = services.gate.identify(presented, client_address(request.scope))
    pepper = services.gate.pepper()
    assert pepper is not None  # noqa: S101 - a key was recognised with it
    with services.catalog.transaction() as session:
        act(session, _signing_in(request, found))
        begun = begin_session(
            session, pepper, key_id=found.key_id, ttl=timedelta(seconds=services.settings.session_s)
        )
    response.set_cookie(
        COOKIE,
        begun.token,
        max_age=int(services.settings.session_s),
        httponly=True,
        samesite="strict",
        secure=_cookies_are_secure(services),
    )
    response.headers.update(NEVER_KEPT)
    return session_answer(found, csrf_token(pepper, begun.token))


@router.get("/session", summary="Tell who asks", responses=problems())
def get_session(request: Request, response: Response) -> SessionAnswer:
    """Who the service takes the caller for, and what they may do; a signed-in browser gets its csrf_token."""
    caller = caller_of(request)
    response.headers.update(NEVER_KEPT)
    return session_answer(caller.key, caller.csrf_token)


@router.delete("/session", summary="Sign a browser out", responses=problems())
def delete_session(request: Request, response: Response, services: Installed) -> SignedOutAnswer:
    """End the browser's session, whether or not there is one, and take its cookie away."""
    pepper, token = services.gate.pepper(), request.cookies.get(COOKIE, "")
    ended = False
    if pepper is not None and token:
        with services.catalog.transaction() as session:
            ended = end_session(session, pepper, token)
        services.gate.forget()
    response.delete_cookie(COOKIE, httponly=True, samesite="strict", secure=_cookies_are_secure(services))
    return SignedOutAnswer(signed_out=ended)


def key_answer(record: KeyRecord, usage: Usage) -> KeyAnswer:
    """The record as the api shows it: not the hash."""
    return KeyAnswer(
        id=record.key_id,
        name=record.name,
        role=record.role,
        models=None if record.models is None else list(record.models),
        created_at=record.created_at,
        created_by=record.created_by,
        expires_at=record.expires_at,
        revoked_at=record.revoked_at,
        limits={
            "requests_per_minute": record.requests_per_minute,
            "max_body_bytes": record.max_body_bytes,
            "max_jobs": record.max_jobs,
            "max_models": record.max_models,
            "max_stored_bytes": record.max_stored_bytes,
        },
        usage=vars(usage),
    )


def audit_answer(record: AuditRecord) -> AuditAnswer:
    """The record as the api shows it."""
    return AuditAnswer(
        entry=record.entry,
        at=record.at,
        who=record.who,
        key=record.key_id,
        action=record.action,
        subject=record.subject,
        facts=record.facts,
        address=record.address,
        request_id=record.request_id,
    )


def session_answer(found: KeyRecord | None, token: str | None) -> SessionAnswer:
    """Who that is; without a key, somebody on loopback, who may do everything."""
    return SessionAnswer(
        key=None if found is None else found.key_id,
        name="local" if found is None else found.name,
        role="admin" if found is None else found.role,
        models=None if found is None or found.models is None else list(found.models),
        csrf_token=token,
    )


def _signing_in(request: Request, found: KeyRecord) -> Actor:
    return Actor(
        who=f"key {found.name}",
        action="POST /v1/session",
        key_id=found.key_id,
        subject=request.url.path,
        address=client_address(request.scope),
        request_id=request.scope["state"]["request_id"],
    )


def _cookies_are_secure(services: Services) -> bool:
    asked = services.settings.secure_cookies
    return not is_loopback(services.settings.host) if asked is None else asked

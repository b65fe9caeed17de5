"""Bodies about access: keys, sessions, the audit log."""

from datetime import datetime
from typing import Annotated, Any

from pydantic import Field, SecretStr

from api.schemas.shapes import Answer, Name, RequestBody, example_of, with_example
from catalog.keys import Role

Limit = Annotated[int, Field(ge=1, le=2**31 - 1)]
LimitBytes = Annotated[int, Field(ge=1, le=2**62)]
TEN_YEARS_S = 10 * 366 * 86400

LIMITS = {
    "requests_per_minute": 600,
    "max_body_bytes": None,
    "max_jobs": 4,
    "max_models": None,
    "max_stored_bytes": 50 * 2**30,
}


class KeyLimitsBody(RequestBody):
    """What a key may do at most; what is left out is what the installation allows anyone."""

    requests_per_minute: Limit | None = Field(
        default=None, description="Requests a minute that are answered."
    )
    max_body_bytes: LimitBytes | None = Field(default=None, description="Bytes of one request.")
    max_jobs: Limit | None = Field(default=None, description="Jobs that are not over, at once.")
    max_models: Limit | None = Field(
        default=None, description="Models that it made and that are still there."
    )
    max_stored_bytes: LimitBytes | None = Field(
        default=None, description="Bytes of blobs that it or its jobs brought and that no sweep has removed."
    )


class CreateKeyBody(RequestBody):
    """A key that is wanted."""

    model_config = RequestBody.model_config | with_example(
        name="ci", role="submit", models=["animals"], expires_in_s=7776000, limits=LIMITS
    )

    name: Name
    role: Role = Field(description="`read` asks, `submit` adds, `admin` takes away and governs.")
    models: Annotated[list[Name], Field(min_length=1, max_length=1000)] | None = Field(
        None, description="The only models that it may touch; they need not exist yet. Without it, all."
    )
    expires_in_s: Annotated[float, Field(gt=0, le=TEN_YEARS_S, allow_inf_nan=False)] | None = Field(
        None, description="For how many seconds it is good; without it, until it is revoked."
    )
    limits: KeyLimitsBody = Field(
        default_factory=KeyLimitsBody, description="Rates, sizes and quotas of its own."
    )


class KeyAnswer(Answer):
    """A key, but for what makes it one."""

    model_config = with_example(
        id="1f0c9e2ab344",
        name="ci",
        role="submit",
        models=["animals"],
        created_at="2026-11-22T16:00:00Z",
        created_by="key root",
        expires_at=None,
        revoked_at=None,
        limits=LIMITS,
        usage={"jobs": 1, "models": 1, "stored_bytes": 7_340_032},
    )

    id: str = Field(description="Its middle part, which is no secret.")
    name: str
    role: str
    models: list[str] | None = Field(description="The only models that it may touch; null for all.")
    created_at: datetime
    created_by: str
    expires_at: datetime | None
    revoked_at: datetime | None
    limits: dict[str, int | None]
    usage: dict[str, int] = Field(description="What counts against its quotas now.")


class NewKeyAnswer(KeyAnswer):
    """A key that was just made."""

    model_config = with_example(
        **example_of(KeyAnswer), key="condu_1f0c9e2ab344_(48 hexadecimal digits, shown only here)"
    )

    key: str = Field(description="The whole key. It is nowhere else: keep it.")


class KeyList(Answer):
    """All keys, the newest first."""

    model_config = with_example(keys=[example_of(KeyAnswer)])

    keys: list[KeyAnswer]


class SignInBody(RequestBody):
    """What a browser signs in with."""

    model_config = RequestBody.model_config | with_example(api_key="condu_...")

    api_key: SecretStr = Field(max_length=200, description="An API key.")


class SessionAnswer(Answer):
    """Who the service takes the caller for."""

    model_config = with_example(
        key="1f0c9e2ab344",
        name="ci",
        role="submit",
        models=None,
        csrf_token="9f86d081884c7d65...",  # noqa: S106 - an example
    )

    key: str | None = Field(description="Id of the key; null on loopback, where none is needed.")
    name: str
    role: str
    models: list[str] | None = Field(description="The only models that may be touched; null for all.")
    csrf_token: str | None = Field(
        description="What a signed-in browser sends as X-CSRF-Token; null for everybody else."
    )


class SignedOutAnswer(Answer):
    """Whether a session was ended."""

    model_config = with_example(signed_out=True)

    signed_out: bool


class AuditAnswer(Answer):
    """A change."""

    model_config = with_example(
        entry=17,
        at="2026-11-22T16:00:00Z",
        who="key ci",
        key="1f0c9e2ab344",
        action="POST /v1/models/{model}/tasks",
        subject="/v1/models/animals/tasks",
        facts={"job": "6f1c1c34-9a53-4a3f-8f0e-1f6a5a9f2b11", "model": "animals", "task": "pets"},
        address="10.1.2.3",
        request_id="4d0b7f3a1c9e4e0c8f3a",
    )

    entry: int
    at: datetime
    who: str = Field(description="`local`, `key NAME`, `operator NAME` or `worker ID`.")
    key: str | None = Field(description="Id of the key that is answerable for it.")
    action: str = Field(description="The route or the command.")
    subject: str
    facts: dict[str, Any] = Field(description="What changed in particular: names, digests, ids.")
    address: str | None
    request_id: str | None = Field(description="Finds the request in the logs of api and worker.")


class AuditList(Answer):
    """Changes, the newest first."""

    model_config = with_example(entries=[example_of(AuditAnswer)])

    entries: list[AuditAnswer]

"""Who makes a request, and what it may touch; the gate puts it into the request's state."""

from dataclasses import dataclass

from starlette.requests import Request

from api.refusals import ForbiddenError
from catalog.actors import Actor
from catalog.keys import KeyRecord


@dataclass(frozen=True)
class Caller:
    """Somebody who may be here.

    Attributes:
        key: What they identified themselves with; None on loopback, where nobody has to, and for what is
            open to all.
        csrf_token: Of their browser session, where that is how they identified themselves.
    """

    key: KeyRecord | None = None
    csrf_token: str | None = None

    @property
    def who(self) -> str:
        """As the audit log shows them."""
        return "local" if self.key is None else f"key {self.key.name}"

    @property
    def is_bound(self) -> bool:
        """Whether they may touch some models only."""
        return self.key is not None and self.key.models is not None

    def may_touch(self, model: str) -> bool:
        """Whether the model is one of theirs."""
        return self.key is None or self.key.may_touch(model)

    def require_model(self, model: str) -> None:
        """Nothing, when the model is one of theirs.

        Raises:
            ForbiddenError: It is not; whether there is such a model is not said.
        """
        if not self.may_touch(model):
            raise ForbiddenError(f"the key may not touch model {model[:80]!r}")


LOCAL = Caller()


def caller_of(request: Request) -> Caller:
    """Who makes the request."""
    caller: Caller = request.scope.get("state", {}).get("caller", LOCAL)
    return caller


def actor_for(request: Request) -> Actor:
    """The caller as the catalog records it."""
    state, caller = request.scope.get("state", {}), caller_of(request)
    return Actor(
        who=caller.who,
        action=state.get("route") or f"{request.method} {request.url.path}",
        key_id=None if caller.key is None else caller.key.key_id,
        subject=request.url.path,
        address=None if request.client is None else request.client.host,
        request_id=state.get("request_id"),
    )

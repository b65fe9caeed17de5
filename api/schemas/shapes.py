"""What every body of the api shares: strict requests, plain answers, names and digests with examples."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

Name = Annotated[str, Field(min_length=1, max_length=63, examples=["pets"])]
"""The catalog's own rule decides and explains itself; this bound keeps absurd names out of messages."""

Digest = Annotated[str, Field(examples=["9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"])]


class RequestBody(BaseModel):
    """A JSON body a client sends; unknown fields are refused, lest a misspelt option be a silent default."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Answer(BaseModel):
    """A JSON body the service sends."""

    model_config = ConfigDict(frozen=True)


class Problem(BaseModel):
    """What went wrong and what helps (RFC 9457); some kinds have more members, such as `tensor`."""

    model_config = ConfigDict(extra="allow", frozen=True)

    type: str = Field(
        description="Stable name of the kind of problem; a GET of it explains it.",
        examples=["/problems/not-found"],
    )
    title: str = Field(description="The kind of problem in words.")
    status: int = Field(description="The HTTP status of the answer.")
    detail: str = Field(description="What happened this time.")
    remedy: str = Field(description="What the caller can do.")
    instance: str | None = Field(None, description="The path of the request.")
    request_id: str | None = Field(None, description="Finds the request in the log of the service.")


def with_example(**example: Any) -> ConfigDict:
    """The configuration of a body that carries one whole example into OpenAPI."""
    return ConfigDict(json_schema_extra={"examples": [example]})


def example_of(body: type[BaseModel]) -> Any:
    """The whole example that a body carries."""
    extra: Any = body.model_config["json_schema_extra"]
    return extra["examples"][0]

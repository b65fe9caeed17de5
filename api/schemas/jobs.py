"""Bodies about jobs: what takes long."""

from datetime import datetime
from typing import Any

from pydantic import Field

from api.schemas.shapes import Answer, Name, example_of, with_example


class JobAnswer(Answer):
    """A job."""

    model_config = with_example(
        id="6f1c1c34-9a53-4a3f-8f0e-1f6a5a9f2b11",
        kind="train",
        model="animals",
        task="pets",
        state="running",
        attempt=1,
        cancel_requested=False,
        progress={"step": 120, "steps": 1000, "loss": 1.31, "images_per_s": 40.0, "eta_s": 1408.0},
        result=None,
        error=None,
        created_at="2026-11-22T16:00:00Z",
        started_at="2026-11-22T16:00:01Z",
        finished_at=None,
        key="1f0c9e2ab344",
        request_id="4d0b7f3a1c9e4e0c8f3a",
    )

    id: str
    kind: str = Field(description="`train` or `import`.")
    model: Name
    task: str
    state: str = Field(description="`queued`, `running`, `succeeded`, `failed` or `cancelled`.")
    attempt: int = Field(description="How often it was started; more than 1 after a worker died.")
    cancel_requested: bool
    progress: dict[str, Any] | None
    result: dict[str, Any] | None = Field(description="What came of it, once it succeeded.")
    error: dict[str, Any] | None = Field(description="`title`, `detail` and `remedy`, once it failed.")
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    key: str | None = Field(None, description="Id of the API key that submitted it, where one was used.")
    request_id: str | None = Field(
        None, description="Of the request that submitted it; finds it in the logs of api and worker."
    )


class JobList(Answer):
    """Jobs, the newest first."""

    model_config = with_example(jobs=[example_of(JobAnswer)])

    jobs: list[JobAnswer]

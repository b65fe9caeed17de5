"""Bodies about the whole installation: its health, its statistics, its maintenance."""

from typing import Any, Literal

from pydantic import Field

from api.schemas.shapes import Answer, RequestBody, with_example

Status = Literal["ok", "degraded", "failing"]


class PartHealth(Answer):
    """One part of the installation."""

    model_config = with_example(status="ok", detail="the device beat 0.2 s ago; 3 of 2048 images wait")

    status: Status
    detail: str = Field(description="What was looked at, and what was found.")


class HealthAnswer(Answer):
    """`ok`: all is well. `degraded`: answers are given, but something is wrong. `failing`: none are (503)."""

    model_config = with_example(
        status="degraded",
        parts={
            "catalog": {"status": "ok", "detail": "reachable, at the newest schema"},
            "disk": {"status": "ok", "detail": "48318382080 bytes free"},
            "device": {"status": "ok", "detail": "the device beat 0.2 s ago; 3 of 2048 images wait"},
            "residents": {"status": "ok", "detail": "2 experts and bases are held in memory"},
            "heads": {"status": "ok", "detail": "2 of 2 heads readable"},
            "workers": {
                "status": "degraded",
                "detail": "no worker is alive: jobs wait; start one with `condu worker`",
            },
        },
    )

    status: Status
    parts: dict[str, PartHealth] = Field(
        description="`catalog`, `device`, `disk`, `heads`, `residents` and `workers`."
    )


class WorkerAnswer(Answer):
    """A worker process."""

    worker: str
    host: str
    pid: int
    device: str
    is_alive: bool


class StatsAnswer(Answer):
    """The whole installation in figures."""

    model_config = with_example(
        version="0.1.0",
        bases=1,
        models=2,
        tasks=7,
        revisions=9,
        datasets=7,
        jobs={"queued": 0, "running": 1, "succeeded": 8, "failed": 0, "cancelled": 0},
        workers=[{"worker": "w-1", "host": "gpu-1", "pid": 4711, "device": "cuda:0", "is_alive": True}],
        blobs=41,
        blob_bytes=1_405_000_000,
        blob_bytes_by_kind={"base": 598_500_000, "mask": 130_900_000},
        disk_free_bytes=48_318_382_080,
        expert_cache={"entries": 3, "leased": 0, "size_bytes": 1_795_500_000, "hits": 120, "misses": 3},
        class_weight_cache={"entries": 4, "leased": 0, "size_bytes": 80_000, "hits": 110, "misses": 4},
    )

    version: str
    bases: int
    models: int
    tasks: int = Field(description="Tasks that heads serve.")
    revisions: int = Field(description="Revisions that have not expired.")
    datasets: int
    jobs: dict[str, int]
    workers: list[WorkerAnswer]
    blobs: int
    blob_bytes: int = Field(description="All blobs on disk, needed or not; a sweep removes what is not.")
    blob_bytes_by_kind: dict[str, int] = Field(description="As recorded when they were written.")
    disk_free_bytes: int
    expert_cache: dict[str, int]
    class_weight_cache: dict[str, int]


class SweepBody(RequestBody):
    """What a sweep may remove."""

    model_config = with_example(delete=True, keep_revisions=1, grace_s=3600)

    delete: bool = Field(
        default=False, description="Without it, the report says what would be removed, and nothing is."
    )
    keep_revisions: int | None = Field(
        None,
        ge=1,
        description="Newest revisions of each model to keep, counted back from its head, which stays.",
    )
    grace_s: float | None = Field(
        None,
        ge=0,
        allow_inf_nan=False,
        description="Blobs younger than this stay: a job that is not done may need them.",
    )


class ProgressLine(Answer):
    """How far the work is."""

    done_bytes: int
    total_bytes: int


class VerifyReport(Answer):
    """What a verification found."""

    ok: bool
    verified_bytes: int
    problems: list[str]


class SweepSummary(Answer):
    """What a sweep removed, or would remove."""

    deleted: bool
    num_removed: int
    bytes_freed: int
    bytes_kept: int
    too_young: int = Field(description="Unneeded blobs that stay because of the grace period.")
    digests: list[str]
    expired_revisions: list[str] = Field(
        description="Revisions that cannot be used any more, as `model@number`."
    )


class VerifyLine(Answer):
    """One line of the stream: progress, the report at the end, or the problem that ended it."""

    model_config = with_example(report={"ok": True, "verified_bytes": 1_405_000_000, "problems": []})

    progress: ProgressLine | None = None
    report: VerifyReport | None = None
    problem: dict[str, Any] | None = None


class SweepLine(Answer):
    """One line of the stream: progress, the report at the end, or the problem that ended it."""

    model_config = with_example(
        report={
            "deleted": True,
            "num_removed": 2,
            "bytes_freed": 37_400_000,
            "bytes_kept": 1_405_000_000,
            "too_young": 0,
            "digests": ["9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"],
            "expired_revisions": ["animals@1"],
        }
    )

    progress: ProgressLine | None = None
    report: SweepSummary | None = None
    problem: dict[str, Any] | None = None


class ProblemKindAnswer(Answer):
    """What a `type` of a problem means."""

    model_config = with_example(
        type="/problems/not-found",
        title="There is nothing of that name",
        status=404,
        remedy="list what exists, and check the spelling",
        members=[],
    )

    type: str
    title: str
    status: int
    remedy: str
    members: list[str] = Field(description="Members its bodies have beside the usual ones.")

"""A job followed to its end, with its progress on stderr."""

from collections.abc import Callable
from typing import Any

from rich.markup import escape

from cli.answers import JobAnswer
from cli.client import Client
from cli.errors import JobFailedError
from cli.output import Output
from cli.progress import job_gauge


def follow(
    client: Client,
    output: Output,
    job: JobAnswer,
    *,
    on_progress: Callable[[dict[str, Any]], None] = lambda _: None,
) -> JobAnswer:
    """The job once it has ended; its log and progress are shown on the way."""
    with job_gauge(output, f"{job.kind or 'job'} {job.task or job.id}") as show:
        for event in client.watch_job(job.id):
            if event.kind == "progress":
                show(event.body)
                on_progress(event.body)
            elif event.kind == "log":
                output.note(f"[dim]{escape(str(event.body.get('text', '')))}[/]")
    return client.get_job(job.id)


def succeeded(job: JobAnswer) -> JobAnswer:
    """The job, when it did what it was asked; JobFailedError with its own words when not."""
    if job.state == "succeeded":
        return job
    error = job.error or {}
    raise JobFailedError(
        str(error.get("title") or f"the job was {job.state}"),
        detail=str(error.get("detail") or ""),
        remedy=str(error.get("remedy") or ""),
        next_command=f"condu jobs show {job.id}",
        body={"job": job.to_dict()},
    )

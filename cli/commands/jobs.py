"""`condu jobs`: what takes long, and how far it is."""

from typing import Annotated, Any, Literal

import typer

from cli.answers import JobAnswer
from cli.options import DEFAULT_URL, JobArgument, JsonOption, UrlOption, example
from cli.output import Output, connected
from cli.progress import job_words

app = typer.Typer(no_args_is_help=True, help="Jobs: what takes long, and how far it is.")


@app.command("list", epilog=example("condu jobs list", "condu jobs list --model zoo --state running"))
def list_all(
    *,
    model: Annotated[str | None, typer.Option(help="Only jobs of this model.")] = None,
    state: Annotated[
        Literal["queued", "running", "succeeded", "failed", "cancelled"] | None,
        typer.Option(help="Only jobs like this."),
    ] = None,
    url: UrlOption = DEFAULT_URL,
    as_json: JsonOption = False,
) -> None:
    """List the jobs, newest first."""
    with connected(url, as_json=as_json) as (client, output):
        jobs = client.list_jobs(model=model, state=state)
        output.result({"jobs": [job.to_dict() for job in jobs]})
        rows = [(job.id, job.kind, job.model, job.task, job.state, progress_of(job)) for job in jobs]
        output.table(("job", "kind", "model", "task", "state", "progress"), rows)


@app.command("show", epilog=example("condu jobs show JOB"))
def show(job_id: JobArgument, *, url: UrlOption = DEFAULT_URL, as_json: JsonOption = False) -> None:
    """Show one job: its state, progress, result or error."""
    with connected(url, as_json=as_json) as (client, output):
        job = client.get_job(job_id)
        output.result(job.to_dict())
        show_job(output, job)


@app.command("watch", epilog=example("condu jobs watch JOB"))
def watch(job_id: JobArgument, *, url: UrlOption = DEFAULT_URL, as_json: JsonOption = False) -> None:
    """Follow a job to its end; exit code 1 when it does not succeed."""
    from cli.watching import follow, succeeded

    with connected(url, as_json=as_json) as (client, output):
        job = succeeded(follow(client, output, client.get_job(job_id)))
        output.result(job.to_dict())
        show_job(output, job)


@app.command("cancel", epilog=example("condu jobs cancel JOB"))
def cancel(job_id: JobArgument, *, url: UrlOption = DEFAULT_URL, as_json: JsonOption = False) -> None:
    """Cancel a job; one that runs stops within seconds, and the model stays as it was."""
    with connected(url, as_json=as_json) as (client, output):
        job = client.cancel_job(job_id)
        output.result(job.to_dict())
        output.say(f"job {job.id}: {'cancelled' if job.state == 'cancelled' else 'will be cancelled'}")


def show_job(output: Output, job: JobAnswer) -> None:
    """A job in full."""
    rows: list[tuple[str, object]] = [
        ("kind", job.kind),
        ("model", job.model),
        ("task", job.task),
        ("state", job.state),
        ("attempt", job.attempt),
        ("progress", progress_of(job) or None),
    ]
    rows += [(f"result: {name}", plain(value)) for name, value in (job.result or {}).items()]
    rows += [(f"error: {name}", plain(value)) for name, value in (job.error or {}).items()]
    output.table(("job", job.id), rows)


def progress_of(job: JobAnswer) -> str:
    """How far a job is, in one line."""
    if job.state == "succeeded":
        return ""
    progress = job.progress or {}
    steps = f"{progress.get('step')}/{progress['steps']}" if progress.get("steps") else ""
    return " ".join(part for part in (steps, job_words(progress, with_eta=not job.ended)) if part)


def plain(value: Any) -> str:
    """A value of a result in one cell."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)

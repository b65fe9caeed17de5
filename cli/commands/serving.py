"""`condu serve`, `api`, `worker` and `migrate`: the service itself, on this machine."""

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from cli.errors import CommandFailedError, CommandUsageError
from cli.options import DataOption, JsonOption
from cli.output import Output, command

if TYPE_CHECKING:
    from catalog.settings import Settings

HostOption = Annotated[
    str | None, typer.Option(help="Address to listen on; else CONDU_HOST, else 127.0.0.1.")
]
PortOption = Annotated[
    int | None,
    typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one; else CONDU_PORT, else 8000."),
]


def serve(
    *,
    folder: DataOption = None,
    host: HostOption = None,
    port: PortOption = None,
    as_json: JsonOption = False,
) -> None:
    """Run the whole service: api and worker as child processes, restarted when they crash, until Ctrl-C."""
    from cli.ports import free_port, refuse_taken_port
    from cli.readiness import ailments, wait_until_ready
    from cli.supervisor import Child, Supervisor, condu_command

    with command(as_json=as_json) as output:
        settings = settings_of(data=folder, host=host, port=port)
        port = settings.port or free_port(settings.host)
        refuse_taken_port(settings.host, port)
        prepare(settings, output)
        refuse_unguarded(settings)
        environment = {**os.environ, **environment_of(settings), "CONDU_PORT": str(port)}
        children = [Child(name, condu_command(name), environment) for name in ("api", "worker")]
        url = f"http://{bracketed(settings.host)}:{port}"

        def when_started(goes_on: Callable[[], bool]) -> None:
            health = wait_until_ready(f"http://{reachable(settings.host)}:{port}", goes_on=goes_on)
            if health is not None:
                output.result({"url": url, "data": str(settings.data.absolute()), "pid": os.getpid()})
                output.say(f"[bold]condu is ready:[/] {url}")
                output.say(f"data folder: {escape(str(settings.data.absolute()))}\nCtrl-C stops it")
                for ailment in ailments(health):
                    output.note(f"[yellow]not well:[/] {escape(ailment)}")

        Supervisor(children, stop_timeout_s=settings.stop_timeout_s + 20, say=output.note).run(
            on_start=when_started
        )
        output.note("stopped")


def api(
    *,
    folder: DataOption = None,
    host: HostOption = None,
    port: PortOption = None,
    as_json: JsonOption = False,
) -> None:
    """Run the api alone: HTTP in, HTTP out. `condu serve` runs it together with a worker."""
    from api.main import run

    with command(as_json=as_json) as output:

        def when_ready(url: str) -> None:
            output.result({"url": url, "pid": os.getpid()})
            output.say(f"the api listens on {url}")

        settings = settings_of(data=folder, host=host, port=port)
        prepare(settings, output)
        refuse_unguarded(settings)
        run(settings, when_ready)


def worker(*, folder: DataOption = None, as_json: JsonOption = False) -> None:
    """Run one worker: it takes jobs from the catalog, trains and folds. Start one per device."""
    from api.logs import configure_logs
    from worker.main import run
    from worker.training.team import TooFewDevicesError

    with command(as_json=as_json) as output:
        configure_logs()  # the same lines as the api's, so that one log tells both stories
        settings = settings_of(data=folder)
        output.result({"data": str(settings.data.absolute()), "pid": os.getpid()})
        try:
            run(settings)
        except TooFewDevicesError as error:
            raise CommandUsageError(str(error), remedy="lower CONDU_TRAINING_PROCESSES") from error


def migrate(*, folder: DataOption = None, as_json: JsonOption = False) -> None:
    """Bring the catalog to this version's schema; does nothing when it is there."""
    with command(as_json=as_json) as output:
        settings = settings_of(data=folder)
        prepare(settings, output)
        output.result({"catalog": shown_url(settings), "migrated": True})
        output.say(f"the catalog {shown_url(settings)} is up to date")


def settings_of(**given: Any) -> "Settings":
    """The installation's settings: the command line, else the environment, else the defaults."""
    from pydantic import ValidationError

    from catalog.settings import Settings

    try:
        return Settings(**{name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        reasons = "; ".join(f"{'.'.join(map(str, line['loc']))}: {line['msg']}" for line in error.errors())
        raise CommandUsageError(
            "a setting is wrong", detail=reasons, remedy="correct the CONDU_... variable"
        ) from error


def prepare(settings: "Settings", output: Output) -> None:
    """The data folder and a catalog of this version's schema."""
    from catalog import upgrade

    try:
        settings.data.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CommandFailedError(
            f"the data folder {settings.data} cannot be made",
            detail=str(error),
            remedy="name another with --data",
        ) from error
    with output.stderr.status("migrating the catalog"):
        upgrade(settings.catalog_url)


def refuse_unguarded(settings: "Settings") -> None:
    """Nothing, when the service may listen there; CommandFailedError with the way out when it needs a key."""
    from api.gate import UnguardedError, check_guarded
    from catalog import Catalog
    from catalog.errors import CatalogError

    catalog = Catalog(settings)
    try:
        check_guarded(settings, catalog)
    except UnguardedError as error:
        raise CommandFailedError(
            "others could reach the service, and nothing would keep them out",
            detail=str(error),
            remedy="make a key, then start the service again; or listen on 127.0.0.1",
            next_command=f"condu keys create root --role admin --data {settings.data}",
        ) from error
    except CatalogError as error:
        raise CommandFailedError("the API keys cannot be checked", detail=str(error)) from error
    finally:
        catalog.close()


def environment_of(settings: "Settings") -> dict[str, str]:
    """What makes a child read the same settings; the rest is in our environment already."""
    return {"CONDU_DATA": str(settings.data.absolute()), "CONDU_HOST": settings.host}


def reachable(host: str) -> str:
    """Where a process of this machine reaches a service that listens on `host`, as a URL writes it."""
    return bracketed({"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host))  # noqa: S104 (read, not bound)


def bracketed(host: str) -> str:
    """A host as a URL writes it."""
    return f"[{host}]" if ":" in host else host


def shown_url(settings: "Settings") -> str:
    """The catalog's URL without a password."""
    scheme, _, rest = settings.catalog_url.partition("://")
    return f"{scheme}://{rest.rsplit('@', 1)[-1]}"

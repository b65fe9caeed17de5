"""`condu keys`: who may call the service. On this machine's catalog, so that there can be a first key."""

import getpass
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.markup import escape

from cli.commands.serving import prepare, settings_of
from cli.errors import CommandFailedError, CommandUsageError
from cli.options import DataOption, JsonOption, example
from cli.output import Output, command

if TYPE_CHECKING:
    from catalog import Catalog, Settings
    from catalog.keys import KeyRecord

app = typer.Typer(
    no_args_is_help=True,
    help="Keys: who may call the service, and what they may do. They work on the catalog itself, not through "
    "the service.",
)

UNITS = {"m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
SIZES = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
LimitOption = Annotated[int | None, typer.Option(min=1, max=2**31 - 1)]


@app.command(
    "create",
    epilog=example(
        "condu keys create root --role admin",
        "condu keys create ci --role submit --model zoo --expires 90d --max-jobs 4",
    ),
)
def create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What the key is for.")],
    *,
    role: Annotated[
        Literal["read", "submit", "admin"],
        typer.Option(help="read asks, submit adds, admin takes away and governs."),
    ],
    models: Annotated[
        list[str] | None, typer.Option("--model", help="The only model it may touch; repeat for more.")
    ] = None,
    expires: Annotated[
        str | None, typer.Option(metavar="TIME", help="For how long it is good: 12h, 90d, 52w.")
    ] = None,
    requests_per_minute: LimitOption = None,
    max_body: Annotated[
        str | None, typer.Option(metavar="SIZE", help="Bytes of one request: 500M, 2G.")
    ] = None,
    max_jobs: LimitOption = None,
    max_models: LimitOption = None,
    max_stored: Annotated[
        str | None, typer.Option(metavar="SIZE", help="Bytes that it may have stored: 500M, 2G.")
    ] = None,
    folder: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make an API key, and show it this once."""
    with opened(folder, as_json=as_json) as (settings, catalog, output):
        from catalog.keys import KeyLimits, create_key
        from catalog.peppers import make_pepper

        pepper = make_pepper(settings)
        with acting(catalog, "condu keys create").transaction() as session:
            made = create_key(
                session,
                pepper,
                name=name,
                role=role,
                models=models or None,
                ttl=None if expires is None else time_of(expires),
                limits=KeyLimits(
                    requests_per_minute=requests_per_minute,
                    max_body_bytes=None if max_body is None else size_of(max_body),
                    max_jobs=max_jobs,
                    max_models=max_models,
                    max_stored_bytes=None if max_stored is None else size_of(max_stored),
                ),
                created_by=operator(),
            )
        output.result({**document(made.record), "key": made.secret})
        output.say(made.secret)
        output.note(
            f"This is the key {escape(name)}, shown only now. Clients send it as "
            "`Authorization: Bearer ...`, the commands as CONDU_API_KEY."
        )


@app.command("list", epilog=example("condu keys list"))
def list_all(*, folder: DataOption = None, as_json: JsonOption = False) -> None:
    """List the keys; none of them can be used from this."""
    with opened(folder, as_json=as_json) as (_, catalog, output):
        from catalog.keys import list_keys

        with catalog.snapshot() as session:
            keys = list_keys(session)
        output.result({"keys": [document(record) for record in keys]})
        rows = [
            (
                record.key_id,
                record.name,
                record.role,
                "all" if record.models is None else ", ".join(record.models),
                shown_time(record.expires_at),
                shown_time(record.revoked_at),
            )
            for record in keys
        ]
        output.table(("id", "name", "role", "models", "expires", "revoked"), rows)


@app.command("revoke", epilog=example("condu keys revoke ID"))
def revoke(
    key_id: Annotated[str, typer.Argument(metavar="ID", help="The key's id: its middle part.")],
    *,
    folder: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a key useless, within a second everywhere, and sign out the browsers that came in with it."""
    with opened(folder, as_json=as_json) as (_, catalog, output):
        from catalog.keys import revoke_key

        with acting(catalog, "condu keys revoke").transaction() as session:
            revoked = revoke_key(session, key_id)
        output.result(document(revoked))
        output.say(f"the key {escape(revoked.name)} ({revoked.key_id}) is of no use any more")


@contextmanager
def opened(folder: Any, *, as_json: bool) -> Iterator[tuple["Settings", "Catalog", Output]]:
    """The installation's catalog, at this version's schema; its refusals as errors of the command."""
    with command(as_json=as_json) as output:
        from catalog import Catalog
        from catalog.errors import CatalogError, NoSuchRowError

        settings = settings_of(data=folder)
        prepare(settings, output)
        catalog = Catalog(settings)
        try:
            yield settings, catalog, output
        except NoSuchRowError as error:
            raise CommandFailedError(
                "there is no such key", detail=str(error), next_command="condu keys list"
            ) from error
        except CatalogError as error:
            raise CommandFailedError("the catalog refused", detail=str(error)) from error
        finally:
            catalog.close()


def acting(catalog: "Catalog", action: str) -> "Catalog":
    """The catalog on behalf of whoever runs the command, which the audit log will say."""
    import socket

    from catalog.actors import Actor

    return catalog.acting(Actor(who=operator(), action=action, address=socket.gethostname()))


def operator() -> str:
    """Who runs the command, as the audit log shows it."""
    try:
        return f"operator {getpass.getuser()}"
    except (KeyError, OSError):  # a user without a name, as in a container
        return "operator"


def document(record: "KeyRecord") -> dict[str, Any]:
    """The key as `--json` prints it."""
    values = {name: value for name, value in vars(record).items() if name not in {"key_id", "pepper"}}
    shown = {
        name: value.isoformat() if isinstance(value, datetime) else value for name, value in values.items()
    }
    return {"id": record.key_id, **shown, "models": record.models and list(record.models)}


def time_of(text: str) -> timedelta:
    """`90d` as a length of time; CommandUsageError where it is none."""
    match = re.fullmatch(r"([1-9][0-9]{0,6})([mhdw])", text)
    if match is None:
        raise CommandUsageError(
            f"{text!r} is no length of time", remedy="write a number and m, h, d or w: 12h, 90d"
        )
    return timedelta(seconds=int(match[1]) * UNITS[match[2]])


def size_of(text: str) -> int:
    """`2G` in bytes; CommandUsageError where it is no size."""
    match = re.fullmatch(r"([1-9][0-9]{0,14})([KMGT]?)", text)
    if match is None:
        raise CommandUsageError(
            f"{text!r} is no size", remedy="write bytes, or a number and K, M, G or T: 2G"
        )
    return int(match[1]) * SIZES[match[2]]


def shown_time(moment: datetime | None) -> str:
    """A moment for a table."""
    return "-" if moment is None else f"{moment:%Y-%m-%d %H:%M}"

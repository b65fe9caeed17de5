"""`condu backup` and `condu restore`: the whole installation elsewhere, and back, without the service."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from cli.commands.serving import settings_of, shown_url
from cli.errors import CommandFailedError
from cli.options import DataOption, JsonOption
from cli.output import Output, command
from cli.progress import bytes_gauge
from cli.units import as_bytes

if TYPE_CHECKING:
    from cli.backup.place import BackupManifest

PlaceArgument = Annotated[
    str, typer.Argument(metavar="PLACE", help="Folder of the backups, or s3://bucket/prefix.")
]
EndpointOption = Annotated[
    str | None,
    typer.Option(
        help="Server of PLACE's object storage, where that is neither the installation's nor Amazon."
    ),
]


def backup(
    place: PlaceArgument,
    *,
    keep: Annotated[
        int | None, typer.Option(min=1, help="Remove all but so many of the newest backups afterwards.")
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Also read what is there already, and copy what is damaged anew.")
    ] = False,
    endpoint: EndpointOption = None,
    folder: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Copy the installation while it runs; what PLACE has already is not copied again."""
    with refusals(as_json=as_json) as output:
        from cli.backup.making import make_backup
        from cli.backup.place import open_place

        settings = settings_of(data=folder)
        opened = open_place(place, settings, endpoint=endpoint)
        with bytes_gauge(output, "copying") as on_progress:
            report = make_backup(settings, opened, on_progress=on_progress, rechecks=check)
        freed = opened.keep_newest(keep) if keep is not None else 0
        document = {
            **described(report.digest, report.manifest),
            "copied_bytes": report.copied_bytes,
            "num_copied": report.num_copied,
            "freed_bytes": freed,
        }
        refuse_faults(report.manifest, document)
        output.result(document)
        output.say(
            f"backup {report.digest[:12]}: {len(report.manifest.blobs)} blobs of "
            f"{as_bytes(report.manifest.size_bytes)}, {as_bytes(report.copied_bytes)} of them copied now, "
            f"{report.manifest.num_rows} rows"
        )


def restore(
    place: PlaceArgument,
    *,
    which: Annotated[
        str | None,
        typer.Option(
            "--backup", metavar="DIGEST", help="Which one, by the start of its digest; else the newest."
        ),
    ] = None,
    only_list: Annotated[bool, typer.Option("--list", help="Only show the backups there.")] = False,
    endpoint: EndpointOption = None,
    folder: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Put a backup into a new installation, of whichever database and storage; every byte is read back."""
    with refusals(as_json=as_json) as output:
        from cli.backup.place import open_place

        settings = settings_of(data=folder)
        opened = open_place(place, settings, endpoint=endpoint)
        found = opened.find_backups()
        if only_list:
            show_backups(output, found)
            return
        digest = chosen(found, which)
        from cli.backup.restoring import restore_backup

        with bytes_gauge(output, "restoring") as on_progress:
            report = restore_backup(settings, opened, digest, on_progress=on_progress)
        document = {
            **described(digest, report.manifest),
            "num_copied": report.num_copied,
            "jobs_queued": report.num_jobs,
        }
        refuse_faults(report.manifest, document)
        output.result(document)
        manifest, where = report.manifest, escape(shown_url(settings))
        output.say(
            f"backup {digest[:12]} of {manifest.created_at} is restored into {where}: "
            f"{len(manifest.blobs)} blobs of {as_bytes(manifest.size_bytes)}, each read back and sound; "
            f"{report.num_jobs} jobs go on when a worker starts"
        )


def chosen(found: "dict[str, BackupManifest]", which: str | None) -> str:
    """The digest of the backup that was asked for."""
    matching = [digest for digest in found if which is None or digest.startswith(which)]
    if not matching:
        raise CommandFailedError(
            "there is no backup" if which is None else f"there is no backup {which}",
            detail="a backup that was not finished is none: `condu backup` to the same place finishes it",
            remedy="`condu restore PLACE --list` shows those there are",
        )
    if which is not None and len(matching) > 1:
        raise CommandFailedError(
            f"{len(matching)} backups begin with {which}", remedy="write more of the digest"
        )
    return matching[0]


def show_backups(output: Output, found: "dict[str, BackupManifest]") -> None:
    """All backups of a place, the newest first."""
    output.result({"backups": [described(digest, manifest) for digest, manifest in found.items()]})
    rows = [
        (
            digest[:12],
            manifest.created_at[:19].replace("T", " "),
            as_bytes(manifest.size_bytes),
            len(manifest.faults),
        )
        for digest, manifest in found.items()
    ]
    output.table(("backup", "made", "blobs", "faults"), rows)


def described(digest: str, manifest: "BackupManifest") -> dict[str, Any]:
    """A backup as `--json` shows it."""
    return {
        "backup": digest,
        "created_at": manifest.created_at,
        "schema": manifest.schema,
        "num_rows": manifest.num_rows,
        "num_blobs": len(manifest.blobs),
        "blob_bytes": manifest.size_bytes,
        "faults": manifest.faults,
    }


def refuse_faults(manifest: "BackupManifest", document: dict[str, Any]) -> None:
    """Nothing, when the backup has all that the installation should have had."""
    if manifest.faults:
        raise CommandFailedError(
            f"the installation lacked {len(manifest.faults)} blobs; all others are in the backup",
            detail="; ".join(manifest.faults[:3]),
            remedy="`condu verify` on the installation says what needs them; an older backup may have them",
            body=document,
        )


@contextmanager
def refusals(*, as_json: bool) -> Iterator[Output]:
    """The output of a command; what catalog and store refuse become errors of it."""
    with command(as_json=as_json) as output:
        from catalog.errors import CatalogError, StillInUseError
        from store.errors import StoreError

        try:
            yield output
        except StillInUseError as error:
            raise CommandFailedError(
                "the installation is not empty", detail=str(error), remedy="name a new one with --data"
            ) from error
        except CatalogError as error:
            raise CommandFailedError("the catalog refused", detail=str(error)) from error
        except StoreError as error:
            raise CommandFailedError("the storage refused", detail=str(error)) from error
        except OSError as error:
            raise CommandFailedError("this machine refused", detail=str(error)) from error

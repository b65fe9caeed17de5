"""The question before something is removed."""

import sys

import typer

from cli.errors import CommandFailedError, CommandUsageError


def agree_to_remove(what: str, *, agreed: bool) -> None:
    """Return when the person agreed; CommandFailedError when not, CommandUsageError without a person."""
    if agreed:
        return
    if not sys.stdin.isatty():
        raise CommandUsageError(
            f"removing {what} asks first, and there is no terminal to ask on", remedy="add --yes"
        )
    if not typer.confirm(f"Remove {what}?", err=True):
        raise CommandFailedError("nothing was removed")

"""What a command can fail with, each with the exit code that tells a script what to do next.

CliError
├── CommandFailedError       this machine, or what was asked for, failed (1)
│   ├── JobFailedError       the job ended as failed or cancelled (1)
│   └── TransferError        a file did not arrive whole (1)
├── CommandUsageError        the arguments contradict each other or name what is not there (2)
├── ServerUnreachableError   no connection, or it broke (3)
└── ProblemError             the server answered with a problem (4)
"""

from typing import Any, ClassVar

from cli.exit_codes import ExitCode


class CliError(Exception):
    """A failure a person can act on: what happened, why, what to do, and the command to run next."""

    exit_code: ClassVar[ExitCode] = ExitCode.FAILED

    def __init__(
        self,
        title: str,
        *,
        detail: str = "",
        remedy: str = "",
        next_command: str = "",
        body: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(title)
        self.title = title
        self.detail = detail
        self.remedy = remedy
        self.next_command = next_command
        self.body = body or {}

    def to_dict(self) -> dict[str, Any]:
        """The error as `--json` prints it; a problem body of the server is kept whole."""
        ours = {"title": self.title, "detail": self.detail, "remedy": self.remedy, "next": self.next_command}
        return {**self.body, **{name: text for name, text in ours.items() if text}}


class CommandFailedError(CliError):
    """This machine, or what was asked for, failed."""


class JobFailedError(CommandFailedError):
    """The job ended as failed or cancelled."""


class TransferError(CommandFailedError):
    """A file did not arrive whole; what did arrive is kept for the next attempt."""


class CommandUsageError(CliError):
    """The arguments contradict each other or name something that is not there."""

    exit_code = ExitCode.USAGE


class ServerUnreachableError(CliError):
    """No connection could be made, or it broke and could not be made again."""

    exit_code = ExitCode.UNREACHABLE


class ProblemError(CliError):
    """The server answered with a problem body (RFC 9457)."""

    exit_code = ExitCode.REFUSED
    status = 0  # of the HTTP answer
    retry_after_s = 0.0

    @property
    def kind(self) -> str:
        """The last part of the problem's `type`, for instance `no-such-model`."""
        return str(self.body.get("type", "")).rsplit("/", 1)[-1].rsplit(":", 1)[-1]

"""The exit codes of `condu`: one number for each thing a calling script can do differently."""

from enum import IntEnum


class ExitCode(IntEnum):
    """What the process tells its caller; `MEANINGS` is the text that `condu --help` prints."""

    OK = 0
    FAILED = 1
    USAGE = 2
    UNREACHABLE = 3
    REFUSED = 4
    INTERRUPTED = 130


MEANINGS: dict[ExitCode, str] = {
    ExitCode.OK: "done",
    ExitCode.FAILED: "failed: the job, the check or this machine (the message says which)",
    ExitCode.USAGE: "the command line is wrong",
    ExitCode.UNREACHABLE: "the server cannot be reached",
    ExitCode.REFUSED: "the server refused the request (it said why)",
    ExitCode.INTERRUPTED: "interrupted with Ctrl-C",
}

"""What a command prints for programs."""

import json

from cli.exit_codes import ExitCode


def document(result):
    """The one JSON document on stdout of a command that succeeded."""
    assert result.exit_code == ExitCode.OK, result.stderr
    return json.loads(result.stdout)

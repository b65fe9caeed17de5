"""What `condu` tells about itself without any service."""

import json
import subprocess
import sys
from importlib.metadata import version

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from catalog.training_options import TrainingOptions
from cli.exit_codes import MEANINGS, ExitCode
from cli.main import app

HEAVY = ("torch", "dbos", "sqlalchemy", "open_clip", "fastapi", "numpy")
WITHOUT_JSON_FLAG = {"quickstart"}  # its --json takes a file


def commands(group, path=()):
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, (*path, name))
        else:
            yield (*path, name), command


COMMANDS = dict(commands(get_command(app)))


def test_help_imports_nothing_heavy():
    script = (
        "import sys, json\n"
        "from cli.main import main\n"
        "sys.argv = ['condu', '--help']\n"
        "try:\n    main()\n"
        "except SystemExit as end:\n"
        f"    print(json.dumps([end.code, [name for name in {HEAVY!r} if name in sys.modules]]))\n"
    )

    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)

    assert json.loads(done.stdout.splitlines()[-1]) == [0, []]


def test_help_tells_every_exit_code_and_its_meaning():
    shown = " ".join(CliRunner().invoke(app, ["--help"]).stdout.split())

    assert [code for code, meaning in MEANINGS.items() if f"{code:d} {meaning}" not in shown] == []
    assert set(MEANINGS) == set(ExitCode)


def test_the_version_is_that_of_the_package():
    assert CliRunner().invoke(app, ["--version"]).stdout == f"condu {version('condu')}\n"


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_every_command_has_help_with_an_example_and_a_json_flag(path):
    shown = CliRunner().invoke(app, [*path, "--help"])

    assert shown.exit_code == 0
    assert f"condu {' '.join(path)}" in " ".join(shown.stdout.split()).partition("Example:")[2]
    assert "--json" in shown.stdout


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_examples_are_command_lines_that_parse(path):
    options = {
        flag for parameter in COMMANDS[path].params for flag in (*parameter.opts, *parameter.secondary_opts)
    }
    words = [word for line in (COMMANDS[path].epilog or "").split("\n") for word in line.split()]

    assert [word for word in words if word.startswith("--") and word not in options] == []


def test_a_wrong_command_line_ends_with_the_usage_code():
    assert CliRunner().invoke(app, ["model", "create", "zoo"]).exit_code == ExitCode.USAGE
    assert CliRunner().invoke(app, ["no-such-command"]).exit_code == ExitCode.USAGE


def test_task_add_has_a_flag_for_every_training_option_and_no_other():
    parameters = {parameter.name: parameter for parameter in COMMANDS["task", "add"].params}
    flags = {name for name, one in parameters.items() if (one.rich_help_panel or "").startswith("Training")}

    assert flags == set(TrainingOptions.model_fields)

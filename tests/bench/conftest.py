"""Each benchmark once with --quick, as a person runs it; a session's tests share the documents."""

import json

import pytest
from typer.testing import CliRunner

from cli.main import app

BENCHMARKS = ("fusion", "rebuild", "storage")


@pytest.fixture(scope="session")
def quick(tmp_path_factory):
    """Name of a benchmark -> its document and what it printed, run once."""
    folder = tmp_path_factory.mktemp("bench")
    done = {}

    def run(name):
        if name not in done:
            path = folder / f"{name}.json"
            result = CliRunner().invoke(app, ["bench", name, "--quick", "--json", str(path)])
            assert result.exit_code == 0, result.output
            done[name] = json.loads(path.read_text()), result.stdout
        return done[name]

    return run

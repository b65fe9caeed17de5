"""docker-compose.yml as the tests read it: no container engine is needed."""

import re
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES = COMPOSE["services"]
OURS = {name: service for name, service in SERVICES.items() if "build" in service}
# ${NAME}, ${NAME:-default} and ${NAME:?what to do}; $$ is a dollar.
VARIABLE = re.compile(r"(?<!\$)\$\{(?P<name>\w+)(?P<kind>:[-?])?(?P<rest>[^}]*)\}")


def texts(value):
    """Every text in a value, names of keys included."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield str(name)
            yield from texts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from texts(inner)
    else:
        yield str(value)


def filled_in(text, values):
    """The text as compose fills it in from .env."""

    def value_of(match):
        given = values.get(match["name"], "")
        if given:
            return given
        assert match["kind"] == ":-", f"{match['name']} is not set"
        return match["rest"]

    return VARIABLE.sub(value_of, text).replace("$$", "$")


def environment_of(service, values):
    """The environment of a service's containers."""
    return {name: filled_in(str(value), values) for name, value in service["environment"].items()}

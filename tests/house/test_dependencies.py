"""What pyproject.toml asks for is what the code imports, and the lock file pins each of it with hashes."""

import re
import tomllib
from importlib.metadata import packages_distributions

from tests.house.sources import ROOMS, ROOT, sources

# Imported by no room, and needed all the same.
NEEDED_BY_OTHERS = {
    "psycopg": "SQLAlchemy and the job engine speak to PostgreSQL with it",
    "httptools": "uvicorn parses HTTP with it, where it is there",
    "python-multipart": "Starlette reads forms with it",
    "timm": "open_clip builds the demo base's image tower with it",
    "uvloop": "uvicorn runs on it, where it is there",
}


def _normal(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def _project():
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def _dependencies():
    return {_normal(re.split(r"[<>=\[; ]", line)[0]) for line in _project()["project"]["dependencies"]}


def _peers():
    groups = _project()["dependency-groups"]["peers"]
    return {_normal(re.split(r"[<>=\[; ]", line)[0]) for line in groups}


def _extras():
    groups = _project()["project"]["optional-dependencies"].values()
    return {_normal(re.split(r"[<>=\[; ]", line)[0]) for lines in groups for line in lines}


def _imported():
    providers = packages_distributions()
    modules = {
        module.split(".")[0]
        for source in sources()
        if source.folder in ROOMS
        for _, module in source.imported_modules()
    }
    return {_normal(name) for module in modules for name in providers.get(module, ())}


def test_every_dependency_is_imported_or_says_who_needs_it():
    assert not _dependencies() - _imported() - NEEDED_BY_OTHERS.keys()


def test_every_package_that_a_room_imports_is_asked_for_by_name():
    own = _normal(_project()["project"]["name"])

    # The benchmarks import their peers where these happen to be installed.
    assert not _imported() - _dependencies() - _extras() - _peers() - {own}


def _pinned(lock_file):
    lock = (ROOT / lock_file).read_text()
    pins = re.findall(r"^([A-Za-z0-9_.-]+)==[^\n]*\\\n    --hash=sha256:[0-9a-f]{64}", lock, re.MULTILINE)
    return {_normal(name) for name in pins}


def test_the_lock_file_pins_every_dependency_with_hashes():
    groups = _project()["dependency-groups"]["dev"]
    development = {_normal(re.split(r"[<>=\[; ]", line)[0]) for line in groups}

    assert not (_dependencies() | development) - _pinned("requirements.lock")


def test_the_peers_of_the_benchmarks_are_pinned_apart_from_the_dependencies():
    assert _peers() == _pinned("requirements-peers.lock")
    assert not _peers() & _pinned("requirements.lock")

"""Installations for the api's tests: real parts (SQLite, files, a tiny CLIP), made once, copied for each."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from httpx2 import Response
from starlette.testclient import TestClient

from api.app import create_app
from api.dependencies import Services
from api.logs import configure_logs
from catalog import Settings
from catalog.keys import NewKey
from tests.api.keys import ELSEWHERE, WIDE, bearer, make_key
from tests.api.learning import learn, write_fine_tuned
from tests.imagesets.building import two_classes, write_zip
from tests.installing import copy_installation, settings_at
from tests.tiny_clip import TINY_CONFIG, write_tiny_base

CONFIG = json.dumps(TINY_CONFIG)
LOCAL = "http://localhost"

torch.set_num_threads(2)


@pytest.fixture(scope="session", autouse=True)
def json_logs() -> None:
    """Logs as the service writes them; what structlog does by itself, with all locals, takes seconds."""
    configure_logs()


class Installation(TestClient):
    """A client of a running app, with the app's parts at hand."""

    @property
    def services(self) -> Services:
        return self.app.state.services

    @property
    def settings(self) -> Settings:
        return self.services.settings

    def problem(self, method: str, url: str, **request: object) -> dict:
        """The problem body of an answer, which must be one."""
        response = self.request(method, url, **request)
        assert response.headers["content-type"] == "application/problem+json", response.text
        body = response.json()
        assert body["status"] == response.status_code
        assert {"type", "title", "detail", "remedy", "instance", "request_id"} <= body.keys()
        return body


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny base's safetensors file."""
    return write_tiny_base(tmp_path_factory.mktemp("weights") / "tiny.safetensors")


@pytest.fixture(scope="session")
def fine_tuned(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A checkpoint per task, fine-tuned from the tiny base."""
    folder = tmp_path_factory.mktemp("fine-tuned")
    seeds = {"pets": 1, "digits": 2, "food": 3}
    return {task: write_fine_tuned(folder / f"{task}.safetensors", seed) for task, seed in seeds.items()}


@pytest.fixture(scope="session")
def learned_folder(
    tmp_path_factory: pytest.TempPathFactory, weights: Path, fine_tuned: dict[str, Path]
) -> Path:
    """A data folder with the base `tiny`, the model `fresh` on it, and `animals`, which learned two tasks."""
    folder = tmp_path_factory.mktemp("learned")
    with Installation(create_app(settings_at(folder)), base_url=LOCAL) as client:
        client.put("/v1/bases/tiny", params={"config": CONFIG}, content=weights.read_bytes())
        for model in ("fresh", "animals"):
            client.post("/v1/models", json={"name": model, "base": "tiny"})
        learn(client.services, "animals", "pets", classes=("cat", "dog"), checkpoint=fine_tuned["pets"])
        learn(client.services, "animals", "digits", classes=("one", "two"), checkpoint=fine_tuned["digits"])
    return folder


@pytest.fixture(scope="session")
def learned(learned_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """A running installation that has learned something and that no test changes."""
    folder = copy_installation(learned_folder, tmp_path_factory.mktemp("reading") / "data")
    with Installation(create_app(settings_at(folder)), base_url=LOCAL) as client:
        yield client


@pytest.fixture
def data_folder(tmp_path: Path, learned_folder: Path) -> Path:
    """A learned folder of the test's own."""
    return copy_installation(learned_folder, tmp_path / "data")


@pytest.fixture
def condu(data_folder: Path) -> Iterator[Installation]:
    """A running installation that has learned something, the test's own."""
    with Installation(create_app(settings_at(data_folder)), base_url=LOCAL) as client:
        yield client


@pytest.fixture
def dataset(condu: Installation, tmp_path: Path) -> str:
    """The digest of a data set that was uploaded to the installation."""
    archive = write_zip(tmp_path / "dataset.zip", two_classes(4))
    digest: str = condu.put("/v1/datasets", content=archive.read_bytes()).json()["digest"]
    return digest


@pytest.fixture
def learn_task(condu: Installation, fine_tuned: dict[str, Path]) -> Callable[..., int]:
    """Teaches a model a further task, as a job would, and gives the new revision's number."""

    def teach(model: str, task: str, *, classes: tuple[str, ...]) -> int:
        return learn(condu.services, model, task, classes=classes, checkpoint=fine_tuned["food"])

    return teach


@pytest.fixture
def empty(tmp_path: Path) -> Iterator[Installation]:
    """A running installation in a new folder."""
    with Installation(create_app(settings_at(tmp_path / "new")), base_url=LOCAL) as client:
        yield client


@pytest.fixture(scope="session")
def empty_for_reading(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """A running installation that no test changes."""
    settings = settings_at(tmp_path_factory.mktemp("empty"))
    with Installation(create_app(settings), base_url=LOCAL) as client:
        yield client


@dataclass(frozen=True)
class Guarded:
    """An installation that others reach, and a key a role; `bound` may only touch the model `animals`."""

    client: Installation
    read: NewKey
    submit: NewKey
    admin: NewKey
    bound: NewKey

    def ask(self, key: NewKey | str, method: str, url: str, **request: object) -> Response:
        """The answer to a request with the key."""
        headers = {**bearer(key), **request.pop("headers", {})}
        return self.client.request(method, url, headers=headers, **request)


@pytest.fixture
def guarded(data_folder: Path) -> Iterator[Guarded]:
    """A running installation that has learned something and asks for keys, the test's own."""
    settings = settings_at(data_folder, host=WIDE)
    keys = {role: make_key(settings, role) for role in ("read", "submit", "admin")}
    bound = make_key(settings, "submit", name="bound", models=["animals"])
    with Installation(create_app(settings), base_url=ELSEWHERE) as client:
        yield Guarded(client, bound=bound, **keys)


def scratch_files(installation: Installation) -> list[str]:
    """What lies in the scratch folder."""
    return [str(path) for path in installation.settings.scratch_dir.rglob("*") if path.is_file()]


def damage(installation: Installation, digest: str) -> None:
    """Flip a byte in the middle of a blob, in this installation's own copy of it."""
    path = installation.services.store.blobs.path(digest)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.unlink()
    path.write_bytes(content)

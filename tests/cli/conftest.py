"""The real api on a real port, in a thread: SQLite, files and a tiny CLIP; two tasks learned."""

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
import uvicorn
from typer.testing import CliRunner, Result

from api.app import create_app
from api.dependencies import Services
from api.logs import configure_logs
from api.main import Server
from cli.client import Client
from cli.main import app as condu
from tests.api.learning import learn, write_fine_tuned
from tests.installing import settings_at
from tests.tiny_clip import TINY_CONFIG, image_bytes, tiny_image, write_tiny_base

torch.set_num_threads(2)

Run = Callable[..., Result]


@dataclass(frozen=True)
class Service:
    """A running api, with its parts at hand."""

    url: str
    services: Services
    weights: Path
    fine_tuned: Path
    folder: Path


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service with the base `tiny` and the model `animals`, which has learned `pets` and `digits`."""
    configure_logs()
    folder = tmp_path_factory.mktemp("service")
    weights = write_tiny_base(folder / "tiny.safetensors")
    app = create_app(settings_at(folder / "data", port=0))
    ready, urls = threading.Event(), []
    server = Server(
        uvicorn.Config(app, port=0, log_config=None, access_log=False),
        app,
        lambda url: (urls.append(url), ready.set()),
    )
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        assert ready.wait(60)
        with Client(urls[0]) as client:
            client.upload_base("tiny", weights, architecture=None, config=TINY_CONFIG)
            client.create_model("animals", base="tiny")
        for seed, (task, classes) in enumerate({"pets": ("cat", "dog"), "digits": ("one", "two")}.items()):
            checkpoint = write_fine_tuned(folder / f"{task}.safetensors", seed + 1)
            learn(app.state.services, "animals", task, classes=classes, checkpoint=checkpoint)
        yield Service(urls[0], app.state.services, weights, folder / "pets.safetensors", folder / "data")
    finally:
        server.should_exit = True
        thread.join()


@pytest.fixture
def run(service: Service, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a `condu` command line against the service."""
    monkeypatch.setenv("CONDU_URL", service.url)
    return lambda *words, **options: CliRunner().invoke(condu, [str(word) for word in words], **options)


@pytest.fixture
def image(tmp_path):
    path = tmp_path / "image.png"
    path.write_bytes(image_bytes(tiny_image(1)))
    return path


@pytest.fixture
def pictures(tmp_path):
    folder = tmp_path / "pictures"
    for name in ("cat", "dog"):
        (folder / name).mkdir(parents=True)
        for number in range(3):
            (folder / name / f"{number}.png").write_bytes(image_bytes(tiny_image(number + 10 * len(name))))
    return folder


@pytest.fixture
def model(service, request):
    """A model of the test's own, which has learned nothing."""
    name = f"m{abs(hash(request.node.name)) % 10**8}"
    with Client(service.url) as client:
        client.create_model(name, base="tiny")
    return name


@pytest.fixture
def taught(service, model):
    """A model of the test's own, which has learned `pets` and `digits`."""
    for task in ("pets", "digits"):
        learn(service.services, model, task, classes=("a", "b"), checkpoint=service.fine_tuned)
    return model

"""A learned tiny model and engines on it, closed when the test ends."""

import threading
from collections.abc import Callable, Iterator

import pytest
import torch

from api.logs import configure_logs
from serving.engine import Engine, EngineLimits
from serving.metrics import ServingMetrics
from tests.tiny_clip import TINY_CONFIG
from tests.vlm.conftest import TASKS, Learned, learn
from vlm.prediction import Predictor

torch.set_num_threads(1)


class Heard(ServingMetrics):
    """Metrics that also remember what they were told."""

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[tuple[str, int]] = []
        self.reasons: list[str] = []

    def batch(self, kind, size, *, forward_s, wait_s):
        self.batches.append((kind, size))
        super().batch(kind, size, forward_s=forward_s, wait_s=wait_s)

    def dropped(self, reason):
        self.reasons.append(reason)
        super().dropped(reason)

    def sizes(self, kind: str) -> list[int]:
        return [size for each, size in self.batches if each == kind]


class Gate:
    """Holds the device in the forward pass of one model, until it is opened."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self.opened = threading.Event()

    def __call__(self, module, inputs):
        self.reached.set()
        self.opened.wait(60)


@pytest.fixture(scope="session", autouse=True)
def json_logs() -> None:
    """Logs as the service writes them; what structlog does by itself, with all locals, takes seconds."""
    configure_logs()


@pytest.fixture(scope="session")
def learned(tmp_path_factory) -> Learned:
    return learn(tmp_path_factory.mktemp("learned"), TINY_CONFIG, TASKS)


@pytest.fixture
def make_engine(learned) -> Iterator[Callable[..., Engine]]:
    made = []

    def make(
        *, models: int = 8, metrics: ServingMetrics | None = None, of: Learned = learned, **limits
    ) -> Engine:
        made.append(Engine(Predictor(of.pool(models=models)), limits=EngineLimits(**limits), metrics=metrics))
        return made[-1]

    yield make
    for engine in made:
        engine.close(5.0)


@pytest.fixture
def gate() -> Iterator[Gate]:
    gate = Gate()
    yield gate
    gate.opened.set()

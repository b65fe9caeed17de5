"""Who is compared: each a process that answers the same questions, paused while another one has its turn."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.errors import BenchError
from bench.serving.calls import Call
from bench.serving.installation import MODEL
from bench.serving.processes import ask, generate_load, process_tree, resident_bytes, running, told

READY_WITHIN_S = 180.0
CLASSIFY = f"/v1/models/{MODEL}/classify"


@dataclass(frozen=True)
class Turn:
    """What one participant is asked for, by how many callers and for how long.

    Attributes:
        tasks: Whose experts, in turn; None is a request that names no task.
    """

    tasks: Sequence[str | None]
    concurrency: int
    warm_up_s: float
    seconds: float


class Participant(ABC):
    """One way to serve the experts."""

    def __init__(self, process: "subprocess.Popen[str]", photographs: Path, log: Path) -> None:
        self.process, self.photographs, self.log = process, photographs, log
        self.num_photographs = len(list(photographs.iterdir()))

    @abstractmethod
    def take(self, turn: Turn) -> dict[str, Any]:
        """Latencies, statuses, images answered and the time they took."""

    @abstractmethod
    def answers(self, task: str) -> list[dict[str, float]]:
        """Probabilities by label, the likeliest five, for every photograph."""

    def resident_bytes(self) -> int:
        """Memory that it takes now."""
        return resident_bytes(self.process.pid)

    def pause(self) -> None:
        """Keep it off the processor: a peer's idle worker may ask its queue a thousand times a second."""
        self._send(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        self._send(signal.SIGCONT)

    def _send(self, number: signal.Signals) -> None:
        for pid in process_tree(self.process.pid):
            os.kill(pid, number)


class HttpParticipant(Participant):
    """One that listens on a port."""

    port: int

    @abstractmethod
    def call(self, task: str | None, images: Sequence[int]) -> Call:
        """The request that asks for it."""

    def take(self, turn: Turn) -> dict[str, Any]:
        """What the load generator found."""
        calls = [
            self.call(turn.tasks[place % len(turn.tasks)], (place % self.num_photographs,))
            for place in range(self.num_photographs * len(turn.tasks))
        ]
        return generate_load(
            port=self.port,
            calls=calls,
            photographs=self.photographs,
            concurrency=turn.concurrency,
            log=self.log,
            warm_up_s=turn.warm_up_s,
            seconds=turn.seconds,
        )

    def answers(self, task: str) -> list[dict[str, float]]:
        """One request after the other."""
        path = self.log.with_suffix(".answers")
        calls = [self.call(task, (place,)) for place in range(self.num_photographs)]
        generate_load(
            port=self.port,
            calls=calls,
            photographs=self.photographs,
            concurrency=1,
            log=self.log,
            answers=path,
        )
        found = [json.loads(line)["body"] for line in path.read_text().splitlines()]
        path.unlink()
        return [_by_label(body.get("results", [body])[0]["predictions"]) for body in found]


class Service(HttpParticipant):
    """Ours, as `condu api` starts it."""

    def __init__(self, process: "subprocess.Popen[str]", photographs: Path, *, log: Path, port: int) -> None:
        super().__init__(process, photographs, log)
        self.port = port

    def call(self, task: str | None, images: Sequence[int]) -> Call:
        """A form with the images."""
        return Call(CLASSIFY, tuple(images), {} if task is None else {"task": task})


class Litserve(HttpParticipant):
    """litserve."""

    def __init__(self, process: "subprocess.Popen[str]", photographs: Path, *, log: Path, port: int) -> None:
        super().__init__(process, photographs, log)
        self.port = port

    def call(self, task: str | None, images: Sequence[int]) -> Call:
        """JSON with the image in base64."""
        return Call("/predict", tuple(images), {"task": task}, wire="base64")


class RayServe(HttpParticipant):
    """Ray Serve, which finds the replica that has the model by a header."""

    def __init__(self, process: "subprocess.Popen[str]", photographs: Path, *, log: Path, port: int) -> None:
        super().__init__(process, photographs, log)
        self.port = port

    def call(self, task: str | None, images: Sequence[int]) -> Call:
        """JSON with the image in base64."""
        headers = {"serve_multiplexed_model_id": str(task)}
        return Call("/", tuple(images), wire="base64", headers=headers)


class OpenClipLoop(Participant):
    """Plain open_clip, without a server."""

    def take(self, turn: Turn) -> dict[str, Any]:
        """What the loop says of itself."""
        question = {
            "tasks": list(turn.tasks),
            "concurrency": turn.concurrency,
            "warm_up_s": turn.warm_up_s,
            "seconds": turn.seconds,
        }
        return ask(self.process, question, self.log)

    def answers(self, task: str) -> list[dict[str, float]]:
        """All in one batch."""
        found = ask(self.process, {"answer": True, "task": task}, self.log)
        return [_by_label(predictions) for predictions in found["answers"]]


@contextmanager
def service(
    data_folder: Path, photographs: Path, log: Path, *, expert_cache_bytes: int | None = None
) -> Iterator[Service]:
    """The api on a data folder, ready to answer."""
    environment = {"CONDU_DATA": str(data_folder), "CONDU_HOST": "127.0.0.1", "CONDU_PORT": "0"}
    if expert_cache_bytes is not None:
        environment["CONDU_EXPERT_CACHE_BYTES"] = str(expert_cache_bytes)
    arguments = [sys.executable, "-m", "cli.main", "api", "--json"]
    with running(arguments, log, environment) as process:
        port = int(told(process, log)["url"].rpartition(":")[2])
        yield Service(process, photographs, log=log, port=port)


@contextmanager
def open_clip_loop(orders: Mapping[str, Any], photographs: Path, log: Path) -> Iterator[OpenClipLoop]:
    """The loop, its experts loaded."""
    with running([sys.executable, "-m", "bench.serving.peers.plain_open_clip"], log) as process:
        ask(process, orders, log)
        yield OpenClipLoop(process, photographs, log)


@contextmanager
def litserve(orders: Mapping[str, Any], photographs: Path, log: Path, *, python: str) -> Iterator[Litserve]:
    """What litserve is under a Python that has it, its worker ready."""
    path, port = log.with_suffix(".json"), _free_port()
    path.write_text(json.dumps(orders))
    arguments = [python, "-m", "bench.serving.peers.lit_server", str(path), str(port)]
    with running(arguments, log) as process:
        _wait_for(f"http://127.0.0.1:{port}/health", process, log)
        yield Litserve(process, photographs, log=log, port=port)


@contextmanager
def ray_serve(orders: Mapping[str, Any], photographs: Path, log: Path, *, python: str) -> Iterator[RayServe]:
    """Ray Serve on a cluster of this process alone."""
    path, port = log.with_suffix(".json"), _free_port()
    path.write_text(json.dumps(orders))
    with running([python, "-m", "bench.serving.peers.ray_server", str(path), str(port)], log) as process:
        told(process, log)
        yield RayServe(process, photographs, log=log, port=port)


def can_import(python: str, module: str) -> bool:
    """Whether that Python has the module, with all that it needs."""
    return (
        subprocess.run([python, "-c", f"import {module}"], check=False, capture_output=True).returncode == 0
    )


def _wait_for(url: str, process: "subprocess.Popen[str]", log: Path) -> None:
    deadline = time.monotonic() + READY_WITHIN_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310 - our own http address
                if answer.status == 200:
                    return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    raise BenchError(f"{process.args!r} was not ready", remedy=f"read its log, {log}")


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _by_label(predictions: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    return {each["label"]: each["probability"] for each in predictions}

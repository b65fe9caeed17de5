"""The real service as a child process: `condu serve` on a loopback port, its words in a log file."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cli.errors import CommandFailedError
from cli.ports import free_port, refuse_taken_port
from cli.readiness import wait_until_ready
from cli.supervisor import condu_command, die_with_parent, ended_how

READY_WITHIN_S = 120.0
STOP_WITHIN_S = 60.0
HOST = "127.0.0.1"
# What would point the child at another installation than the one this run is about.
FOREIGN_SETTINGS = ("CONDU_DATABASE_URL", "CONDU_DATA", "CONDU_HOST", "CONDU_PORT", "CONDU_URL")


@dataclass(frozen=True)
class RunningService:
    """A service that answers."""

    url: str
    data: Path
    log: Path


@contextmanager
def running_service(folder: Path, *, port: int) -> Iterator[RunningService]:
    """A healthy service on a data folder; stopped at the end, which has to end well.

    Raises:
        CommandFailedError: It did not become healthy, or it did not stop cleanly; the message names its log.
    """
    port = port or free_port(HOST)
    refuse_taken_port(HOST, port)
    folder.mkdir(parents=True, exist_ok=True)
    service = RunningService(
        url=f"http://{HOST}:{port}", data=folder.absolute(), log=folder.absolute() / "service.log"
    )
    environment = {name: value for name, value in os.environ.items() if name not in FOREIGN_SETTINGS}
    arguments = condu_command("serve", "--data", str(service.data), "--host", HOST, "--port", str(port))
    with service.log.open("ab") as log:
        process = subprocess.Popen(
            arguments,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,  # Ctrl-C is ours to hear: the service is then stopped in order
            preexec_fn=die_with_parent,  # noqa: PLW1509 (no threads run here)
        )
    try:
        wait_until_healthy(service, process)
        yield service
    except BaseException:
        stop(process)
        raise
    else:
        if (returncode := stop(process)) != 0:
            raise CommandFailedError(
                f"the service {ended_how(returncode)} when it was asked to stop",
                remedy=f"read its log: {service.log}",
            )


def wait_until_healthy(service: RunningService, process: "subprocess.Popen[bytes]") -> None:
    """Return once the api answers and a worker beats."""
    deadline = time.monotonic() + READY_WITHIN_S

    def goes_on() -> bool:
        return process.poll() is None and time.monotonic() < deadline

    if wait_until_ready(service.url, goes_on=goes_on) is not None:
        return
    what = (
        f"was not ready after {READY_WITHIN_S:.0f} s"
        if process.poll() is None
        else f"{ended_how(process.returncode)} while it started"
    )
    raise CommandFailedError(
        f"the service {what}", detail=last_lines(service.log), remedy=f"read its log: {service.log}"
    )


def stop(process: "subprocess.Popen[bytes]") -> int:
    """The exit code after asking it to stop; it is killed when it does not."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    try:
        return process.wait(STOP_WITHIN_S)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


def last_lines(log: Path, *, count: int = 8) -> str:
    """The end of a log."""
    return "\n  ".join(log.read_text(errors="replace").splitlines()[-count:])

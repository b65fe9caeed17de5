"""The worker's side of the training process: starts it, listens to it, and never outlives or abandons it."""

import json
import logging
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from catalog.job_queue import JobFailedError
from worker.training.spec import TrainingSpec

_log = logging.getLogger(__name__)

LOG_NAME = "training.log"
LISTEN_S = 0.25
"""How long to wait for a line before asking whether the job was cancelled."""
STOP_GRACE_S = 5.0
"""From SIGTERM, after which the child saves its state, to SIGKILL."""
LOG_TAIL_BYTES = 2000

OnProgress = Callable[[Mapping[str, Any]], None]


def run_training(spec: TrainingSpec, *, on_progress: OnProgress, check_cancelled: Callable[[], None]) -> None:
    """Train in a child process until the fine-tuned checkpoint is written; at once, when it is there already.

    Args:
        spec: The run; its folder exists.
        on_progress: Called with each progress event.
        check_cancelled: Called four times a second; what it raises passes, after the child has ended.

    Raises:
        JobFailedError: Training failed, or the process died.
    """
    if spec.result.exists():
        return
    path = spec.folder / "training.json"
    spec.write(path)
    while (
        event := _run_once(spec, path, on_progress=on_progress, check_cancelled=check_cancelled)
    ) == "stopped":
        # Somebody asked every process of the service to stop; the worker is about to hear of it, too.
        time.sleep(LISTEN_S)
        check_cancelled()
    if event != "done" or not spec.result.exists():
        raise _died(0, spec.folder / LOG_NAME)


def _run_once(
    spec: TrainingSpec, path: Path, *, on_progress: OnProgress, check_cancelled: Callable[[], None]
) -> str:
    """The last thing that one training process had to say: "done" or "stopped"."""
    last: dict[str, Any] = {"event": "nothing"}
    log_path = spec.folder / LOG_NAME
    with log_path.open("wb") as log, _child(path, log) as child:
        for event in _events(child, check_cancelled):
            last = event
            if event["event"] == "progress":
                on_progress({key: value for key, value in event.items() if key != "event"})
        code = child.wait()
    if last["event"] == "failed":
        raise JobFailedError(last["title"], detail=last["detail"], remedy=last["remedy"])
    if code != 0:
        raise _died(code, log_path)
    return str(last["event"])


@contextmanager
def _child(spec_path: Path, log: IO[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    """The running child; ended when the context ends, however it does."""
    child = subprocess.Popen(
        [sys.executable, "-m", "worker.training", str(spec_path), str(os.getpid())],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=log,
        start_new_session=True,  # Ctrl-C in a terminal is for the worker, which then asks the child to stop
    )
    try:
        yield child
    finally:
        if child.poll() is None:
            child.terminate()
            try:
                child.wait(STOP_GRACE_S)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
        if child.stdout is not None:
            child.stdout.close()


def _events(child: subprocess.Popen[bytes], check_cancelled: Callable[[], None]) -> Iterator[dict[str, Any]]:
    """The child's events until it closes its stdout."""
    assert child.stdout is not None  # noqa: S101 - Popen was asked for a pipe
    handle = child.stdout.fileno()
    rest = b""
    while True:
        check_cancelled()
        if not select.select([handle], [], [], LISTEN_S)[0]:
            continue
        piece = os.read(handle, 65536)
        if not piece:
            return
        *lines, rest = (rest + piece).split(b"\n")
        for line in lines:
            yield json.loads(line)


def _died(code: int, log: Path) -> JobFailedError:
    if code == -signal.SIGKILL:
        return JobFailedError(
            "The training process was killed",
            detail="It received SIGKILL, as the kernel sends when memory runs out.",
            remedy="Submit the task again with a smaller batch_size, or give the machine more memory.",
        )
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - LOG_TAIL_BYTES))
        tail = file.read().decode(errors="replace").strip()
    _log.error("the training process ended with exit code %d:\n%s", code, tail)
    return JobFailedError(
        "The training process ended unexpectedly",
        detail=f"Exit code {code}. Its last words: {tail.splitlines()[-1] if tail else 'none'}",
        remedy="This is a fault of the software, and the worker's log has more. Submitting again may help.",
    )

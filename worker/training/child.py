"""The worker's side of the training processes: starts them, listens, and never outlives or abandons them."""

import json
import logging
import os
import select
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
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
    """Train in child processes until the fine-tuned checkpoint is written; at once, when it is there already.

    Args:
        spec: The run; its folder exists.
        on_progress: Called with each progress event.
        check_cancelled: Called four times a second; what it raises passes, after the children have ended.

    Raises:
        JobFailedError: Training failed, or a process died.
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
    """The last thing that the training processes had to say: "done" or "stopped"."""
    last: dict[str, Any] = {"event": "nothing"}
    log_path = spec.folder / LOG_NAME
    with log_path.open("wb") as log, _children(spec, path, log) as (children, told):
        for event in _events(children, told, check_cancelled):
            last = event
            if event["event"] == "failed":
                raise JobFailedError(event["title"], detail=event["detail"], remedy=event["remedy"])
            if event["event"] == "progress":
                on_progress({key: value for key, value in event.items() if key != "event"})
        code = _first_failure(children, is_over=True)
    if code is not None:
        raise _died(code, log_path)
    return str(last["event"])


@contextmanager
def _children(
    spec: TrainingSpec, spec_path: Path, log: IO[bytes]
) -> Iterator[tuple[list[subprocess.Popen[bytes]], int]]:
    """The running children and where all of them speak; ended when the context ends, however it does."""
    told, speak = os.pipe()
    meeting = spec.folder / f"meeting-{uuid.uuid4().hex}"
    children: list[subprocess.Popen[bytes]] = []
    try:
        try:
            for rank in range(spec.processes):
                arguments = [str(spec_path), str(os.getpid()), str(rank), str(meeting)]
                child = subprocess.Popen(
                    [sys.executable, "-m", "worker.training", *arguments],
                    stdin=subprocess.DEVNULL,
                    stdout=speak,
                    stderr=log,
                    start_new_session=True,  # Ctrl-C is for the worker, which then asks them to stop
                )
                children.append(child)
        finally:
            os.close(speak)
        yield children, told
    finally:
        _end(children)
        os.close(told)
        meeting.unlink(missing_ok=True)


def _end(children: Sequence[subprocess.Popen[bytes]]) -> None:
    """Ask all that live to stop; kill who does not."""
    for child in children:
        child.terminate()
    give_up_at = time.monotonic() + STOP_GRACE_S
    for child in children:
        try:
            child.wait(max(0.0, give_up_at - time.monotonic()))
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def _events(
    children: Sequence[subprocess.Popen[bytes]], told: int, check_cancelled: Callable[[], None]
) -> Iterator[dict[str, Any]]:
    """The children's events until all have closed their stdout, or one has died and the others wait."""
    rest = b""
    while True:
        check_cancelled()
        if not select.select([told], [], [], LISTEN_S)[0]:
            if _first_failure(children) is not None:
                return
            continue
        piece = os.read(told, 65536)
        if not piece:
            return
        *lines, rest = (rest + piece).split(b"\n")
        for line in lines:
            yield json.loads(line)


def _first_failure(children: Sequence[subprocess.Popen[bytes]], *, is_over: bool = False) -> int | None:
    """The exit code that says most of why they died; None where none did.

    One that was killed is the cause of errors of the others, who lost it.
    """
    codes = [child.poll() for child in children]
    if is_over and not any(codes):
        codes = [child.wait() for child in children]
    failures = [code for code in codes if code]
    return min(failures, default=None)


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

"""The processes of a run: started, spoken to, weighed, and ended by their own number."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from bench.errors import BenchError
from bench.serving.calls import Call

SOURCES = Path(__file__).resolve().parents[2]
STOPS_WITHIN_S = 30.0


@contextmanager
def running(
    arguments: Sequence[str], log: Path, environment: Mapping[str, str] | None = None
) -> Iterator["subprocess.Popen[str]"]:
    """A process with pipes, stopped at the end; what it says on stderr goes into the log."""
    with log.open("a") as errors:
        process = subprocess.Popen(
            arguments,
            cwd=SOURCES,
            env={**_foreign(os.environ), **(environment or {})},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
    try:
        yield process
    finally:
        stop(process)


def stop(process: "subprocess.Popen[str]") -> None:
    """Ask it to end, wait, and end it where it does not."""
    family = process_tree(process.pid) if process.poll() is None else []
    process.terminate()
    for pid in family:
        _send(pid, signal.SIGCONT)  # who was paused hears it
    try:
        process.wait(STOPS_WITHIN_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for pid in family[1:]:
        _send(pid, signal.SIGKILL)  # a worker that outlived its server
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with contextlib.suppress(BrokenPipeError):  # what it did not live to read
                pipe.close()


def told(process: "subprocess.Popen[str]", log: Path) -> dict[str, Any]:
    """The next JSON object that the process says, in one line or several; lines before it are left out.

    Raises:
        BenchError: It ended instead.
    """
    said = ""
    for line in _out(process):
        said = said + line if said or line.startswith("{") else ""
        with contextlib.suppress(json.JSONDecodeError):
            found: dict[str, Any] = json.loads(said)
            return found
    end = "\n  ".join(log.read_text(errors="replace").splitlines()[-8:])
    raise BenchError(f"{process.args!r} ended early: {end}", remedy=f"read its log, {log}")


def ask(process: "subprocess.Popen[str]", question: Mapping[str, Any], log: Path) -> dict[str, Any]:
    """The answer of a process that reads and writes JSON lines."""
    say(process, question)
    return told(process, log)


def say(process: "subprocess.Popen[str]", line: Mapping[str, Any]) -> None:
    """Write a JSON line to the process."""
    assert process.stdin is not None
    process.stdin.write(json.dumps(line) + "\n")
    process.stdin.flush()


def generate_load(
    *,
    port: int,
    calls: Sequence[Call],
    photographs: Path,
    concurrency: int,
    log: Path,
    warm_up_s: float = 0.0,
    seconds: float | None = None,
    answers: Path | None = None,
    allowed: int | None = None,
    on_done: Callable[[int], int | None] | None = None,
) -> dict[str, Any]:
    """What the load generator found.

    `on_done` hears how many requests were answered, and tells how many may be sent where not all may.
    """
    orders = {
        "host": "127.0.0.1",
        "port": port,
        "calls": [call.to_dict() for call in calls],
        "photographs": str(photographs),
        "concurrency": concurrency,
        "warm_up_s": warm_up_s,
        "seconds": seconds,
        "answers": None if answers is None else str(answers),
        "allowed": allowed,
    }
    with running([sys.executable, "-m", "bench.serving.load"], log) as process:
        said = ask(process, orders, log)
        while "done" in said:
            may = on_done(said["done"]) if on_done is not None else None
            if may is not None and may != allowed:
                allowed = may
                with contextlib.suppress(BrokenPipeError):  # it has sent all and gone
                    say(process, {"allowed": may})
            said = told(process, log)
    return said


def resident_bytes(pid: int) -> int:
    """Memory of a process and all its children; pages that several share are counted once (Pss)."""
    total = 0
    for each in process_tree(pid):
        try:
            lines = Path(f"/proc/{each}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        total += sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
    return total


def process_tree(pid: int) -> list[int]:
    """The process, its children, and theirs."""
    found = [pid]
    for each in found:
        for children in Path(f"/proc/{each}/task").glob("*/children"):
            try:
                found += [int(number) for number in children.read_text().split()]
            except OSError:
                continue
    return found


def _foreign(environment: Mapping[str, str]) -> dict[str, str]:
    """What is not about an installation of condu: another one is meant there."""
    return {name: value for name, value in environment.items() if not name.startswith("CONDU_")}


def _send(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def _out(process: "subprocess.Popen[str]") -> IO[str]:
    assert process.stdout is not None
    return process.stdout

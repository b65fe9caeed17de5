"""Children of a process that has imported everything: forking takes milliseconds, importing seconds.

The parent must have one thread only: a child gets the thread that forks, and the locks of all others as they
happened to be held.
"""

import ctypes
import json
import os
import select
import signal
import time
import traceback
from collections.abc import Callable
from pathlib import Path

_PR_SET_PDEATHSIG = 1


def num_threads():
    """How many threads this process has, also those that no Python code started."""
    return len(list(Path("/proc/self/task").iterdir()))


class Child:
    """A forked process: what it told through its pipe, and how it ended."""

    def __init__(self, pid: int, reading: int, log: Path):
        self.pid = pid
        self.log = log
        self.exit_code: int | None = None
        self._reading = reading
        self._told = b""

    def signal(self, number):
        """Nothing happens to one that is dead already."""
        if not self.has_ended():
            os.kill(self.pid, number)

    def has_ended(self):
        if self.exit_code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.exit_code = os.waitstatus_to_exitcode(status)
        return self.exit_code is not None

    def wait(self, patience_s):
        """The exit code; a child that takes longer is killed."""
        give_up_at = time.monotonic() + patience_s
        while not self.has_ended():
            self._listen(0.005)
            if time.monotonic() > give_up_at:
                self.kill()
        return self.exit_code

    def kill(self):
        self.signal(signal.SIGKILL)
        if self.exit_code is None:
            _, status = os.waitpid(self.pid, 0)
            self.exit_code = os.waitstatus_to_exitcode(status)

    def _listen(self, timeout_s):
        while self._reading >= 0 and select.select([self._reading], [], [], timeout_s)[0]:
            piece = os.read(self._reading, 65536)
            if not piece:
                os.close(self._reading)
                self._reading = -1
            self._told += piece

    def told(self):
        """The values that it has told until now; one that it was killed in the middle of is left out."""
        self._listen(0)
        return [json.loads(line) for line in self._told.split(b"\n")[:-1]]

    def close(self):
        self.kill()
        if self._reading >= 0:
            os.close(self._reading)
            self._reading = -1


def fork(role: Callable, log: Path) -> Child:
    """A child that plays the role, `role(tell)`; what it writes goes to the log, and it dies with us."""
    reading, writing = os.pipe()
    parent = os.getpid()
    pid = os.fork()
    if pid:
        os.close(writing)
        return Child(pid, reading, log)
    try:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)
        os.close(reading)
        file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(file, 1)
        os.dup2(file, 2)

        def tell(value):
            os.write(writing, json.dumps(value).encode() + b"\n")

        role(tell)
        os._exit(0)
    except BaseException:  # noqa: BLE001 - whatever it is, the child must not return into its parent's code
        with log.open("a") as file:
            traceback.print_exc(file=file)
    finally:
        os._exit(1)


def answer_of(role: Callable, log: Path, *, patience_s=120.0):
    """The last value that a child told which played the role to its end."""
    child = fork(role, log)
    try:
        if child.wait(patience_s) != 0:
            raise RuntimeError(f"a child ended with {child.exit_code}:\n{log.read_text()[-4000:]}")
        return child.told()[-1]
    finally:
        child.close()

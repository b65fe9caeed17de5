"""The processes of one installation: started, watched, restarted with back-off, stopped together."""

import ctypes
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import FrameType

from cli.errors import CommandFailedError

FIRST_WAIT_S = 0.5
LONGEST_WAIT_S = 30.0
STEADY_AFTER_S = 60.0  # a child that ran this long is taken for sound: its next crash is its first
MAX_CRASHES_IN_A_ROW = 5
LOOK_EVERY_S = 0.1
PR_SET_PDEATHSIG = 1
STDERR = 2


@dataclass
class Child:
    """One process to keep alive."""

    name: str
    arguments: Sequence[str]
    environment: Mapping[str, str]
    process: subprocess.Popen[bytes] | None = None
    started_at: float = 0.0
    crashes: int = 0
    restart_at: float = field(default=0.0)

    def start(self) -> None:
        """Start it in a session of its own, so that Ctrl-C reaches it only through us, once and in order."""
        self.process = subprocess.Popen(
            self.arguments,
            env=dict(self.environment),
            stdin=subprocess.DEVNULL,
            stdout=STDERR,  # what a child says is no result of ours
            start_new_session=True,
            preexec_fn=die_with_parent,  # noqa: PLW1509
        )
        self.started_at = time.monotonic()

    @property
    def is_running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def send(self, number: signal.Signals) -> None:
        """Send a signal, if there is still someone to hear it."""
        if self.process is not None and self.is_running:
            self.process.send_signal(number)


class Supervisor:
    """Runs children until it is told to stop."""

    def __init__(
        self,
        children: Sequence[Child],
        *,
        stop_timeout_s: float,
        say: Callable[[str], None],
        first_wait_s: float = FIRST_WAIT_S,
    ) -> None:
        self._children = children
        self._stop_timeout_s = stop_timeout_s
        self._say = say
        self._first_wait_s = first_wait_s
        self._signals_heard = 0

    def run(self, *, on_start: Callable[[Callable[[], bool]], None]) -> None:
        """Keep the children alive until SIGINT or SIGTERM, then stop them.

        Args:
            on_start: Called once when all are started, with a function that says whether to go on waiting.

        Raises:
            CommandFailedError: A child kept crashing, or had to be killed.
        """
        earlier = {number: signal.signal(number, self._hear) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            for child in self._children:
                child.start()
            on_start(self.goes_on)
            while self.goes_on():
                time.sleep(LOOK_EVERY_S)
        finally:
            try:
                self._stop()
            finally:
                for number, handler in earlier.items():
                    signal.signal(number, handler)

    def goes_on(self) -> bool:
        """Whether nobody asked to stop; restarts what crashed."""
        if self._signals_heard:
            return False
        for child in self._children:
            self._look_after(child)
        return True

    def _hear(self, _number: int, _frame: FrameType | None) -> None:
        self._signals_heard += 1

    def _look_after(self, child: Child) -> None:
        if child.is_running:
            return
        if child.restart_at:
            if time.monotonic() >= child.restart_at:
                child.restart_at = 0.0
                child.start()
            return
        child.crashes = 1 if time.monotonic() - child.started_at > STEADY_AFTER_S else child.crashes + 1
        ended = ended_how(child.process.returncode if child.process else None)
        if child.crashes >= MAX_CRASHES_IN_A_ROW:
            raise CommandFailedError(
                f"the {child.name} {ended} {child.crashes} times in a row", remedy="read what it said above"
            )
        wait_s = min(self._first_wait_s * 2 ** (child.crashes - 1), LONGEST_WAIT_S)
        child.restart_at = time.monotonic() + wait_s
        self._say(f"the {child.name} {ended}; it starts again in {wait_s:g} s")

    def _stop(self) -> None:
        """Ask, wait, kill: a second signal does not wait any longer."""
        for child in self._children:
            child.send(signal.SIGTERM)
        deadline = time.monotonic() + self._stop_timeout_s
        asked = self._signals_heard
        while any(child.is_running for child in self._children):
            if time.monotonic() > deadline or self._signals_heard > asked:
                self._kill()
                return
            time.sleep(LOOK_EVERY_S / 2)

    def _kill(self) -> None:
        slow = [child for child in self._children if child.is_running]
        for child in slow:
            child.send(signal.SIGKILL)
        for child in slow:
            if child.process is not None:
                child.process.wait()
        names = " and ".join(child.name for child in slow)
        raise CommandFailedError(
            f"the {names} did not stop and was killed",
            remedy="nothing is lost: unfinished jobs go on at the next start",
        )


def ended_how(returncode: int | None) -> str:
    """An exit code in words."""
    if returncode is not None and returncode < 0:
        return f"was ended by {signal.Signals(-returncode).name}"
    return f"ended with exit code {returncode}"


def condu_command(*arguments: str) -> list[str]:
    """The command line of another condu process of this very installation."""
    return [sys.executable, "-m", "cli.main", *arguments]


_libc = ctypes.CDLL(None) if sys.platform == "linux" else None


def die_with_parent() -> None:
    """Runs in the child before it becomes another program: when we are killed, it is told to stop."""
    if _libc is not None:
        _libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)

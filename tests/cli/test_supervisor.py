"""Children are kept alive, given up when they cannot live, and stopped in order."""

import os
import signal
import sys
import threading
import time

import pytest

from cli.errors import CommandFailedError
from cli.supervisor import Child, Supervisor, condu_command, ended_how

STAYS = "import time\nwhile True: time.sleep(0.05)"
STOPS_POLITELY = (
    "import signal, sys, time, pathlib\n"
    "def stop(*_):\n    pathlib.Path(sys.argv[1]).write_text('stopped'); sys.exit(0)\n"
    "signal.signal(signal.SIGTERM, stop)\n"
    "pathlib.Path(sys.argv[1]).write_text('runs')\n"
    "while True: time.sleep(0.02)"
)
IGNORES_SIGTERM = (
    "import signal, sys, time, pathlib\n"
    "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    "pathlib.Path(sys.argv[1]).write_text('runs')\n"
    "while True: time.sleep(0.02)"
)
COUNTS_ITS_STARTS = (
    "import sys, time, pathlib\n"
    "file = pathlib.Path(sys.argv[1])\n"
    "file.write_text((file.read_text() if file.exists() else '') + 'x')\n"
    "if len(file.read_text()) < 3: sys.exit(7)\n"
    "while True: time.sleep(0.05)"
)


def child(script, *arguments):
    return Child("child", [sys.executable, "-c", script, *map(str, arguments)], os.environ)


def supervise(children, *, until, stop_timeout_s=10.0, signals=1):
    """Run until `until` holds, then send ourselves SIGTERM; the supervisor's words."""
    said = []

    def stop_when_due():
        while not until():
            time.sleep(0.02)
        for _ in range(signals):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.3)

    watcher = threading.Thread(target=stop_when_due)
    supervisor = Supervisor(children, stop_timeout_s=stop_timeout_s, say=said.append, first_wait_s=0.01)
    try:
        supervisor.run(on_start=lambda _: watcher.start())
    finally:
        watcher.join()
    return said


def written(file, content):
    return lambda: file.exists() and file.read_text() == content


def test_children_are_asked_to_stop_and_do(tmp_path):
    files = [tmp_path / "one", tmp_path / "two"]
    children = [child(STOPS_POLITELY, file) for file in files]

    supervise(children, until=lambda: all(written(file, "runs")() for file in files))

    assert [file.read_text() for file in files] == ["stopped", "stopped"]
    assert [one.process.returncode for one in children] == [0, 0]


def test_a_child_that_crashes_is_started_again_with_growing_waits(tmp_path):
    starts = tmp_path / "starts"

    said = supervise([child(COUNTS_ITS_STARTS, starts)], until=written(starts, "xxx"))

    assert said == [
        "the child ended with exit code 7; it starts again in 0.01 s",
        "the child ended with exit code 7; it starts again in 0.02 s",
    ]


def test_a_child_that_cannot_live_is_given_up_and_the_others_are_stopped():
    healthy = child(STAYS)

    with pytest.raises(CommandFailedError, match="the child ended with exit code 3 5 times in a row"):
        supervise([child("raise SystemExit(3)"), healthy], until=lambda: True, signals=0)

    assert not healthy.is_running


def test_a_child_that_does_not_stop_in_time_is_killed(tmp_path):
    stubborn = child(IGNORES_SIGTERM, tmp_path / "file")

    with pytest.raises(CommandFailedError, match="did not stop and was killed"):
        supervise([stubborn], until=written(tmp_path / "file", "runs"), stop_timeout_s=0.2)

    assert stubborn.process.returncode == -signal.SIGKILL


def test_a_second_signal_does_not_wait(tmp_path):
    stubborn = child(IGNORES_SIGTERM, tmp_path / "file")

    with pytest.raises(CommandFailedError, match="killed"):
        supervise([stubborn], until=written(tmp_path / "file", "runs"), stop_timeout_s=60, signals=2)

    assert stubborn.process.returncode == -signal.SIGKILL


def test_ends_are_told_in_words():
    assert ended_how(-signal.SIGKILL) == "was ended by SIGKILL"
    assert ended_how(2) == "ended with exit code 2"


def test_children_run_this_very_installation():
    assert condu_command("api")[0] == sys.executable

"""A real worker process, `python -m tests.catalog.worker_process`, that plays scripts until told to stop."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

from catalog import Catalog, Settings
from catalog.dbos_queue import DbosRunner
from tests.catalog.plays import Play
from tests.installing import environment_at

ROOT = Path(__file__).parents[2]


def start_worker(settings, concurrency=1):
    """A worker of the same settings in a process of its own."""
    environment = (
        os.environ
        | environment_at(settings.data)
        | {
            f"CONDU_{name.upper()}": str(getattr(settings, name))
            for name in ("lease_s", "beat_s", "poll_s", "stop_timeout_s", "max_attempts")
        }
    )
    command = [sys.executable, "-W", "error", "-m", "tests.catalog.worker_process", str(concurrency)]
    return subprocess.Popen(command, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL)


def main():
    settings = Settings()
    catalog = Catalog(settings)
    runner = DbosRunner(settings, catalog, concurrency=int(sys.argv[1]))
    told_to_stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda number, frame: told_to_stop.set())
    runner.start(Play(settings.data).run)
    told_to_stop.wait()
    runner.stop()
    catalog.close()


if __name__ == "__main__":
    main()

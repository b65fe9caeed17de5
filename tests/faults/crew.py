"""Real api replicas and workers of one installation, in processes that are forked from one that imported all.

`python -m tests.faults.crew` forks one for each order on its stdin and answers with its pid.
"""

import json
import logging
import os
import signal
import subprocess
import sys
import time
from datetime import datetime, timedelta
from pathlib import Path

import httpx2

from api import main as api
from catalog import Settings
from tests.faults.worker_with_kill_points import ROOT, die_in
from worker import main as worker
from worker.jobs import publishing

PATIENCE_S = 90.0


def wait_until(is_so, what):
    """What `is_so` returned once it was true."""
    give_up_at = time.monotonic() + PATIENCE_S
    while time.monotonic() < give_up_at:
        found = is_so()
        if found:
            return found
        time.sleep(0.02)
    raise TimeoutError(f"waited in vain: {what}")


def fold_before_witnesses(folder, others):
    """Every fusion from now on leaves word when it begins and ends, and begins with others if it should.

    Args:
        folder: for the words: MODEL.fusing is there while a fusion on it is under way, and OVERLAP for ever
            once two were; MODEL.seen from the first one on; HOLD keeps fusions from ending.
        others: a fusion waits until all of these models are, or were, being fused.
    """
    real = publishing.fold_and_publish

    def witnessed(work, learned):
        mark = folder / f"{work.model.name}.fusing"
        try:
            mark.touch(exist_ok=False)
        except FileExistsError:
            (folder / "OVERLAP").touch()
        (folder / f"{work.model.name}.seen").touch()
        wait_until(lambda: all((folder / f"{name}.seen").exists() for name in others), f"fusions on {others}")
        wait_until(lambda: not (folder / "HOLD").exists(), "the hold's end")
        try:
            return real(work, learned)
        finally:
            mark.unlink(missing_ok=True)

    publishing.fold_and_publish = witnessed
    from worker.jobs import learning  # noqa: PLC0415

    learning.fold_and_publish = witnessed


def have_another_clock(offset_s):
    """The clocks of this process are that much ahead; only the one that measures spans stays."""
    real_time, real_datetime = time.time, datetime

    class Shifted(datetime):
        @classmethod
        def now(cls, tz=None):
            return real_datetime.now(tz) + timedelta(seconds=offset_s)

        @classmethod
        def utcnow(cls):
            return cls.now().replace(tzinfo=None)

    time.time = lambda: real_time() + offset_s
    time.time_ns = lambda: int((real_time() + offset_s) * 10**9)
    for module in list(sys.modules.values()):
        if getattr(module, "datetime", None) is real_datetime:
            module.datetime = Shifted
        if getattr(module, "time", None) is real_time:
            module.time = time.time


def play(order):
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
    if order["clock_ahead_s"]:
        have_another_clock(order["clock_ahead_s"])
    if order["point"] is not None:
        die_in(**order["point"])
    settings = Settings(**order["settings"])
    if order["role"] == "worker":
        if order["witnesses"] is not None:
            fold_before_witnesses(Path(order["witnesses"]), order["others"])
        worker.run(settings)
        return
    told = Path(order["told"])

    def tell(url):
        told.with_suffix(".new").write_text(url)
        told.with_suffix(".new").rename(told)

    api.run(settings, tell)


def main():
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # whoever ends is gone at once
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            log = os.open(json.loads(line)["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(log, 1)
            os.dup2(log, 2)
            play(json.loads(line))
            os._exit(0)
        sys.stdout.write(f"{pid}\n")
        sys.stdout.flush()


class Member:
    """A process of the crew, as the test sees it."""

    def __init__(self, pid, told=None):
        self.pid = pid
        self._told = told
        self.client = None

    def signal(self, number):
        os.kill(self.pid, number)

    def is_alive(self):
        try:
            return Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
        except OSError:
            return False

    def kill(self):
        """Returns when it is gone."""
        if self.is_alive():
            self.signal(signal.SIGKILL)
        wait_until(lambda: not self.is_alive(), f"the death of {self.pid}")

    def freeze(self):
        self.signal(signal.SIGSTOP)
        stat = Path(f"/proc/{self.pid}/stat")
        wait_until(lambda: stat.read_text().rpartition(")")[2].split()[0] == "T", "the stop")

    def connect(self):
        """A client of this api, when it takes requests."""
        wait_until(self._told.exists, "the api's start")
        self.client = httpx2.Client(base_url=self._told.read_text(), timeout=60)
        return self.client


class Crew:
    """The test's side; what its members write goes to `folder`, which a test sets."""

    def __init__(self):
        self.folder = None
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.crew"],
            cwd=ROOT,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._members = []

    def start_worker(self, settings, *, witnesses=None, others=(), **how):
        witnesses = None if witnesses is None else str(witnesses)
        return self._start("worker", settings, witnesses=witnesses, others=list(others), **how)

    def start_api(self, settings, **how):
        told = self.folder / f"api-{len(self._members)}.url"
        return self._start("api", settings.model_copy(update={"port": 0}), told=told, **how)

    def _start(self, role, settings, *, told=None, point=None, clock_ahead_s=0.0, **more):
        values = settings.model_dump(mode="json", exclude_none=True)
        for name in ("objects_access_key", "objects_secret_key"):
            if secret := getattr(settings, name):
                values[name] = secret.get_secret_value()
        order = {"role": role, "settings": values, "log": str(self.folder / "crew.log"), "point": point}
        order |= {"told": str(told), "clock_ahead_s": clock_ahead_s} | more
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        member = Member(int(self._process.stdout.readline()), told)
        self._members.append(member)
        return member

    def dismiss(self):
        """Ends all members."""
        for member in self._members:
            if member.client is not None:
                member.client.close()
            if member.is_alive():
                member.signal(signal.SIGKILL)
        self._members.clear()

    def close(self):
        self.dismiss()
        self._process.stdin.close()
        self._process.wait(PATIENCE_S)
        self._process.stdout.close()


if __name__ == "__main__":
    main()

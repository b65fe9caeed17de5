"""A nursery of real worker processes, some of which kill themselves at a given point of a job.

`python -m tests.faults.worker_with_kill_points` imports everything once, then forks a worker for each line on
its stdin and answers with its exit code (-9 when it was killed). Importing takes seconds, forking none.
"""

import importlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from catalog import Catalog, Settings
from catalog.jobs import find_job
from worker.main import run

ROOT = Path(__file__).parents[2]

# Point: (module, function in it, which call, whether the call is made before dying).
POINTS = {
    "unpacking": ("imagesets.archive", "_write", 5, False),
    "decoding": ("worker.datasets.pixels", "decoded_pixels", 5, False),
    "screened": ("worker.datasets.preparing", "screen_images", 1, True),
    "measuring": ("worker.jobs.measuring", "evaluate", 2, False),
    "making prototypes": ("worker.jobs.learning", "make_prototypes", 1, True),
    "in the middle of folding": ("store.folding", "encode_mask", 1, True),
    "folding": ("store.checkpoints", "fold_artefacts", 1, True),
    "between fold and publish": ("worker.jobs.publishing", "measure_expert", 1, True),
    "inside the publishing transaction": ("worker.jobs.publishing", "publish_revision", 1, True),
    "after publishing": ("worker.jobs.learning", "published_result", 1, False),
    "cleaning up": ("worker.workbench", "Workbench.discard_scratch", 1, False),
    "before the job is done": ("worker.jobs.learning", "clean_up", 1, True),
}
# Where a model has tasks whose images were kept. The name of a point says what it leaves of these; the new
# task has 24 images, and its own measuring takes three calls.
REMEASURING_POINTS = {
    "nothing, an archive half unpacked": ("imagesets.archive", "_write", 29, False),
    "nothing, an expert half measured": ("vlm.evaluation", "image_features", 4, False),
    "the first task, the second half measured": ("worker.jobs.remeasuring", "evaluate", 2, False),
    "the first task, the second measured and not noted": ("worker.jobs.remeasuring", "evaluate", 2, True),
    "all tasks, none published": ("worker.jobs.publishing", "measure_tasks", 1, True),
    "all tasks, inside the transaction": ("worker.jobs.publishing", "publish_revision", 1, True),
}
KILLED_IN_TRAINING = "killed in training"
STOPPED_IN_TRAINING = "told to stop in training"
SIGNALS = {KILLED_IN_TRAINING: signal.SIGKILL, STOPPED_IN_TRAINING: signal.SIGTERM}
SIGNALLED_AT_STEP = 4


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def die_at(point):
    if point in SIGNALS:
        be_signalled_in_training(SIGNALS[point])
        return
    module_name, path, call, is_made = (POINTS | REMEASURING_POINTS)[point]
    die_in(module_name, path, call=call, is_made=is_made)


def die_in(module_name, path, *, call, is_made):
    """From now on the process kills itself in that call of the function, after or instead of making it."""
    owner = importlib.import_module(module_name)
    *outer, name = path.split(".")
    for part in outer:
        owner = getattr(owner, part)
    real, calls = getattr(owner, name), []

    def mortal(*args, **kwargs):
        calls.append(1)
        if len(calls) == call and not is_made:
            die()
        value = real(*args, **kwargs)
        if len(calls) == call:
            die()
        return value

    setattr(owner, name, mortal)


def be_signalled_in_training(number):
    train = importlib.import_module("worker.jobs.train")
    real = train.run_training

    def disturbed(spec, *, on_progress, check_cancelled):
        def tell(progress):
            on_progress(progress)
            if progress["step"] >= SIGNALLED_AT_STEP:
                os.kill(os.getpid(), number)

        real(spec, on_progress=tell, check_cancelled=check_cancelled)

    train.run_training = disturbed


def be_worker(settings, job_id):
    """Works as `condu worker` does, until the job is over."""
    catalog = Catalog(settings)

    def watch():
        is_over = False
        while not is_over:
            time.sleep(0.02)
            with catalog.snapshot() as session:
                is_over = find_job(session, job_id).is_finished
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()
    run(settings)


def main():
    for line in sys.stdin:
        order = json.loads(line)
        pid = os.fork()
        if pid == 0:
            if order["point"] is not None:
                die_at(order["point"])
            be_worker(Settings(**order["settings"]), order["job_id"])
            os._exit(0)
        _, status = os.waitpid(pid, 0)
        sys.stdout.write(f"{os.waitstatus_to_exitcode(status)}\n")
        sys.stdout.flush()


class Nursery:
    """The test's side of the process."""

    def __init__(self):
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.worker_with_kill_points"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run_worker(self, settings, job_id, *, point=None):
        """The exit code of a worker that takes the job, and dies at the point."""
        order = {"settings": settings.model_dump(mode="json"), "job_id": job_id, "point": point}
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def close(self):
        self._process.stdin.close()
        self._process.wait(30)
        self._process.stdout.close()


def training_processes(folder):
    """The pids of living training processes that work in the folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = path.read_bytes()
        except OSError:
            continue
        if b"worker.training" in command and str(folder).encode() in command:
            found.append(int(path.parent.name))
    return found


def wait_for_none(list_found, patience_s=30.0):
    give_up_at = time.monotonic() + patience_s
    while list_found():
        if time.monotonic() > give_up_at:
            raise TimeoutError(f"still there: {list_found()}")
        time.sleep(0.02)


if __name__ == "__main__":
    main()

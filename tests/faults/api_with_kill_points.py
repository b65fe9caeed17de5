"""A nursery of api processes that kill themselves at a given point of an import.

`python -m tests.faults.api_with_kill_points` imports everything once, then forks an api for each line on its
stdin, which takes in a bundle, and answers with its exit code (-9 when it was killed).
"""

import json
import os
import subprocess
import sys
from pathlib import Path

from starlette.testclient import TestClient

from api.app import create_app
from api.logs import configure_logs
from catalog import Settings
from tests.faults.worker_with_kill_points import ROOT, die_in

# Point: (module, function in it, which call, whether the call is made before dying).
POINTS = {
    "in the middle of a blob": ("store.blobs.files", "_FileWriter._append", 3, True),
    "between two blobs": ("store.blobs.files", "_FileWriter._publish", 4, True),
    "after the last blob": ("store.bundles.importing", "parse_base", 1, False),
    "before the transaction": ("api.bundle_import", "Arrival", 1, False),
    "after the base's row": ("api.bundle_import", "register_base", 1, True),
    "inside the transaction": ("api.bundle_import", "register_model", 1, True),
}
AFTER_THE_COMMIT = ("api.bundle_import", "BundleImport", 1, False)


def take_in(folder, bundle, point):
    if point is not None:
        module, path, call, is_made = point
        die_in(module, path, call=call, is_made=is_made)
    with TestClient(create_app(Settings(data=folder)), base_url="http://localhost") as client:
        response = client.post("/v1/bundles", content=bundle.read_bytes())
    return 0 if response.status_code == 201 else 1


def main():
    configure_logs()  # or they would go where the answers go
    for line in sys.stdin:
        order = json.loads(line)
        pid = os.fork()
        if pid == 0:
            os._exit(take_in(Path(order["folder"]), Path(order["bundle"]), order["point"]))
        _, status = os.waitpid(pid, 0)
        sys.stdout.write(f"{os.waitstatus_to_exitcode(status)}\n")
        sys.stdout.flush()


class ApiNursery:
    """The test's side of the process."""

    def __init__(self):
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.api_with_kill_points"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def take_in(self, folder, bundle, *, point=None):
        """The exit code of an api that takes the bundle in, and dies at the point."""
        order = {"folder": str(folder), "bundle": str(bundle), "point": point}
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def close(self):
        self._process.stdin.close()
        self._process.wait(30)
        self._process.stdout.close()


if __name__ == "__main__":
    main()

"""The real server in a process of its own: it takes requests, logs JSON, and stops when it is told to."""

import json
import os
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager
from dataclasses import dataclass

import httpx2

from tests.imagesets.building import two_classes, write_zip
from tests.installing import environment_at

PROGRAM = """
from api.main import run
from catalog import Settings
run(Settings(port=0), on_ready=lambda url: print(url, flush=True))
print("stopped", flush=True)
"""


@dataclass
class Server:
    """A running process, the URL it told, and the lines it has logged."""

    process: subprocess.Popen
    url: str
    reader: threading.Thread
    logged: list[str]

    def lines(self):
        """Everything it logged; only once it has ended."""
        self.reader.join(timeout=60)
        return [json.loads(line) for line in self.logged]


@contextmanager
def started(data_folder, program=PROGRAM):
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(data_folder)],
        env=os.environ | environment_at(data_folder),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    logged = []
    reader = threading.Thread(target=lambda: logged.extend(process.stderr), daemon=True)
    reader.start()
    try:
        url = process.stdout.readline().strip()
        assert url.startswith("http://127.0.0.1:"), logged
        yield Server(process, url, reader, logged)
    finally:
        process.kill()
        process.wait()
        reader.join()
        process.stdout.close()
        process.stderr.close()


def test_a_server_keeps_what_it_answered_through_its_death_and_stops_when_it_is_told(data_folder, tmp_path):
    archive = write_zip(tmp_path / "dataset.zip", two_classes(4)).read_bytes()
    with started(data_folder) as server, httpx2.Client(base_url=server.url, timeout=60) as client:
        digest = client.put("/v1/datasets", content=iter([archive])).json()["digest"]
        ticket = client.post("/v1/models/animals/tasks", json={"name": "food", "dataset": digest})
        server.process.kill()
        assert server.process.wait(timeout=60) == -signal.SIGKILL

    with started(data_folder) as server, httpx2.Client(base_url=server.url, timeout=60) as client:
        assert client.get(ticket.headers["location"]).json()["state"] == "queued"
        # A client that leaves in the middle of a download must not trouble the others.
        with client.stream("GET", "/v1/models/animals/tasks/pets/checkpoint") as response:
            next(response.iter_raw())
            assert "server" not in response.headers
        with client.stream("GET", f"{ticket.headers['location']}/events") as response:
            lines = response.iter_lines()
            while not next(lines).startswith("id:"):
                pass
            # The follower would listen as long as the job is queued; a stop does not wait for it.
            server.process.send_signal(signal.SIGTERM)
            list(lines)
        assert server.process.wait(timeout=60) == 0

        assert server.process.stdout.read() == "stopped\n"
        lines = server.lines()
        paths = {line["path"] for line in lines if line["event"] == "request"}
        assert paths == {
            ticket.headers["location"],
            "/v1/models/animals/tasks/pets/checkpoint",
            f"{ticket.headers['location']}/events",
        }
        assert not [line for line in lines if line["level"] in {"error", "critical"}]

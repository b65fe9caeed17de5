"""Real processes, killed with -9 wherever they are: the next run goes on, and the file is the same."""

import os
import random
import signal
import subprocess
import sys
import time

import pytest

from tests.bulk.conftest import lines, write_tar
from tests.installing import environment_at
from tests.tiny_clip import image_bytes, tiny_image

NUM_IMAGES = 800
PATIENCE_S = 240


def command(installation, source, output):
    """The process of a job with many small parts, started."""
    words = ["classify", "animals", "--input", source, "--output", output, "--data", installation.data]
    return subprocess.Popen(
        [sys.executable, "-m", "cli.main", *map(str, words), "--part-size", "8", "--batch-size", "4"],
        env={
            **os.environ,
            **environment_at(installation.data),
            "CONDU_DEVICE": "cpu",
            "CONDU_NUM_THREADS": "1",
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finished(process):
    """What the process said, once it is done and all was well."""
    said, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, said
    return said


def parts_of(output):
    """How many parts are there."""
    return len(list(output.with_name(f"{output.name}.parts").glob("[0-9]*")))


def wait_for_parts(process, output, *, more_than):
    """Wait until there are more parts than that, or the process has ended."""
    until = time.monotonic() + PATIENCE_S
    while parts_of(output) <= more_than and process.poll() is None:
        assert time.monotonic() < until
        time.sleep(0.002)


@pytest.fixture(scope="module")
def many():
    """Enough images for three runs, each of which is killed in the middle of its work."""
    return {
        f"{number:04d}.png": image_bytes(tiny_image(number)) if number % 50 else b"broken"
        for number in range(NUM_IMAGES)
    }


def test_a_job_that_is_killed_again_and_again_leaves_the_same_bytes(bench, installation, tmp_path, many):
    tar = write_tar(tmp_path / "images.tar.gz", many, "w:gz")
    whole = bench.run(tar, "whole.jsonl", part_size=8, batch_size=4).output
    output = tmp_path / "killed.jsonl"
    lot = random.Random(7)
    there = 0

    for _ in range(2):
        process = command(installation, tar, output)
        wait_for_parts(process, output, more_than=there + lot.randrange(4))
        time.sleep(lot.random() / 20)  # not always right after a part was written
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert process.returncode == -signal.SIGKILL
        assert parts_of(output) > there  # and nothing that was done is done again
        there = parts_of(output)
    said = finished(command(installation, tar, output))

    assert "answered before" in said
    assert output.read_bytes() == whole.read_bytes()
    assert [row["image"] for row in lines(output)] == list(many)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("killed")] == [output.name]

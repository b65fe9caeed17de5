"""The same job on a local Ray cluster of two actors gives the rows of a single process."""

import importlib.util
import json
import os
import socket
import subprocess
import sys

import pytest

from bulk.errors import AnswerError, RayError
from bulk.ray_actors import OverRay, PartActor, check_reachable, share_of, unpacked
from tests.bulk.conftest import lines, write_tar
from tests.installing import embedded_only, environment_at

HAS_RAY = importlib.util.find_spec("ray") is not None
needs_ray = pytest.mark.skipif(
    not HAS_RAY, reason="RAY IS NOT INSTALLED: pip install 'condu[ray]', then run tests/bulk again"
)
PATIENCE_S = 280
QUIET = {"CONDU_DEVICE": "cpu", "CONDU_NUM_THREADS": "1", "RAY_USAGE_STATS_ENABLED": "0"}


def classify(installation, source, output, *words):
    """What `condu classify --ray` says, from a process of its own: Ray leaves threads and warnings behind."""
    words = ["--input", source, "--output", output, "--data", installation.data, *words]
    places = environment_at(installation.data)
    return subprocess.run(
        [sys.executable, "-m", "cli.main", "classify", "animals", *map(str, words), "--json"],
        env={**os.environ, **places, **QUIET},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )


def same(row, other):
    """Whether two rows say the same but for the last digits of their probabilities."""
    near = pytest.approx(other["probability"] or 0, rel=1e-3)
    names = ("image", "label", "revision", "model", "error")
    digests = [[share["digest"] for share in each["experts"]] for each in (row, other)]
    return [row[name] for name in names] == [other[name] for name in names] and (
        digests[0] == digests[1] and (row["probability"] or 0) == near
    )


@needs_ray
def test_two_actors_give_the_rows_of_a_single_process(bench, installation, encoded, tmp_path):
    tar = write_tar(tmp_path / "images.tar.gz", encoded, "w:gz")
    alone = lines(bench.run(tar, "alone.jsonl").output)
    output = tmp_path / "ray.jsonl"

    done = classify(
        installation, tar, output, "--ray", "local", "--actors", "2", "--part-size", "4", "--batch-size", "3"
    )

    assert done.returncode == 0, done.stderr
    outcome = json.loads(done.stdout)
    assert (outcome["images"], outcome["failed"]) == (22, 2)
    rows = lines(output)
    assert len(rows) == len(alone)
    assert all(same(row, other) for row, other in zip(rows, alone, strict=True))


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:1", "127.0.0.1:99999"])
def test_a_cluster_that_is_not_there_is_told(address):
    with pytest.raises(RayError, match="no Ray cluster answers at"):
        check_reachable(address)


def test_an_address_that_ray_looks_up_itself_is_left_to_it():
    with socket.create_server(("127.0.0.1", 0)) as server:
        for address in ("local", "auto", f"127.0.0.1:{server.getsockname()[1]}"):
            assert check_reachable(address) is None


@pytest.mark.skipif(HAS_RAY, reason="Ray is installed")
def test_where_ray_is_not_installed_the_command_says_how_to_get_it(bench, folder):
    with pytest.raises(RayError) as caught:
        bench.run(folder, how={"runner": OverRay()})

    assert "condu[ray]" in caught.value.remedy


def test_an_actor_makes_the_parts_that_the_process_alone_makes(bench, folder):
    kept = []

    def runner(work, numbers, on_images):
        actor = PartActor(work)
        for number in numbers:
            row = actor.made(number)
            kept.append(row["error"])
            yield number, row["content"]

    by_actor = bench.run(folder, how={"runner": runner}).output

    assert by_actor.read_bytes() == bench.run(folder, "alone.jsonl").output.read_bytes()
    assert set(kept) == {None}


@embedded_only
def test_what_an_actor_meets_comes_back_as_a_row(bench, folder):
    def runner(work, numbers, on_images):
        for path in (bench.settings.data / "blobs").rglob(work.job.manifest):
            path.rename(path.with_suffix(".away"))
        try:
            yield unpacked(PartActor(work).made(0))
        finally:
            for path in (bench.settings.data / "blobs").rglob("*.away"):
                path.rename(path.with_suffix(""))

    with pytest.raises(AnswerError, match="not"):
        bench.run(folder, how={"runner": runner})


def node(**resources):
    """A machine of a cluster."""
    return {"Alive": True, "Resources": resources}


@pytest.mark.parametrize(
    ("nodes", "asked", "share"),
    [
        ([node(CPU=2.0)], 2, {"actors": 2, "num_cpus": 1}),
        ([node(CPU=2.0)], None, {"actors": 1, "num_cpus": 2}),
        ([node(CPU=2.0)], 4, {"actors": 4, "num_cpus": 0.5}),
        ([node(CPU=8.0), node(CPU=4.0)], None, {"actors": 2, "num_cpus": 4}),
        ([node(CPU=8.0), {"Alive": False, "Resources": {"CPU": 1.0}}], None, {"actors": 1, "num_cpus": 8}),
        ([node(CPU=8.0, GPU=2.0), node(CPU=8.0, GPU=1.0)], None, {"actors": 3, "num_gpus": 1.0}),
        ([node(CPU=8.0, GPU=1.0)], 2, {"actors": 2, "num_gpus": 0.5}),
    ],
)
def test_actors_take_a_device_each_or_share_the_processors(nodes, asked, share):
    assert share_of(nodes, asked) == share

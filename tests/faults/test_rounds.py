"""A sample of `make faults`, and that it would tell if something were lost or fused twice."""

import os
import re
import subprocess
import sys
from dataclasses import replace

import pytest

from tests.faults.judging import LOST, TWICE, Found, Job, Revision, judge
from tests.faults.round_points import EVERY
from tests.faults.worker_with_kill_points import ROOT

PATIENCE_S = 500


def play(tmp_path, *options):
    """Exit code, last line and all lines of a few rounds."""
    command = [sys.executable, "-m", "tests.faults.rounds", "--folder", str(tmp_path), *options]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )
    lines = done.stdout.splitlines()
    assert lines, done.stderr
    return done.returncode, lines[-1], done.stdout


def test_a_few_rounds_of_killed_and_frozen_workers_lose_nothing_and_fuse_nothing_twice(tmp_path):
    exit_code, verdict, output = play(tmp_path, "--rounds", "5", "--seed", "6", "--stride", "12")
    assert (exit_code, verdict) == (0, "5 rounds: 0 lost, 0 fused twice"), output
    assert int(re.search(r"(\d+) processes killed", output).group(1)) >= 5
    assert list(tmp_path.iterdir()) == []


def test_rounds_with_a_broken_fence_are_found_out(tmp_path):
    first = str(EVERY.index(("after the transaction", 1)))
    exit_code, verdict, output = play(
        tmp_path, "--rounds", "1", "--seed", "6", "--first", first, "--break-fence"
    )
    assert exit_code == 1, output
    lost, twice = map(int, re.fullmatch(r"1 rounds: (\d+) lost, (\d+) fused twice", verdict).groups())
    assert lost > 0
    assert twice > 0


FOUND = Found(
    jobs=(Job("1", "pets", "ears", "succeeded"), Job("2", "pets", "feet", "succeeded")),
    revisions=(
        Revision("pets", 1, None, "1", {"ears": "a"}),
        Revision("pets", 2, 1, "2", {"ears": "b", "feet": "c"}),
    ),
    learned=(("pets", "ears"), ("pets", "feet")),
    heads={"pets": 2},
)
EXPERTS = {("ears",): {"ears": "a"}, ("ears", "feet"): {"ears": "b", "feet": "c"}}


def faults_of(found, acknowledged=("1", "2")):
    return [kind for kind, _ in judge(acknowledged, found, EXPERTS.__getitem__)]


def test_an_installation_without_faults_is_judged_to_have_none():
    assert faults_of(FOUND) == []


@pytest.mark.parametrize(
    "changes",
    [
        {"jobs": (FOUND.jobs[0], replace(FOUND.jobs[1], state="failed"))},
        {"jobs": (FOUND.jobs[0], replace(FOUND.jobs[1], state="queued"))},
        {"revisions": (FOUND.revisions[0],), "heads": {"pets": 1}},
        {"revisions": (FOUND.revisions[0], replace(FOUND.revisions[1], experts={"ears": "b", "feet": "x"}))},
        {"revisions": (FOUND.revisions[0], replace(FOUND.revisions[1], experts={"feet": "c"}))},
        {"heads": {"pets": 1}},
        {"problems": ("the manifest serves something else",)},
    ],
    ids=["failed", "unfinished", "unpublished", "other bits", "a task gone", "head set back", "a problem"],
)
def test_what_was_lost_is_judged_as_lost(changes):
    assert set(faults_of(replace(FOUND, **changes))) == {LOST}


def test_a_job_that_was_acknowledged_and_is_gone_is_lost():
    assert faults_of(FOUND, acknowledged=("1", "2", "3")) == [LOST]


@pytest.mark.parametrize(
    "changes",
    [
        {"revisions": (*FOUND.revisions, Revision("pets", 3, 2, "2", {"ears": "b", "feet": "c"}))},
        {"revisions": (*FOUND.revisions, Revision("pets", 3, 2, None, {"ears": "b", "feet": "c"}))},
        {"learned": (*FOUND.learned, ("pets", "feet"))},
    ],
    ids=["two revisions of a job", "a revision of no job", "a task learned twice"],
)
def test_what_was_fused_twice_is_judged_as_fused_twice(changes):
    assert TWICE in faults_of(replace(FOUND, **changes))

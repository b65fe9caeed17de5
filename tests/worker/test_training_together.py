"""Several processes train one task: the result of one but for rounding, and no process is left behind."""

import os
import signal
from dataclasses import replace

import pytest
import torch

from catalog.job_queue import JobFailedError
from store.safefile import SafeFile, write_safetensors
from tests.faults.worker_with_kill_points import training_processes, wait_for_none
from tests.worker.installation import bits_of
from tests.worker.training_setup import prepared, training_spec
from worker.training.child import run_training
from worker.training.team import Team, TooFewDevicesError, check_devices, device_of

LARGEST_RELATIVE_DIFFERENCE = 1e-2
"""Of what training moved, in L2: sums in another order are rounded otherwise, and Adam makes that larger."""


def go_on():
    pass


def together(spec, size=2):
    return replace(spec, processes=size)


def moved(spec):
    base, tuned = SafeFile(spec.base).tensors(), SafeFile(spec.result).tensors()
    return torch.cat([(tuned[name] - base[name]).flatten().double() for name in sorted(tuned)])


def test_two_processes_move_the_weights_as_one_does_with_the_same_batch(tmp_path):
    prepared(tmp_path)
    options = {"batch_size": 7, "accumulation": 2, "gradient_clip": 1.0, "learning_rate": 1e-4}
    alone = training_spec(tmp_path, **options)
    both = together(training_spec(tmp_path, **options))
    losses = {id(spec): [] for spec in (alone, both)}
    for spec in (alone, both):
        run_training(spec, on_progress=losses[id(spec)].append, check_cancelled=go_on)
    wanted, got = moved(alone), moved(both)
    assert wanted.norm() > 0
    assert (got - wanted).norm() <= LARGEST_RELATIVE_DIFFERENCE * wanted.norm()
    first, second = (losses[id(spec)][0]["loss"] for spec in (alone, both))
    assert second == pytest.approx(first, rel=1e-5)
    assert not list(both.folder.glob("meeting-*"))


def test_processes_that_are_told_to_stop_by_others_go_on_with_the_same_result(tmp_path):
    prepared(tmp_path)
    whole, disturbed = (together(training_spec(tmp_path)) for _ in range(2))
    run_training(whole, on_progress=lambda _progress: None, check_cancelled=go_on)
    sent = []

    def stop_one(_progress):
        if not sent:
            sent.append(max(training_processes(disturbed.folder)))
            os.kill(sent[0], signal.SIGTERM)

    run_training(disturbed, on_progress=stop_one, check_cancelled=go_on)
    assert bits_of(disturbed.result) == bits_of(whole.result)


def test_when_one_of_the_processes_is_killed_the_others_end_too(tmp_path):
    prepared(tmp_path)
    spec = together(training_spec(tmp_path, iterations=100_000))
    killed = []

    def kill_one(_progress):
        if not killed:
            killed.append(max(training_processes(spec.folder)))
            os.kill(killed[0], signal.SIGKILL)

    with pytest.raises(JobFailedError, match=r"was killed.*SIGKILL"):
        run_training(spec, on_progress=kill_one, check_cancelled=go_on)
    wait_for_none(lambda: training_processes(spec.folder))
    assert killed
    assert not spec.result.exists()


def test_what_one_process_says_of_a_failure_is_what_the_job_says(tmp_path):
    prepared(tmp_path)
    base = {name: tensor.clone() for name, tensor in SafeFile(training_spec(tmp_path).base).tensors().items()}
    base["visual.conv1.weight"].view(-1)[0] = torch.inf
    write_safetensors(tmp_path / "base.safetensors", base)
    with pytest.raises(JobFailedError, match=r"The training diverged: The loss is nan at step 1"):
        run_training(
            together(training_spec(tmp_path)), on_progress=lambda _progress: None, check_cancelled=go_on
        )


@pytest.mark.parametrize(("size", "count"), [(1, 5), (2, 7), (3, 8), (4, 4)])
def test_shares_are_the_whole_batch_and_nobody_goes_without(size, count):
    shares = [Team(rank, size, torch.device("cpu")).share(count) for rank in range(size)]
    assert [place for share in shares for place in share] == list(range(count))
    assert min(map(len, shares)) >= count // size > 0


def test_each_process_has_a_gpu_of_its_own_and_too_few_are_refused():
    assert [str(device_of(rank, "cuda:1")) for rank in range(2)] == ["cuda:1", "cuda:2"]
    assert device_of(3, "cpu") == torch.device("cpu")
    check_devices(1, "cuda")
    check_devices(8, "cpu")
    with pytest.raises(TooFewDevicesError, match="this machine has"):
        check_devices(torch.cuda.device_count() + 1 + (torch.cuda.device_count() == 0), "cuda")

"""The training process as the worker starts it: told to stop, killed, failing."""

import math
import os
import signal

import pytest

from catalog.job_queue import JobFailedError
from store.safefile import SafeFile, write_safetensors
from tests.faults.worker_with_kill_points import training_processes, wait_for_none
from tests.worker.installation import bits_of
from tests.worker.training_setup import prepared, training_spec
from worker.training import child
from worker.training.child import run_training


def go_on():
    pass


def send_once(number, spec, sent):
    """An on_progress that sends the training process a signal at its first report."""

    def on_progress(progress):
        if not sent:
            sent.extend(training_processes(spec.folder))
            for pid in sent:
                os.kill(pid, number)

    return on_progress


def test_a_process_that_is_told_to_stop_by_others_goes_on_with_the_same_result(tmp_path):
    prepared(tmp_path)
    whole, disturbed = training_spec(tmp_path), training_spec(tmp_path)
    reports, sent = [], []
    run_training(whole, on_progress=reports.append, check_cancelled=go_on)
    assert reports[-1]["step"] == 8
    run_training(disturbed, on_progress=send_once(signal.SIGTERM, disturbed, sent), check_cancelled=go_on)
    assert len(sent) == 1
    assert bits_of(disturbed.result) == bits_of(whole.result)
    run_training(whole, on_progress=pytest.fail, check_cancelled=pytest.fail)


def test_a_killed_process_is_reported_with_the_likely_reason(tmp_path):
    prepared(tmp_path)
    spec = training_spec(tmp_path, iterations=100_000)
    with pytest.raises(JobFailedError, match=r"was killed.*SIGKILL.*smaller batch_size"):
        run_training(spec, on_progress=send_once(signal.SIGKILL, spec, []), check_cancelled=go_on)


def test_a_training_that_diverges_fails_with_the_words_of_the_process(tmp_path):
    prepared(tmp_path)
    base = {name: tensor.clone() for name, tensor in SafeFile(training_spec(tmp_path).base).tensors().items()}
    base["visual.conv1.weight"].view(-1)[0] = math.inf
    write_safetensors(tmp_path / "base.safetensors", base)
    with pytest.raises(JobFailedError, match=r"The training diverged: The loss is nan at step 1") as caught:
        run_training(training_spec(tmp_path), on_progress=lambda _progress: None, check_cancelled=go_on)
    assert "learning_rate" in caught.value.remedy


def test_a_process_that_dies_of_an_error_is_quoted(tmp_path):
    prepared(tmp_path)
    spec = training_spec(tmp_path)
    spec.images.unlink()
    with pytest.raises(JobFailedError, match=r"ended unexpectedly: Exit code 1\. Its last words: TypeError"):
        run_training(spec, on_progress=lambda _progress: None, check_cancelled=go_on)


def test_a_process_that_does_not_stop_is_killed(tmp_path, monkeypatch):
    monkeypatch.setattr(child, "STOP_GRACE_S", 0.0)
    prepared(tmp_path)
    spec = training_spec(tmp_path, iterations=100_000)

    class Cancelled(BaseException):
        pass

    def cancel(_progress):
        raise Cancelled

    with pytest.raises(Cancelled):
        run_training(spec, on_progress=cancel, check_cancelled=go_on)
    wait_for_none(lambda: training_processes(spec.folder))
    assert not spec.result.exists()

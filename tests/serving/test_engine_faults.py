import time

import pytest
import torch

from serving.errors import DeviceMemoryError, DeviceStuckError
from store.blobs import FileBlobs
from store.errors import CorruptBlobError
from tests.serving.asking import WAIT_S, ask, assert_same_answers, hooked, submit, wait_until
from tests.serving.conftest import Gate, Heard
from tests.tiny_clip import TINY_CONFIG
from tests.vlm.conftest import TASKS, learn
from vlm.prediction_options import PredictionOptions


def test_a_device_that_hangs_is_started_anew_and_only_its_batch_is_lost(make_engine, learned, gate):
    heard = Heard()
    engine = make_engine(metrics=heard, hang_timeout_s=0.3)
    ask(engine, learned, [learned.picture(0)], PredictionOptions(task="flowers"))
    with hooked(engine, learned, "pets", gate):
        lost = submit(engine, learned, [learned.picture(0)], PredictionOptions(task="pets"))
        assert gate.reached.wait(WAIT_S)
        waiting = submit(engine, learned, [learned.picture(1)], PredictionOptions(task="flowers"))
        with pytest.raises(DeviceStuckError, match=r"did not answer for 0.3 s"):
            lost.result(WAIT_S)
        assert waiting.result(WAIT_S)
        assert engine.status().restarts == 1
        assert engine.status().is_alive
        assert engine.predictor.pool.stats().leased > 0  # what the hanging thread may still read
        gate.opened.set()
    assert ask(engine, learned, [learned.picture(0)], PredictionOptions(task="pets"))
    wait_until(lambda: engine.predictor.pool.stats().leased == 0)
    assert heard.reasons == ["stuck"]


def test_prompts_that_hang_and_fail_at_last_leave_the_expert_of_those_who_came_after(
    make_engine, learned, gate
):
    late, turns = Gate(), [gate]

    def burst(module, inputs):
        hold = turns.pop() if turns else late
        hold(module, inputs)
        if hold is gate:
            raise RuntimeError("the kernel failed at last")

    def asked(label):
        return PredictionOptions(task="pets", labels=(label,))

    digest = learned.manifest.expert_digest("pets")
    engine = make_engine(hang_timeout_s=2.0)
    ask(engine, learned, [learned.picture(0)], asked("cat"))
    with engine.predictor.pool.lease(learned.base, learned.manifest, "pets") as expert:
        expert.model.transformer.register_forward_pre_hook(burst)
    with pytest.raises(DeviceStuckError):
        ask(engine, learned, [learned.picture(0)], asked("dog"))
    after = submit(engine, learned, [learned.picture(1)], asked("hen"))
    assert late.reached.wait(WAIT_S)
    gate.opened.set()
    for _ in range(30):  # meanwhile the thread that hung comes back, fails, and ends
        time.sleep(0.01)
        assert {entry.digest: entry.leases for entry in engine.predictor.pool.entries()}[digest] >= 1
    late.opened.set()
    assert after.result(WAIT_S)


def test_a_batch_too_large_for_the_devices_memory_is_halved(make_engine, learned):
    heard, sizes = Heard(), []

    def full(_module, inputs):
        sizes.append(len(inputs[0]))
        if len(inputs[0]) > 3:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    engine = make_engine(metrics=heard)
    options = PredictionOptions(task="pets")
    images = [learned.picture(seed) for seed in range(10)]
    expected = ask(engine, learned, images, options)[0]
    with hooked(engine, learned, "pets", full):
        sizes.clear()
        assert_same_answers(ask(engine, learned, images, options)[0], expected)
        assert sizes == [10, 5, 3, 2, 5, 3, 2]
        sizes.clear()
        ask(engine, learned, images, options)
        assert max(sizes) == 3


def test_a_device_without_memory_for_one_image_says_so(make_engine, learned):
    def full(_module, _inputs):
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate")

    engine = make_engine()
    with (
        hooked(engine, learned, "pets", full),
        pytest.raises(DeviceMemoryError, match="CONDU_EXPERT_CACHE_BYTES"),
    ):
        ask(engine, learned, [learned.picture(0)] * 2, PredictionOptions(task="pets"))
    assert ask(engine, learned, [learned.picture(0)], PredictionOptions(task="pets"))


def test_a_request_that_cannot_be_computed_does_not_take_its_neighbours_with_it(make_engine, learned, gate):
    poison = torch.full_like(learned.picture(0), 1e30)

    def burst(_module, inputs):
        gate(_module, inputs)
        if bool((inputs[0] > 1e29).any()):
            raise RuntimeError("the kernel failed")

    engine = make_engine()
    options = PredictionOptions(task="pets")
    with hooked(engine, learned, "pets", burst):
        first = submit(engine, learned, [learned.picture(0)], options)
        assert gate.reached.wait(WAIT_S)
        good, bad = (submit(engine, learned, [image], options) for image in (learned.picture(1), poison))
        gate.opened.set()
        assert first.result(WAIT_S)
        assert good.result(WAIT_S)
        with pytest.raises(RuntimeError, match="the kernel failed"):
            bad.result(WAIT_S)


def test_an_expert_whose_blob_is_damaged_fails_its_own_requests_only(make_engine, tmp_path):
    damaged = learn(tmp_path, TINY_CONFIG, TASKS, blobs=FileBlobs(tmp_path / "blobs"))
    engine = make_engine(of=damaged)
    mask = damaged.store.blobs.path(damaged.manifest.task("pets").mask)
    mask.chmod(0o644)
    content = bytearray(mask.read_bytes())
    content[len(content) // 2] ^= 0xFF
    mask.write_bytes(content)
    with pytest.raises(CorruptBlobError):
        ask(engine, damaged, [damaged.picture(0)], PredictionOptions(task="pets"))
    assert ask(engine, damaged, [damaged.picture(0)], PredictionOptions(task="flowers"))
    assert engine.status().queued_images == 0

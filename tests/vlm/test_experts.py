import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch._inductor import config as inductor

from store.blobs import FileBlobs, MemoryBlobs
from store.checkpoints import CheckpointStore
from store.errors import CorruptBlobError, NotFoundError
from store.safefile import write_safetensors
from tests.tiny_clip import TINY_BATCHNORM_CONFIG, TINY_CONFIG, tiny_tensors
from tests.vlm.conftest import TASKS, learn
from vlm.architecture import resolve_architecture
from vlm.bases import BaseRef
from vlm.experts import ExpertPool, resolve_device
from vlm.features import image_features


def state(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def exported(learned, task, manifest=None):
    """The expert's tensors by the store's own other way, the download."""
    manifest = manifest or learned.manifest
    base = learned.store.load_base(learned.base.digest)
    rebuilt = learned.store.rebuild(base, manifest, task)
    return {**base.space.views(rebuilt.flat), **rebuilt.buffers, **base.fixed}


def test_the_base_is_the_base(learned):
    with learned.pool().lease(learned.base, learned.manifest, None) as expert:
        assert expert.task is None
        assert expert.digest == learned.base.digest
        assert same(state(expert.model), learned.base_tensors)


def test_an_expert_has_the_weights_that_the_store_rebuilds(learned):
    pool = learned.pool()
    for task in TASKS:
        with pool.lease(learned.base, learned.manifest, task) as expert:
            assert expert.task == task
            assert expert.digest == learned.manifest.expert_digest(task)
            assert same(state(expert.model), exported(learned, task))
            assert not same(state(expert.model), learned.base_tensors)


def test_the_only_expert_of_a_model_is_its_fine_tuned_checkpoint(learned):
    with learned.pool().lease(learned.base, learned.manifests[0], "pets") as expert:
        for name, tensor in expert.model.state_dict().items():
            torch.testing.assert_close(tensor, learned.checkpoints["pets"][name], rtol=1e-6, atol=1e-6)


def test_one_task_has_another_expert_in_each_revision(learned):
    pool = learned.pool()
    for manifest in learned.manifests[1:]:
        with pool.lease(learned.base, manifest, "pets") as expert:
            assert same(state(expert.model), exported(learned, "pets", manifest))
    assert pool.stats().misses == 5  # the base, two unified deltas and two experts


def test_a_second_request_finds_the_expert_in_memory(learned):
    pool = learned.pool()
    for _ in range(3):
        with pool.lease(learned.base, learned.manifest, "pets") as expert:
            digest = expert.digest
    assert digest == learned.manifest.expert_digest("pets")
    assert (pool.stats().misses, pool.stats().hits) == (3, 2)  # missed: base, unified delta, expert
    assert pool.stats().size_bytes == 3 * learned.model_bytes


def test_experts_with_batchnorm_statistics_of_their_own_get_them(tmp_path):
    def moved(tensors):
        return {name: tensor + 0.5 if "running_" in name else tensor for name, tensor in tensors.items()}

    learned = learn(tmp_path, TINY_BATCHNORM_CONFIG, {"pets": ("cat", "dog")}, alter=moved)
    pool, changed = learned.pool(), 0
    with (
        pool.lease(learned.base, learned.manifest, "pets") as expert,
        pool.lease(learned.base, None, None) as base,
    ):
        assert same(state(expert.model), exported(learned, "pets"))
        for name, tensor in state(expert.model).items():
            if "running_" in name:
                assert torch.equal(tensor, learned.checkpoints["pets"][name])
                changed += 1
        assert changed > 0
        assert same(state(base.model), learned.base_tensors)


def test_a_base_in_half_precision_answers_in_float32(tmp_path):
    architecture = resolve_architecture(config=TINY_BATCHNORM_CONFIG)
    halves = {
        name: tensor.half() if tensor.is_floating_point() else tensor
        for name, tensor in tiny_tensors(config=TINY_BATCHNORM_CONFIG).items()
    }
    write_safetensors(tmp_path / "half.safetensors", halves)
    store = CheckpointStore(MemoryBlobs())
    digest = store.save_base(tmp_path / "half.safetensors", architecture.expected_tensors()).digest
    ref = BaseRef("half", digest, architecture, architecture.preprocessing())
    with ExpertPool(store).lease(ref, None, None) as base:
        features = image_features(base.model, torch.randn(2, 3, 32, 32))
    assert features.dtype == torch.float32
    assert features.isfinite().all()


def test_leased_weights_do_not_change_while_others_come_and_go(learned):
    pool = learned.pool(models=1)
    with (
        pool.lease(learned.base, learned.manifest, "pets") as kept,
        pool.lease(learned.base, None, None) as base,
    ):
        before, base_before = state(kept.model), state(base.model)
        for _ in range(3):
            for task in ("flowers", "digits"):
                with pool.lease(learned.base, learned.manifest, task) as expert:
                    assert same(state(expert.model), exported(learned, task))
        assert same(state(kept.model), before)
        assert same(state(base.model), base_before)
        assert pool.stats().size_bytes >= 2 * learned.model_bytes
    assert pool.stats().size_bytes <= learned.model_bytes


def test_a_hundred_switches_leave_every_weight_as_it_was(learned):
    pool = learned.pool(models=2)
    expected = {task: exported(learned, task) for task in TASKS}
    for turn in range(100 // len(TASKS)):
        for task in TASKS:
            with pool.lease(learned.base, learned.manifest, task) as expert:
                if turn % 13 == 0:
                    assert same(state(expert.model), expected[task])
    with pool.lease(learned.base, None, None) as base:
        assert same(state(base.model), learned.base_tensors)
    assert pool.stats().size_bytes == 2 * learned.model_bytes
    assert pool.stats().evictions > 90


def test_memory_of_an_expert_that_went_is_used_for_the_next(learned):
    pool = learned.pool(models=2)
    places = set()
    for turn in range(6):
        with pool.lease(learned.base, learned.manifest, ("pets", "flowers")[turn % 2]) as expert:
            places.add(expert.model.get_parameter("token_embedding.weight").data_ptr())
        del expert
    assert len(places) == 1


def with_own_statistics(tensors):
    shift = float(tensors["token_embedding.weight"].abs().mean())
    return {name: tensor + shift if "running_" in name else tensor for name, tensor in tensors.items()}


def test_the_model_of_an_expert_that_went_is_wired_to_the_next(tmp_path):
    learned = learn(tmp_path, TINY_BATCHNORM_CONFIG, TASKS, alter=with_own_statistics)
    pool = learned.pool(models=2)
    models = set()
    for turn in range(6):
        task = ("pets", "flowers")[turn % 2]
        with pool.lease(learned.base, learned.manifest, task) as expert:
            models.add(id(expert.model))
            assert same(state(expert.model), exported(learned, task))
        del expert
    assert len(models) == 1


def test_what_is_in_memory_is_leased_without_being_made(learned):
    pool = learned.pool()
    with pool.lease_if_here(learned.base, learned.manifest, "pets") as missing:
        assert missing is None
    with (
        pool.lease(learned.base, learned.manifest, "pets") as made,
        pool.lease_if_here(learned.base, learned.manifest, "pets") as found,
    ):
        assert found.model is made.model
        assert (found.task, found.digest) == ("pets", made.digest)
    assert pool.stats().misses == 3  # the base, the unified delta and the expert


def test_the_pool_tells_what_it_holds_and_drops_what_is_idle(learned):
    pool = learned.pool()
    with pool.lease(learned.base, learned.manifest, "pets") as expert:
        kinds = {entry.kind: entry for entry in pool.entries()}
        assert set(kinds) == {"base", "unified delta", "expert"}
        assert (kinds["expert"].digest, kinds["expert"].leases) == (expert.digest, 1)
        assert kinds["expert"].idle_s == 0.0
        assert pool.drop_idle(3600.0) == 0
        assert pool.drop_idle(0.0) == 2
        assert [entry.kind for entry in pool.entries()] == ["expert"]
    assert pool.drop_idle(0.0) == 1


def test_there_is_room_until_what_is_leased_fills_the_bound(learned):
    pool = learned.pool(models=4)
    assert pool.has_room(learned.base)
    with pool.lease(learned.base, learned.manifest, "pets"):
        assert pool.has_room(learned.base)
        with pool.lease(learned.base, learned.manifest, "flowers"):
            assert not pool.has_room(learned.base)
        assert pool.has_room(learned.base)


def test_a_tower_in_half_precision_gives_nearly_the_same_features(learned):
    pictures = learned.pictures(3)
    whole = ExpertPool(learned.store)
    half = ExpertPool(learned.store, precision="bfloat16")
    with whole.lease(learned.base, None, None) as exact, half.lease(learned.base, None, None) as rounded:
        expected, found = exact.image_features(pictures), rounded.image_features(pictures)
    assert found.dtype == torch.float32
    assert not torch.equal(found, expected)
    torch.testing.assert_close(found.norm(dim=1), torch.ones(3))
    assert bool(((found * expected).sum(dim=1) > 0.999).all())


def test_a_tower_that_cannot_be_compiled_here_runs_as_it_is(learned, monkeypatch):
    monkeypatch.setattr(inductor.cpp, "cxx", ("/no/such/compiler",))
    pictures = learned.pictures(3)
    with ExpertPool(learned.store).lease(learned.base, None, None) as plain:
        expected = plain.image_features(pictures)
    with ExpertPool(learned.store, is_compiled=True).lease(learned.base, None, None) as uncompiled:
        assert torch.equal(uncompiled.image_features(pictures), expected)


@pytest.mark.parametrize("kept_of", [lambda model: model, lambda model: model.state_dict()["visual.proj"]])
def test_what_somebody_kept_of_a_model_beyond_its_lease_is_not_written_over(learned, kept_of):
    def copied(kept):
        return state(kept) if isinstance(kept, torch.nn.Module) else {"kept": kept.clone()}

    pool = learned.pool(models=2)
    with pool.lease(learned.base, learned.manifest, "pets") as expert:
        kept = kept_of(expert.model)
    before = copied(kept)
    del expert
    for _ in range(3):
        for task in ("flowers", "digits"):
            with pool.lease(learned.base, learned.manifest, task):
                pass
    assert same(copied(kept), before)


def test_the_base_can_be_leased_as_the_store_wants_it(learned):
    pool = learned.pool()
    with pool.lease_base(learned.base) as base, pool.lease(learned.base, None, None) as expert:
        assert base.digest == learned.base.digest
        views = base.space.views(base.flat)
        assert all(
            expert.model.state_dict()[name].data_ptr() == view.data_ptr() for name, view in views.items()
        )
    assert pool.stats().misses == 1


def test_threads_that_ask_for_one_expert_rebuild_it_once(learned):
    pool, barrier = learned.pool(), threading.Barrier(6)

    def ask():
        barrier.wait()
        with pool.lease(learned.base, learned.manifest, "pets") as expert:
            return same(state(expert.model), exported(learned, "pets"))

    with ThreadPoolExecutor(6) as threads:
        assert all(future.result() for future in [threads.submit(ask) for _ in range(6)])
    assert pool.stats().misses == 3  # the base, the unified delta and the expert


def test_many_threads_in_little_memory_always_get_the_weights_they_asked_for(learned):
    pool = learned.pool(models=2)
    expected = {task: exported(learned, task) for task in TASKS}
    names = list(TASKS)

    def work(seed):
        for turn in range(30):
            task = names[(seed + turn) % 3]
            with pool.lease(learned.base, learned.manifest, task) as expert:
                assert expert.task == task
                assert same(state(expert.model), expected[task])
        return True

    with ThreadPoolExecutor(4) as threads:
        assert all(future.result() for future in [threads.submit(work, seed) for seed in range(4)])
    assert pool.stats().leased == 0
    assert pool.stats().size_bytes <= 2 * learned.model_bytes


def test_equal_weights_of_two_architectures_are_two_models(learned):
    pool = learned.pool()
    quick = resolve_architecture(config={**learned.architecture.config, "quick_gelu": True})
    other = BaseRef("quick", learned.base.digest, quick, learned.base.preprocessing)
    image = learned.pictures(1)
    with (
        pool.lease(learned.base, None, None) as one,
        pool.lease(other, None, None) as two,
        torch.inference_mode(),
    ):
        assert not torch.equal(one.model.encode_image(image), two.model.encode_image(image))


def test_weights_loaded_while_a_request_is_answered_can_serve_outside_it(learned):
    pool = learned.pool()
    with torch.inference_mode(), pool.lease(learned.base, learned.manifest, "pets") as expert:
        assert not any(parameter.is_inference() for parameter in expert.model.parameters())


def test_an_unknown_task_is_not_found(learned):
    with (
        pytest.raises(NotFoundError, match=r"'birds'.*pets"),
        learned.pool().lease(learned.base, learned.manifest, "birds"),
    ):
        pass
    with pytest.raises(NotFoundError, match="no task yet"), learned.pool().lease(learned.base, None, "pets"):
        pass


def test_a_revision_of_another_base_is_refused(learned):
    other = BaseRef("other", "0" * 64, learned.architecture, learned.base.preprocessing)
    with (
        pytest.raises(ValueError, match="made on base"),
        learned.pool().lease(other, learned.manifest, "pets"),
    ):
        pass


def test_a_damaged_trigger_gives_an_error_and_no_expert(tmp_path):
    learned = learn(tmp_path, TINY_CONFIG, {"pets": ("cat", "dog")}, blobs=FileBlobs(tmp_path / "blobs"))
    pool = learned.pool()
    path = next((tmp_path / "blobs").rglob(f"*{learned.manifest.task('pets').mask}*"))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.chmod(0o600)
    path.write_bytes(content)
    with pytest.raises(CorruptBlobError), pool.lease(learned.base, learned.manifest, "pets"):
        pass
    assert pool.stats().entries == 2  # the base and the unified delta


def test_clearing_drops_what_is_not_leased(learned):
    pool = learned.pool()
    with pool.lease(learned.base, learned.manifest, "pets"):
        pool.clear()
        assert pool.stats().entries == 1
    pool.clear()
    assert pool.stats().size_bytes == 0


def test_auto_is_a_device_that_exists(learned):
    assert resolve_device("auto").type in {"cpu", "cuda"}
    assert ExpertPool(learned.store, device="auto").device == resolve_device("auto")

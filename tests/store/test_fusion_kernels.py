"""The fast kernels give what the plain ones give: deltas and masks bit for bit, rescalers to 1e-12."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from store.bits import pack_bits
from store.fusion import fusion_kind
from store.fusion.condu import Condu
from store.fusion.kernels import DeviceKernels, FusedKernels, ReferenceKernels
from tests.store.folding import Model, scattered

FAST = [FusedKernels(), DeviceKernels(torch.device("cpu"))]
SIZES = st.lists(st.integers(0, 700), min_size=1, max_size=6).filter(any)


def deltas_of(num_tasks, *, sizes, seed):
    """Deltas with a shared part, exact zeros, and values so small that products underflow."""
    rng = np.random.default_rng(seed)
    shared = rng.standard_normal(sum(sizes))
    for _ in range(num_tasks):
        delta = (shared + rng.standard_normal(sum(sizes))) * 10.0 ** rng.uniform(-3, -1)
        delta[rng.random(len(delta)) < 0.3] = 0
        delta[rng.random(len(delta)) < 0.05] *= 1e-38
        delta = delta.astype(np.float32)
        delta[0] = 1.0
        yield scattered(delta, sizes)


def assert_equal_models(fast, plain):
    assert np.array_equal(fast.unified.view(np.int32), plain.unified.view(np.int32))
    assert np.array_equal(fast.masks, plain.masks)
    for one, other in zip(fast.tasks, plain.tasks, strict=True):
        assert (one.bits_set, one.bits_cleared) == (other.bits_set, other.bits_cleared)
        assert one.rescaler == pytest.approx(other.rescaler, rel=1e-12, abs=0)
        assert one.l1_norm == pytest.approx(other.l1_norm, rel=1e-12, abs=0)
        assert one.cosine == pytest.approx(other.cosine, abs=1e-12)
        assert one.relative_l2 == pytest.approx(other.relative_l2, rel=1e-9, abs=1e-7)


@pytest.mark.parametrize("kernels", FAST, ids=["fused", "device"])
@given(
    sizes=SIZES,
    seed=st.integers(0, 2**32),
    norm=st.sampled_from(["global_l1", "tensor_mean_l1"]),
    dtype=st.sampled_from(["float32", "bfloat16"]),
)
@settings(max_examples=25)
def test_fast_fusions_equal_the_plain_one_bit_for_bit(kernels, sizes, seed, norm, dtype):
    fast, plain = (Model(sizes, norm, dtype, Condu(one)) for one in (kernels, ReferenceKernels()))
    for delta in deltas_of(4, sizes=sizes, seed=seed):
        fast.learn(delta)
        plain.learn(delta)
        assert_equal_models(fast, plain)
        plain.tasks = (
            fast.tasks
        )  # the next step starts from equal rescalers, not from two that differ by an ulp


@pytest.mark.parametrize("norm", ["global_l1", "tensor_mean_l1"])
@given(sizes=SIZES, seed=st.integers(0, 2**32))
@settings(max_examples=25)
def test_a_task_alone_has_rescaler_one_exactly_whatever_the_order_of_its_sums(norm, sizes, seed):
    for delta in deltas_of(1, sizes=sizes, seed=seed):
        assert Model(sizes, norm, kind=Condu(FusedKernels())).learn(delta).tasks[0].rescaler == 1.0


@pytest.mark.parametrize("kernels", FAST, ids=["fused", "device"])
def test_more_tasks_than_are_held_together_fold_like_the_plain_ones(kernels):
    sizes = [100, 1000]
    fast, plain = (Model(sizes, "tensor_mean_l1", kind=Condu(one)) for one in (kernels, ReferenceKernels()))
    for delta in deltas_of(70, sizes=sizes, seed=5):
        fast.learn(delta)
        plain.learn(delta)
        assert_equal_models(fast, plain)
        plain.tasks = fast.tasks


@pytest.mark.parametrize("kernels", FAST, ids=["fused", "device"])
@given(
    seed=st.integers(0, 2**32), words=st.integers(1, 40), rescaler=st.floats(0, 3), shift=st.integers(0, 17)
)
def test_fast_rebuilds_equal_the_plain_one_bit_for_bit(kernels, seed, words, rescaler, shift):
    rng = np.random.default_rng(seed)
    size = 32 * words
    base, unified = (torch.from_numpy(rng.standard_normal(size).astype(np.float32)) for _ in range(2))
    base[rng.random(size) < 0.2] = -0.0
    unified[rng.random(size) < 0.2] = 0.0
    mask = torch.from_numpy(pack_bits(rng.random(size) < 0.7))
    outs = []
    for one in (kernels, ReferenceKernels()):
        out = torch.full((size + shift,), torch.nan)[shift:]  # any address, on a cache line or not
        Condu(one).rebuild(base=base, unified=unified, mask=mask, rescaler=rescaler, out=out)
        outs.append(out.view(torch.int32))
    assert torch.equal(*outs)


def test_a_rebuild_in_many_pieces_on_a_device_equals_one_on_the_cpu(monkeypatch):
    monkeypatch.setattr("store.fusion.kernels.device._PIECE_ELEMENTS", 64)
    rng = np.random.default_rng(2)
    base, unified = (torch.from_numpy(rng.standard_normal(224).astype(np.float32)) for _ in range(2))
    mask = torch.from_numpy(rng.integers(0, 256, 28, dtype=np.uint8))
    device, cpu = torch.empty(224), torch.empty(224)
    Condu(FAST[1]).rebuild(base=base, unified=unified, mask=mask, rescaler=0.7, out=device)
    fusion_kind("condu").rebuild(base=base, unified=unified, mask=mask, rescaler=0.7, out=cpu)
    assert torch.equal(device, cpu)


def test_another_device_than_the_cpu_is_served_by_torch_operations():
    meta = fusion_kind("condu")._kernels_for(torch.device("meta"))  # noqa: SLF001 - no other device is here
    assert isinstance(meta, DeviceKernels)
    assert isinstance(fusion_kind("condu")._kernels_for(torch.device("cpu")), FusedKernels)  # noqa: SLF001

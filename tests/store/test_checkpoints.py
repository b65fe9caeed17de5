"""Bases, revisions and experts through files and back."""

import hashlib
import math

import numpy as np
import pytest
import safetensors.torch
import torch

from store.blobs import FileBlobs, MemoryBlobs
from store.checkpoints import CheckpointStore
from store.codecs.floats import DTYPES
from store.errors import CorruptBlobError, IncompatibleTensorsError, InvalidUploadError, NotFoundError
from store.manifest import FusionOptions, Manifest
from store.parameters import CHUNK_ELEMENTS, ExpectedTensor
from store.safefile import write_safetensors
from tests.store.small import EXPECTED, base_tensors, fine_tuned, learn, learn_all, save_base


@pytest.fixture
def store(tmp_path):
    return CheckpointStore(FileBlobs(tmp_path / "blobs"))


@pytest.fixture
def base(store, tmp_path):
    return save_base(store, tmp_path)


def save(store, folder, tensors):
    path = folder / "upload.safetensors"
    write_safetensors(path, tensors)
    return store.save_base(path, EXPECTED)


def refused(store, base, folder, tensors):
    before = {blob.digest for blob in store.blobs.list()}
    with pytest.raises((IncompatibleTensorsError, InvalidUploadError)) as caught:
        learn(store, base, folder, name="bad", tensors=tensors)
    written = {blob.digest for blob in store.blobs.list()} - before
    assert len(written) <= 1  # at most the prototypes that the caller put himself
    return str(caught.value)


def test_a_base_has_the_same_digest_however_its_file_was_ordered(store, base, tmp_path):
    shuffled = dict(reversed(base_tensors().items()))
    safetensors.torch.save_file(shuffled, tmp_path / "other.safetensors", {"made": "elsewhere"})
    assert store.save_base(tmp_path / "other.safetensors", EXPECTED).digest == base.digest


def test_the_flat_buffer_holds_every_parameter_and_zero_padding(base):
    views = base.space.views(base.flat)
    for name, tensor in base_tensors().items():
        if EXPECTED[name].kind == "parameter":
            assert torch.equal(views[name], tensor)
    covered = sum(spec.size for spec in base.space.fused)
    assert base.space.num_parameters == covered == 70 * 33 + 7 + 1
    assert base.flat.abs().sum() == pytest.approx(sum(v.abs().sum() for v in views.values()).item())
    assert all(spec.offset % 64 == 0 for spec in base.space.fused)


def test_a_half_precision_base_is_taken_with_a_warning(store, tmp_path):
    saved = save(store, tmp_path, base_tensors(torch.float16))
    assert "register it in float32" in saved.warnings[0]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda t: t.pop("tower.bias"), "'tower.bias': expected this tensor, got nothing"),
        (lambda t: t.update(extra=torch.ones(1)), "'extra': expected no tensor of this name"),
        (
            lambda t: t.update({"tower.bias": torch.ones(8)}),
            r"'tower.bias': expected shape \(7,\), got \(8,\)",
        ),
        (
            lambda t: t.update({"tower.bias": torch.ones(7, dtype=torch.float64)}),
            "'tower.bias': expected float32 or",
        ),
        (
            lambda t: t.update({"tower.bias": torch.ones(7, dtype=torch.int64)}),
            "'tower.bias': expected float32 or",
        ),
        (
            lambda t: t.update({"norm.num_batches_tracked": torch.tensor(1.0)}),
            "expected an integer or bool dtype",
        ),
        (
            lambda t: t["tower.bias"].__setitem__(2, math.nan),
            "'tower.bias' has 1 NaN or infinite values of 7",
        ),
        (lambda t: t["norm.running_mean"].__setitem__(2, math.inf), "'norm.running_mean' has 1 NaN"),
    ],
)
def test_a_base_that_does_not_fit_its_architecture_is_refused_by_tensor(store, tmp_path, change, says):
    tensors = base_tensors()
    change(tensors)
    with pytest.raises((IncompatibleTensorsError, InvalidUploadError), match=says):
        save(store, tmp_path, tensors)
    assert list(store.blobs.list()) == []


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda t: t.pop("tower.bias"), "'tower.bias': expected this tensor, got nothing"),
        (lambda t: t.update(extra=torch.ones(1)), "'extra': expected no tensor of this name"),
        (lambda t: t.update({"tower.bias": torch.ones(8)}), "expected shape (7,), got (8,)"),
        (
            lambda t: t.update({"tower.bias": torch.ones(7).half()}),
            "expected dtype float32, got float16; cast it to float32",
        ),
        (lambda t: t.update({"norm.num_batches_tracked": torch.tensor(4)}), "the base's values"),
        (lambda t: t["tower.weight"].view(-1).__setitem__(5, math.nan), "'tower.weight' has 1 NaN"),
        (
            lambda t: t["tower.weight"].view(-1).__setitem__(5, -math.inf),
            "'tower.weight' has 1 NaN or infinite",
        ),
        (lambda t: t.update(base_tensors()), "equal the base's everywhere"),
    ],
)
def test_a_checkpoint_that_does_not_fit_its_base_is_refused_by_tensor(store, base, tmp_path, change, says):
    tensors = fine_tuned(1)
    change(tensors)
    assert says in refused(store, base, tmp_path, tensors)


def test_an_overflowing_difference_is_refused_by_tensor(store, tmp_path):
    tensors = base_tensors()
    tensors["tower.bias"][0] = 3e38
    base = save_base(store, tmp_path, tensors)
    tensors = fine_tuned(1, tensors)
    tensors["tower.bias"][0] = -3e38
    assert "'tower.bias' has 1 NaN or infinite" in refused(store, base, tmp_path, tensors)


def test_a_checkpoint_of_another_base_cannot_be_folded_into_a_revision(store, base, tmp_path):
    outcome = learn(store, base, tmp_path, name="one")
    other = save_base(
        store, tmp_path, {name: t * 2 if t.is_floating_point() else t for name, t in base_tensors().items()}
    )
    with pytest.raises(CorruptBlobError, match=base.digest):
        learn(store, other, tmp_path, name="two", parent=outcome.manifest_digest)


def test_the_expert_of_a_model_with_one_task_is_the_fine_tuned_model_within_one_rounding(
    store, base, tmp_path
):
    tensors = fine_tuned(4)
    outcome = learn(store, base, tmp_path, name="only", tensors=tensors)
    rebuilt = store.rebuild(base, outcome.manifest, "only")
    for name, view in base.space.views(rebuilt.flat).items():
        start = base_tensors()[name]
        assert torch.equal(view, start + (tensors[name] - start))
        assert torch.allclose(view, tensors[name], rtol=2**-23, atol=1e-9)
    assert torch.equal(rebuilt.buffers["norm.running_mean"], tensors["norm.running_mean"])


def test_entries_that_a_task_does_not_own_are_the_bases_bits(store, base, tmp_path):
    tensors = base_tensors()
    tensors["tower.bias"] = tensors["tower.bias"] + 1
    base.flat.view(-1)[:1] = -0.0
    outcome = learn(store, base, tmp_path, name="bias", tensors=tensors)
    rebuilt = store.rebuild(base, outcome.manifest, "bias")
    weight = base.space.views(rebuilt.flat)["tower.weight"]
    assert weight.numpy().tobytes() == base.space.views(base.flat)["tower.weight"].numpy().tobytes()


def test_rebuilding_a_thousand_times_into_one_buffer_gives_the_same_bits(store, base, tmp_path):
    outcome = learn_all(store, base, tmp_path, ["a", "b", "c"])
    digest_of = {}
    buffer = torch.empty(base.space.flat_size)
    pristine = hashlib.sha256(base.flat.numpy().tobytes()).hexdigest()
    for turn in range(999):
        task = "abc"[turn % 3]
        bits = hashlib.sha256(
            store.rebuild(base, outcome.manifest, task, out=buffer).flat.numpy().tobytes()
        ).hexdigest()
        assert digest_of.setdefault(task, bits) == bits
    assert len(set(digest_of.values())) == 3
    assert hashlib.sha256(base.flat.numpy().tobytes()).hexdigest() == pristine


def test_folding_the_same_checkpoint_again_gives_the_same_revision(store, base, tmp_path):
    first = learn_all(store, base, tmp_path, ["a", "b"])
    again = learn_all(CheckpointStore(store.blobs), base, tmp_path, ["a", "b"])
    assert first.manifest_digest == again.manifest_digest
    in_memory = CheckpointStore(MemoryBlobs())
    assert (
        learn_all(in_memory, save_base(in_memory, tmp_path), tmp_path, ["a", "b"]).manifest_digest
        == first.manifest_digest
    )


@pytest.mark.parametrize("norm", ["global_l1", "tensor_mean_l1"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_option_is_recorded_and_the_norm_of_each_task_kept(store, base, tmp_path, norm, dtype):
    options = FusionOptions(rescaler_norm=norm, unified_dtype=dtype)
    outcome = learn_all(store, base, tmp_path, ["a", "b", "c"], options)
    manifest = store.manifest(outcome.manifest_digest)
    assert manifest == outcome.manifest
    assert manifest.options == options
    for task in manifest.tasks:
        served = store.rebuild(base, manifest, task.name).flat.double() - base.flat.double()
        weights = 1.0 if norm == "global_l1" else None
        parts = base.space.views(served)
        total = sum(p.abs().sum() * weights if weights else p.abs().mean() for p in parts.values())
        assert total.item() == pytest.approx(task.l1_norm, rel=1e-4)


def test_other_options_than_the_models_are_refused(store, base, tmp_path):
    first = learn(store, base, tmp_path, name="a")
    with pytest.raises(InvalidUploadError, match="make a new model"):
        learn(
            store,
            base,
            tmp_path,
            name="b",
            parent=first.manifest_digest,
            options=FusionOptions(unified_dtype="bfloat16"),
        )


def test_a_task_name_that_is_taken_is_refused(store, base, tmp_path):
    first = learn(store, base, tmp_path, name="a")
    with pytest.raises(InvalidUploadError, match="'a' is in the revision already"):
        learn(store, base, tmp_path, name="a", parent=first.manifest_digest)


def test_an_unknown_task_is_named_with_those_that_exist(store, base, tmp_path):
    outcome = learn_all(store, base, tmp_path, ["a", "b"])
    with pytest.raises(NotFoundError, match="its tasks are: a, b"):
        store.rebuild(base, outcome.manifest, "c")


def test_dropping_a_task_leaves_the_others_experts_as_they_were(store, base, tmp_path):
    outcome = learn_all(store, base, tmp_path, ["a", "b", "c"])
    digest, manifest = store.drop_task(outcome.manifest_digest, "b")
    assert [task.name for task in manifest.tasks] == ["a", "c"]
    assert store.manifest(digest) == manifest
    for name in ("a", "c"):
        assert manifest.expert_digest(name) == outcome.manifest.expert_digest(name)
        before, after = (store.rebuild(base, m, name).flat for m in (outcome.manifest, manifest))
        assert torch.equal(before, after)


def test_a_model_whose_last_task_was_dropped_can_learn_again(store, base, tmp_path):
    outcome = learn(store, base, tmp_path, name="a")
    digest, manifest = store.drop_task(outcome.manifest_digest, "a")
    assert (manifest.tasks, manifest.unified) == ((), None)
    again = learn(store, base, tmp_path, name="a", parent=digest)
    assert again.manifest.tasks[0].rescaler == 1.0


def test_a_lost_vote_everywhere_is_a_warning_and_an_expert_equal_to_the_base(store, base, tmp_path):
    def shifted(amount):
        return {n: t + amount if EXPECTED[n].kind == "parameter" else t for n, t in base_tensors().items()}

    first = learn(store, base, tmp_path, name="weak", tensors=shifted(0.01))
    outcome = learn(store, base, tmp_path, name="strong", parent=first.manifest_digest, tensors=shifted(-0.5))
    assert "'weak' lost every vote" in outcome.warnings[0]
    assert outcome.manifest.task("weak").rescaler == 0.0
    assert torch.equal(store.rebuild(base, outcome.manifest, "weak").flat, base.flat)


def test_expert_digests_differ_where_weights_do_and_only_there(store, base, tmp_path):
    outcome = learn_all(store, base, tmp_path, ["a", "b"])
    renamed = Manifest.from_json(outcome.manifest.to_json().replace(b'"name":"a"', b'"name":"z"'))
    assert renamed.expert_digest("z") == outcome.manifest.expert_digest("a")
    assert outcome.manifest.expert_digest("a") != outcome.manifest.expert_digest("b")


def test_an_exported_expert_is_a_safetensors_file_like_the_bases(store, base, tmp_path):
    outcome = learn_all(store, base, tmp_path, ["a", "b"])
    file = store.export(base, outcome.manifest, "a")
    content = b"".join(file.read())
    assert len(content) == file.size_bytes
    tensors = safetensors.torch.load(content)
    rebuilt = store.rebuild(base, outcome.manifest, "a")
    expected = base.space.views(rebuilt.flat) | rebuilt.buffers | base.fixed
    assert set(tensors) == set(EXPECTED)
    for name, tensor in tensors.items():
        assert tensor.dtype == base_tensors()[name].dtype
        assert torch.equal(tensor, expected[name])
    assert file.etag == outcome.manifest.expert_digest("a")


def test_an_expert_of_a_half_precision_base_comes_in_half_precision(store, tmp_path):
    tensors = base_tensors(torch.bfloat16)
    base = save_base(store, tmp_path, tensors)
    tuned = fine_tuned(2, {n: t.float() if t.is_floating_point() else t for n, t in tensors.items()})
    tuned["norm.running_mean"] = tuned["norm.running_mean"].bfloat16()
    outcome = learn(store, base, tmp_path, name="a", tensors=tuned)
    exported = safetensors.torch.load(b"".join(store.export(base, outcome.manifest, "a").read()))
    assert exported["tower.weight"].dtype == torch.bfloat16
    rebuilt = base.space.views(store.rebuild(base, outcome.manifest, "a").flat)["tower.weight"]
    assert torch.equal(exported["tower.weight"], rebuilt.bfloat16())


def test_any_byte_range_of_an_expert_equals_that_of_the_whole_file(store, base, tmp_path):
    file = store.export(base, learn_all(store, base, tmp_path, ["a", "b"]).manifest, "b")
    content = b"".join(file.read())
    rng = np.random.default_rng(0)
    cuts = [(0, 1), (len(content) - 1, len(content)), (3, 3), (0, len(content) + 99)]
    cuts += [sorted(rng.integers(0, len(content), 2)) for _ in range(60)]
    for start, stop in cuts:
        assert b"".join(file.read(int(start), int(stop))) == content[start:stop]


def test_a_model_of_several_chunks_is_folded_exported_and_rebuilt_alike(store, tmp_path):
    size = 2 * CHUNK_ELEMENTS + 1000
    expected = {
        "a": ExpectedTensor((CHUNK_ELEMENTS - 5,), "parameter"),
        "b": ExpectedTensor((size,), "parameter"),
    }
    generator = torch.Generator().manual_seed(0)
    tensors = {name: torch.randn(want.shape, generator=generator) for name, want in expected.items()}
    write_safetensors(tmp_path / "big", tensors)
    base = store.load_base(store.save_base(tmp_path / "big", expected).digest)
    tuned = {name: t + 0.01 * torch.randn(t.shape, generator=generator) for name, t in tensors.items()}
    tuned["b"][:CHUNK_ELEMENTS] = tensors["b"][:CHUNK_ELEMENTS]
    first = learn(store, base, tmp_path, name="a", tensors=tuned)
    outcome = learn(
        store,
        base,
        tmp_path,
        name="b",
        parent=first.manifest_digest,
        tensors={n: t * 1.001 for n, t in tensors.items()},
    )
    rebuilt = store.rebuild(base, outcome.manifest, "a")
    exported = safetensors.torch.load(b"".join(store.export(base, outcome.manifest, "a").read()))
    for name, view in base.space.views(rebuilt.flat).items():
        assert torch.equal(view, exported[name])
    single = store.rebuild(base, first.manifest, "a")
    assert torch.equal(base.space.views(single.flat)["b"], tensors["b"] + (tuned["b"] - tensors["b"]))


def test_a_mask_costs_one_bit_a_parameter_and_almost_nothing_where_the_delta_is_zero(store, tmp_path):
    size = 3 * CHUNK_ELEMENTS
    expected = {"w": ExpectedTensor((size,), "parameter")}
    generator = torch.Generator().manual_seed(0)
    write_safetensors(tmp_path / "big", {"w": torch.zeros(size)})
    base = store.load_base(store.save_base(tmp_path / "big", expected).digest)
    dense = {"w": torch.randn(size, generator=generator)}
    sparse = {"w": torch.zeros(size)}
    sparse["w"][: size // 3] = dense["w"][: size // 3]
    first = learn(store, base, tmp_path, name="dense", tensors=dense)
    second = learn(store, base, tmp_path, name="other", tensors=dense, parent=first.manifest_digest)
    assert second.trigger_bytes["dense"] <= size // 8 + 2048
    only = learn(store, base, tmp_path, name="sparse", tensors=sparse)
    assert only.trigger_bytes["sparse"] <= size // 24 + 2048

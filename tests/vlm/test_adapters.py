"""An adapter is on the layers that the method names, starts as nothing, and is a plain model once merged."""

import dataclasses

import pytest
import torch

from store.blobs import MemoryBlobs
from store.checkpoints import CheckpointStore, NewTask
from store.errors import IncompatibleTensorsError, NotFoundError
from store.manifest import BaseManifest, FusionOptions
from store.parameters import TORCH_DTYPES
from store.safefile import SafeFile, write_safetensors
from tests.tiny_clip import TINY_BATCHNORM_CONFIG, TINY_CONFIG, tiny_tensors, write_tiny_base
from vlm.adapters import (
    adapted_layers,
    attach_adapter,
    build_fine_tuned,
    make_adapter_base,
    merge_adapter,
    merge_layer,
)
from vlm.architecture import resolve_architecture
from vlm.bases import BaseRef
from vlm.errors import UnknownArchitectureError
from vlm.experts import ExpertPool

CONFIGS = {"transformer": TINY_CONFIG, "convolutional": TINY_BATCHNORM_CONFIG}


@pytest.fixture(params=CONFIGS)
def ground(request, tmp_path):
    return adapted_ground(tmp_path, CONFIGS[request.param])


def adapted_ground(folder, config, *, rank=4, seed=7):
    """A store with a tiny base and an adapter's initialisation on it; returns the store and the reference."""
    architecture = resolve_architecture(config=config)
    store = CheckpointStore(MemoryBlobs())
    weights = write_tiny_base(folder / "base.safetensors", config=config)
    saved = store.save_base(weights, architecture.expected_tensors())
    ref = BaseRef("tiny", saved.digest, architecture, architecture.preprocessing())
    return store, dataclasses.replace(ref, adapter=make_adapter_base(store, ref, rank=rank, seed=seed))


def trained_factors(store, ref, *, seed=1, scale=0.3):
    """Factors that some training might have left."""
    generator = torch.Generator().manual_seed(seed)
    start = store.load_base(ref.adapter.digest)
    return {
        name: factor + scale * torch.randn(factor.shape, generator=generator)
        for name, factor in start.space.views(start.flat).items()
    }


def fold_factors(store, ref, factors, folder):
    """The manifest of a revision that has learned one task, of these factors."""
    write_safetensors(folder / "adapter.safetensors", factors)
    outcome = store.fold(
        store.load_base(ref.adapter.digest),
        parent=None,
        options=FusionOptions(),
        new_task=NewTask("pets", ("cat", "dog"), ("a {}",), store.blobs.put(b"prototypes").digest),
        checkpoint=folder / "adapter.safetensors",
    )
    return outcome.manifest


def merged_by_hand(base_tensors, factors):
    merged = {name: tensor.clone() for name, tensor in base_tensors.items()}
    for name, down in factors.items():
        if name.endswith("lora_A.weight"):
            up = factors[name.replace("lora_A", "lora_B")]
            weight = merged[name.replace("lora_A.weight", "weight")]
            product = up.double().flatten(1) @ down.double().flatten(1) / down.shape[0] ** 0.5
            weight += product.view(weight.shape).float()
    return merged


def answers(model, architecture):
    tokens = architecture.tokenizer()(["a photo of a cat.", "a drawing of a very small dog."])
    pictures = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        return model.encode_image(pictures), model.encode_text(tokens)


def test_the_adapters_of_a_vit_b_16_have_the_papers_number_of_entries():
    layers = adapted_layers(resolve_architecture(name="ViT-B-16"), rank=64)
    entries = sum(torch.Size(shape).numel() for layer in layers for shape in layer.factors.values())
    assert entries == 9_830_400
    assert len(layers) == 2 * 24
    assert {layer.name.rsplit(".", 1)[1] for layer in layers} == {"c_fc", "c_proj"}


@pytest.mark.parametrize("name", ["RN50", "EVA02-B-16", "convnext_base", "coca_ViT-B-32"])
def test_other_towers_are_adapted_where_they_are_wide(name):
    layers = adapted_layers(resolve_architecture(name=name), rank=64)
    towers = {"visual" if layer.name.startswith("visual.") else "text" for layer in layers}
    assert towers == {"visual", "text"}
    assert not [layer.name for layer in layers if "text_decoder" in layer.name or "attn" in layer.name]
    if name == "RN50":
        assert any(len(layer.weight_shape) == 4 for layer in layers)


def test_no_adapter_is_larger_than_its_weight():
    for layer in adapted_layers(resolve_architecture(config=TINY_BATCHNORM_CONFIG), rank=64):
        entries = sum(torch.Size(shape).numel() for shape in layer.factors.values())
        assert 1 <= layer.rank <= 64
        assert entries <= torch.Size(layer.weight_shape).numel()
        assert (layer.rank + 1) * sum(layer.weight_shape[:2]) > torch.Size(layer.weight_shape).numel() or (
            layer.rank == 64
        )


@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
def test_an_architecture_without_such_layers_is_told_to_tune_in_full():
    size = {"width": 32, "layers": 1, "mlp_ratio": 0.01}
    narrow = {
        "embed_dim": 8,
        "vision_cfg": {"image_size": 8, "head_width": 32, "patch_size": 8, **size},
        "text_cfg": {"context_length": 16, "vocab_size": 49408, "heads": 2, **size},
    }
    with pytest.raises(UnknownArchitectureError, match="full tuning"):
        adapted_layers(resolve_architecture(config=narrow), rank=4)


def test_the_same_rank_and_seed_give_the_same_base_and_others_another(ground):
    store, ref = ground
    plain = dataclasses.replace(ref, adapter=None)
    assert make_adapter_base(store, plain, rank=4, seed=7) == ref.adapter
    others = [make_adapter_base(store, plain, rank=rank, seed=seed) for rank, seed in ((4, 8), (2, 7))]
    assert len({ref.adapter.digest, *(other.digest for other in others)}) == 3


def test_the_initialisation_is_recorded_with_what_it_is_laid_upon(ground):
    store, ref = ground
    manifest = BaseManifest.from_json(store.blobs.read_checked(ref.adapter.digest))
    extends = manifest.extends
    assert (extends.base, extends.rank, extends.seed) == (ref.digest, 4, 7)
    assert (extends.scale, extends.initialisation) == ("rank^-1/2", "kaiming-uniform/philox")
    assert b'"format":2' in manifest.to_json()


def test_values_are_drawn_the_same_on_every_machine_and_spread_as_kaiming_says(tmp_path):
    store, ref = adapted_ground(tmp_path, TINY_CONFIG)
    start = store.load_base(ref.adapter.digest)
    factors = start.space.views(start.flat)
    first = factors["transformer.resblocks.0.mlp.c_fc.lora_A.weight"]
    assert first[0, :4].tolist() == [
        0.03745301812887192,
        -0.021159803494811058,
        0.02269352786242962,
        0.053256839513778687,
    ]
    for name, factor in factors.items():
        if name.endswith("lora_B.weight"):
            assert not factor.any()
            continue
        bound = factor.shape[1] ** -0.5
        assert factor.abs().max() <= bound
        assert abs(float(factor.std()) - bound / 3**0.5) < 0.15 * bound


def test_an_untrained_adapter_leaves_the_base_as_it_is(ground):
    store, ref = ground
    base, start = store.load_base(ref.digest), store.load_base(ref.adapter.digest)
    assert torch.equal(merge_adapter(ref, base, start, flat=start.flat), base.flat)


def test_an_expert_is_the_base_with_the_product_of_its_factors_added(ground, tmp_path):
    store, ref = ground
    factors = trained_factors(store, ref)
    manifest = fold_factors(store, ref, factors, tmp_path)
    pool = ExpertPool(store)
    wanted = merged_by_hand(tiny_tensors(config=ref.architecture.config), factors)
    with pool.lease(ref, manifest, "pets") as expert, pool.lease(ref, manifest, None) as base:
        assert expert.digest == manifest.expert_digest("pets")
        for name, tensor in expert.model.state_dict().items():
            torch.testing.assert_close(tensor, wanted[name], rtol=1e-5, atol=1e-6)
        assert all(
            torch.equal(tensor, tiny_tensors(config=ref.architecture.config)[name])
            for name, tensor in base.model.state_dict().items()
        )
        assert {type(module) for module in expert.model.modules()} == {
            type(module) for module in base.model.modules()
        }


def test_a_model_of_the_fine_tuned_file_is_the_same_expert(ground, tmp_path):
    store, ref = ground
    factors = trained_factors(store, ref)
    manifest = fold_factors(store, ref, factors, tmp_path)
    with ExpertPool(store).lease(ref, manifest, "pets") as expert:
        model = build_fine_tuned(ref, store.load_base(ref.digest), tmp_path / "adapter.safetensors")
        for one, other in zip(
            answers(model, ref.architecture), answers(expert.model, ref.architecture), strict=True
        ):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_a_whole_fine_tuned_file_needs_no_adapter(tmp_path):
    store, ref = adapted_ground(tmp_path, TINY_CONFIG)
    whole = dataclasses.replace(ref, adapter=None)
    model = build_fine_tuned(whole, store.load_base(ref.digest), tmp_path / "base.safetensors")
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in tiny_tensors().items())


def test_the_layers_answer_in_training_as_the_merged_model_does(ground):
    store, ref = ground
    factors = trained_factors(store, ref)
    config = ref.architecture.config
    training = ref.architecture.build(tiny_tensors(config=config))
    trained = attach_adapter(training, factors)
    assert trained.keys() == factors.keys()
    assert all(torch.equal(trained[name], factors[name]) for name in factors)
    merged = ref.architecture.build(merged_by_hand(tiny_tensors(config=config), factors))
    for one, other in zip(
        answers(training, ref.architecture), answers(merged, ref.architecture), strict=True
    ):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)


def test_a_pool_that_has_the_expert_does_not_merge_again(tmp_path):
    store, ref = adapted_ground(tmp_path, TINY_CONFIG)
    manifest = fold_factors(store, ref, trained_factors(store, ref), tmp_path)
    pool = ExpertPool(store)
    for _ in range(3):
        with pool.lease(ref, manifest, "pets"):
            pass
    assert pool.stats().misses == 4  # the base, the adapter's start, its unified delta, and the expert


def test_the_bits_do_not_depend_on_the_room_there_is(tmp_path):
    store, ref = adapted_ground(tmp_path, TINY_CONFIG)
    manifest = fold_factors(store, ref, trained_factors(store, ref), tmp_path)
    states = []
    for max_bytes in (1, 2**40):
        pool = ExpertPool(store, max_bytes=max_bytes)
        for _ in range(2):
            with pool.lease(ref, manifest, "pets") as expert:
                states.append({name: t.clone() for name, t in expert.model.state_dict().items()})
    assert all(torch.equal(states[0][name], state[name]) for state in states for name in states[0])


def test_deltas_are_taken_from_the_initialisation(tmp_path):
    store, ref = adapted_ground(tmp_path, TINY_CONFIG)
    pool = ExpertPool(store)
    with pool.lease_base(ref) as start, pool.lease_base(dataclasses.replace(ref, adapter=None)) as base:
        assert (start.digest, base.digest) == (ref.adapter.digest, ref.digest)
        assert start.manifest.extends.base == base.digest


def test_a_revision_of_adapters_is_not_rebuilt_on_the_bare_base(tmp_path):
    store, ref = adapted_ground(tmp_path, TINY_CONFIG)
    manifest = fold_factors(store, ref, trained_factors(store, ref), tmp_path)
    with (
        pytest.raises(ValueError, match="was made on base"),
        ExpertPool(store).lease(dataclasses.replace(ref, adapter=None), manifest, "pets"),
    ):
        pass


def test_an_adapter_of_another_architecture_is_refused_by_name(ground):
    store, ref = ground
    factors = trained_factors(store, ref)
    name = min(factors)
    layer = name.removesuffix(".lora_A.weight")
    missing = {key: factor for key, factor in factors.items() if not key.endswith("lora_B.weight")}
    for wrong in (factors | {name: factors[name][:, :-1]}, missing):
        with pytest.raises(IncompatibleTensorsError, match="lora_A"):
            merge_layer(ref, tiny_tensors(config=ref.architecture.config), wrong, layer=layer)
        with pytest.raises(IncompatibleTensorsError, match="lora_A"):
            attach_adapter(ref.architecture.build(tiny_tensors(config=ref.architecture.config)), wrong)


def test_a_missing_initialisation_is_named(tmp_path):
    store, ref = adapted_ground(tmp_path, TINY_CONFIG)
    store.blobs.delete(ref.adapter.digest)
    with pytest.raises(NotFoundError, match=ref.adapter.digest), ExpertPool(store).lease_base(ref):
        pass


def test_a_half_precision_base_is_merged_in_float32(tmp_path):
    architecture = resolve_architecture(config=TINY_CONFIG)
    store = CheckpointStore(MemoryBlobs())
    halves = {name: tensor.half() for name, tensor in tiny_tensors().items()}
    write_safetensors(tmp_path / "half.safetensors", halves)
    saved = store.save_base(tmp_path / "half.safetensors", architecture.expected_tensors())
    ref = BaseRef("half", saved.digest, architecture, architecture.preprocessing())
    ref = dataclasses.replace(ref, adapter=make_adapter_base(store, ref, rank=4, seed=0))
    manifest = fold_factors(store, ref, trained_factors(store, ref), tmp_path)
    with ExpertPool(store).lease(ref, manifest, "pets") as expert:
        assert {tensor.dtype for tensor in expert.model.state_dict().values()} == {TORCH_DTYPES["float32"]}
    start = SafeFile(tmp_path / "adapter.safetensors").tensors()
    assert {tensor.dtype for tensor in start.values()} == {torch.float32}

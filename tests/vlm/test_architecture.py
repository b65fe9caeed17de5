import json
import socket
import threading

import open_clip
import pytest
import torch
from torch import nn

from store.errors import IncompatibleTensorsError
from tests.tiny_clip import TINY_BATCHNORM_CONFIG, TINY_CONFIG, tiny_tensors
from vlm.architecture import list_architectures, resolve_architecture
from vlm.errors import UnknownArchitectureError
from vlm.skeleton import skeleton

TEXT = TINY_CONFIG["text_cfg"]
TINY_COCA = {
    "embed_dim": 32,
    "custom_text": True,
    "vision_cfg": {
        **TINY_CONFIG["vision_cfg"],
        "attentional_pool": True,
        "attn_pooler_heads": 2,
        "output_tokens": True,
    },
    "text_cfg": {**TEXT, "embed_cls": True, "output_tokens": True},
    "multimodal_cfg": {"context_length": 16, "width": 32, "heads": 2, "layers": 1, "attn_pooler_heads": 2},
}
CONFIGS = {
    "vit": TINY_CONFIG,
    "quick gelu": {**TINY_CONFIG, "quick_gelu": True},
    "custom text": {**TINY_CONFIG, "custom_text": True},
    "logit bias": {**TINY_CONFIG, "init_logit_bias": -10, "nonscalar_logit_scale": True},
    "resnet": {
        "embed_dim": 32,
        "vision_cfg": {"image_size": 32, "layers": [1, 1, 1, 1], "width": 16, "patch_size": None},
        "text_cfg": TEXT,
    },
    "timm batchnorm": TINY_BATCHNORM_CONFIG,
    "timm relative positions": {
        "embed_dim": 32,
        "vision_cfg": {
            "timm_model_name": "test_maxvit",
            "timm_pool": "",
            "timm_proj": "linear",
            "image_size": 160,
        },
        "text_cfg": TEXT,
    },
    "coca": TINY_COCA,
}


def plain_model(config):
    """The same as open_clip builds it, without any of this room's code."""
    config = json.loads(json.dumps(config))
    custom = config.pop("custom_text", False)
    kind = (
        (open_clip.CoCa if "multimodal_cfg" in config else open_clip.CustomTextCLIP)
        if custom
        else open_clip.CLIP
    )
    return kind(**config)


def each_config(test):
    return pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())(test)


@each_config
def test_the_expected_tensors_are_those_of_plain_open_clip(config):
    expected = resolve_architecture(config=config).expected_tensors()
    state = plain_model(config).state_dict()
    assert {name: entry.shape for name, entry in expected.items()} == {
        name: tuple(tensor.shape) for name, tensor in state.items()
    }


@each_config
def test_a_built_model_gives_the_logits_of_plain_open_clip_bit_for_bit(config):
    torch.manual_seed(0)
    plain = plain_model(config).eval()
    architecture = resolve_architecture(config=config)
    built = architecture.build(plain.state_dict())
    size = architecture.preprocessing().size
    images = torch.randn(2, 3, *size)
    tokens = architecture.tokenizer()(["a photo of a cat.", "a dog", "an unusually long prompt " * 9])
    with torch.inference_mode():
        for ours, theirs in [
            (built.encode_image(images, normalize=True), plain.encode_image(images, normalize=True)),
            (built.encode_text(tokens, normalize=True), plain.encode_text(tokens, normalize=True)),
        ]:
            assert torch.equal(ours, theirs)
            assert ours.isfinite().all()


@each_config
def test_buffers_that_no_checkpoint_brings_have_their_values(config):
    buffers = dict(plain_model(config).named_buffers())
    for name, buffer in skeleton(resolve_architecture(config=config).config).named_buffers():
        assert torch.equal(buffer, buffers[name]), name


def test_parameters_buffers_and_fixed_entries_are_told_apart():
    expected = resolve_architecture(config=TINY_BATCHNORM_CONFIG).expected_tensors()
    kinds = {name.rpartition(".")[2]: entry.kind for name, entry in expected.items()}
    assert kinds["weight"] == "parameter"
    assert kinds["running_mean"] == kinds["running_var"] == "buffer"
    assert kinds["num_batches_tracked"] == "fixed"
    assert "attn_mask" not in kinds


def test_building_a_model_copies_nothing():
    tensors = tiny_tensors(config=TINY_BATCHNORM_CONFIG)
    model = resolve_architecture(config=TINY_BATCHNORM_CONFIG).build(tensors)
    state = model.state_dict()
    assert state.keys() == tensors.keys()
    assert all(state[name].data_ptr() == tensors[name].data_ptr() for name in tensors)
    assert not model.training


def test_everything_but_the_logit_scale_and_bias_can_be_trained():
    config = {**TINY_CONFIG, "init_logit_bias": -10}
    model = resolve_architecture(config=config).build(tiny_tensors(config=config))
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    assert frozen == {"logit_scale", "logit_bias"}


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (lambda tensors: tensors.pop("ln_final.weight"), "ln_final.weight"),
        (lambda tensors: tensors.update(extra=torch.zeros(1)), "extra"),
        (lambda tensors: tensors.update({"ln_final.bias": torch.zeros(33)}), "ln_final.bias"),
    ],
    ids=["missing", "extra", "misshaped"],
)
def test_building_from_other_tensors_names_the_first_that_is_wrong(change, name):
    tensors = tiny_tensors()
    change(tensors)
    with pytest.raises(IncompatibleTensorsError) as caught:
        resolve_architecture(config=TINY_CONFIG).build(tensors)
    assert caught.value.tensor == name


def test_two_models_of_one_architecture_share_no_module():
    architecture = resolve_architecture(config=TINY_CONFIG)
    one, other = architecture.build(tiny_tensors(1)), architecture.build(tiny_tensors(2))
    assert not set(map(id, one.modules())) & set(map(id, other.modules()))
    assert not torch.equal(one.ln_final.weight, other.ln_final.weight)


@pytest.mark.parametrize(
    "config", [TINY_CONFIG, CONFIGS["timm batchnorm"]], ids=["open_clip tower", "timm tower"]
)
def test_building_draws_nothing_from_the_random_numbers_of_a_training(config):
    torch.manual_seed(3)
    first = torch.rand(2)
    torch.manual_seed(3)
    resolve_architecture(config={**config, "init_logit_scale": torch.rand(1).item()}).expected_tensors()
    torch.manual_seed(3)
    state = torch.get_rng_state()
    resolve_architecture(config={**config, "init_logit_scale": 1.25}).expected_tensors()
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(torch.rand(2), first)


def test_a_build_leaves_the_modules_of_other_threads_alone():
    stop, on_meta = threading.Event(), []

    def keep_building():
        while not stop.is_set():
            on_meta.append(nn.Linear(2, 2).weight.is_meta)

    thread = threading.Thread(target=keep_building)
    thread.start()
    try:
        for scale in range(5):
            skeleton({**TINY_CONFIG, "init_logit_scale": 0.5 + scale})
    finally:
        stop.set()
        thread.join()
    assert len(on_meta) > 0
    assert not any(on_meta)


def test_a_model_built_inside_inference_mode_can_still_be_trained():
    config = {**CONFIGS["timm batchnorm"], "init_logit_scale": 0.625}
    with torch.inference_mode():
        resolve_architecture(config=config).expected_tensors()
    architecture = resolve_architecture(config=config)
    model = architecture.build(tiny_tensors(config=config))
    model.encode_image(torch.randn(1, 3, 32, 32)).sum().backward()
    model.encode_text(architecture.tokenizer()(["a cat"])).sum().backward()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    assert all(parameter.grad is not None for parameter in trained)


def test_no_architecture_needs_the_network(monkeypatch):
    def refuse(*_):
        raise AssertionError("a connection was attempted")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    for name in ("ViT-S-32-alt", "convnext_tiny", "coca_ViT-B-32", "PE-Core-T-16-384", "RN50"):
        architecture = resolve_architecture(name=name)
        assert len(architecture.expected_tensors()) > 100
        architecture.tokenizer()(["a cat"])


def test_a_hybrid_tower_that_runs_itself_while_it_is_built_is_built_too():
    model = skeleton(resolve_architecture(name="ViTamin-S").config)
    assert all(parameter.is_meta for parameter in model.parameters())


@pytest.mark.parametrize("name", ["ViT-B-32", "ViT-B/32", "vit-b-32"])
def test_a_name_is_found_however_it_is_spelled(name):
    architecture = resolve_architecture(name=name)
    assert architecture.name == "ViT-B-32"
    assert architecture.embed_dim == 512


@pytest.mark.parametrize("name", ["ViT-B-33", "hf-hub:org/repo", "local-dir:/etc", "../../etc/passwd", ""])
def test_an_unknown_name_is_refused_and_the_known_ones_are_named(name):
    with pytest.raises(UnknownArchitectureError, match="ViT-B-32"):
        resolve_architecture(name=name)


@pytest.mark.parametrize("name", ["ViT-B-16-SigLIP", "roberta-ViT-B-32", "ViT-L-14-CLIPA"])
def test_an_architecture_with_a_hub_tokenizer_is_refused_with_the_reason(name):
    assert name not in list_architectures()
    with pytest.raises(UnknownArchitectureError, match="Hugging Face hub"):
        resolve_architecture(name=name)


def test_neither_name_nor_config_is_refused():
    with pytest.raises(UnknownArchitectureError, match="give the name"):
        resolve_architecture()


def test_a_config_survives_json_and_gives_the_same_architecture():
    first = resolve_architecture(name="MobileCLIP-S1")
    again = resolve_architecture(name="MobileCLIP-S1", config=json.loads(json.dumps(first.config)))
    assert again == first
    assert again.digest == first.digest


def test_the_config_of_the_hub_is_read_with_its_preprocessing():
    architecture = resolve_architecture(
        config={
            "model_cfg": TINY_CONFIG,
            "preprocess_cfg": {"mean": [0.5] * 3, "std": [0.25] * 3, "size": 32},
        }
    )
    assert architecture.preprocessing().mean == (0.5, 0.5, 0.5)
    assert architecture.preprocessing().size == (32, 32)


def test_equal_weights_with_another_activation_are_another_architecture():
    assert (
        resolve_architecture(config=TINY_CONFIG).digest
        != resolve_architecture(config=CONFIGS["quick gelu"]).digest
    )


def test_an_architecture_brings_the_preprocessing_its_published_weights_agree_on():
    preprocessing = resolve_architecture(name="MobileCLIP-S1").preprocessing()
    assert preprocessing.mean == (0.0, 0.0, 0.0)
    assert preprocessing.interpolation == "bilinear"
    assert preprocessing.size == (256, 256)


def test_where_published_weights_disagree_open_clips_default_stands():
    preprocessing = resolve_architecture(name="ViT-L-14").preprocessing()
    assert preprocessing.mean == open_clip.OPENAI_DATASET_MEAN
    assert preprocessing.resize_mode == "shortest"

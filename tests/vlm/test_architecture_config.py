import copy

import pytest

from tests.tiny_clip import TINY_BATCHNORM_CONFIG, TINY_CONFIG
from vlm.architecture import list_architectures, resolve_architecture
from vlm.errors import UnknownArchitectureError


def changed(path, value, config=TINY_CONFIG):
    config = copy.deepcopy(config)
    *sections, last = path.split(".")
    place = config
    for section in sections:
        place = place.setdefault(section, {})
    place[last] = value
    return config


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("vision_cfg.layers", 10**9),
        ("vision_cfg.layers", [1, 1, 10**9, 1]),
        ("vision_cfg.width", 10**7),
        ("vision_cfg.width", float("nan")),
        ("vision_cfg.image_size", 10**6),
        ("vision_cfg.image_size", -32),
        ("vision_cfg.image_size", "large"),
        ("vision_cfg.image_size", [32, 32, 32]),
        ("vision_cfg.patch_size", 0),
        ("vision_cfg.patch_size", 64),
        ("vision_cfg.patch_size", "eight"),
        ("text_cfg.context_length", 10**6),
        ("text_cfg.vocab_size", 1000),
        ("text_cfg.vocab_size", 10**12),
        ("text_cfg.hf_model_name", "roberta-base"),
        ("text_cfg.hf_tokenizer_name", "bert-base-uncased"),
        ("text_cfg.tokenizer_kwargs", {"bpe_path": "/etc/passwd"}),
        ("text_cfg.tokenizer_kwargs", {"reduction_mask": "syntax"}),
        ("text_cfg.nonsense", 1),
        ("vision_cfg.timm_model_name", "hf-hub:someone/something"),
        ("vision_cfg.timm_model_name", "local-dir:/etc"),
        ("vision_cfg.timm_model_name", "no_such_model"),
        ("vision_cfg.timm_model_name", 7),
        ("vision_cfg.nonsense", True),
        ("nonsense", {}),
        ("output_dict", True),
        ("embed_dim", 10**6),
        ("vision_cfg", None),
        ("text_cfg", []),
        ("multimodal_cfg", {"nonsense": 1}),
        ("preprocess_cfg", {"size": 224}),
        ("preprocess_cfg", {"mean": [0.5]}),
        ("preprocess_cfg", {"mean": ["a", "b", "c"]}),
        ("preprocess_cfg", {"std": [0.0, 1.0, 1.0]}),
        ("preprocess_cfg", {"interpolation": "nearest"}),
        ("preprocess_cfg", {"resize_mode": "melt"}),
        ("preprocess_cfg", {"fill_color": 256}),
    ],
)
def test_a_config_that_cannot_be_built_safely_is_refused_and_the_key_named(path, value):
    with pytest.raises(UnknownArchitectureError) as caught:
        resolve_architecture(config=changed(path, value))
    assert path.split(".")[-1].removesuffix("_kwargs").removesuffix("_cfg") in str(caught.value)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("vision_cfg.width", 65),
        ("vision_cfg.head_width", 0),
        ("vision_cfg.layers", "two"),
        ("vision_cfg.norm_kwargs", {"nonsense": 1}),
        ("text_cfg.heads", 3),
        ("text_cfg.pool_type", "nonsense"),
        ("embed_dim", -1),
        ("embed_dim", "wide"),
    ],
)
def test_a_config_that_open_clip_refuses_is_refused_when_it_is_built(path, value):
    with pytest.raises(UnknownArchitectureError, match=r"open_clip cannot build|shape"):
        resolve_architecture(config=changed(path, value)).expected_tensors()


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("vision_cfg.timm_model_name", "test_vit3"),  # made for 160 pixels
        ("vision_cfg.timm_proj", "none"),  # features as long as the trunk is wide
    ],
)
def test_a_config_whose_towers_do_not_fit_is_refused_before_a_base_is_made_of_it(path, value):
    with pytest.raises(UnknownArchitectureError):
        resolve_architecture(config=changed(path, value, TINY_BATCHNORM_CONFIG)).expected_tensors()


@pytest.mark.parametrize(
    "config", [[], "ViT-B-32", {}, {"embed_dim": 32}, {"model_cfg": 3}, {"model_cfg": {}}]
)
def test_what_is_no_config_is_refused(config):
    with pytest.raises(UnknownArchitectureError):
        resolve_architecture(config=config)


def test_more_patches_than_can_be_attended_to_are_refused():
    config = changed("vision_cfg.image_size", 4096)
    config["vision_cfg"]["patch_size"] = 8
    with pytest.raises(UnknownArchitectureError, match="patches"):
        resolve_architecture(config=config)


def test_a_random_interpolation_means_what_open_clip_evaluates_with():
    config = changed("preprocess_cfg", {"interpolation": "random"})
    assert resolve_architecture(config=config).preprocessing().interpolation == "bicubic"


def test_weights_of_a_hub_are_never_asked_for():
    config = changed("vision_cfg.timm_model_pretrained", True, TINY_BATCHNORM_CONFIG)
    assert resolve_architecture(config=config).config["vision_cfg"]["timm_model_pretrained"] is False


def test_the_given_config_is_left_as_it_is():
    config = copy.deepcopy(TINY_CONFIG)
    resolve_architecture(config=config)
    assert config == TINY_CONFIG


def test_every_architecture_that_is_listed_has_a_config_that_passes():
    names = list_architectures()
    assert {"ViT-B-32", "ViT-B-16", "ViT-L-14", "RN50"} <= set(names)
    for name in names:
        assert resolve_architecture(name=name).name == name

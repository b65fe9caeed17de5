import open_clip
import pytest
import torch

from tests.tiny_clip import TINY_CONFIG, tiny_tensors
from vlm.architecture import resolve_architecture
from vlm.class_weights import Classifier, class_weights
from vlm.features import batched, image_features, mean_text_features, text_features
from vlm.prompts import fill

LABELS, TEMPLATES = ("cat", "dog", "sea otter"), ("a photo of a {}.", "a drawing of a {}.")


@pytest.fixture(scope="module")
def architecture():
    return resolve_architecture(config=TINY_CONFIG)


@pytest.fixture(scope="module")
def model(architecture):
    return architecture.build(tiny_tensors())


def test_features_are_unit_vectors_without_gradients(learned, architecture, model):
    for features in (
        image_features(model, learned.pictures(3)),
        text_features(model, architecture.tokenizer()(["a cat"])),
    ):
        assert not features.requires_grad
        assert features.dtype == torch.float32
        torch.testing.assert_close(features.norm(dim=1), torch.ones(len(features)))


def test_features_are_encoded_64_at_a_time_and_stay_in_order(model):
    seen = []
    handle = model.visual.register_forward_pre_hook(lambda _module, inputs: seen.append(len(inputs[0])))
    images = torch.randn(130, 3, 32, 32)
    together = image_features(model, images)
    handle.remove()
    assert seen == [64, 64, 2]
    torch.testing.assert_close(together[[0, 70, 129]], image_features(model, images[[0, 70, 129]]))


def test_class_weights_are_open_clips_zero_shot_classifier(architecture, model):
    theirs = open_clip.build_zero_shot_classifier(
        model,
        architecture.tokenizer(),
        classnames=LABELS,
        templates=[lambda label, template=template: fill(template, label) for template in TEMPLATES],
        num_classes_per_batch=None,
    )
    ours = class_weights(model, architecture.tokenizer(), labels=LABELS, templates=TEMPLATES)
    torch.testing.assert_close(ours, theirs.T)


def test_class_weights_are_the_normalised_mean_of_normalised_features(architecture, model):
    tokenizer = architecture.tokenizer()
    expected = []
    for label in LABELS:
        rows = torch.stack(
            [text_features(model, tokenizer([fill(template, label)]))[0] for template in TEMPLATES]
        )
        expected.append(rows.mean(dim=0) / rows.mean(dim=0).norm())
    weights = class_weights(model, tokenizer, labels=LABELS, templates=TEMPLATES)
    torch.testing.assert_close(weights, torch.stack(expected))
    means = mean_text_features(model, tokenizer, labels=LABELS, templates=TEMPLATES)
    assert bool((means.norm(dim=1) < 1).all())


def test_logits_are_the_scaled_cosine_plus_the_bias_where_there_is_one(learned):
    for bias in (None, -3.0):
        architecture = resolve_architecture(config={**TINY_CONFIG, "init_logit_bias": bias})
        tensors = tiny_tensors(config=architecture.config)
        if bias is not None:
            tensors["logit_bias"] = torch.tensor(bias)
        model = architecture.build(tensors)
        images = learned.pictures(2)
        tokens = architecture.tokenizer()(["a cat", "a dog"])
        with torch.inference_mode():
            theirs, _ = model.get_logits(images, tokens)
            words = model.encode_text(tokens, normalize=True)
        assert torch.equal(Classifier.of(model, words).logits(image_features(model, images)), theirs)
        found = Classifier.of(model, text_features(model, tokens)).logits(image_features(model, images))
        torch.testing.assert_close(found, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"no_causal_mask": True},
        {"pool_type": "last"},
        {"proj_bias": True},
        {"proj_type": "none"},
        {"custom_text": True},
    ],
)
def test_positions_after_the_prompts_are_cut_off_only_where_they_cannot_matter(change):
    config = {**TINY_CONFIG, "custom_text": change.get("custom_text", False)}
    config["text_cfg"] = {
        **TINY_CONFIG["text_cfg"],
        **{k: v for k, v in change.items() if k != "custom_text"},
    }
    architecture = resolve_architecture(config=config)
    model = architecture.build(tiny_tensors(config=config))
    lengths = []
    tower = model.text if config["custom_text"] else model
    tower.transformer.register_forward_pre_hook(lambda _module, inputs: lengths.append(inputs[0].shape[1]))
    tokens = architecture.tokenizer()(["a cat", "a photo of an otter"])
    found = text_features(model, tokens)
    with torch.inference_mode():
        torch.testing.assert_close(found, model.encode_text(tokens, normalize=True), rtol=1e-4, atol=1e-5)
    can_be_cut = not change.keys() & {"no_causal_mask", "pool_type", "custom_text"}
    assert (lengths[0] < tokens.shape[1]) == can_be_cut


def test_examples_are_put_in_batches_in_their_order():
    examples = [(torch.full((3, 2, 2), float(n)), n) for n in range(5)]
    batches = list(batched(iter(examples), batch_size=2))
    assert [numbers.tolist() for _, numbers in batches] == [[0, 1], [2, 3], [4]]
    assert batches[1][0][1, 0, 0, 0] == 3
    assert list(batched([])) == []

import pytest
import torch

from vlm.class_weights import Classifier, class_weights
from vlm.evaluation import evaluate
from vlm.features import image_features

CLASSES, TEMPLATES = ("cat", "dog", "otter"), ("a photo of a {}.",)


@pytest.fixture(scope="module")
def theta0(learned):
    return learned.architecture.build(learned.base_tensors)


def test_accuracy_is_the_share_of_right_answers_in_percent(learned, theta0):
    tokenizer = learned.architecture.tokenizer()
    images = learned.pictures(8)
    weights = class_weights(theta0, tokenizer, labels=CLASSES, templates=TEMPLATES)
    answers = Classifier.of(theta0, weights).logits(image_features(theta0, images)).argmax(dim=1)
    truth = answers.clone()
    truth[:2] = (truth[:2] + 1) % 3
    seen = []
    found = evaluate(
        theta0,
        tokenizer,
        [(images[:5], truth[:5]), (images[5:], truth[5:])],
        classes=CLASSES,
        templates=TEMPLATES,
        on_progress=seen.append,
    )
    assert found == 75.0
    assert seen == [5, 8]


def test_no_accuracy_is_made_up_without_images(learned, theta0):
    with pytest.raises(ValueError, match="no pictures"):
        evaluate(theta0, learned.architecture.tokenizer(), [], classes=CLASSES, templates=TEMPLATES)


def test_evaluating_leaves_the_model_as_it_was(learned, theta0):
    before = {name: tensor.clone() for name, tensor in theta0.state_dict().items()}
    evaluate(
        theta0,
        learned.architecture.tokenizer(),
        [(learned.pictures(2), torch.tensor([0, 1]))],
        classes=CLASSES,
        templates=TEMPLATES,
    )
    assert all(torch.equal(tensor, before[name]) for name, tensor in theta0.state_dict().items())

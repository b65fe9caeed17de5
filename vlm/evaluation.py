"""How often a model is right."""

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import nn

from vlm.class_weights import Classifier, class_weights
from vlm.features import Batch, image_features
from vlm.tokenizer import Tokenizer


@torch.inference_mode()
def evaluate(
    model: nn.Module,
    tokenizer: Tokenizer,
    batches: Iterable[Batch],
    *,
    classes: Sequence[str],
    templates: Sequence[str],
    on_progress: Callable[[int], None] | None = None,
) -> float:
    """Top-1 accuracy in percent among `classes`, by the same features and class weights that answer requests.

    Args:
        model: In eval mode.
        tokenizer: The model's.
        batches: Pictures with the number of their class.
        classes: In the order of those numbers.
        templates: Averaged over.
        on_progress: Called with the number of pictures done.

    Raises:
        ValueError: There are no pictures, so that no accuracy is defined.
    """
    weights = class_weights(model, tokenizer, labels=classes, templates=templates)
    classifier = Classifier.of(model, weights)
    num_right = num_images = 0
    for images, numbers in batches:
        answers = classifier.logits(image_features(model, images)).argmax(dim=1).cpu()
        num_right += int((answers == numbers).sum())
        num_images += len(numbers)
        if on_progress is not None:
            on_progress(num_images)
    if num_images == 0:
        raise ValueError("no pictures to evaluate on; hold some out")
    return 100.0 * num_right / num_images

"""An exported expert in plain open_clip, which knows nothing of this project: are the answers the same?"""

import io
import json
import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cli.quickstart.asking import Answered
from cli.quickstart.held_out import HeldOutImage

PREPROCESSING_OF_OPEN_CLIP = ("mean", "std", "interpolation", "resize_mode", "fill_color")
# Below this a float32 probability has lost digits, and its logarithm would measure that.
SMALLEST_PROBABILITY = 1e-30


@dataclass(frozen=True)
class Agreement:
    """How near two models' logits are.

    Attributes:
        max_abs_logit_difference: Over all images and labels, of log-probabilities: those are logits up to one
            constant an image, which no answer shows.
        num_logits: How many were compared.
        num_images: Of how many images.
        num_same_label: For how many images both name the same label first.
    """

    max_abs_logit_difference: float
    num_logits: int
    num_images: int
    num_same_label: int


def lay_out(folder: Path, *, weights: Path, base: Mapping[str, Any]) -> None:
    """Put an exported expert into `folder` the way open_clip itself lays out a local model."""
    config = {name: value for name, value in base["config"].items() if name != "preprocess_cfg"}
    preprocessing = {
        name: value for name, value in base["preprocessing"].items() if name in PREPROCESSING_OF_OPEN_CLIP
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "open_clip_config.json").write_text(
        json.dumps({"model_cfg": config, "preprocess_cfg": preprocessing})
    )
    shutil.copyfile(weights, folder / "open_clip_model.safetensors")


def log_probabilities(
    folder: Path, images: Sequence[HeldOutImage], *, labels: Sequence[str], templates: Sequence[str]
) -> list[list[float]]:
    """What plain open_clip says of each image: the log-probability of each label."""
    import open_clip
    import torch
    from PIL import Image

    model, transform = open_clip.create_model_from_pretrained(f"local-dir:{folder}")
    tokenizer = open_clip.get_tokenizer(f"local-dir:{folder}")
    model.eval()
    with torch.inference_mode():
        prompts = [template.replace("{}", label) for label in labels for template in templates]
        texts = model.encode_text(tokenizer(prompts), normalize=True).reshape(len(labels), len(templates), -1)
        classes = torch.nn.functional.normalize(texts.mean(dim=1), dim=-1)
        pixels = torch.stack(
            [transform(Image.open(io.BytesIO(image.content)).convert("RGB")) for image in images]
        )
        features = model.encode_image(pixels, normalize=True)
        logits = model.logit_scale.exp() * features @ classes.T
        rows: list[list[float]] = logits.log_softmax(dim=-1).tolist()
    return rows


def agreement(
    answered: Sequence[Answered], plain: Sequence[Sequence[float]], *, labels: Sequence[str]
) -> Agreement:
    """How near the service's answers (with every label told) are to plain open_clip's log-probabilities."""
    differences: list[float] = []
    num_same_label = 0
    for found, row in zip(answered, plain, strict=True):
        expected = dict(zip(labels, row, strict=True))
        num_same_label += found.label == max(expected, key=lambda label: expected[label])
        differences += [
            abs(math.log(prediction.probability) - expected[prediction.label])
            for prediction in found.answer.predictions
            if prediction.probability > SMALLEST_PROBABILITY
        ]
    return Agreement(max(differences), len(differences), len(plain), num_same_label)

"""Accuracy of the shipped base on the shipped tasks, by plain open_clip."""

import io
import json
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import open_clip
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

_BATCH = 100


@dataclass(frozen=True)
class Accuracy:
    """Top-1 in percent on a task's test images."""

    percent: float
    num_images: int
    num_classes: int

    @property
    def chance(self) -> float:
        """Percent that guessing reaches."""
        return 100 / self.num_classes


def load_base(folder: Path) -> nn.Module:
    """The base as it ships, in float32 and eval mode."""
    config = json.loads((folder / "base_config.json").read_text())
    model: nn.Module = open_clip.CLIP(**config["model_cfg"])
    state = load_file(folder / "base.safetensors")
    model.load_state_dict(
        {name: value.float() if value.is_floating_point() else value for name, value in state.items()}
    )
    return model.eval()


def zero_shot_accuracies(model: nn.Module, folder: Path) -> dict[str, Accuracy]:
    """For every task of tasks.json, the accuracy on its test images with the ensemble of its templates."""
    tasks = json.loads((folder / "tasks" / "tasks.json").read_text())["tasks"]
    return {name: _accuracy(model, folder, name, task) for name, task in tasks.items()}


@torch.inference_mode()
def _accuracy(model: nn.Module, folder: Path, name: str, task: dict[str, Any]) -> Accuracy:
    weights = class_weights(model, task["classes"], task["templates"])
    pictures, labels = read_split(folder, name, task["classes"], split="test")
    starts = range(0, len(pictures), _BATCH)
    batches = [pictures[start : start + _BATCH] for start in starts]
    features = torch.cat([model.encode_image(batch) for batch in batches])  # type: ignore[operator]
    right = (features @ weights.T).argmax(dim=1) == labels
    return Accuracy(100 * float(right.float().mean()), len(labels), len(task["classes"]))


def class_weights(model: nn.Module, classes: list[str], templates: list[str]) -> Tensor:
    """One normalised vector a class [C, 256]: the mean over the templates."""
    per_template = []
    for template in templates:
        texts = [template.format(label) for label in classes]
        tokens = open_clip.tokenize(texts, context_length=model.context_length)
        per_template.append(functional.normalize(model.encode_text(tokens), dim=-1))  # type: ignore[operator]
    return functional.normalize(torch.stack(per_template).mean(0), dim=-1)


def read_split(folder: Path, name: str, classes: list[str], *, split: str) -> tuple[Tensor, Tensor]:
    """Preprocessed pictures [N, 3, 96, 96] and labels [N] of one side of a task."""
    preprocess_cfg = json.loads((folder / "base_config.json").read_text())["preprocess_cfg"]
    transform = image_transform_v2(PreprocessCfg(**preprocess_cfg), is_train=False)
    pictures, labels = [], []
    with tarfile.open(folder / "tasks" / f"{name}.tar") as archive:
        for member in archive:
            side, label, _ = member.name.split("/")
            stream = archive.extractfile(member)
            if side == split and stream is not None:
                pictures.append(transform(Image.open(io.BytesIO(stream.read())).convert("RGB")))
                labels.append(classes.index(label.replace("_", " ")))
    return torch.stack(pictures), torch.tensor(labels)

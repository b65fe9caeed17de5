"""The training checkpoint: weights, moments and the iteration, in one file that is whole or not there.

Nothing else is needed to go on bit for bit: order, augmentation and learning rate follow from the iteration.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import AdamW

from store.errors import InvalidUploadError
from store.safefile import SafeFile, read_header, write_safetensors
from worker.training.spec import TrainingSpec

MOMENTS = ("exp_avg", "exp_avg_sq")
_KEY = "condu_training"


def recipe_digest(spec: TrainingSpec) -> str:
    """The identity of what is being trained, so that a state of another run is never taken up."""
    recipe: dict[str, Any] = {
        "architecture": spec.architecture.digest,
        "template": spec.template,
        "options": spec.options.model_dump(mode="json"),
        "base_bytes": spec.base.stat().st_size,
    }
    if spec.adapter is not None:
        with spec.adapter.open("rb") as file:
            recipe["adapter"] = hashlib.file_digest(file, "sha256").hexdigest()
    return hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()


def save_state(path: Path, model: nn.Module, optimizer: AdamW, *, iteration: int, recipe: str) -> None:
    """Write the state after so many iterations; atomic, flushed to disk.

    Raises:
        BlobsUnavailableError: The disk is full.
    """
    tensors: dict[str, Tensor] = {}
    for name, parameter in trained_parameters(model).items():
        tensors[f"weight/{name}"] = parameter.detach()
        for moment in MOMENTS:
            if moment in optimizer.state[parameter]:
                tensors[f"{moment}/{name}"] = optimizer.state[parameter][moment]
    about = json.dumps({"iteration": iteration, "recipe": recipe})
    write_safetensors(path, tensors, {_KEY: about})


def load_state(path: Path, model: nn.Module, optimizer: AdamW, *, recipe: str) -> int:
    """Put a saved state into model and optimizer; returns the iterations it has behind it, 0 without one.

    A file that does not read, or is of another recipe, is passed over: training begins anew.
    """
    iteration = saved_iteration(path, recipe=recipe)
    if iteration == 0:
        return 0
    file = SafeFile(path)
    with torch.no_grad():
        names = file.header.tensors
        for name, parameter in trained_parameters(model).items():
            parameter.copy_(file.tensor(f"weight/{name}"))
            if f"{MOMENTS[0]}/{name}" in names:
                moments = {moment: _like(parameter, file.tensor(f"{moment}/{name}")) for moment in MOMENTS}
                step = torch.tensor(float(iteration), device=parameter.device)
                optimizer.state[parameter] = {"step": step, **moments}
    return iteration


def saved_iteration(path: Path, *, recipe: str) -> int:
    """How many iterations the saved state has behind it; 0 where there is none that fits."""
    if not path.exists():
        return 0
    try:
        metadata: Mapping[str, str] = read_header(path).metadata
        about = json.loads(metadata[_KEY])
    except (InvalidUploadError, KeyError, ValueError):
        return 0
    return int(about["iteration"]) if about["recipe"] == recipe else 0


def trained_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """What a training of the model moves, by name."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def _like(parameter: nn.Parameter, moment: Tensor) -> Tensor:
    """The moment in the parameter's own memory layout, as the fused optimizer asks."""
    return torch.empty_like(parameter).copy_(moment)

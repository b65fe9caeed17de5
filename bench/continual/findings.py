"""What a run finds out beside accuracies: who answers for whom, how masks overlap, where features lie."""

from pathlib import Path
from typing import Any

import torch

from bench.continual.stage import Stage
from store.checkpoints import CheckpointStore
from store.manifest import Manifest
from store.overlap import measure_overlap
from store.safefile import write_safetensors
from vlm.routing import choose, similarities

FEATURES_A_TASK = 100
"""Images a task in the picture of the features; more only blacken it."""


def routing(stage: Stage, manifest: Manifest) -> dict[str, Any]:
    """Whom the held-out images of each task are routed to after the last step, were no task named.

    `chosen_first` is the share of a task's images for which an expert is the most similar, `weight` the mean
    weight of each participant; rows sum to 1.
    """
    vectors = [stage.prototypes_of(lesson).vectors for lesson in stage.lessons]
    chosen_first, weight = [], []
    for features in stage.base_features:
        scores = similarities(features, vectors)
        best = scores.argmax(dim=1).bincount(minlength=len(vectors)) / len(scores)
        chosen_first.append([0.0, *best.tolist()])
        options = stage.plan.routing
        route = choose(
            scores,
            k=options.k,
            include_base=options.include_base,
            weighting=options.weighting,
            temperature=options.temperature,
        )
        weight.append(route.weights.mean(dim=0).tolist())
    rows = [lesson.name for lesson in stage.lessons]
    return {
        "rows": rows,
        "columns": ["base", *(task.name for task in manifest.tasks)],
        "chosen_first": chosen_first,
        "weight": weight,
    }


def overlap(store: CheckpointStore, manifest: Manifest) -> dict[str, Any]:
    """How many bits the masks of two tasks share, as a share of those that either has (Jaccard)."""
    found = measure_overlap(store.blobs, manifest)
    rows = [[found.jaccard(one, other) for other in found.tasks] for one in found.tasks]
    return {"tasks": list(found.tasks), "jaccard": rows}


def save_features(stage: Stage, path: Path) -> None:
    """A safetensors file for the picture of the features and prototypes (the paper's figure 4).

    `features` [N, D] and `prototypes` [P, D] float32; `task`, `label` [N] and `prototype_task` [P] int64.
    """
    features, tasks, labels = [], [], []
    for number, (lesson, found) in enumerate(zip(stage.lessons, stage.base_features, strict=True)):
        rows = torch.randperm(len(found), generator=torch.Generator().manual_seed(number))[:FEATURES_A_TASK]
        features.append(found[rows])
        tasks.append(torch.full((len(rows),), number))
        truth = torch.tensor([lesson.images.images[place].label for place in lesson.images.test])
        labels.append(truth[rows])
    vectors = [stage.prototypes_of(lesson).vectors for lesson in stage.lessons]
    tensors = {
        "features": torch.cat(features),
        "task": torch.cat(tasks),
        "label": torch.cat(labels),
        "prototypes": torch.cat(vectors),
        "prototype_task": torch.cat([torch.full((len(each),), at) for at, each in enumerate(vectors)]),
    }
    write_safetensors(path, tensors)

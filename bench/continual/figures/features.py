"""Where the base sees the images of all tasks, and where their prototypes lie (the paper's figure 4)."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from bench.continual.figures.style import DPI, plain, task_style
from bench.errors import BenchError
from store.errors import StoreError
from store.safefile import SafeFile

_TENSORS = ("features", "task", "prototypes", "prototype_task")


@dataclass(frozen=True)
class FeatureMap:
    """Images and prototypes in two dimensions, with the number of the task that each belongs to.

    Attributes:
        share_near_own: Share of the images whose most similar prototype, before the projection, is one of
            their own task.
    """

    images: NDArray[np.float32]
    image_tasks: NDArray[np.int64]
    prototypes: NDArray[np.float32]
    prototype_tasks: NDArray[np.int64]
    share_near_own: float


def feature_map(path: Path) -> FeatureMap:
    """The features of the file, projected by t-SNE on cosine distances; the same file gives the same map.

    Images and prototypes are projected together, so that their distances mean the same.

    Raises:
        BenchError: The file is damaged, or lacks one of the tensors (named).
    """
    from sklearn.manifold import TSNE

    tensors = _tensors(path)
    images, prototypes = (_unit(tensors[name]) for name in ("features", "prototypes"))
    tasks, prototype_tasks = (tensors[name].numpy() for name in ("task", "prototype_task"))
    vectors = np.concatenate([images, prototypes])
    projection = TSNE(
        metric="cosine",
        init="pca",
        perplexity=min(30.0, max(1.0, (len(vectors) - 1) / 3)),
        random_state=0,
    )
    places = projection.fit_transform(vectors)
    nearest = prototype_tasks[(images @ prototypes.T).argmax(axis=1)]
    return FeatureMap(
        images=places[: len(images)],
        image_tasks=tasks,
        prototypes=places[len(images) :],
        prototype_tasks=prototype_tasks,
        share_near_own=float((nearest == tasks).mean()),
    )


def draw_features(found: FeatureMap, tasks: Sequence[str], title: str) -> Figure:
    """Dots are images, stars are prototypes; a colour and a marker a task."""
    figure = Figure(figsize=(9.4, 7.0), dpi=DPI, layout="constrained")
    axes = figure.subplots()
    for number, name in enumerate(tasks):
        style = task_style(number)
        images = found.images[found.image_tasks == number]
        stars = found.prototypes[found.prototype_tasks == number]
        axes.scatter(
            images[:, 0], images[:, 1], s=15, color=style.colour, marker=style.marker, alpha=0.5, linewidths=0
        )
        axes.scatter(
            stars[:, 0],
            stars[:, 1],
            s=120,
            color=style.colour,
            marker="*",
            edgecolors="black",
            linewidths=0.7,
        )
        axes.scatter([], [], s=32, color=style.colour, marker=style.marker, label=plain(name))
    axes.scatter([], [], s=120, color="white", marker="*", edgecolors="black", label="prototypes")
    axes.set_xticks([])
    axes.set_yticks([])
    figure.legend(loc="outside right upper", frameon=False, fontsize=9)
    axes.set_title(
        "Held-out images and class prototypes as the base sees them (t-SNE):\n"
        f"{found.share_near_own:.0%} of these images are nearest to a prototype of their own task\n{title}",
        fontsize=11,
    )
    return figure


def _tensors(path: Path) -> dict[str, Tensor]:
    try:
        tensors = SafeFile(path).tensors()
    except (StoreError, OSError) as error:
        raise BenchError(
            f"{path} cannot be read: {error}", remedy="delete it and run again, which writes it anew"
        ) from error
    missing = [name for name in _TENSORS if name not in tensors]
    if missing:
        raise BenchError(
            f"{path} has no tensor {missing[0]!r}", remedy="delete it and run again, which writes it anew"
        )
    return tensors


def _unit(vectors: Tensor) -> NDArray[np.float32]:
    found: NDArray[np.float32] = (vectors / vectors.norm(dim=1, keepdim=True)).float().numpy()
    return found

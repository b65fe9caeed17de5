"""The figures of a run, drawn from its results document alone."""

from collections.abc import Callable
from pathlib import Path

from matplotlib.figure import Figure

from bench.continual.figures.comparison import method_comparison
from bench.continual.figures.features import draw_features, feature_map
from bench.continual.figures.lines import accuracy_curves, fidelity_drift, storage_by_tasks
from bench.continual.figures.matrices import accuracy_heat_maps, mask_overlaps, routing_confusion
from bench.continual.figures.style import save
from bench.continual.reading import Reading

CAPTIONS = {
    "comparison": "Transfer, Average and Last of every method",
    "heat-maps": "Accuracy on every task after every step, a panel a method",
    "curves": "Accuracy on each task as tasks are learned",
    "storage": "Bytes kept against tasks, and Last against bytes",
    "fidelity": "Distance of every expert to its original delta, revision by revision",
    "overlap": "Overlap of the tasks' masks",
    "routing": "Whom images are routed to when no task is named",
    "features": "t-SNE of image features and prototypes",
}

_FIGURES: dict[str, Callable[[Reading], Figure | None]] = {
    "comparison": method_comparison,
    "heat-maps": accuracy_heat_maps,
    "curves": accuracy_curves,
    "storage": storage_by_tasks,
    "fidelity": fidelity_drift,
    "overlap": mask_overlaps,
    "routing": routing_confusion,
}


def draw_figures(reading: Reading, features: Path | None, folder: Path, *, stem: str) -> dict[str, Path]:
    """Name of a figure -> its PNG file; a figure that the document has nothing for is left out.

    Raises:
        BenchError: The file of features is damaged.
    """
    drawn = {}
    for name, draw in _FIGURES.items():
        figure = draw(reading)
        if figure is not None:
            drawn[name] = save(figure, folder / f"{stem}.{name}.png")
    if features is not None:
        figure = draw_features(feature_map(features), reading.tasks, reading.title)
        drawn["features"] = save(figure, folder / f"{stem}.features.png")
    return drawn

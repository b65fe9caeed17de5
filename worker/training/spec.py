"""What the training process is told: one JSON file, written by the worker, read by its child."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from catalog.training_options import TrainingOptions
from vlm.architecture import Architecture, resolve_architecture
from vlm.preprocessing import Preprocessing
from worker.files import read_json, write_json

RESULT_NAME = "fine_tuned.safetensors"
STATE_NAME = "training_state.safetensors"


@dataclass(frozen=True)
class TrainingSpec:
    """One fine-tuning.

    Attributes:
        architecture: The base's.
        preprocessing: The base's.
        base: The base's weights, a safetensors file that is only read.
        images: The `prepared.json` of the data set.
        max_pixels: Bound on one image, where pictures are decoded again.
        template: The prompt's template; training uses one.
        options: The hyper-parameters.
        device: "cpu", "cuda" or "cuda:N".
        num_threads: CPU threads; None leaves it to torch.
        folder: Where the training state and the fine-tuned checkpoint go.
        processes: How many train together; on CUDA each has a GPU, from `device` on.
        adapter: The adapter to start from, a safetensors file that is only read; it alone is trained,
            and the fine-tuned file holds its tensors and no others. None trains both towers.
    """

    architecture: Architecture
    preprocessing: Preprocessing
    base: Path
    images: Path
    max_pixels: int
    template: str
    options: TrainingOptions
    device: str
    num_threads: int | None
    folder: Path
    adapter: Path | None = None
    processes: int = 1

    @property
    def result(self) -> Path:
        """The fine-tuned checkpoint, once there is one."""
        return self.folder / RESULT_NAME

    @property
    def state(self) -> Path:
        """The training checkpoint."""
        return self.folder / STATE_NAME

    def write(self, path: Path) -> None:
        """Put the spec into a file."""
        values: dict[str, Any] = {
            "architecture": {"name": self.architecture.name, "config": self.architecture.config},
            "preprocessing": self.preprocessing.to_dict(),
            "base": str(self.base),
            "images": str(self.images),
            "max_pixels": self.max_pixels,
            "template": self.template,
            "options": self.options.model_dump(mode="json"),
            "device": self.device,
            "num_threads": self.num_threads,
            "folder": str(self.folder),
            "adapter": None if self.adapter is None else str(self.adapter),
            "processes": self.processes,
        }
        write_json(path, values)

    @classmethod
    def read(cls, path: Path) -> Self:
        """What `write` wrote."""
        values = read_json(path)
        return cls(
            architecture=resolve_architecture(**values["architecture"]),
            preprocessing=Preprocessing.from_dict(values["preprocessing"]),
            base=Path(values["base"]),
            images=Path(values["images"]),
            max_pixels=values["max_pixels"],
            template=values["template"],
            options=TrainingOptions(**values["options"]),
            device=values["device"],
            num_threads=values["num_threads"],
            folder=Path(values["folder"]),
            adapter=None if values["adapter"] is None else Path(values["adapter"]),
            processes=values["processes"],
        )

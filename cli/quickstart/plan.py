"""How much of the story is told: the command tells all of it, the end-to-end test a small one."""

from dataclasses import dataclass
from pathlib import Path

DEMO_FOLDER = Path(__file__).parent.parent / "demo"


@dataclass(frozen=True)
class QuickstartPlan:
    """What one run does.

    Attributes:
        data: Folder of the service's data; left behind, usable with `condu serve`.
        json_file: Where the numbers go, if anywhere.
        port: Port of the service; 0 takes a free one.
        fresh: Whether an earlier quickstart's model in `data` is removed first.
        num_trained: How many tasks the service trains; one more is fine-tuned outside and imported.
        images_per_task: At most so many held-out images of a task are asked about, the same ones every time.
        unnamed_per_task: So many of them are also asked about without naming the task.
        iterations: Training steps of every task; None takes what tasks.json says.
        seed: Seed of the fine-tune made outside.
        demo: Folder with the demo base and the task archives.
    """

    data: Path
    json_file: Path | None = None
    port: int = 0
    fresh: bool = False
    num_trained: int = 4
    images_per_task: int = 250
    unnamed_per_task: int = 25
    iterations: int | None = None
    seed: int = 0
    demo: Path = DEMO_FOLDER
    base_name: str = "demo-clip"
    model_name: str = "demo"

"""What every step of the story works with."""

from dataclasses import dataclass
from pathlib import Path

from cli.client import Client
from cli.output import Output
from cli.quickstart.demo_files import Demo, DemoTask
from cli.quickstart.held_out import HeldOutImage
from cli.quickstart.numbers import Numbers
from cli.quickstart.plan import QuickstartPlan
from cli.quickstart.service import RunningService


@dataclass(frozen=True)
class Scene:
    """The plan, the players and the notebook of one run."""

    plan: QuickstartPlan
    demo: Demo
    held_out: dict[str, tuple[HeldOutImage, ...]]
    service: RunningService
    client: Client
    output: Output
    scratch: Path
    numbers: Numbers

    @property
    def base_weights(self) -> Path:
        """The demo base in single precision, as it is uploaded."""
        return self.scratch / "base.safetensors"

    @property
    def trained(self) -> tuple[DemoTask, ...]:
        """The tasks that the service trains, in order."""
        return self.demo.trained

    @property
    def imported(self) -> DemoTask:
        """The task that is fine-tuned outside and imported."""
        return self.demo.imported

    def training_of(self, task: DemoTask) -> dict[str, object]:
        """The training options of a task, as this plan wants them."""
        if self.plan.iterations is None:
            return task.training
        given = {name: value for name, value in task.training.items() if name != "warmup_iterations"}
        return {**given, "iterations": self.plan.iterations}

    def chapter(self, title: str) -> None:
        """The heading of a step."""
        self.output.say(f"\n[bold cyan]{title}[/]")

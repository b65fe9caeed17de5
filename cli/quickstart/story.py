"""The order of events: from an empty data folder to a model of five tasks, and out again."""

import json
import tempfile
import time
from pathlib import Path

from rich.markup import escape

from cli.client import Client
from cli.errors import CommandUsageError
from cli.output import Output
from cli.quickstart.answering import ask_with_foreign_labels, ask_without_names
from cli.quickstart.demo_files import read_demo
from cli.quickstart.exporting import export_and_compare
from cli.quickstart.held_out import read_held_out
from cli.quickstart.importing import import_a_checkpoint
from cli.quickstart.learning import ask_about_all, learn, measure_zero_shot
from cli.quickstart.numbers import Numbers
from cli.quickstart.opening import create_model, make_room, register_base
from cli.quickstart.plan import QuickstartPlan
from cli.quickstart.scene import Scene
from cli.quickstart.service import running_service
from cli.quickstart.weighing import print_storage, weigh_after_sweep, weigh_what_is_left
from cli.units import as_duration


def tell(plan: QuickstartPlan, output: Output) -> Numbers:
    """Every number of the run, printed as it comes and written to the plan's file at the end."""
    started = time.monotonic()
    if plan.json_file is not None and not plan.json_file.absolute().parent.is_dir():
        raise CommandUsageError(
            f"there is no folder for {plan.json_file}", remedy="make it, or name another file"
        )
    demo = read_demo(plan.demo, num_trained=plan.num_trained)
    numbers = Numbers()
    output.note(f"starting the service on {plan.data.absolute()}")
    with (
        tempfile.TemporaryDirectory(prefix="condu-quickstart-") as scratch,
        running_service(plan.data, port=plan.port) as service,
    ):
        output.say(f"[bold]The service runs:[/] {service.url}")
        output.say(f"data folder {escape(str(service.data))}, log {escape(str(service.log))}")
        with Client(service.url) as client:
            scene = Scene(
                plan=plan,
                demo=demo,
                held_out={
                    task.name: read_held_out(task.archive, at_most=plan.images_per_task)
                    for task in demo.tasks
                },
                service=service,
                client=client,
                output=output,
                scratch=Path(scratch),
                numbers=numbers,
            )
            try:
                play(scene)
            except BaseException:
                output.note(f"[bold]the log of the service:[/] {escape(str(service.log))}")
                raise
    weigh_what_is_left(plan, numbers, output)
    numbers.seconds = time.monotonic() - started
    output.say(f"\nThe service has stopped; all of it took {as_duration(numbers.seconds)}.")
    write(plan, numbers, output)
    say_how_to_go_on(plan, output)
    return numbers


def play(scene: Scene) -> None:
    """The acts, in their order."""
    scene.numbers.setting.update(
        seed=scene.plan.seed,
        images_per_task=scene.plan.images_per_task,
        tasks=[task.name for task in scene.demo.tasks],
        held_out={name: len(images) for name, images in scene.held_out.items()},
    )
    make_room(scene)
    register_base(scene)
    create_model(scene)
    measure_zero_shot(scene)
    weigh_after_sweep(scene, "the base")
    for task in scene.trained:
        learn(scene, task)
        weigh_after_sweep(scene, task.name)
        ask_about_all(scene)
    ask_without_names(scene)
    ask_with_foreign_labels(scene)
    import_a_checkpoint(scene)
    weigh_after_sweep(scene, scene.imported.name)
    ask_about_all(scene)
    export_and_compare(scene)
    print_storage(scene)


def write(plan: QuickstartPlan, numbers: Numbers, output: Output) -> None:
    """The numbers as a file, when one was asked for."""
    if plan.json_file is not None:
        plan.json_file.write_text(json.dumps(numbers.to_dict(), indent=2) + "\n")
        output.say(f"Every number is in {escape(str(plan.json_file))}.")


def say_how_to_go_on(plan: QuickstartPlan, output: Output) -> None:
    """What to type next."""
    output.say("Go on with what it learned:")
    output.say(f"  condu serve --data {escape(str(plan.data))}")
    output.say(f"  condu model show {plan.model_name}")
    output.say(f"  condu classify {plan.model_name} IMAGE.jpg")

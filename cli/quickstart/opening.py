"""The first step: the demo base goes in, and a model is made on it."""

from cli.errors import CommandUsageError, ProblemError
from cli.progress import bytes_gauge
from cli.quickstart.demo_files import upcast_base
from cli.quickstart.scene import Scene
from cli.units import as_bytes, short


def make_room(scene: Scene) -> None:
    """See to it that the data folder holds no model of the quickstart's name.

    Raises:
        CommandUsageError: It holds one, and the plan does not say that it may be removed.
    """
    plan, client = scene.plan, scene.client
    if plan.model_name not in {model.name for model in client.list_models()}:
        return
    if not plan.fresh:
        raise CommandUsageError(
            f"{plan.data} already holds a model named {plan.model_name!r}",
            detail="an earlier quickstart made it",
            remedy="add --fresh to remove it and start over, or name another folder with --data",
            next_command=f"condu quickstart --data {plan.data} --fresh",
        )
    client.remove_model(plan.model_name)
    client.sweep(delete=True, keep_revisions=1, grace_s=0)
    scene.output.say(f"removed the model {plan.model_name} of an earlier quickstart")


def register_base(scene: Scene) -> None:
    """Upload the demo base; a data folder that has it already keeps it."""
    plan, client, output = scene.plan, scene.client, scene.output
    scene.chapter("The base: a small CLIP with real zero-shot ability")
    with output.stderr.status("reading the demo base: shipped in half precision, used in single"):
        upcast_base(scene.demo.weights, scene.base_weights)
    with bytes_gauge(output, "uploading the base") as on_sent:
        client.upload_base(
            plan.base_name, scene.base_weights, architecture=None, config=scene.demo.config, on_sent=on_sent
        )
    base = client.get_base(plan.base_name)
    output.say(
        f"{base.name}: {base.parameters:,} parameters, {as_bytes(base.size_bytes)} in float32, "
        f"digest {short(base.digest)}"
    )
    scene.numbers.setting["base"] = {
        "name": base.name,
        "digest": base.digest,
        "parameters": base.parameters,
        "size_bytes": base.size_bytes,
    }


def create_model(scene: Scene) -> None:
    """Make the model that everything is learned on."""
    plan = scene.plan
    try:
        model = scene.client.create_model(plan.model_name, base=plan.base_name)
    except ProblemError as error:
        error.next_command = f"condu quickstart --data {plan.data} --fresh"
        raise
    scene.output.say(f"made the model {model.name} on it; it has learned nothing yet")

"""What the catalog tells of a model in a bundle, written and read back."""

from pydantic import ValidationError

from api.dependencies import Services
from api.schemas.bundles import BaseFacts, BundleFacts, ModelFacts, TaskFacts, is_bounded
from catalog.tasks import TaskRecord, revision_tasks
from serving.pinning import PinnedRevision
from store.bundles import BundleReader
from store.errors import InvalidBundleError


def facts_of(services: Services, pinned: PinnedRevision) -> BundleFacts:
    """What an importing installation needs to know beside the blobs."""
    model, base = pinned.model, pinned.base
    tasks: list[TaskRecord] = []
    if pinned.number is not None:
        with services.catalog.snapshot() as session:
            tasks = revision_tasks(session, model.name, pinned.number)
    return BundleFacts(
        base=BaseFacts(
            name=base.name,
            architecture=base.architecture,
            config=base.config,
            preprocessing=base.preprocessing,
        ),
        model=ModelFacts(
            name=model.name,
            tuning="full" if model.adapter is None else "lora",
            fusion=model.fusion,
            rescaler_norm=model.rescaler_norm,
            unified_dtype=model.unified_dtype,
        ),
        revision=pinned.number,
        tasks=[_task_facts(task) for task in tasks],
    )


def _task_facts(task: TaskRecord) -> TaskFacts:
    # A dictionary: what the catalog holds was checked when it was written, and pydantic checks it again.
    return TaskFacts.model_validate(
        {
            "name": task.name,
            "num_train": task.num_train,
            "num_test": task.num_test,
            "images_skipped": task.images_skipped,
            "accuracy_individual": task.accuracy_individual,
            "accuracy_expert": task.accuracy_expert,
            "accuracy_base": task.accuracy_base,
            "dataset": task.dataset,
            "training": task.training,
            "bits_cleared": task.trigger.bits_cleared,
            "relative_l2": task.trigger.relative_l2,
            "cosine": task.trigger.cosine,
            "reference": task.trigger.reference,
        }
    )


def read_facts(bundle: BundleReader) -> BundleFacts:
    """The catalog section, which must say the same as the manifest where both say something.

    Raises:
        InvalidBundleError: It is not of this form, or contradicts the manifest.
    """
    try:
        facts = BundleFacts.model_validate(bundle.index.catalog)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise InvalidBundleError(
            f"the bundle's catalog section has a fault at {where}: {first['msg']}; export it again"
        ) from error
    manifest = bundle.manifest
    if (facts.model.tuning == "lora") != (bundle.adapter is not None):
        raise InvalidBundleError("the bundle's catalog section and its index differ in what the model tunes")
    if [task.name for task in facts.tasks] != [task.name for task in (manifest.tasks if manifest else ())]:
        raise InvalidBundleError("the bundle's catalog section and its manifest differ in their tasks")
    if manifest is not None:
        stated = (facts.model.fusion, facts.model.rescaler_norm, facts.model.unified_dtype)
        options = manifest.options
        if stated != (options.kind, options.rescaler_norm, options.unified_dtype):
            raise InvalidBundleError("the bundle's catalog section and its manifest differ in their options")
    if not all(is_bounded(task.training) for task in facts.tasks):
        raise InvalidBundleError("the record of a training is too long in the bundle's catalog section")
    return facts

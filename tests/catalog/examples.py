"""Rows as tests want them."""

from hashlib import sha256

from catalog.bases import add_base, find_base
from catalog.blobs import NewBlob
from catalog.errors import NoSuchRowError
from catalog.models import create_model
from catalog.revisions import NewTask, NewTrigger, publish_revision
from catalog.tasks import head_tasks


def digest_of(text):
    return sha256(text.encode()).hexdigest()


def add_tiny_base(session, name="tiny"):
    return add_base(
        session,
        name=name,
        architecture="Tiny",
        config={"embed_dim": 8},
        preprocessing={"size": 32},
        digest=digest_of(f"base {name}"),
        layout=digest_of("layout"),
        num_parameters=3_000_000_000,
        size_bytes=12_000_000_000,
    )


def add_model(session, name, base="tiny"):
    try:
        find_base(session, base)
    except NoSuchRowError:
        add_tiny_base(session, base)
    return create_model(session, name=name, base=base)


def new_task(name, **changes):
    values = {
        "name": name,
        "classes": ("cat", "dog"),
        "templates": ("a photo of a {}.",),
        "l1_norm": 12.5,
        "prototypes": digest_of(f"prototypes {name}"),
        "prototypes_bytes": 400,
        "num_train": 80,
        "num_test": 20,
        "images_skipped": 1,
        "accuracy_individual": 91.0,
        "accuracy_expert": 90.5,
        "accuracy_base": 60.0,
        "dataset": digest_of(f"dataset {name}"),
        "training": {"iterations": 10},
    }
    return NewTask(**(values | changes))


def new_trigger(task, manifest="manifest"):
    return NewTrigger(
        task=task,
        mask=digest_of(f"mask {task} {manifest}"),
        size_bytes=100,
        rescaler=1.25,
        density=0.5,
        bits_cleared=7,
        relative_l2=0.01,
        cosine=0.999,
        reference="original",
    )


def learn(session, model, task, *, parent, manifest, names=None, **how):
    """Publishes a revision in which the model has learned one more task."""
    if names is None:
        names = [record.name for record in head_tasks(session, model)] + [task]
    how.setdefault("cause", "train")
    return publish_revision(
        session,
        model=model,
        parent=parent,
        manifest=digest_of(manifest),
        triggers=[new_trigger(name, manifest) for name in names],
        blobs=[NewBlob(digest_of(f"mask {name} {manifest}"), 100, "mask") for name in names],
        task=new_task(task),
        **how,
    )


def remove(session, model, task, *, parent, manifest):
    """Publishes a revision in which the model serves a task no more."""
    names = [record.name for record in head_tasks(session, model) if record.name != task]
    return publish_revision(
        session,
        model=model,
        parent=parent,
        manifest=digest_of(manifest),
        cause="remove",
        triggers=[new_trigger(name, manifest) for name in names],
    )

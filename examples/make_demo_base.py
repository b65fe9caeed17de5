"""Makes the demo base: a small CLIP with real zero-shot ability, from packages of the registries.

    python -m examples.make_demo_base --cache FOLDER [--steps 500] [--seed 2] [--threads 2]

Run `python -m examples.make_demo_tasks` first: no picture that looks like a test image of a task goes into
the corpus, and the accuracies of the model card are measured on those tasks. Writes base.safetensors,
base_config.json and MODEL_CARD.md. Needs the dependency group "examples", npm, and apt-get with its lists up
to date.
"""

import argparse
import json
import platform
import time
from pathlib import Path

import numpy as np
import open_clip
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from bench.suites.packages import PackageCache
from examples.demo.caption_vectors import vectors_of
from examples.demo.clip_config import MODEL_CONFIG, PREPROCESS_CONFIG
from examples.demo.corpus import CaptionedDrawing, corpus_digest, read_corpus
from examples.demo.image_tower import (
    CorpusFeatures,
    class_names,
    extract_features,
    load_classifier,
    vocabulary_names,
)
from examples.demo.joint_training import (
    JointData,
    JointTrainer,
    TrainingPlan,
    caption_map,
    leading_directions,
    pictures_of_rows,
)
from examples.demo.model_card import Making, write_model_card
from examples.demo.near_copies import NEAR_COPY_BITS, distances
from examples.demo.packages import announce
from examples.demo.task_archives import DEMO_FOLDER, held_out_fingerprints, write_checksums
from examples.demo.zero_shot import load_base, zero_shot_accuracies


def main() -> None:
    """Everything from the packages to the model card."""
    arguments = _arguments()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(arguments.seed)
    print(f"seed {arguments.seed}, {arguments.threads} threads", flush=True)
    started = time.monotonic()
    cache = PackageCache(arguments.cache, on_fetch=announce)
    classifier = load_classifier(cache)
    corpus = list(read_corpus(cache))
    features = extract_features(
        corpus, classifier, cache.folder / f"features-{corpus_digest(corpus)}", arguments.seed
    )
    kept, num_near = _without_test_images(features)
    data, mean = _joint_data(corpus, kept, classifier, cache)
    plan = TrainingPlan(steps=arguments.steps, seed=arguments.seed)
    model = _untrained_clip(classifier, data, mean)
    training_started = time.monotonic()
    JointTrainer(model, data, plan).run()
    _save(model, arguments.out)
    making = Making(
        num_pictures=len(data.titles),
        num_left_out=num_near,
        num_names=len(data.names),
        plan=plan,
        machine=f"{platform.machine()}, {arguments.threads} threads, torch {torch.__version__}, CPU only",
        minutes_training=(time.monotonic() - training_started) / 60,
        minutes_in_all=(time.monotonic() - started) / 60,
    )
    accuracies = zero_shot_accuracies(load_base(arguments.out), arguments.out)
    for task, accuracy in accuracies.items():
        print(f"zero-shot {task}: {accuracy.percent:.1f}% (chance {accuracy.chance:.1f}%)")
    write_model_card(arguments.out / "MODEL_CARD.md", making, accuracies)
    write_checksums(arguments.out)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--cache", type=Path, required=True, help="folder for packages and features, about 1 GB"
    )
    parser.add_argument("--out", type=Path, default=DEMO_FOLDER, help="where the base is written")
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--seed", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    return parser.parse_args()


def _without_test_images(features: CorpusFeatures) -> tuple[CorpusFeatures, int]:
    """The corpus without pictures that look like a test image of any task, and how many those were."""
    apart = distances(features.fingerprints, held_out_fingerprints()).min(axis=1)
    far = apart >= NEAR_COPY_BITS
    kept = CorpusFeatures(features.drawings[far], features.features[far], features.fingerprints[far])
    return kept, int((~far).sum())


def _joint_data(
    corpus: list[CaptionedDrawing], kept: CorpusFeatures, classifier: nn.Module, cache: PackageCache
) -> tuple[JointData, Tensor]:
    """What the joint training sees, and the mean feature of the pictures."""
    drawings = [corpus[index] for index in kept.drawings]
    classes = class_names()
    words = {drawing.title for drawing in drawings} | {tag for drawing in drawings for tag in drawing.tags}
    names = classes + sorted((words | set(vocabulary_names())) - set(classes))
    vectors = vectors_of(names, cache)
    rows = _classifier_rows(classifier)
    directions = leading_directions(rows)
    mapped = torch.nn.functional.pad(vectors, (0, 1), value=1.0) @ caption_map(vectors[: len(classes)], rows)
    mean = torch.from_numpy(kept.features[:, 0].astype(np.float32)).mean(0)
    data = JointData(
        features=kept.features,
        titles=[drawing.title for drawing in drawings],
        tags=[drawing.tags for drawing in drawings],
        names=names,
        targets=torch.nn.functional.normalize(mapped @ directions.T, dim=-1),
        rows=pictures_of_rows(rows, mean, kept.features),
    )
    return data, mean


def _classifier_rows(classifier: nn.Module) -> Tensor:
    rows: Tensor = classifier.state_dict()["classifier.weight"]
    return rows


def _untrained_clip(classifier: nn.Module, data: JointData, mean: Tensor) -> nn.Module:
    """The classifier's trunk, a projection onto its leading directions, and a fresh text tower."""
    model: nn.Module = open_clip.CLIP(**MODEL_CONFIG)
    trunk = {
        name: value for name, value in classifier.state_dict().items() if not name.startswith("classifier.")
    }
    model.visual.trunk.load_state_dict(trunk)  # type: ignore[union-attr]
    directions = leading_directions(_classifier_rows(classifier))
    projection: nn.Linear = model.visual.head.proj  # type: ignore[union-attr, assignment]
    with torch.no_grad():
        # Unit spread keeps the learning rate of the projection meaningful; the direction is what counts.
        spread = ((torch.from_numpy(data.features[::7, 0].astype(np.float32)) - mean) @ directions.T).std()
        projection.weight.copy_(directions / spread)
        projection.bias.copy_(-(directions @ mean) / spread)
    return model.eval()


def _save(model: nn.Module, folder: Path) -> None:
    """The weights in half precision; counters stay whole numbers."""
    folder.mkdir(parents=True, exist_ok=True)
    state = {
        name: value.half().contiguous() if value.is_floating_point() else value.contiguous()
        for name, value in model.state_dict().items()
    }
    save_file(state, folder / "base.safetensors", metadata={"format": "pt"})
    (folder / "base.safetensors").chmod(0o644)
    config = {"model_cfg": MODEL_CONFIG, "preprocess_cfg": PREPROCESS_CONFIG}
    (folder / "base_config.json").write_text(json.dumps(config, indent=2) + "\n")


if __name__ == "__main__":
    main()

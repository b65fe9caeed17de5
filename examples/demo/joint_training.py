"""Joins the image tower and a fresh text tower in one space: the only training that is done here."""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import open_clip
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from examples.demo.clip_config import CONTEXT_LENGTH, EMBEDDING_SIZE

TEMPLATES = (
    "{}",
    "a {}.",
    "the {}.",
    "a photo of a {}.",
    "a picture of a {}.",
    "a drawing of a {}.",
    "a sketch of a {}.",
    "an icon of a {}.",
    "a clip art of a {}.",
    "a silhouette of a {}.",
    "a grey photo of a {}.",
)
_RIDGE = 3.0
_LARGEST_SCALE = math.log(100.0)


@dataclass(frozen=True)
class TrainingPlan:
    """How long and how fast the towers are joined."""

    steps: int
    seed: int
    pairs: int = 512
    names: int = 128
    learning_rate: float = 1.5e-3
    projection_factor: float = 0.3
    noise: float = 0.1
    warmup_fraction: float = 0.05


@dataclass(frozen=True)
class JointData:
    """Pictures by their features, words by the vectors they shall have.

    `features` [N, views, 1280]; picture n has `titles[n]` and `tags[n]`. `targets` [names, 256] belongs to
    `names`, among which is every title and tag; the first 1000 names are ImageNet's, and `rows` [1000, 1280]
    stand in as pictures of them.
    """

    features: NDArray[np.float16]
    titles: Sequence[str]
    tags: Sequence[tuple[str, ...]]
    names: Sequence[str]
    targets: Tensor
    rows: Tensor


def caption_map(vectors: Tensor, rows: Tensor) -> Tensor:
    """The ridge regression [385, 1280] from sentence vectors (and a one) to centred classifier rows."""
    known = functional.pad(vectors, (0, 1), value=1.0).double()
    gram = known.T @ known + _RIDGE * torch.eye(known.shape[1], dtype=torch.float64)
    solved: Tensor = torch.linalg.solve(gram, known.T @ (rows - rows.mean(0)).double())
    return solved.float()


def leading_directions(rows: Tensor) -> Tensor:
    """The 256 leading right singular vectors [256, 1280] of the centred classifier rows."""
    directions: Tensor = torch.linalg.svd(rows - rows.mean(0), full_matrices=False).Vh
    return directions[:EMBEDDING_SIZE].contiguous()


def pictures_of_rows(rows: Tensor, mean: Tensor, features: NDArray[np.float16]) -> Tensor:
    """Classifier rows moved and scaled to where the features of pictures lie."""
    sample = torch.from_numpy(features[::7, 0].astype(np.float32)) - mean
    centred = rows - rows.mean(0)
    scale: Tensor = sample.norm(dim=1).mean() / centred.norm(dim=1).mean()
    return mean + centred * scale


class JointTrainer:
    """Trains text tower, image projection and temperature of an open_clip model on cached features."""

    def __init__(self, model: nn.Module, data: JointData, plan: TrainingPlan) -> None:
        self._model, self._data, self._plan = model, data, plan
        self._random = np.random.default_rng(plan.seed)
        self._row_of = {name: row for row, name in enumerate(data.names)}
        self._deviation = torch.from_numpy(data.features[::7, 0].astype(np.float32)).std(0)
        self._projection: nn.Linear = model.visual.head.proj  # type: ignore[union-attr, assignment]
        text = [value for name, value in model.named_parameters() if not name.startswith("visual.")]
        projection = list(self._projection.parameters())
        groups = [
            {"params": text, "lr": plan.learning_rate},
            {"params": projection, "lr": plan.learning_rate * plan.projection_factor},
        ]
        self._optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.98), weight_decay=0.0, fused=True)
        self._schedule = torch.optim.lr_scheduler.LambdaLR(self._optimizer, self._rate)

    def _rate(self, step: int) -> float:
        warmup = max(1, int(self._plan.steps * self._plan.warmup_fraction))
        if step < warmup:
            return (step + 1) / warmup
        return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, self._plan.steps - warmup)))

    def run(self) -> None:
        """All steps; the model is changed in place."""
        started = time.monotonic()
        for step in range(self._plan.steps):
            distance, contrast = self._step()
            if step % 20 == 0 or step == self._plan.steps - 1:
                speed = (time.monotonic() - started) / (step + 1)
                print(
                    f"step {step + 1}/{self._plan.steps}: distance to the sentence vectors {distance:.3f}, "
                    f"contrastive loss {contrast:.3f}, {speed:.2f} s a step",
                    flush=True,
                )

    def _step(self) -> tuple[float, float]:
        features, names = self._batch()
        images = functional.normalize(self._projection(features), dim=-1)
        texts = functional.normalize(self._encode(names), dim=-1)
        targets = self._data.targets[[self._row_of[name] for name in names]]
        distance = (1 - (texts * targets).sum(-1)).mean()
        contrast = self._contrast(images, texts[: len(features)], names[: len(features)])
        self._optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(distance + contrast)
        nn.utils.clip_grad_norm_(self._model.parameters(), 1.0)
        self._optimizer.step()
        self._schedule.step()
        with torch.no_grad():
            self._model.logit_scale.clamp_(0, _LARGEST_SCALE)  # type: ignore[operator]
        return float(distance), float(contrast)

    def _batch(self) -> tuple[Tensor, list[str]]:
        """Pictures of the corpus and ImageNet rows; their names, then names without a picture."""
        data, plan, random = self._data, self._plan, self._random
        chosen = random.integers(len(data.titles), size=plan.pairs)
        views = random.integers(data.features.shape[1], size=plan.pairs)
        pictures = torch.from_numpy(data.features[chosen, views].astype(np.float32))
        classes = random.choice(len(data.rows), size=plan.names // 2, replace=False)
        features = torch.cat([pictures, data.rows[classes]])
        features += torch.randn(features.shape) * self._deviation * plan.noise
        words = random.integers(len(data.names), size=plan.names // 2)
        names = [self._caption(picture) for picture in chosen] + [data.names[row] for row in classes]
        return features, names + [data.names[row] for row in words]

    def _caption(self, picture: int) -> str:
        tags = self._data.tags[picture]
        if tags and self._random.random() < 0.15:
            return tags[self._random.integers(len(tags))]
        return self._data.titles[picture]

    def _encode(self, names: list[str]) -> Tensor:
        """Text features of each name in a random template.

        What CLIP.encode_text computes, but no further than the longest text ends: with a causal mask the rest
        changes nothing, and it is half of the work.
        """
        chosen = self._random.integers(len(TEMPLATES), size=len(names))
        texts = [TEMPLATES[row].format(name) for row, name in zip(chosen, names, strict=True)]
        tokens = open_clip.tokenize(texts, context_length=CONTEXT_LENGTH)
        longest = int(tokens.argmax(dim=1).max()) + 1
        tokens = tokens[:, :longest]
        model: Any = self._model
        states = model.token_embedding(tokens) + model.positional_embedding[:longest]
        states = model.transformer(states, attn_mask=model.attn_mask[:longest, :longest])
        states = model.ln_final(states)[torch.arange(len(tokens)), tokens.argmax(dim=1)]
        encoded: Tensor = states @ model.text_projection
        return encoded

    def _contrast(self, images: Tensor, texts: Tensor, names: list[str]) -> Tensor:
        """Symmetric cross-entropy where all pairs of equal caption share the positive weight."""
        scale: Tensor = self._model.logit_scale.exp()  # type: ignore[operator]
        rows = torch.tensor([self._row_of[name] for name in names])
        wanted = (rows[:, None] == rows[None, :]).float()
        wanted = wanted / wanted.sum(dim=1, keepdim=True)
        logits = scale * images @ texts.T
        return (functional.cross_entropy(logits, wanted) + functional.cross_entropy(logits.T, wanted)) / 2

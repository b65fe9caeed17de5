"""Prompts to token ids, with open_clip's built-in byte-pair tokenizer and nothing from any hub."""

import threading
from collections.abc import Sequence
from functools import lru_cache

from jaxtyping import Int64
from open_clip.tokenizer import SimpleTokenizer
from torch import Tensor

MAX_CACHED_WORDS = 100_000
"""The underlying tokenizer remembers every word it ever saw; labels come from outside, so that memory is
bounded."""


class Tokenizer:
    """The tokenizer of an architecture. Thread-safe.

    Attributes:
        context_length: Tokens a prompt is cut or padded to.
    """

    def __init__(self, *, context_length: int, clean: str = "lower", reduction_mask: str = "") -> None:
        self.context_length = context_length
        self._tokenizer = SimpleTokenizer(
            context_length=context_length, clean=clean, reduction_mask=reduction_mask
        )
        self._special_words = dict(self._tokenizer.cache)
        self._lock = threading.Lock()

    def __call__(self, prompts: Sequence[str]) -> Int64[Tensor, "N L"]:
        """Token ids, one row a prompt; a prompt that is too long loses its end."""
        with self._lock:
            if len(self._tokenizer.cache) > MAX_CACHED_WORDS:
                self._tokenizer.cache = dict(self._special_words)
            tokens: Tensor = self._tokenizer(list(prompts))
        return tokens

    @property
    def cached_words(self) -> int:
        """Words it remembers."""
        return len(self._tokenizer.cache)


@lru_cache(maxsize=8)
def shared_tokenizer(*, context_length: int, clean: str = "lower", reduction_mask: str = "") -> Tokenizer:
    """One tokenizer per kind: reading the vocabulary takes 0.2 s and 20 MB."""
    return Tokenizer(context_length=context_length, clean=clean, reduction_mask=reduction_mask)

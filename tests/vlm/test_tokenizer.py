import threading

import open_clip
import torch

from vlm import tokenizer as module
from vlm.tokenizer import Tokenizer, shared_tokenizer

PROMPTS = [
    "a photo of a cat.",
    "Überraschung — 猫 🐈",
    "a " * 200,
    "&amp; <b>",
    "<end_of_text> x",
    "\ud800 lone",
]


def test_prompts_become_the_ids_of_open_clips_own_tokenizer():
    assert torch.equal(Tokenizer(context_length=77)(PROMPTS), open_clip.get_tokenizer("ViT-B-32")(PROMPTS))


def test_a_prompt_that_is_too_long_ends_with_the_end_token():
    tokens = Tokenizer(context_length=8)(["a " * 50])
    assert tokens.shape == (1, 8)
    assert tokens[0, -1] == 49407


def test_cleaning_can_be_chosen():
    lower, canonical = (Tokenizer(context_length=16, clean=clean) for clean in ("lower", "canonicalize"))
    assert not torch.equal(lower(["A_cat!"]), canonical(["A_cat!"]))
    assert torch.equal(canonical(["A_cat!"]), lower(["a cat"]))


def test_one_tokenizer_is_shared_by_all_that_need_the_same():
    assert shared_tokenizer(context_length=16) is shared_tokenizer(context_length=16)
    assert shared_tokenizer(context_length=16) is not shared_tokenizer(context_length=77)


def test_words_from_outside_do_not_pile_up(monkeypatch):
    monkeypatch.setattr(module, "MAX_CACHED_WORDS", 100)
    tokenizer = Tokenizer(context_length=16)
    expected = tokenizer(["a photo of a cat."])
    for start in range(0, 1000, 50):
        tokenizer([f"word{chr(97 + n % 26)}{'xyz'[n % 3] * (n % 40)}q{start}" for n in range(50)])
        assert tokenizer.cached_words < 500
    assert torch.equal(tokenizer(["a photo of a cat."]), expected)


def test_threads_may_share_it(monkeypatch):
    monkeypatch.setattr(module, "MAX_CACHED_WORDS", 5)
    tokenizer = Tokenizer(context_length=77)
    expected = tokenizer(PROMPTS)
    results = []

    def work():
        results.extend(torch.equal(tokenizer(PROMPTS), expected) for _ in range(20))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [True] * 80

"""The captioned corpus of the demo base: emoji, icons and clip art with the names their authors gave them."""

import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from bench.suites.packages import PackageCache
from examples.demo.clip_art import read_clip_art
from examples.demo.emoji_names import emoji_tags
from examples.demo.icon_sets import IconLibrary, title_of
from examples.demo.task_choices import CLIP_ART_CLASSES, EMOJI_SETS, ICON_SETS

# An icon in outline, filled and negative is one picture three times.
_DRAWINGS_OF_A_TITLE = 2
# Desktop themes, geometric series and test patterns: their titles say nothing of what is seen.
_CLIP_ART_NOISE = (
    "computer/icons",
    "computer/buttons",
    "shapes/stars",
    "special",
    "unsorted",
    "shapes/jigsaw",
)


@dataclass(frozen=True)
class CaptionedDrawing:
    """One drawing of the corpus: `title` is its caption, `tags` are wider words for it."""

    source: str
    title: str
    tags: tuple[str, ...]
    svg: str


def read_corpus(cache: PackageCache) -> Iterator[CaptionedDrawing]:
    """Every drawing of the corpus, in a fixed order."""
    library = IconLibrary(cache)
    tags = emoji_tags(cache)
    for prefix in (*EMOJI_SETS, *ICON_SETS):
        seen: Counter[str] = Counter()
        for icon in library.icons(prefix):
            title = title_of(icon)
            if len(title) < 2 or seen[title] == _DRAWINGS_OF_A_TITLE:
                continue
            seen[title] += 1
            yield CaptionedDrawing(f"{prefix}/{icon.name}", title, tuple(tags.get(title, ())), icon.svg)
    for art in read_clip_art(cache):
        if art.title and not art.folder.startswith((*_CLIP_ART_NOISE, *_task_folders())):
            yield CaptionedDrawing(f"openclipart/{art.folder}/{art.file}", art.title, art.keywords, art.svg)


def corpus_digest(corpus: list[CaptionedDrawing]) -> str:
    """A short name for exactly these drawings."""
    listing = hashlib.sha256()
    for drawing in corpus:
        listing.update(f"{drawing.source}\0{drawing.title}\0{len(drawing.svg)}\n".encode())
    return listing.hexdigest()[:16]


def _task_folders() -> tuple[str, ...]:
    return tuple(folder for folders in CLIP_ART_CLASSES.values() for folder in folders)

"""Open Clip Art of Debian's package: public-domain drawings, their folders, titles and keywords."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from bench.suites.packages import PackageCache, read_members
from examples.demo.packages import CLIP_ART

_ROOT = "usr/share/openclipart/svg/"
# Larger drawings are traced photographs that take seconds to render.
_LARGEST_BYTES = 600_000
_TITLE = re.compile(r"<dc:title>([^<]*)</dc:title>")
_KEYWORD = re.compile(r"<rdf:li>([^<]*)</rdf:li>")
_AUTHOR_MARK = re.compile(r"\b(by|svg|theme|clipart|openclipart|part of|tutorial|ganson)\b", re.IGNORECASE)


@dataclass(frozen=True)
class ClipArt:
    """One drawing; `folder` is its path under the collection, e.g. "animals/birds"; `title` may be empty."""

    folder: str
    file: str
    svg: str
    title: str
    keywords: tuple[str, ...]

    @property
    def variant_of(self) -> str:
        """The file's name without marks of colour: equal for the coloured and the plain variant."""
        return re.sub(
            r"_(bw|colou?r|outline|alt|grey|r)(?=_|$)", "", self.file.removesuffix(".svg").lower()
        ).strip("_")


def read_clip_art(cache: PackageCache) -> Iterator[ClipArt]:
    """The drawings of the collection, in the order of their paths."""
    archive = cache.fetch(CLIP_ART)
    for name, content in sorted(read_members(archive, prefix=_ROOT, suffix=".svg")):
        if len(content) > _LARGEST_BYTES:
            continue
        folder, _, file = name.removeprefix(_ROOT).rpartition("/")
        svg = content.decode("utf-8", errors="replace")
        yield ClipArt(folder, file, svg, _title(svg, file), _keywords(svg))


def _title(svg: str, file: str) -> str:
    """The drawing's title, when it is one: a third of them name a theme, a licence or an author."""
    match = _TITLE.search(svg)
    title = re.sub(r"[^a-z ]+", " ", match.group(1).lower()).strip() if match else ""
    words = title.split()
    if not words or len(words) > 7 or _AUTHOR_MARK.search(title):
        return ""
    return " ".join(words) if any(word[:4] in file.lower() for word in words) else ""


def _keywords(svg: str) -> tuple[str, ...]:
    found = (re.sub(r"[^a-z ]+", " ", text.lower()).strip() for text in _KEYWORD.findall(svg))
    return tuple(
        dict.fromkeys(word for word in found if 2 < len(word) < 25 and not _AUTHOR_MARK.search(word))
    )

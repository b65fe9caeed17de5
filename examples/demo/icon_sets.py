"""The whole icon package, unpacked: every set, its terms, and what an icon's name says of it."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.suites.icon_sets import Icon, icons_in
from bench.suites.packages import ICONS, PackageCache, read_member, read_members

_STYLE_WORDS = frozenset(
    [
        "duo",
        "filled",
        "fill",
        "outline",
        "outlined",
        "negative",
        "line",
        "thin",
        "bold",
        "solid",
        "regular",
        "light",
        "24px",
        "20",
        "24",
        "16",
        "11",
        "15",
        "1",
        "2",
        "3",
        "4",
        "5",
        "6",
        "alt",
        "sharp",
        "round",
        "rounded",
        "twotone",
        "o",
    ]
)


def title_of(icon: Icon) -> str:
    """The icon's name as words, without those that only tell the style."""
    words = [word for word in re.split(r"[-_]+", icon.name) if word not in _STYLE_WORDS]
    return " ".join(words)


@dataclass(frozen=True)
class IconSet:
    """Where the icons of one set come from and under which terms."""

    prefix: str
    title: str
    author: str
    licence: str
    family: str
    in_colour: bool


class IconLibrary:
    """The icon package, unpacked once into the cache folder."""

    def __init__(self, cache: PackageCache) -> None:
        self._folder = cache.folder / "icons"
        if not (self._folder / "collections.json").exists():
            self._unpack(cache.fetch(ICONS))
        self._collections: dict[str, Any] = json.loads((self._folder / "collections.json").read_text())

    def _unpack(self, archive: Path) -> None:
        self._folder.mkdir(exist_ok=True)
        for name, content in read_members(archive, prefix="package/json/", suffix=".json"):
            (self._folder / Path(name).name).write_bytes(content)
        collections = read_member(archive, "package/collections.json")
        (self._folder / "collections.json").write_bytes(collections)

    def sets(self) -> list[IconSet]:
        """Every icon set of the package, sorted by its prefix."""
        return [
            IconSet(
                prefix,
                entry["name"],
                entry["author"]["name"],
                entry["license"]["spdx"],
                family=entry.get("category") or "",
                in_colour=bool(entry.get("palette")),
            )
            for prefix, entry in sorted(self._collections.items())
        ]

    def icons(self, prefix: str, colour: str = "#222222") -> Iterator[Icon]:
        """The icons of one set, sorted by name, no skin tones; one-colour icons in the given colour."""
        content = json.loads((self._folder / f"{prefix}.json").read_text())
        yield from icons_in(prefix, content, colour)

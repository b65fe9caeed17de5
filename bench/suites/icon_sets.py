"""Icons and emoji of the icon package: drawings with the names their authors gave them."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.suites.packages import ICONS, PackageCache, read_member, read_members

_SKIN = re.compile(r"skin-tone|-(light|medium|dark)(-|$)|-type-\d")
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


@dataclass(frozen=True)
class Icon:
    """One drawing: `name` is the author's, with hyphens; `svg` is complete."""

    icon_set: str
    name: str
    svg: str

    @property
    def title(self) -> str:
        """The name as words, without those that only tell the style."""
        words = [word for word in re.split(r"[-_]+", self.name) if word not in _STYLE_WORDS]
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
        for name, icon in sorted(content["icons"].items()):
            if icon.get("hidden") or _SKIN.search(name):
                continue
            width = icon.get("width", content.get("width", 16))
            height = icon.get("height", content.get("height", 16))
            left, top = icon.get("left", content.get("left", 0)), icon.get("top", content.get("top", 0))
            body = icon["body"].replace("currentColor", colour)
            svg = (
                '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
                f'width="{width}" height="{height}" viewBox="{left} {top} {width} {height}">{body}</svg>'
            )
            yield Icon(prefix, name, svg)

"""Icons and emoji of the icon package: drawings with the names their authors gave them."""

import json
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from bench.suites.packages import ICONS, PackageCache, read_members

_SKIN = re.compile(r"skin-tone|-(light|medium|dark)(-|$)|-type-\d")


@dataclass(frozen=True)
class Icon:
    """One drawing: `name` is the author's, with hyphens; `svg` is complete."""

    icon_set: str
    name: str
    svg: str


def read_icon_sets(cache: PackageCache, prefixes: Collection[str]) -> dict[str, list[Icon]]:
    """The icons of those sets, read in one pass over the packed package: unpacked, it takes a gigabyte."""
    archive = cache.fetch(ICONS)
    return {
        prefix: list(icons_in(prefix, json.loads(content)))
        for name, content in read_members(archive, prefix="package/json/", suffix=".json")
        if (prefix := PurePosixPath(name).stem) in prefixes
    }


def icons_in(prefix: str, content: dict[str, Any], colour: str = "#222222") -> Iterator[Icon]:
    """The icons of one set, sorted by name, no skin tones; one-colour icons in the given colour."""
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

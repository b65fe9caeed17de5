"""What Unicode's annotations say of each emoji."""

import json
import re

from bench.suites.packages import PackageCache, read_member
from examples.demo.packages import EMOJI_NAMES


def emoji_tags(cache: PackageCache) -> dict[str, list[str]]:
    """For each English emoji name, as words in lower case, the tags that Unicode's annotations give it."""
    entries = json.loads(read_member(cache.fetch(EMOJI_NAMES), "package/en/data.json"))
    return {
        _words(entry["label"]): [tag for tag in entry.get("tags", []) if tag.isascii()] for entry in entries
    }


def _words(label: str) -> str:
    return " ".join(re.findall(r"[a-z0-9]+", label.lower()))

"""The one rule for the names of bases, models and tasks."""

import re

from catalog.errors import InvalidNameError

_NAME = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,61}[a-z0-9])?")


def check_name(name: str, what: str) -> str:
    """The name itself, when it may be used.

    Names stand in URLs, in file names of exports and in tables, so they are lower case, at most 63 letters,
    digits, `.`, `_` and `-`, and begin and end with a letter or digit; `..` would climb out of a folder.

    Args:
        name: what the user wrote.
        what: "base", "model" or "task", for the message.

    Raises:
        InvalidNameError: with the rule in its message.
    """
    if _NAME.fullmatch(name) and ".." not in name:
        return name
    shown = name if len(name) <= 80 else name[:77] + "..."
    raise InvalidNameError(
        f"{shown!r} cannot name a {what}: use 1 to 63 of the characters a-z 0-9 . _ - (no capitals, no "
        "spaces, no two dots in a row), beginning and ending with a letter or a digit"
    )

"""JSON that other software may have written, parsed without surprises, and its fields taken by type.

Whatever is wrong with it is a ValueError that says what; who reads the document says which one it is.
"""

import json
import math
import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

MAX_COUNT = 2**62
"""Below this, sums and products of a few counts and positions still mean what they say."""

_DIGEST = re.compile(r"[0-9a-f]{64}")
_SUM = re.compile(r"[0-9a-f]{16}")


def parse_object(content: bytes) -> dict[str, Any]:
    """The JSON object: every name in it once, every number finite, every text valid Unicode.

    Raises:
        ValueError: It is none, or nested too deep to read.
    """
    try:
        values = json.loads(
            content.decode("utf-8"),
            object_pairs_hook=_without_duplicates,
            parse_constant=_no_number,
            parse_float=_finite,
        )
    except RecursionError as error:
        raise ValueError("it is nested too deep") from error
    if not isinstance(values, dict):
        raise ValueError("it is not a JSON object")  # noqa: TRY004 - one kind of error, as the docstring says
    if b"\\ud" in content.lower():
        json.dumps(values, ensure_ascii=False).encode()  # half a surrogate pair is no text
    return values


def canonical_json(values: Mapping[str, Any]) -> bytes:
    """The one way to write these values: equal values give equal bytes; ValueError for NaN and infinity."""
    return json.dumps(
        values, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=False
    ).encode()


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        twice = Counter(name for name, _ in pairs).most_common(1)[0][0]
        raise ValueError(f"{twice[:80]!r} is named twice")
    return values


def _no_number(text: str) -> float:
    raise ValueError(f"{text} is no number")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:80]} is too large a number")
    return value


class Fields:
    """The fields of a JSON object, each taken by its name and type; `end` refuses what nobody took.

    Every method raises ValueError where the field is missing or is something else.
    """

    def __init__(self, values: object) -> None:
        if not isinstance(values, dict):
            raise ValueError(f"expected an object, found {_shown(values)}")  # noqa: TRY004 - as above
        self._values: dict[str, Any] = dict(values)

    def end(self) -> None:
        """Nothing, where every field was taken."""
        if self._values:
            raise ValueError(f"the field {min(self._values)[:80]!r} is unknown; upgrade condu")

    def text(self, name: str) -> str:
        """A string."""
        value = self._take(name)
        return value if isinstance(value, str) else self._refused(name, "a text", value)

    def digest(self, name: str) -> str:
        """64 lower-case hex digits."""
        value = self.text(name)
        return value if _DIGEST.fullmatch(value) else self._refused(name, "64 lower-case hex digits", value)

    def optional_digest(self, name: str) -> str | None:
        """A digest or null."""
        if name in self._values and self._values[name] is None:
            return self._take(name)  # type: ignore[no-any-return]
        return self.digest(name)

    def checksum(self, name: str) -> str:
        """16 lower-case hex digits."""
        value = self.text(name)
        return value if _SUM.fullmatch(value) else self._refused(name, "16 lower-case hex digits", value)

    def count(self, name: str, *, least: int = 0, most: int = MAX_COUNT) -> int:
        """A whole number in the range."""
        value = self._take(name)
        wanted = f"a whole number from {least} to {most}"
        return value if type(value) is int and least <= value <= most else self._refused(name, wanted, value)

    def truth(self, name: str) -> bool:
        """True or false."""
        value = self._take(name)
        return value if type(value) is bool else self._refused(name, "true or false", value)

    def measure(self, name: str) -> float:
        """A number with a decimal point, not negative."""
        value = self._take(name)
        return value if type(value) is float and value >= 0 else self._refused(name, "a number >= 0.0", value)

    def texts(self, name: str) -> tuple[str, ...]:
        """A list of strings."""
        value = self.items(name)
        return value if all(isinstance(each, str) for each in value) else self._refused(name, "texts", value)

    def items(self, name: str) -> tuple[Any, ...]:
        """A list."""
        value = self._take(name)
        return tuple(value) if isinstance(value, list) else self._refused(name, "a list", value)

    def one_of(self, name: str, known: tuple[str, ...]) -> Any:
        """One of the texts known."""
        value = self.text(name)
        return value if value in known else self._refused(name, " or ".join(known), value)

    def values(self, name: str) -> dict[str, Any]:
        """An object."""
        value = self._take(name)
        return value if isinstance(value, dict) else self._refused(name, "an object", value)

    def fields(self, name: str) -> "Fields":
        """The fields of an object."""
        return Fields(self.values(name))

    def _take(self, name: str) -> Any:
        if name not in self._values:
            raise ValueError(f"the field {name!r} is missing")
        return self._values.pop(name)

    @staticmethod
    def _refused(name: str, expected: str, found: object) -> Any:
        raise ValueError(f"the field {name!r}: expected {expected}, found {_shown(found)}")


def _shown(value: object) -> str:
    if isinstance(value, (str, int, float)):
        return repr(value)[:80]
    return f"a value of type {type(value).__name__}"

"""Reads a bundle's JSON documents without trusting them."""

from typing import Any

from store.bundles.layout import KIND, Entry, Index
from store.errors import InvalidBundleError, UnsupportedFormatError
from store.fusion import fusion_kind
from store.manifest import BaseManifest, Manifest
from store.strict_json import Fields, canonical_json, parse_object


def parse_index(content: bytes) -> Index:
    """The index, whose rows still may lie anywhere.

    Raises:
        InvalidBundleError: A field is missing, unknown or of another type, or it is not written canonically.
    """
    try:
        values = parse_object(content)
        fields = Fields(values)
        fields.one_of("kind", (KIND,))
        index = Index(
            base=fields.digest("base"),
            has_base=fields.truth("has_base"),
            head=fields.optional_digest("head"),
            blobs=tuple(_entry(row) for row in fields.items("blobs")),
            catalog=fields.values("catalog"),
            adapter=fields.digest("adapter") if "adapter" in values else None,
        )
        fields.end()
        if canonical_json(values) != content:
            raise ValueError("it is not written canonically")  # noqa: TRY301 - one remedy
    except ValueError as error:
        raise InvalidBundleError(
            f"the index of the bundle cannot be used: {error}; export it again"
        ) from error
    return index


def parse_manifest(content: bytes) -> Manifest:
    """The manifest of a revision.

    Raises:
        InvalidBundleError: It is none of this format, or it contradicts itself.
    """
    try:
        manifest = Manifest.from_json(content)
        fusion_kind(manifest.options.kind)
    except UnsupportedFormatError as error:
        raise InvalidBundleError(f"the bundle's revision cannot be read: {error}") from error
    if manifest.unified is not None and not manifest.tasks:
        raise InvalidBundleError("the bundle's revision has a unified delta and no tasks; export it again")
    return manifest


def parse_base(content: bytes) -> BaseManifest:
    """The manifest of a base, which says nothing yet of its weights.

    Raises:
        InvalidBundleError: It is none of this format, or it contradicts itself.
    """
    try:
        return BaseManifest.from_json(content)
    except UnsupportedFormatError as error:
        raise InvalidBundleError(f"the bundle's base cannot be read: {error}") from error


def _entry(row: Any) -> Entry:
    if not isinstance(row, list) or len(row) != 3:
        raise ValueError("a blob's row needs a digest, a position and a length")
    fields = Fields(dict(zip(("digest", "position", "length"), row, strict=True)))
    return Entry(fields.digest("digest"), fields.count("position"), fields.count("length"))

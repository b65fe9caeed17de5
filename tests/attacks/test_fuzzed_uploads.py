"""Uploads that were sound and had bytes changed: each is taken or refused by name, and nothing else happens.

`make fuzz` runs the same with many more examples, and other ones each time.
"""

import io
import os
import tarfile

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from imagesets import ArchiveLimits, InvalidArchiveError, inspect_archive
from store.blobs import MemoryBlobs
from store.bundles import BundleReader, import_bundle
from store.errors import InvalidBundleError, InvalidUploadError, UnsupportedFormatError
from store.manifest import BaseManifest, Manifest
from store.safefile import parse_safetensors
from tests.attacks.hostile_bundles import learned, sound
from tests.imagesets.building import two_classes, write_zip
from tests.store.small import EXPECTED
from tests.tiny_clip import image_bytes, tiny_image, write_tiny_base
from vlm.errors import ImageRejectedError
from vlm.images import decode_image

__all__ = ["learned", "sound"]

LONGER = int(os.environ.get("CONDU_FUZZ_EXAMPLES", "0"))
FUZZED = settings(
    max_examples=LONGER or 60,
    derandomize=not LONGER,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)
LIMITS = ArchiveLimits(max_members=1000, max_total_bytes=2**24, max_ratio=100.0)

Change = tuple[str, int, bytes]
CHANGES = st.lists(
    st.tuples(
        st.sampled_from(["overwrite", "insert", "delete", "cut", "repeat"]),
        st.integers(0, 2**20),
        st.one_of(
            st.binary(max_size=8),
            st.sampled_from([b"\x00" * 8, b"\xff" * 8, b"../", b'"', b"-1", b"9" * 19, b"NaN", b"[" * 50]),
        ),
    ),
    max_size=5,
)


def changed(content, changes):
    """The content with bytes overwritten, put in, taken out, cut off or repeated."""
    for kind, position, piece in changes:
        # Half of the changes go into the first bytes, where headers and lengths are.
        at = position % min(len(content) + 1, 600) if position % 2 else position % (len(content) + 1)
        tail = {
            "overwrite": piece + content[at + len(piece) :],
            "insert": piece + content[at:],
            "delete": content[at + max(1, len(piece)) :],
            "cut": b"",
            "repeat": content[max(0, at - 40) :],
        }[kind]
        content = content[:at] + tail
    return content


def is_taken(take, refusals):
    """Whether it was taken; refused by one of these it was not, and any other error fails the test."""
    try:
        take()
    except refusals:
        return False
    return True


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return write_tiny_base(tmp_path_factory.mktemp("weights") / "tiny.safetensors").read_bytes()


def test_changed_weights_are_taken_or_refused(weights):
    @FUZZED
    @given(changes=CHANGES)
    def check(changes):
        content = changed(weights, changes)
        taken = is_taken(lambda: parse_safetensors(memoryview(bytearray(content))), InvalidUploadError)
        assert taken or changes

    check()


@pytest.fixture(scope="module")
def archives(tmp_path_factory):
    folder = tmp_path_factory.mktemp("archives")
    zipped = write_zip(folder / "a.zip", two_classes(2)).read_bytes()
    tars = {}
    for mode in ("w", "w:gz"):
        stream = io.BytesIO()
        with tarfile.open(fileobj=stream, mode=mode) as tar:
            for name, content in two_classes(2).items():
                member = tarfile.TarInfo(name)
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
        tars[mode] = stream.getvalue()
    return {"zip": zipped, "tar": tars["w"], "tar.gz": tars["w:gz"]}


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz"])
def test_changed_archives_are_taken_or_refused(archives, tmp_path, kind):
    path = tmp_path / "archive"

    @FUZZED
    @given(changes=CHANGES)
    def check(changes):
        path.write_bytes(changed(archives[kind], changes))
        taken = is_taken(lambda: inspect_archive(path, LIMITS), InvalidArchiveError)
        assert taken or changes

    check()
    assert [file.name for file in tmp_path.iterdir()] == ["archive"]


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_changed_images_are_taken_or_refused(kind):
    stream = io.BytesIO()
    tiny_image(1).save(stream, kind)

    @FUZZED
    @given(changes=CHANGES)
    def check(changes):
        content = changed(stream.getvalue(), changes)
        taken = is_taken(lambda: decode_image(content, max_pixels=10**6), ImageRejectedError)
        assert taken or changes

    check()
    assert image_bytes(tiny_image(1))


def test_changed_bundles_are_taken_or_refused(sound, tmp_path):
    path = tmp_path / "bundle"

    @FUZZED
    @given(changes=CHANGES)
    def check(changes):
        path.write_bytes(changed(sound, changes))
        taken = is_taken(
            lambda: import_bundle(MemoryBlobs(), BundleReader(path), expected=EXPECTED), InvalidBundleError
        )
        assert taken or changes

    check()


@pytest.mark.parametrize("kind", [Manifest, BaseManifest])
def test_changed_manifests_are_read_or_refused(learned, kind):
    store, base, outcome = learned
    content = bytes(store.blobs.read(base.digest if kind is BaseManifest else outcome.manifest_digest))

    @FUZZED
    @given(changes=CHANGES)
    def check(changes):
        read = is_taken(lambda: kind.from_json(changed(content, changes)), UnsupportedFormatError)
        assert read or changes

    check()

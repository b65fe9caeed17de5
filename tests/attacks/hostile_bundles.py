"""What the attacks with bundles share: a small model to lie about, and the demand that lies are refused."""

import pytest

from store.blobs import FileBlobs, MemoryBlobs
from store.bundles import BundleFile, BundleReader, import_bundle
from store.checkpoints import CheckpointStore
from store.errors import InvalidBundleError
from tests.store.bundling import Parts
from tests.store.small import EXPECTED, learn_all, save_base

GOOD = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"


@pytest.fixture(scope="module")
def learned(tmp_path_factory):
    folder = tmp_path_factory.mktemp("learned")
    store = CheckpointStore(FileBlobs(folder / "blobs"))
    base = save_base(store, folder)
    return store, base, learn_all(store, base, folder, ["a", "b"])


@pytest.fixture(scope="module")
def sound(learned):
    """The bytes of a bundle that nothing is wrong with."""
    store, base, outcome = learned
    bundle = BundleFile(
        store.blobs, base=base.digest, head=outcome.manifest_digest, with_base=True, catalog={"a": 1}
    )
    return b"".join(bundle.read())


@pytest.fixture
def parts(learned):
    store, _, outcome = learned
    return Parts(store, outcome.manifest_digest)


@pytest.fixture
def expect_refusal(tmp_path):
    """Tries to take a bundle in, which must be refused; gives what the refusal says."""

    def attempt(content, match=None, expected=EXPECTED):
        path = tmp_path / "hostile.condu"
        path.write_bytes(content)
        with pytest.raises(InvalidBundleError, match=match) as error:
            import_bundle(MemoryBlobs(), BundleReader(path), expected=expected)
        return str(error.value)

    return attempt


@pytest.fixture
def opens(tmp_path):
    def attempt(content):
        path = tmp_path / "opened.condu"
        path.write_bytes(content)
        return BundleReader(path)

    return attempt

"""What can go wrong in the store, one class per thing a caller can do differently.

StoreError
├── NotFoundError            the named blob, task or revision is not here
├── IncompatibleTensorsError a checkpoint does not fit its base (names the tensor, what was asked, what came)
├── InvalidUploadError       a foreign file is not what it claims to be, or nothing can be learned from it
├── InvalidBundleError       a foreign bundle is damaged, hostile, or of a version this one does not read
├── MissingBaseError         a bundle came without its base, and that base is not here (names its digest)
├── CorruptBlobError         stored bytes are not the bytes that were written (names both digests)
├── UnsupportedFormatError   written by a newer version, or of a kind this version does not know
├── UnsuitableStorageError   an object storage does not do what the store depends on
└── BlobsUnavailableError    the storage under the blobs refused (disk full, I/O error); may be retried
    └── StorageUnreachableError  it is an object storage that does not answer, or answers with errors
"""


class StoreError(Exception):
    """A failure of the checkpoint store; the message names the thing and the remedy."""


class NotFoundError(StoreError):
    """The named blob, task or revision is not in the store."""


class IncompatibleTensorsError(StoreError):
    """A checkpoint's tensor does not fit the base it claims to be made from.

    Attributes:
        tensor: The tensor's name in the state dict.
        expected: What the base asks for (shape, dtype or value), as text.
        got: What the checkpoint holds, as text.
    """

    def __init__(self, tensor: str, *, expected: str, got: str, remedy: str) -> None:
        super().__init__(f"tensor {tensor!r}: expected {expected}, got {got}; {remedy}")
        self.tensor = tensor
        self.expected = expected
        self.got = got


class InvalidUploadError(StoreError):
    """A foreign file is malformed, hostile, or holds values that cannot be used."""


class InvalidBundleError(StoreError):
    """A foreign bundle is malformed, damaged or hostile, or its parts do not belong together."""


class MissingBaseError(StoreError):
    """A bundle that came without its base needs one that is not here.

    Attributes:
        base: The digest of the base that is missing.
    """

    def __init__(self, base: str) -> None:
        super().__init__(
            f"the bundle came without its base, and no base here has the digest {base}: export it again with "
            "its base, or register that base first"
        )
        self.base = base


class CorruptBlobError(StoreError):
    """Stored bytes differ from the bytes that were written.

    Attributes:
        what: What they are the bytes of.
        expected: The digest (or chunk sum) that the bytes should have, hex.
        found: The one they have, hex.
    """

    def __init__(self, what: str, *, expected: str, found: str) -> None:
        super().__init__(
            f"{what} is corrupt: expected {expected}, found {found}; "
            "run `condu verify` to list all damage, then restore the blob from a backup or roll back"
        )
        self.what = what
        self.expected = expected
        self.found = found


class UnsupportedFormatError(StoreError):
    """An artefact's format version or kind is unknown to this version of the software."""


class BlobsUnavailableError(StoreError):
    """The storage under the blobs refused an operation; the same call may succeed later."""


class StorageUnreachableError(BlobsUnavailableError):
    """The object storage under the blobs does not answer, answers with errors, or refuses the keys."""


class UnsuitableStorageError(StoreError):
    """An object storage was tried out and does not do what the store depends on.

    Attributes:
        name: Where it is.
        fault: What it does, or does not.
    """

    def __init__(self, name: str, fault: str) -> None:
        super().__init__(
            f"the object storage {name} {fault}, so blobs could be lost in it: use one that honours "
            "conditional puts and ranges, such as Amazon S3 or RustFS, or a folder (file:///...)"
        )
        self.name = name
        self.fault = fault
